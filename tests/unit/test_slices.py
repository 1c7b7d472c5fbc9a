"""Slices to the display and back: one rule with Geometry, and nothing lost on the way."""

from __future__ import annotations

import itertools

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibisagent.geometry import Geometry
from ibisagent.grid import PLANES, Grid
from ibisagent.slices import mask_to_display, mask_to_source, slice_axes, to_display, to_source

ORIENTATIONS = [
    (order, signs) for order in itertools.permutations(range(3)) for signs in itertools.product((1.0, -1.0), repeat=3)
]


def make_grid(order: tuple[int, ...], signs: tuple[float, ...], spacing: tuple[float, ...], shape: object) -> Grid:
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis in range(3):
        affine[order[axis], axis] = signs[axis] * spacing[axis]
    return Grid(shape, affine)  # type: ignore[arg-type]


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    order, signs = draw(st.sampled_from(ORIENTATIONS))
    spacing = draw(st.tuples(*[st.floats(0.3, 6.0)] * 3))
    return make_grid(order, signs, spacing, draw(st.tuples(*[st.integers(1, 9)] * 3)))


def plane_of(array: np.ndarray, view: Geometry) -> np.ndarray:
    return np.take(array, view.slice_index or 0, axis=slice_axes(view)[0])


def numbered(shape: tuple[int, ...]) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape)


@pytest.mark.parametrize("order, signs", ORIENTATIONS)
def test_every_orientation_is_shown_as_nibabels_canonical_array_is(
    order: tuple[int, ...], signs: tuple[float, ...]
) -> None:
    grid = make_grid(order, signs, (1, 1, 1), (3, 4, 5))
    values = numbered(grid.shape)
    ras = nibabel.as_closest_canonical(nibabel.Nifti1Image(values.astype(np.int32), grid.matrix)).get_fdata()
    for plane, world in (("sagittal", 0), ("coronal", 1), ("axial", 2)):
        axis, sign = next((a, s) for a, (w, s) in enumerate(grid.axes) if w == world)
        for index in range(grid.num_slices(plane)):
            view = grid.view(plane, index)
            # rows from superior (or anterior) down, columns from right (or anterior) to the left of the patient
            expected = np.take(ras, index if sign > 0 else grid.shape[axis] - 1 - index, axis=world).T[::-1, ::-1]
            assert np.array_equal(to_display(plane_of(values, view), view), expected)


@given(grids(), st.sampled_from(PLANES), st.data())
def test_each_pixel_shows_the_voxel_that_its_geometry_names(grid: Grid, plane: str, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, grid.num_slices(plane) - 1))
    view, size = grid.view(plane, index), grid.view_size(plane)
    # the bits of a voxel's number, one mask each: masks show every voxel's number exactly
    values = numbered(grid.shape)
    shown = np.zeros(size, int)
    for bit in range(10):
        shown += mask_to_display(plane_of((values >> bit) & 1 == 1, view), view, size).astype(int) << bit
    for y, x in np.ndindex(*size):
        parts = view._index(x, y)
        if all(abs(v - np.floor(v) - 0.5) > 1e-6 for v in parts):  # else on an edge between voxels: either will do
            assert shown[y, x] == values[view.source_index(x, y)]


@given(grids(), st.sampled_from(PLANES), st.booleans(), st.integers(0, 2**32 - 1))
def test_a_mask_comes_back_exactly(grid: Grid, plane: str, square: bool, seed: int) -> None:
    view, size = grid.view(plane, 0, square=square), grid.view_size(plane, square=square)
    mask = plane_of(np.random.default_rng(seed).random(grid.shape) < 0.5, view)
    shown = mask_to_display(mask, view, size)
    assert shown.shape == size and shown.dtype == np.bool_ and shown.flags.c_contiguous
    back = mask_to_source(shown, view)
    assert np.array_equal(back, mask) and back.flags.c_contiguous


@given(grids(), st.sampled_from(PLANES), st.data())
def test_a_drawn_pixel_lands_on_its_voxel(grid: Grid, plane: str, data: st.DataObject) -> None:
    """From the display to the grid: what is drawn in a voxel's middle reaches that voxel and its pixels only."""
    view, (height, width) = grid.view(plane, 0), grid.view_size(plane)
    voxel = tuple(data.draw(st.integers(0, n - 1)) for n in grid.shape)
    normal = grid.view_axes(plane)[0]
    x, y = view.pixel(*voxel)
    drawn = np.zeros((height, width), bool)
    # within a rounding error of an edge between two pixels, either will do: the voxel's own pixels
    for px in {int(np.floor(x + 0.5 - 1e-6)), int(np.floor(x + 0.5 + 1e-6))}:
        for py in {int(np.floor(y + 0.5 - 1e-6)), int(np.floor(y + 0.5 + 1e-6))}:
            drawn[min(max(py, 0), height - 1), min(max(px, 0), width - 1)] = True
    back = mask_to_source(drawn, view)
    assert back[tuple(v for axis, v in enumerate(voxel) if axis != normal)]
    assert back.sum() == 1


@given(grids(), st.sampled_from(PLANES))
def test_to_source_undoes_to_display(grid: Grid, plane: str) -> None:
    view = grid.view(plane, 0, square=False)
    values = plane_of(numbered(grid.shape), view)
    shown = to_display(values, view)
    assert np.array_equal(to_source(shown, view), values)
    assert np.shares_memory(shown, values) or shown.size == 1


@settings(max_examples=40)
@given(grids(), st.sampled_from(PLANES), st.tuples(*[st.floats(-3, 3)] * 3))
def test_stretched_values_are_linear_about_voxel_centres(
    grid: Grid, plane: str, slopes: tuple[float, float, float]
) -> None:
    """A ramp stays a ramp: every pixel between the outer voxel centres shows the value of its own fractional index."""
    ramp = np.tensordot(slopes, np.indices(grid.shape), axes=1).astype(np.float64)
    view, size = grid.view(plane, 0), grid.view_size(plane)
    shown = to_display(plane_of(ramp, view), view, size)
    for y, x in np.ndindex(*size):
        index = np.clip(view._index(x, y), 0, np.array(grid.shape) - 1)  # beyond the outer centres the edge goes on
        assert shown[y, x] == pytest.approx(index @ np.array(slopes), abs=1e-4)


def test_stretched_values_keep_their_range_and_are_float32() -> None:
    grid = make_grid((0, 1, 2), (1, 1, 1), (1, 3, 1), (4, 3, 1))
    view, size = grid.view("axial", 0), grid.view_size("axial")
    assert size == (9, 4)
    shown = to_display(np.array([[0, 10, 20]] * 4, np.int16), view, size)
    assert shown.dtype == np.float32 and (shown.min(), shown.max()) == (0, 20)
    assert shown[:, 0].tolist() == pytest.approx([20, 20, 50 / 3, 40 / 3, 10, 20 / 3, 10 / 3, 0, 0], abs=1e-4)


def test_a_raster_takes_no_mask_of_a_volume() -> None:
    with pytest.raises(ValueError, match="no view of a volume"):
        mask_to_source(np.zeros((2, 2), bool), Geometry.plane_2d())
