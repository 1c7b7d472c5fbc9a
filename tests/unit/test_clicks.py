from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from ibisagent.clicks import (
    CLICK_RULES,
    component_click,
    deepest_point,
    human_click,
    jittered_click,
    next_click,
    squared_depth,
)
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


def flood(region: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """Connected pieces, corners included, in the order of their first pixels."""
    left, pieces = region.copy(), []
    while left.any():
        piece = np.zeros_like(left)
        todo = [tuple(int(v) for v in np.argwhere(left)[0])]
        while todo:
            r, c = todo.pop()
            if 0 <= r < left.shape[0] and 0 <= c < left.shape[1] and left[r, c]:
                left[r, c], piece[r, c] = False, True
                todo += [(r + i, c + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        pieces.append(piece)
    return pieces


@settings(max_examples=150, deadline=None)
@given(hnp.arrays(np.bool_, (2, 8, 10)))
def test_the_component_rule_is_its_definition(pair: NDArray[np.bool_]) -> None:
    current, target = pair
    pieces = [(p, True) for p in flood(target & ~current)] + [(p, False) for p in flood(current & ~target)]
    click = component_click(current, target)
    if not pieces:
        assert click is None
        return
    piece, positive = max(pieces, key=lambda item: item[0].sum())  # the first of the largest
    assert click == PixelClick(*brute_force(piece), positive)


def test_many_small_errors_weigh_less_than_a_large_one_for_the_component_rule_alone() -> None:
    target, current = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    target[::3, ::3] = True  # 49 single pixels are missed
    current[8:14, 8:14] = True  # 32 in one piece are too much
    current &= ~target
    paper, component = next_click(current, target), component_click(current, target)
    assert paper is not None and paper.positive
    assert component is not None and not component.positive and current[component.y, component.x]


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(np.bool_, (2, 12, 9)), st.integers(0, 2**32 - 1))
def test_every_rule_clicks_in_an_error_of_its_sign(pair: NDArray[np.bool_], seed: int) -> None:
    current, target = pair
    for name, rule in CLICK_RULES.items():
        click = rule(current, target, np.random.default_rng(seed))
        assert (click is None) == np.array_equal(current, target), name
        if click is not None:
            assert target[click.y, click.x] == click.positive != current[click.y, click.x]
    assert CLICK_RULES["paper"](current, target, np.random.default_rng(seed)) == next_click(current, target)
    assert jittered_click(current, target, np.random.default_rng(seed), share=0.0) == next_click(current, target)


def test_jitter_prefers_depth() -> None:
    target = np.zeros((40, 40), bool)
    target[5:36, 5:36] = True
    rng = np.random.default_rng(0)
    clicks = [jittered_click(None, target, rng) for _ in range(300)]
    deepest = [c == PixelClick(20, 20, True) for c in clicks]
    assert 0.55 < np.mean(deepest) < 0.75
    rest = [c for c, d in zip(clicks, deepest, strict=True) if not d and c is not None]
    depth = [min(c.x - 4, 36 - c.x, c.y - 4, 36 - c.y) for c in rest]
    assert np.mean(depth) > 8 > 31 / 6  # uniform pixels of a square lie at a sixth of its side


def test_wrong_input_is_refused() -> None:
    good = np.zeros((4, 4), bool)
    for current, target in ((None, np.zeros((4, 4), np.uint8)), (np.zeros((4, 5), bool), good), (good, good[0])):
        for rule in CLICK_RULES.values():
            with pytest.raises(ValueError):
                rule(current, target, np.random.default_rng(0))
    with pytest.raises(ValueError):
        deepest_point(good)


@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=24)), *[st.integers(0, 40)] * 2)
def test_the_deepest_point_moves_with_its_region(region: NDArray[np.bool_], left: int, top: int) -> None:
    if not region.any():
        return
    wide = np.pad(region, ((top, 3), (left, 7)))
    x, y = deepest_point(region)
    # Surroundings that hold nothing of the region change nothing, but that its own array's edge is a border.
    assert deepest_point(wide) == (x + left, y + top)


def test_human_clicks_scatter_about_the_middle_of_large_pieces() -> None:
    target = np.zeros((60, 60), bool)
    target[5:36, 5:36] = True  # 961 pixels
    target[40:58, 40:58] = True  # 324: more than a quarter
    target[50:53, 5:8] = True  # 9: a speck
    rng = np.random.default_rng(0)
    clicks = [human_click(None, target, rng) for _ in range(300)]
    assert all(c is not None and target[c.y, c.x] and c.positive for c in clicks)
    large = [c for c in clicks if c is not None and c.x < 36 and c.y < 36]
    assert 0.6 < len(large) / 300 < 0.9
    assert not any(c is not None and c.x < 10 and c.y > 45 for c in clicks)
    offsets = np.array([(c.x - 20, c.y - 20) for c in large])
    assert 2 < offsets.std() < 6 and abs(offsets.mean()) < 1.5


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 2**31))
def test_squared_depth_is_exact_wherever_the_array_lies(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    region = rng.random((height, width)) < 0.97
    rows = np.pad(region, 1)
    outside = np.argwhere(~rows)
    points = rng.integers((1, 1), (height + 1, width + 1), (12, 2))
    exact = [int(((outside - point) ** 2).sum(axis=1).min()) for point in points]
    for shift in (0, 1, 5):
        room = np.zeros(height * width + shift, bool)
        view = room[shift:].reshape(height, width)
        view[...] = region
        depth = squared_depth(view)
        assert depth.dtype == np.int64 and [int(depth[y - 1, x - 1]) for y, x in points] == exact


def test_squared_depth_of_a_very_large_region() -> None:
    region = np.ones((3201, 3203), bool)
    depth = squared_depth(region)
    assert depth.max() == 1601**2 and depth[1600, 1600] == 1601**2 and depth[0, 7] == 1
