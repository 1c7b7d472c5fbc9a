"""What a segmenter is told of a neighbour's mask, and how its answer is judged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibisagent.segmenters.protocol import Capabilities
from ibisagent.types import PixelBox
from ibisagent.volume.carrying import ALIKE, ENDED, Look, carried_prompt, doubt

ALL = Capabilities(clicks=True, negative_clicks=True, boxes=True, prior_mask=True)


def disc(x: int, y: int, r: int, size: int = 64) -> np.ndarray:
    ys, xs = np.mgrid[:size, :size]
    return (xs - x) ** 2 + (ys - y) ** 2 <= r * r


def picture(*bright: np.ndarray, level: int = 200) -> np.ndarray:
    gray = np.random.default_rng(0).normal(60, 6, (64, 64))
    for mask in bright:
        gray[mask] += level - 60
    return np.repeat(np.clip(gray, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def test_the_prior_follows_what_looks_like_the_target() -> None:
    before, after = disc(24, 30, 8), disc(26, 30, 9)
    look = Look(picture(before), before)
    prompt = carried_prompt(before, look, picture(after), ALL)
    assert (prompt.prior_mask & ~after).sum() < 0.05 * after.sum() and (prompt.prior_mask & after).sum() > before.sum()
    positive = [c for c in prompt.clicks if c.positive]
    assert len(positive) == 1 and after[positive[0].y, positive[0].x] and before[positive[0].y, positive[0].x]
    assert prompt.box is None and prompt.prior_logits is None
    negative = [c for c in prompt.clicks if not c.positive]
    assert 2 <= len(negative) <= 4 and not any(after[c.y, c.x] for c in negative)


def test_a_twin_beside_it_is_told_apart() -> None:
    before, twin = disc(20, 30, 9), disc(44, 30, 9)
    look = Look(picture(before, twin), before)
    prompt = carried_prompt(before, look, picture(before, twin), ALL)
    assert not (prompt.prior_mask & twin).any()
    # a speck of error in the twin stays a speck
    with_speck = before.copy()
    with_speck[30:32, 38:40] = True
    prompt = carried_prompt(with_speck, look, picture(before, twin), ALL)
    assert (prompt.prior_mask & twin).sum() <= 4


def test_where_nothing_looks_like_it_the_mask_is_told_as_it_is() -> None:
    before = disc(24, 30, 8)
    prompt = carried_prompt(before, Look(picture(before), before), picture(), ALL)
    assert np.array_equal(prompt.prior_mask, before)


def test_what_a_segmenter_does_not_understand_is_not_said() -> None:
    before = disc(24, 30, 8)
    look, pixels = Look(picture(before), before), picture(before)
    boxes = carried_prompt(before, look, pixels, replace(ALL, prior_mask=False))
    assert boxes.prior_mask is None and boxes.box == PixelBox(16, 22, 32, 38)
    assert all(c.positive for c in carried_prompt(before, look, pixels, replace(ALL, negative_clicks=False)).clicks)
    assert carried_prompt(before, look, pixels, replace(ALL, clicks=False)).clicks == ()
    assert len(carried_prompt(before, look, pixels, replace(ALL, max_clicks=2)).clicks) == 2


@given(seed=st.integers(0, 2**16), share=st.floats(0.001, 0.999))
def test_every_mask_on_every_picture_gives_a_legal_prompt(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((24, 31)) < share
    mask[rng.integers(24), rng.integers(31)] = True
    first, second = (rng.integers(0, 256, (24, 31, 3), np.uint8) for _ in range(2))
    prompt = carried_prompt(mask, Look(first, mask), second, ALL)
    assert prompt.prior_mask.any() and prompt.prior_mask.dtype == bool and prompt.prior_mask.flags.c_contiguous
    assert any(c.positive for c in prompt.clicks) and all(0 <= c.x < 31 and 0 <= c.y < 24 for c in prompt.clicks)
    found = doubt(mask, prompt.prior_mask, Look(first, mask), second, 0.5)
    assert 0 <= found.agreement <= 1


def test_likeness_is_one_for_the_same_and_below_zero_for_the_surroundings() -> None:
    before = disc(24, 30, 8)
    look = Look(picture(before), before)
    assert look.likeness(picture(before), before) == pytest.approx(1.0)
    assert look.likeness(picture(), before) < ENDED < ALIKE
    assert look.own > 0.9


def test_doubts() -> None:
    before = disc(24, 30, 8)
    look, pixels = Look(picture(before), before), picture(before)
    assert doubt(before, before, look, pixels, 0.5) == doubt(before, before, look, pixels, 1.0)
    fine = doubt(before, before, look, pixels, 0.5)
    assert (fine.agreement, fine.is_over, fine.reason) == (1.0, False, "")
    small = disc(24, 30, 3)
    assert doubt(before, small, look, pixels, 0.5).reason == "agreement 0.26 with the slice before"
    elsewhere = doubt(before, disc(44, 30, 8), look, picture(before), 0.5)
    assert elsewhere.is_over and elsewhere.reason.startswith("agreement 0.00") and "likeness" in elsewhere.reason
    gone = doubt(before, before, look, picture(), 0.5)
    assert gone.is_over and "likeness 0.00" in gone.reason
    nothing = doubt(before, np.zeros_like(before), look, pixels, 0.5)
    assert nothing.is_over and nothing.reason == "nothing of it is left" and nothing.agreement == 0.0
