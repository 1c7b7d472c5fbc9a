from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibisagent.rendering import agent_overlay


def test_half_green_to_the_bit() -> None:
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 14
    mask = np.array([[True, False, True], [False, True, False]])
    out = agent_overlay(pixels, mask)
    assert out[0, 0].tolist() == [(0 + 0 + 1) // 2, (14 + 255 + 1) // 2, (28 + 1) // 2]
    np.testing.assert_array_equal(out[~mask], pixels[~mask])
    assert out.dtype == np.uint8 and out.flags.c_contiguous


@given(value=st.integers(0, 255), green=st.integers(0, 255))
def test_blend_is_the_mean(value: int, green: int) -> None:
    pixels = np.full((1, 1, 3), value, np.uint8)
    pixels[..., 1] = green
    out = agent_overlay(pixels, np.ones((1, 1), bool))[0, 0]
    assert abs(int(out[0]) - value / 2) <= 0.5 and abs(int(out[1]) - (green + 255) / 2) <= 0.5


def test_no_mask_is_a_copy() -> None:
    pixels = np.zeros((4, 5, 3), np.uint8)
    pixels.flags.writeable = False
    out = agent_overlay(pixels, None)
    out[0, 0] = 9
    assert pixels[0, 0, 0] == 0


@pytest.mark.parametrize("mask", [np.ones((3, 4), bool), np.ones((4, 3), np.uint8)])
def test_wrong_mask(mask: np.ndarray) -> None:
    with pytest.raises(ValueError, match="mask must be bool"):
        agent_overlay(np.zeros((4, 3, 3), np.uint8), mask)


def test_wrong_pixels() -> None:
    with pytest.raises(ValueError, match="uint8"):
        agent_overlay(np.zeros((4, 3), np.uint8), None)
