"""The Oracle view, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest

from ibisagent.engine.reasoning.views import EXCESS_COLOR, HIT_COLOR, MISSED_COLOR, agent_view, oracle_view
from ibisagent.rendering import agent_overlay


def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A mask on the left two thirds, a target on the right two thirds, on grey 100."""
    pixels = np.full((12, 18, 3), 100, np.uint8)
    mask, target = np.zeros((2, 12, 18), np.bool_)
    mask[:, :12] = True
    target[:, 6:] = True
    return pixels, mask, target


def test_hits_are_green_excess_red_and_misses_striped() -> None:
    pixels, mask, target = scene()
    view = oracle_view(pixels, mask, target)
    assert (view[:, :6] == (178, 50, 50)).all()  # (100 + 255 + 1) // 2, (100 + 0 + 1) // 2
    assert (view[:, 6:12] == (50, 178, 50)).all()
    missed = view[:, 12:]
    yellow = (missed == MISSED_COLOR).all(-1)
    assert yellow[0].all() and yellow[-1].all() and yellow[:, 0].all() and yellow[:, -1].all()
    rows, columns = np.indices((12, 18))
    stripes = (rows + columns)[1:-1, 13:17] % 8 < 2
    assert np.array_equal(yellow[1:-1, 1:-1], stripes)
    assert (missed[~yellow] == 100).all()
    assert HIT_COLOR == (0, 255, 0) and EXCESS_COLOR == (255, 0, 0) and MISSED_COLOR == (255, 255, 0)


def test_golden_bytes() -> None:
    from ibisagent.hashing import pixel_hash

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (32, 40, 3), dtype=np.uint8)
    mask, target = rng.random((2, 32, 40)) < 0.5
    assert pixel_hash(oracle_view(pixels, mask, target)) == GOLDEN


GOLDEN = "40f5aadf57b6fd5e9665b2e4659b1ff23e0cda22307262a728a6ade6f7f0ef65"


def test_where_the_mask_is_right_both_views_agree() -> None:
    pixels, mask, _ = scene()
    assert np.array_equal(oracle_view(pixels, mask, mask), agent_view(pixels, mask))
    assert agent_view is agent_overlay


def test_nothing_is_drawn_without_masks_and_inputs_stay() -> None:
    pixels, mask, target = scene()
    kept = pixels.copy()
    assert np.array_equal(oracle_view(pixels, None, None), pixels)
    assert (oracle_view(pixels, mask, None)[:, :12] == (178, 50, 50)).all()
    view = oracle_view(pixels, None, target)
    assert (view[:, :6] == 100).all() and (view[0, 6:] == MISSED_COLOR).all()
    view[:] = 0
    assert np.array_equal(pixels, kept)


@pytest.mark.parametrize("bad", [np.zeros((12, 17), np.bool_), np.zeros((12, 18), np.uint8)])
def test_wrong_masks_are_refused(bad: np.ndarray) -> None:
    pixels, mask, _ = scene()
    with pytest.raises(ValueError, match="bool"):
        oracle_view(pixels, bad, mask)
    with pytest.raises(ValueError, match="bool"):
        oracle_view(pixels, mask, bad)
    with pytest.raises(ValueError, match="uint8"):
        oracle_view(pixels.astype(np.float32), mask, mask)
