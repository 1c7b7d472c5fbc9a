from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibisagent.geometry import Geometry, norm_to_pixel, pixel_to_norm


def test_every_pixel_of_every_side_up_to_4096_comes_back() -> None:
    # In arrays: a loop over 8 million pixels would take half a minute. A sample goes through the functions below.
    for size in range(1, 4097):
        pixels = np.arange(size)
        written = np.round((pixels + 0.5) / size, 4)
        assert np.array_equal(np.minimum(np.floor(written * size), size - 1), pixels), size


@pytest.mark.slow
def test_every_pixel_of_every_side_up_to_4096_comes_back_through_the_functions() -> None:
    for size in range(1, 4097):
        assert all(norm_to_pixel(pixel_to_norm(p, size), size) == p for p in range(size)), size


@given(st.integers(1, 9999), st.data())
def test_a_pixel_comes_back_and_text_says_it(size: int, data: st.DataObject) -> None:
    pixel = data.draw(st.integers(0, size - 1))
    value = pixel_to_norm(pixel, size)
    assert 0.0 <= value <= 1.0
    assert norm_to_pixel(float(f"{value:.4f}"), size) == pixel


@pytest.mark.parametrize("size", [1, 2, 3, 7, 197, 256, 1000, 4096, 5000])
def test_functions_agree_with_the_array_form(size: int) -> None:
    for pixel in range(size):
        assert norm_to_pixel(pixel_to_norm(pixel, size), size) == pixel


def test_beyond_four_decimals_the_error_is_bounded() -> None:
    size = 60_000
    worst = max(abs(norm_to_pixel(pixel_to_norm(p, size), size) - p) for p in range(0, size, 7))
    assert 0 < worst <= math.ceil(size / 20_000)


def test_edges() -> None:
    assert norm_to_pixel(0.0, 10) == 0
    assert norm_to_pixel(1.0, 10) == 9
    assert norm_to_pixel(0.9999, 10) == 9
    assert norm_to_pixel(0.5, 1) == 0


@pytest.mark.parametrize("value", [-0.0001, 1.0001, math.nan, math.inf])
def test_coordinates_outside_are_refused(value: float) -> None:
    with pytest.raises(ValueError):
        norm_to_pixel(value, 10)


def test_bad_pixels_and_sides_are_refused() -> None:
    for pixel, size in ((-1, 4), (4, 4), (0, 0)):
        with pytest.raises(ValueError):
            pixel_to_norm(pixel, size)
    with pytest.raises(ValueError):
        norm_to_pixel(0.5, 0)


def test_raster_has_no_world() -> None:
    geometry = Geometry.plane_2d()
    assert geometry.source_index(3, 5) == (3, 5, 0)
    assert geometry.world_mm(3, 5) is None


def test_slice_maps_to_voxel_and_millimetres() -> None:
    # Axial slice k = 7 shown with x flipped along i and y flipped along j, as radiologists see it.
    geometry = Geometry(
        spacing_mm=(2.0, 3.0),
        index_from_pixel=((-1, 0, 9), (0, -1, 19), (0, 0, 7)),
        affine=((3, 0, 0, -10), (0, 2, 0, -20), (0, 0, 5, 1), (0, 0, 0, 1)),
        volume_shape=(10, 20, 8),
        plane="axial",
        slice_index=7,
    )
    assert geometry.source_index(0, 0) == (9, 19, 7)
    assert geometry.source_index(9, 19) == (0, 0, 7)
    assert geometry.world_mm(2, 4) == (3 * 7 - 10, 2 * 15 - 20, 5 * 7 + 1)
    assert Geometry.from_json(geometry.to_json()) == geometry


def test_json_round_trip_of_a_raster() -> None:
    geometry = Geometry.plane_2d((0.5, 0.25))
    assert Geometry.from_json(geometry.to_json()) == geometry


@pytest.mark.parametrize(
    "change",
    [
        {"plane": "oblique"},
        {"spacing_mm": [0, 1]},
        {"index_from_pixel": [[1, 0], [0, 1]]},
        {"index_from_pixel": [[math.nan] * 3] * 3},
        {"affine": [[1]]},
        {"affine": 3},
    ],
)
def test_damaged_json_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Geometry.from_json({**Geometry.plane_2d().to_json(), **change})


def test_missing_field_is_refused() -> None:
    with pytest.raises(ValueError, match="damaged geometry"):
        Geometry.from_json({"spacing_mm": None})
