"""Outlines: they cover the pixels of the mask exactly, and every ring is simple."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ibisagent.io.outlines import Outline, pixel_outlines, ring_area


def covered(outlines: list[Outline], shape: tuple[int, int]) -> np.ndarray:
    """Pixels whose centres lie inside, by the even-odd rule on rays to the right."""
    inside = np.zeros(shape, bool)
    ys, xs = np.mgrid[: shape[0], : shape[1]] + 0.5
    for outline in outlines:
        for ring in (outline.shell, *outline.holes):
            for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
                if x0 == x1:
                    inside ^= (xs < x0) & (ys > min(y0, y1)) & (ys < max(y0, y1))
    return inside


@settings(max_examples=60, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.booleans()))
def test_outlines_cover_exactly_the_mask_and_are_valid(mask: np.ndarray) -> None:
    outlines = pixel_outlines(mask)
    assert np.array_equal(covered(outlines, mask.shape), mask)
    total = 0.0
    for outline in outlines:
        assert ring_area(outline.shell) > 0 and all(ring_area(hole) < 0 for hole in outline.holes)
        for ring in (outline.shell, *outline.holes):
            assert len({tuple(v) for v in ring}) == len(ring)  # no point is passed twice
            steps = np.roll(ring, -1, axis=0) - ring
            assert ((steps != 0).sum(axis=1) == 1).all()  # along pixel edges
            assert not (steps[:, 0].astype(bool) == np.roll(steps[:, 0].astype(bool), 1)).any()  # corners only
            total += ring_area(ring)
    assert total == mask.sum()
    import cv2

    assert len(outlines) == cv2.connectedComponents(mask.view(np.uint8), connectivity=4)[0] - 1


@pytest.mark.parametrize("touching", [False, True])
def test_a_hole_and_what_touches_at_a_corner(touching: bool) -> None:
    mask = np.ones((5, 5), bool)
    mask[2, 2] = False
    if touching:  # a second hole at the first one's corner: two rings, not an eight
        mask[3, 3] = False
    (outline,) = pixel_outlines(mask)
    assert outline.shell.tolist() == [[0, 0], [5, 0], [5, 5], [0, 5]]
    assert [ring_area(hole) for hole in outline.holes] == [-1.0] * (1 + touching)
    corner = np.zeros((4, 4), bool)
    corner[0, 0] = corner[1, 1] = True
    assert len(pixel_outlines(corner)) == 2


def test_nothing_has_no_outline() -> None:
    assert pixel_outlines(np.zeros((3, 4), bool)) == []
