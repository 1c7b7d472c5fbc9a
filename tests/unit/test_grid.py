"""The lattice of a volume: its maps invert each other and its views are radiological, however the source is stored."""

from __future__ import annotations

import itertools
import math
import warnings

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ibisagent.geometry import Geometry
from ibisagent.grid import LPS_FROM_RAS, PLANES, Grid

SHAPE = (5, 6, 7)
ORIENTATIONS = [
    (order, signs) for order in itertools.permutations(range(3)) for signs in itertools.product((1.0, -1.0), repeat=3)
]


def make_grid(
    order: tuple[int, ...] = (0, 1, 2),
    signs: tuple[float, ...] = (1.0, 1.0, 1.0),
    spacing: tuple[float, ...] = (1.0, 1.0, 1.0),
    turn: tuple[float, ...] = (0.0, 0.0, 0.0),
    shear: float = 0.0,
    origin: tuple[float, ...] = (0.0, 0.0, 0.0),
    shape: tuple[int, int, int] = SHAPE,
) -> Grid:
    """A grid whose axis a runs along world axis order[a] (R, A, S), `turn` degrees about x, y, z off."""
    directions = np.zeros((3, 3))
    for axis, (world, sign) in enumerate(zip(order, signs, strict=True)):
        directions[world, axis] = sign
    affine = np.eye(4)
    sheared = directions + shear * np.outer(directions[:, 1], [0, 0, 1])  # a tilted gantry moves the slices
    affine[:3, :3] = Rotation.from_euler("xyz", turn, degrees=True).as_matrix() @ sheared * spacing
    affine[:3, 3] = origin
    return Grid(shape, affine)


@st.composite
def grids(draw: st.DrawFn, shear: bool = True, max_turn: float = 25.0) -> Grid:
    order, signs = draw(st.sampled_from(ORIENTATIONS))
    numbers = st.tuples(*[st.floats(0.3, 6.0)] * 3)
    return make_grid(
        order,
        signs,
        draw(numbers),
        draw(st.tuples(*[st.floats(-max_turn, max_turn)] * 3)),
        draw(st.floats(-0.3, 0.3)) if shear else 0.0,
        draw(st.tuples(*[st.floats(-300, 300)] * 3)),
        draw(st.tuples(*[st.integers(1, 9)] * 3)),
    )


# -- the lattice -------------------------------------------------------------------------------


@given(grids(), st.tuples(*[st.floats(-20, 20)] * 3))
def test_maps_invert_each_other_and_lps_is_ras_with_two_signs_turned(grid: Grid, index: tuple[float, ...]) -> None:
    ras, lps = grid.ras_mm(index), grid.lps_mm(index)
    assert lps == pytest.approx(ras * [-1, -1, 1])
    assert grid.index_of_ras(ras) == pytest.approx(np.array(index), abs=1e-6)
    assert grid.index_of_lps(lps) == pytest.approx(np.array(index), abs=1e-6)
    assert grid.lps_matrix @ [*index, 1.0] == pytest.approx([*lps, 1.0])
    assert grid.ras_mm(index) == pytest.approx(nibabel.affines.apply_affine(grid.matrix, index))
    many = np.array([[index, (0, 0, 0)], [(1, 2, 3), index]])
    assert grid.ras_mm(many)[0, 0] == pytest.approx(ras) and grid.index_of_ras(many).shape == (2, 2, 3)


@given(grids(max_turn=12.0))
def test_the_code_is_nibabels(grid: Grid) -> None:
    assert grid.code == "".join(nibabel.aff2axcodes(grid.matrix))


@pytest.mark.parametrize("order, signs", ORIENTATIONS)
def test_the_code_of_every_orientation_is_nibabels(order: tuple[int, ...], signs: tuple[float, ...]) -> None:
    grid = make_grid(order, signs, (0.7, 2.0, 5.0), (8, -14, 11))
    assert grid.code == "".join(nibabel.aff2axcodes(grid.matrix))
    assert grid.axes == tuple((world, int(sign)) for world, sign in zip(order, signs, strict=True))


@given(grids())
def test_spacing_volume_and_right_angles(grid: Grid) -> None:
    assert grid.spacing_mm == pytest.approx(nibabel.affines.voxel_sizes(grid.matrix))
    assert grid.voxel_ml == pytest.approx(abs(np.linalg.det(grid.matrix[:3, :3])) / 1000)
    a, b, c = (grid.matrix[:3, axis] / grid.spacing_mm[axis] for axis in range(3))
    assert grid.is_orthogonal == (max(abs(a @ b), abs(a @ c), abs(b @ c)) <= 1e-4)


def test_a_tilted_gantry_is_not_orthogonal_and_a_turned_head_is() -> None:
    assert make_grid(turn=(10, 20, 30)).is_orthogonal
    assert not make_grid(shear=math.tan(math.radians(5))).is_orthogonal


def test_matrices_cannot_be_changed_by_accident() -> None:
    grid = make_grid()
    for matrix in (grid.matrix, grid.lps_matrix, LPS_FROM_RAS):
        with pytest.raises(ValueError, match="read-only"):
            matrix[0, 0] = 2.0


@pytest.mark.parametrize(
    "shape, affine",
    [
        ((0, 1, 1), np.eye(4)),
        ((1, 1), np.eye(4)),
        ((1, 1, 1, 1), np.eye(4)),
        ((2, 2, 2), np.zeros((4, 4))),
        ((2, 2, 2), np.diag([1.0, 1.0, 0.0, 1.0])),
        ((2, 2, 2), np.diag([1.0, 1.0, 1.0, 2.0])),
        ((2, 2, 2), np.diag([1.0, np.nan, 1.0, 1.0])),
        ((2, 2, 2), np.diag([1.0, np.inf, 1.0, 1.0])),
        ((2, 2, 2), np.diag([1e-200, 1.0, 1.0, 1.0])),
        ((2, 2, 2), np.diag([1e200, 1.0, 1.0, 1.0])),
        ((2, 2, 2), np.diag([1e-4, 1.0, 200.0, 1.0])),
        ((2, 2, 2), [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
        ((2, 2, 2), np.eye(3)),
    ],
)
def test_what_is_no_lattice_is_refused_without_a_warning(shape: tuple[int, ...], affine: object) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError):
            Grid(shape, affine)  # type: ignore[arg-type]


def test_microscopes_have_grids_too() -> None:
    grid = Grid((4, 4, 4), np.diag([2e-4, 2e-4, 5e-4, 1.0]))
    assert grid.index_of_ras(grid.ras_mm((1, 2, 3))) == pytest.approx([1, 2, 3])


def test_close_grids() -> None:
    grid = make_grid(spacing=(1, 2, 3))
    assert grid.is_close(make_grid(spacing=(1, 2, 3), origin=(0.04, 0, 0)))
    assert not grid.is_close(make_grid(spacing=(1, 2, 3), origin=(0.06, 0, 0)))
    assert grid.is_close(make_grid(spacing=(1, 2, 3), origin=(0.4, 0, 0)), voxels=0.5)
    # the far corners count: a spacing that is hardly off adds up
    assert not grid.is_close(make_grid(spacing=(1, 2, 3.01)), voxels=0.05)
    assert not grid.is_close(make_grid(spacing=(1, 2, 3), shape=(5, 6, 8)))
    assert not grid.is_close(make_grid(spacing=(1, 2, 3), signs=(-1, 1, 1), origin=(4, 0, 0)))


@given(grids())
def test_json_round_trip(grid: Grid) -> None:
    assert Grid.from_json(grid.to_json()) == grid


@pytest.mark.parametrize(
    "value", [{}, {"shape": [1, 1, 1]}, {"shape": None, "affine": None}, {"shape": 3, "affine": [[1]]}]
)
def test_damaged_json_is_refused(value: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Grid.from_json(value)


# -- views -------------------------------------------------------------------------------------

# world axis (R, A, S) that grows to the left of the screen, and the one that grows to its top
SCREEN = {"axial": (0, 1), "coronal": (0, 2), "sagittal": (1, 2)}


@pytest.mark.parametrize("square", [True, False])
@given(grids(), st.sampled_from(PLANES), st.data())
@settings(max_examples=60)
def test_every_view_is_radiological(square: bool, grid: Grid, plane: str, data: st.DataObject) -> None:
    view = grid.view(plane, data.draw(st.integers(0, grid.num_slices(plane) - 1)), square=square)
    here, right, below = (np.array(view.world_mm(*p)) for p in ((0, 0), (1, 0), (0, 1)))
    leftwards, upwards = SCREEN[plane]
    # the patient's left is on the image's right (coronal, axial), anterior on the left (sagittal), superior up
    assert (right - here)[leftwards] < 0 and (below - here)[upwards] < 0
    assert np.abs(right - here).argmax() == leftwards and np.abs(below - here).argmax() == upwards
    rows, columns = view.spacing_mm or (0, 0)
    assert np.linalg.norm(right - here) == pytest.approx(columns)
    assert np.linalg.norm(below - here) == pytest.approx(rows)
    assert (view.plane, view.volume_shape, view.affine) == (plane, grid.shape, grid.affine)


@given(grids(), st.sampled_from(PLANES), st.booleans())
def test_a_view_covers_its_slice_edge_to_edge(grid: Grid, plane: str, square: bool) -> None:
    view, (height, width) = grid.view(plane, 0, square=square), grid.view_size(plane, square=square)
    normal, across, down = grid.view_axes(plane)
    # the display's outer corners are half a pixel beyond its pixels' centres, and the slice's half a voxel
    corners = np.array([view._index(x, y) for x in (-0.5, width - 0.5) for y in (-0.5, height - 0.5)])
    for axis in (across, down):
        assert (corners[:, axis].min(), corners[:, axis].max()) == pytest.approx((-0.5, grid.shape[axis] - 0.5))
    assert corners[:, normal] == pytest.approx(np.zeros(4))


@given(grids(), st.sampled_from(PLANES))
def test_square_pixels_are_square_and_no_voxel_is_lost(grid: Grid, plane: str) -> None:
    height, width = grid.view_size(plane)
    _, across, down = grid.view_axes(plane)
    assert height >= grid.shape[down] and width >= grid.shape[across]
    (rows, columns), finest = grid.view(plane).spacing_mm or (0, 0), min(grid.spacing_mm[down], grid.spacing_mm[across])
    # to half a pixel of the whole side, or within the ratio that is not worth a resampling
    assert abs(rows - finest) * height <= max(0.5 * finest, 0.0101 * finest * height) + 1e-9
    assert abs(columns - finest) * width <= max(0.5 * finest, 0.0101 * finest * width) + 1e-9
    assert grid.view_size(plane, square=False) == (grid.shape[down], grid.shape[across])


@given(grids(), st.sampled_from(PLANES), st.data())
def test_pixel_undoes_the_map_to_the_source(grid: Grid, plane: str, data: st.DataObject) -> None:
    view, (height, width) = grid.view(plane, 0), grid.view_size(plane)
    x, y = data.draw(st.floats(-0.5, width - 0.5)), data.draw(st.floats(-0.5, height - 0.5))
    assert view.pixel(*view._index(x, y)) == pytest.approx((x, y), abs=1e-6)
    # off the slice along its normal: the pixel above or below it
    index = list(view._index(x, y))
    index[grid.view_axes(plane)[0]] += 2.5
    assert view.pixel(*index) == pytest.approx((x, y), abs=1e-6)
    i, j, k = view.source_index(round(x), round(y))
    assert all(0 <= v < n for v, n in zip((i, j, k), grid.shape, strict=True)) or not (
        0 <= round(x) < width and 0 <= round(y) < height
    )
    assert view.world_lps_mm(x, y) == pytest.approx(grid.lps_mm(view._index(x, y)))
    assert view.world_mm(x, y) == pytest.approx(grid.ras_mm(view._index(x, y)))


@given(grids(), st.sampled_from(PLANES), st.booleans())
def test_a_view_survives_the_record(grid: Grid, plane: str, square: bool) -> None:
    view = grid.view(plane, square=square)
    assert Geometry.from_json(view.to_json()) == view
    assert view.slice_index == grid.num_slices(plane) // 2


def test_upright_example_by_hand() -> None:
    # 1 x 2 x 3 mm, axes to R, A, S: an axial slice of 5 x 6 voxels is shown 5 pixels wide and 12 high
    grid = make_grid(spacing=(1, 2, 3), origin=(10, 20, 30))
    assert grid.view_size("axial") == (12, 5) and grid.view_size("coronal") == (21, 5)
    assert grid.view_size("sagittal") == (11, 6)  # 7 * 3 / 2 = 10.5, rounded up
    view = grid.view("axial", 2)
    assert view.spacing_mm == (1.0, 1.0)
    assert view.source_index(0, 0) == (4, 5, 2) and view.source_index(4, 11) == (0, 0, 2)
    assert view.world_mm(0, 0) == (14.0, 30.5, 36.0)  # the upper half of voxel j = 5, at 30 mm
    assert view.pixel(4, 5, 2) == (0.0, 0.5)


def test_unknown_planes_and_slices_are_refused() -> None:
    grid = make_grid()
    with pytest.raises(ValueError, match="not 'oblique'"):
        grid.view_size("oblique")
    for index in (-1, 7):
        with pytest.raises(ValueError, match=r"axial:0 to axial:6"):
            grid.view("axial", index)


def test_a_raster_has_no_world_in_lps_either() -> None:
    assert Geometry.plane_2d().world_lps_mm(1, 2) is None
    assert Geometry.plane_2d().pixel(3, 4, 0) == (3, 4)


def test_a_display_that_is_a_line_is_refused() -> None:
    for rows in ([[0, 0, 0]] * 3, [[1, 1, 0], [2, 2, 0], [0, 0, 5]]):
        with pytest.raises(ValueError, match="line"):
            Geometry(spacing_mm=None, index_from_pixel=rows)  # type: ignore[arg-type]


@pytest.mark.parametrize("mask", [np.zeros((2, 3, 5), bool), np.zeros((2, 3, 4), np.uint8)])
def test_a_mask_of_another_kind_is_refused(mask: np.ndarray) -> None:
    grid = Grid((2, 3, 4), np.eye(4).tolist())
    grid.check_mask(np.zeros(grid.shape, bool))
    with pytest.raises(ValueError, match=r"a reference must be bool \(2, 3, 4\), not"):
        grid.check_mask(mask, "a reference")
