from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ibisagent.errors import InputError
from ibisagent.metrics import iou
from ibisagent.segmenters.conformance import check_segmenter
from ibisagent.segmenters.protocol import Segmenter
from ibisagent.segmenters.rules import RulesSegmenter, make
from ibisagent.types import Image, PixelBox, PixelClick, Prompt

INSIDE, OUTSIDE = PixelClick(40, 20, True), PixelClick(5, 5, False)


def grow(image: Image, prompt: Prompt) -> NDArray[np.bool_]:
    segmenter = RulesSegmenter()
    return segmenter.predict(segmenter.encode(image), [prompt])[0].mask


def test_it_conforms() -> None:
    segmenter = RulesSegmenter()
    assert isinstance(segmenter, Segmenter)
    assert check_segmenter(segmenter) == []


def test_one_click_finds_the_disc(disc_image: Image, disc_target: NDArray[np.bool_]) -> None:
    assert iou(grow(disc_image, Prompt((INSIDE,))), disc_target) > 0.8


def test_negative_clicks_take_away(disc_image: Image, disc_target: NDArray[np.bool_]) -> None:
    everything = np.ones_like(disc_target)
    mask = grow(disc_image, Prompt((OUTSIDE,), prior_mask=everything))
    assert mask[20, 40] and not mask[5, 5]
    assert iou(mask, disc_target) > 0.75


def test_a_region_is_shared_between_clicks_of_both_signs() -> None:
    from ibisagent.geometry import Geometry

    flat = Image(np.full((9, 9, 3), 100, np.uint8), Geometry.plane_2d())
    mask = grow(flat, Prompt((PixelClick(1, 4, True), PixelClick(7, 4, False))))
    assert mask[:, :4].all() and not mask[:, 4:].any()


def test_box_alone_and_box_with_click(disc_image: Image, disc_target: NDArray[np.bool_]) -> None:
    box = PixelBox(28, 8, 52, 32)
    assert iou(grow(disc_image, Prompt(box=box)), disc_target) > 0.8
    half = grow(disc_image, Prompt((INSIDE,), PixelBox(28, 8, 39, 32)))
    assert half.any() and not half[:, 40:].any()


def test_it_takes_no_argument() -> None:
    assert make(None, device="cpu").weights_sha256 is None
    with pytest.raises(InputError):
        make("x")
