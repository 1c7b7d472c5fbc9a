"""The clicks of published protocols, on errors that were drawn by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from ibisagent.error_clicks import ErrorClick, deepest_error_click, depth_of, largest_component_click


def picture(*rows: str) -> np.ndarray:
    """Mask with # inside."""
    return np.array([[c == "#" for c in row] for row in rows])


def test_nothing_wrong_gives_no_click():
    target = picture(".##", ".##")
    assert largest_component_click(target, target) is None
    assert deepest_error_click(target, target) is None
    assert largest_component_click(None, np.zeros((3, 3), bool)) is None


def test_first_click_is_the_middle_of_the_target():
    target = np.zeros((9, 9), bool)
    target[2:7, 3:8] = True
    assert largest_component_click(None, target) == ErrorClick((4, 5), True)
    assert deepest_error_click(None, target) == ErrorClick((4, 5), True)


def test_border_of_the_image_counts_as_a_border():
    target = np.zeros((5, 9), bool)
    target[:, :5] = True  # touches three edges: the middle of the 5 x 5 square, not a corner of the image
    assert largest_component_click(None, target) == ErrorClick((2, 2), True)


def test_the_largest_piece_decides_not_the_deepest_one():
    # A long thin miss of 9 pixels against a compact excess of 2 x 2... the thin one is larger, the square is deeper.
    target = picture(
        "#########....",
        ".............",
        ".............",
        ".............",
        ".............",
    )
    current = picture(
        ".............",
        ".............",
        ".........###.",
        ".........###.",
        ".........##..",
    )
    first = largest_component_click(current, target)
    assert first is not None and first.positive and first.index[0] == 0  # 9 missed pixels > 8 excess pixels
    assert deepest_error_click(current, target) == ErrorClick((3, 10), False)  # depth 2 > depth 1


def test_a_corner_connects_pixels():
    target = picture(
        "#.....",
        ".#....",
        "..#...",
        "......",
        ".....#",
        ".....#",
    )
    click = largest_component_click(None, target)
    assert click is not None and click.index in {(0, 0), (1, 1), (2, 2)}  # three by corners, against two by an edge


def test_missed_and_excess_pixels_that_touch_are_one_piece():
    # Missed on the left, excess on the right, side by side: together the largest piece, and its middle is excess.
    target = picture(
        "#.......",
        "#.......",
        "#.......",
        "........",
        "...####.",
    )
    current = picture(
        ".##.....",
        ".##.....",
        ".##.....",
        "........",
        "........",
    )
    click = largest_component_click(current, target)
    assert click == ErrorClick((1, 1), False)  # the middle of the 3 x 3 block, where the mask is excess
    # Apart they are no deeper than the stripe of four: a tie, which goes to the excess.
    assert deepest_error_click(current, target) == ErrorClick((0, 1), False)


def test_three_dimensions_use_26_neighbours_and_voxels():
    target = np.zeros((7, 9, 9), bool)
    target[1:4, 1:4, 1:4] = True
    target[1:4, 6:9, 6:9] = True  # as large, at the edge of the array, and not the first
    assert largest_component_click(None, target) == ErrorClick((2, 2, 2), True)
    target[4, 7, 7] = True  # the second grows through a face
    assert largest_component_click(None, target) == ErrorClick((2, 7, 7), True)
    target[4, 4, 4] = target[5, 5, 5] = True  # the first grows more, through corners alone
    assert largest_component_click(None, target) == ErrorClick((2, 2, 2), True)
    current = np.zeros_like(target)
    current[:, :5, 8] = True  # 35 voxels of excess, which touch nothing
    excess = largest_component_click(current, target)
    assert excess is not None and not excess.positive and excess.index[2] == 8


def test_equally_deep_voxels_are_drawn_as_the_challenge_draws():
    target = np.zeros((3, 12), bool)
    target[1, 1:11] = True  # ten pixels, all of depth 1
    np.random.seed(42)
    expected = np.argwhere(target)[np.random.choice(10)]
    assert largest_component_click(None, target).index == tuple(expected)
    assert deepest_error_click(None, target).index == (1, 1)  # the first


def test_noc_never_clicks_a_pixel_twice():
    target = picture("...", ".#.", "...")
    assert deepest_error_click(None, target, [(1, 1)]) is None
    wide = picture("....", ".##.", "....")
    assert deepest_error_click(None, wide, [(1, 1)]) == ErrorClick((1, 2), True)


def test_equal_depths_are_a_negative_click():
    assert deepest_error_click(picture("#.."), picture("..#")) == ErrorClick((0, 0), False)


def test_depth_is_euclidean():
    region = np.ones((5, 5), bool)
    assert depth_of(region)[2, 2] == 3.0  # to beyond the edge
    region[0, 0] = False
    assert depth_of(region)[1, 1] == np.sqrt(2)
    assert not depth_of(np.zeros((2, 2), bool)).any()


@pytest.mark.parametrize("rule", [largest_component_click, deepest_error_click])
def test_masks_are_checked(rule):
    with pytest.raises(ValueError, match="target must be a bool array"):
        rule(None, np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match="current must be bool"):
        rule(np.zeros((2, 3), bool), np.zeros((2, 2), bool))


def _largest_pieces(wrong: np.ndarray) -> list[dict[tuple[int, ...], int]]:
    """The largest pieces of error by plain search: squared depth by pixel."""
    left = {tuple(at) for at in np.argwhere(wrong).tolist()}
    steps = [step for step in itertools.product((-1, 0, 1), repeat=wrong.ndim) if any(step)]
    around = {tuple(at) for at in itertools.product(*(range(-1, n + 1) for n in wrong.shape))}
    found = []
    while left:
        piece, todo = set(), [min(left)]
        while todo:
            at = todo.pop()
            if at in left:
                left.remove(at)
                piece.add(at)
                todo += [tuple(a + d for a, d in zip(at, step, strict=True)) for step in steps]
        outside = around - piece
        depths = {at: min(sum((a - b) ** 2 for a, b in zip(at, o, strict=True)) for o in outside) for at in piece}
        found.append(depths)
    return [depths for depths in found if len(depths) == max(map(len, found))]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_click_is_the_deepest_of_a_largest_piece(data):
    shape = data.draw(array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=5))
    current, target = (data.draw(arrays(bool, shape)) for _ in range(2))
    click = largest_component_click(current, target)
    if click is None:
        assert (current == target).all()
        return
    candidates = _largest_pieces(current ^ target)
    assert any(click.index in depths and depths[click.index] == max(depths.values()) for depths in candidates)
    assert target[click.index] == click.positive != current[click.index]
