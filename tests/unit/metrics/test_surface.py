"""Surface distances: numbers worked out by hand, the conventions' differences, empty masks, and refusals."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from ibisagent.metrics import SurfaceDistances, assd, hausdorff, hd95, nsd, surface
from ibisagent.metrics.elements import Elements
from ibisagent.rle import encode_mask

BOTH = get_args(Elements)


def square(first: int, last: int, size: int = 20) -> NDArray[np.bool_]:
    mask = np.zeros((size, size), bool)
    mask[first:last, first:last] = True
    return mask


def test_squares_in_voxels() -> None:
    small, large = square(5, 10), square(4, 11)  # borders of 16 and of 24 pixels, one pixel apart
    distances = SurfaceDistances.between(small, large, (2.0, 2.0), elements="voxels")
    assert distances.unit == "mm" and distances.spacing == (2.0, 2.0)
    assert sorted(distances.prediction.distances) == [2.0] * 16
    # Of the larger square, a corner is the diagonal away from the smaller one's corner.
    assert sorted(distances.target.distances) == pytest.approx([2.0] * 20 + [2 * math.sqrt(2)] * 4)
    assert distances.nsd(1.9) == 0.0 and distances.nsd(2.0) == 36 / 40 and distances.nsd(2.9) == 1.0
    assert distances.hausdorff() == pytest.approx(2 * math.sqrt(2))
    assert distances.assd() == pytest.approx((36 * 2 + 4 * 2 * math.sqrt(2)) / 40)
    assert distances.assd("mean") == pytest.approx((2 + (20 * 2 + 4 * 2 * math.sqrt(2)) / 24) / 2)


def test_percentiles_differ_by_pooling() -> None:
    line, dot = np.zeros((3, 101), bool), np.zeros((3, 101), bool)
    line[1], dot[1, 0] = True, True
    distances = SurfaceDistances.between(line, dot, elements="voxels")
    assert distances.unit == "px"
    assert distances.hd95("max") == 95.0  # of 0 … 100
    assert distances.hd95("pooled") == pytest.approx(np.percentile([0, *range(101)], 95))
    assert distances.hausdorff() == distances.hausdorff(100, "pooled") == 100.0
    assert distances.hausdorff(0) == 0.0


def test_surfels_weigh_by_length() -> None:
    a = np.zeros((12, 12), bool)
    a[2:6, 2:9] = True  # 4 rows of 3 mm by 7 columns of 1 mm
    same = SurfaceDistances.between(a, a, (3.0, 1.0))
    # Marching squares cuts every corner: half a pixel's diagonal in place of half a row and half a column.
    assert same.prediction.surface == pytest.approx(2 * (3 * 3) + 2 * 6 + 4 * math.hypot(3, 1) / 2)
    assert same.nsd(0.0) == 1.0 and same.hausdorff() == same.assd() == 0.0


def test_surfels_of_a_box_have_its_area() -> None:
    a = np.zeros((24, 24, 24), bool)
    a[2:22, 2:22, 2:22] = True
    area = SurfaceDistances.between(a, a, (3.0, 1.0, 2.0)).prediction.surface
    sides = 2 * (20 * 20) * (3 * 1 + 3 * 2 + 1 * 2)
    assert 0.93 * sides < area < sides  # less what is cut off the edges


def test_the_edge_of_the_image_is_a_surface() -> None:
    full = np.ones((6, 6), bool)
    assert SurfaceDistances.between(full, full, elements="voxels").prediction.surface == 20
    assert SurfaceDistances.between(full, full).prediction.distances.size == 24  # corners along the edge


@pytest.mark.parametrize("elements", BOTH)
@pytest.mark.parametrize("shape", [(7, 8), (5, 6, 7)])
def test_empty_conventions(elements: Elements, shape: tuple[int, ...]) -> None:
    empty, some = np.zeros(shape, bool), np.zeros(shape, bool)
    some[2:4, 2:4] = True
    spacing = (1.5,) * len(shape)
    agreed = SurfaceDistances.between(empty, empty, spacing, elements=elements)
    assert agreed.num_empty == 2 and agreed.nsd(1) == 1.0
    assert agreed.hausdorff() == agreed.hd95() == agreed.hd95("pooled") == agreed.assd() == 0.0
    for a, b in ((some, empty), (empty, some)):
        one = SurfaceDistances.between(a, b, spacing, elements=elements)
        assert one.num_empty == 1 and one.nsd(1e9) == 0.0
        assert one.hausdorff() == one.hd95() == one.hd95("pooled") == one.assd() == one.assd("mean") == math.inf


def test_a_tolerance_is_met_in_decimals() -> None:
    a, b = np.zeros((1, 9), bool), np.zeros((1, 9), bool)
    a[0, 0], b[0, 3] = True, True
    assert 3 * 0.7 != 2.1 and 3 * 0.1 > 0.3  # in floating point; on paper they are equal
    assert nsd(a, b, 2.1, (1.0, 0.7), elements="voxels") == nsd(a, b, 0.3, (1.0, 0.1), elements="voxels") == 1.0
    assert nsd(a, b, 0.299, (1.0, 0.1), elements="voxels") == 0.0


def test_tree_and_transform_give_the_same_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    a, b = rng.random((2, 14, 15, 16)) < [[[[0.02]]], [[[0.3]]]]
    found = []
    for dense in (0, 10**9):
        monkeypatch.setattr(surface, "_DENSE", dense)
        distances = SurfaceDistances.between(a, b, (2.3, 0.7, 1.1))
        found.append(np.concatenate([distances.prediction.distances, distances.target.distances]))
    assert np.abs(found[0] - found[1]).max() < 1e-12 and found[0].max() > 1


def test_functions_read_the_same_distances_and_take_records() -> None:
    a, b = square(5, 12), square(7, 13)
    distances = SurfaceDistances.between(a, b, (1.0, 2.0))
    first, second = encode_mask(a), encode_mask(b)
    assert nsd(first, second, 1.5, (1.0, 2.0)) == distances.nsd(1.5)
    assert hd95(first, b, (1.0, 2.0)) == distances.hd95()
    assert hausdorff(a, second, (1.0, 2.0), percentile=50, pooling="pooled") == distances.hausdorff(50, "pooled")
    assert assd(a, b, (1.0, 2.0), pooling="mean") == distances.assd("mean")


def test_wrong_input_is_refused() -> None:
    a = square(2, 5)
    for spacing in ((1.0,), (1.0, -1.0), (1.0, math.inf), (1.0, 1.0, 1.0)):
        with pytest.raises(ValueError, match="spacing"):
            SurfaceDistances.between(a, a, spacing)
    with pytest.raises(ValueError, match="dimensions"):
        SurfaceDistances.between(a[0], a[0])
    with pytest.raises(ValueError, match="elements"):
        SurfaceDistances.between(a, a, elements="pixels")  # type: ignore[arg-type]
    distances = SurfaceDistances.between(a, a)
    for tolerance in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="tolerance"):
            distances.nsd(tolerance)
    for percentile in (-1.0, 101.0):
        with pytest.raises(ValueError, match="percentile"):
            distances.hausdorff(percentile)
    with pytest.raises(ValueError, match="pooling"):
        distances.hd95("mean")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="pooling"):
        distances.assd("max")  # type: ignore[arg-type]
