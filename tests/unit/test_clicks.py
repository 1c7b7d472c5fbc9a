from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from ibisagent.clicks import deepest_point, next_click
from ibisagent.types import PixelClick


def brute_force(region: NDArray[np.bool_]) -> tuple[int, int]:
    """The definition itself: squared distance to the nearest outside pixel, those beyond the image included."""
    padded = np.pad(region, 1)
    outside = np.argwhere(~padded)
    best, where = -1, (0, 0)
    for r, c in np.argwhere(padded):
        depth = int(((outside - (r, c)) ** 2).sum(axis=1).min())
        if depth > best:
            best, where = depth, (int(c) - 1, int(r) - 1)
    return where


def test_centre_of_a_square() -> None:
    target = np.zeros((20, 30), bool)
    target[5:14, 10:19] = True
    assert next_click(None, target) == PixelClick(14, 9, True)


def test_image_edge_is_a_border() -> None:
    target = np.zeros((20, 30), bool)
    target[:9, :9] = True
    assert next_click(None, target) == PixelClick(4, 4, True)


def test_excess_gives_a_negative_click() -> None:
    target = np.zeros((20, 30), bool)
    target[2:5, 2:5] = True
    current = target.copy()
    current[10:15, 20:25] = True
    assert next_click(current, target) == PixelClick(22, 12, False)


def test_larger_error_wins_and_ties_are_positive() -> None:
    target, current = np.zeros((10, 10), bool), np.zeros((10, 10), bool)
    target[1:3, 1:3], current[6:8, 6:8] = True, True
    tie = next_click(current, target)
    assert tie is not None and tie.positive
    current[8, 6] = True
    larger = next_click(current, target)
    assert larger is not None and not larger.positive


def test_ties_in_depth_go_to_the_first_in_row_major_order() -> None:
    target = np.zeros((6, 9), bool)
    target[1, 7] = target[2, 3] = target[4, 1] = True
    assert next_click(None, target) == PixelClick(7, 1, True)


def test_nothing_wrong() -> None:
    mask = np.eye(5, dtype=bool)
    assert next_click(mask, mask) is None
    assert next_click(None, np.zeros((3, 3), bool)) is None


@settings(max_examples=150, deadline=None)
@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=14)))
def test_depth_is_the_exact_distance(region: NDArray[np.bool_]) -> None:
    if region.any():
        assert deepest_point(region) == brute_force(region)


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(np.bool_, (2, 9, 11)))
def test_click_lies_in_the_error_that_it_names(pair: NDArray[np.bool_]) -> None:
    current, target = pair
    click = next_click(current, target)
    if click is None:
        assert np.array_equal(current, target)
    else:
        assert target[click.y, click.x] == click.positive
        assert current[click.y, click.x] != click.positive


def test_wrong_input_is_refused() -> None:
    good = np.zeros((4, 4), bool)
    for current, target in ((None, np.zeros((4, 4), np.uint8)), (np.zeros((4, 5), bool), good), (good, good[0])):
        with pytest.raises(ValueError):
            next_click(current, target)
    with pytest.raises(ValueError):
        deepest_point(good)
