from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ibisagent.errors import ActionError, ToolError
from ibisagent.segmenters.cache import EmbeddingCache
from ibisagent.segmenters.fake import FakeSegmenter
from ibisagent.segmenters.protocol import Capabilities
from ibisagent.segmenters.session import Session, supported_kinds
from ibisagent.types import Image, PixelBox, PixelClick, Prediction

A, B, C = PixelClick(1, 2, True), PixelClick(3, 4, False), PixelClick(5, 6, True)
BOX = PixelBox(1, 1, 9, 9)


def answer(image: Image, value: int, state: bool = True) -> Prediction:
    """A mask with `value` pixels, and logits that name it."""
    mask = np.zeros((image.height, image.width), bool)
    mask.ravel()[:value] = True
    return Prediction(mask, 0.5, np.full((4, 4), value, np.float32) if state else None)


def size(session: Session) -> int | None:
    return None if session.mask is None else int(session.mask.sum())


def test_prompts_carry_all_clicks_and_the_last_logits(disc_image: Image) -> None:
    fake = FakeSegmenter([answer(disc_image, n) for n in (1, 2, 3)])
    session = Session(fake, disc_image)
    assert session.mask is None
    session.add_clicks([A])
    session.add_clicks([B, C])
    session.set_box(BOX)
    first, second, third = fake.prompts
    assert (first.clicks, first.box, first.prior_logits, first.prior_mask) == ((A,), None, None, None)
    assert second.clicks == (A, B, C) and second.prior_logits is not None and second.prior_logits[0, 0] == 1
    assert third.clicks == (A, B, C) and third.box == BOX
    assert third.prior_logits is not None and third.prior_logits[0, 0] == 2
    assert fake.encoded == [disc_image.sha256]
    assert size(session) == 3


def test_undo_restores_mask_prompt_and_logits(disc_image: Image) -> None:
    fake = FakeSegmenter([answer(disc_image, n) for n in (1, 2, 3)])
    session = Session(fake, disc_image)
    session.add_clicks([A])
    session.add_clicks([B])
    session.undo()
    assert size(session) == 1 and session.clicks == (A,)
    session.add_clicks([C])
    assert fake.prompts[-1].clicks == (A, C)
    assert fake.prompts[-1].prior_logits is not None and fake.prompts[-1].prior_logits[0, 0] == 1
    session.undo()
    session.undo()
    assert session.mask is None
    with pytest.raises(ActionError) as caught:
        session.undo()
    assert caught.value.code == "nothing_to_undo"


def test_given_mask_goes_along_until_discarded(disc_image: Image, disc_target: NDArray[np.bool_]) -> None:
    fake = FakeSegmenter([answer(disc_image, n) for n in (1, 2)])
    session = Session(fake, disc_image, disc_target)
    assert session.mask is disc_target
    session.add_clicks([A])
    assert fake.prompts[0].prior_mask is disc_target
    session.discard()
    assert session.mask is None and session.clicks == ()
    session.add_clicks([B])
    assert fake.prompts[1].prior_mask is None and fake.prompts[1].prior_logits is None
    assert fake.prompts[1].clicks == (B,)
    with pytest.raises(ActionError) as caught:
        session.discard()
    assert caught.value.code == "nothing_to_discard"
    session.undo()
    session.undo()
    assert size(session) == 1  # the discard itself is undone


def test_given_mask_is_kept_from_a_segmenter_that_takes_none(disc_image: Image, disc_target: NDArray[np.bool_]) -> None:
    fake = FakeSegmenter([answer(disc_image, 1)], Capabilities(True, True, True, prior_mask=False))
    session = Session(fake, disc_image, disc_target)
    session.add_clicks([A])
    assert fake.prompts[0].prior_mask is None


@pytest.mark.parametrize(
    ("capabilities", "act", "code"),
    [
        (Capabilities(False, False, True, True), lambda s: s.add_clicks([A]), "not_supported"),
        (Capabilities(True, False, True, True), lambda s: s.add_clicks([B]), "not_supported"),
        (Capabilities(True, True, False, True), lambda s: s.set_box(BOX), "not_supported"),
        (Capabilities(True, True, True, True, max_clicks=2), lambda s: s.add_clicks([A, B, C]), "too_many_clicks"),
    ],
)
def test_what_the_segmenter_cannot_take_is_the_callers_fault(
    disc_image: Image, capabilities: Capabilities, act: Any, code: str
) -> None:
    fake = FakeSegmenter([], capabilities)
    session = Session(fake, disc_image)
    with pytest.raises(ActionError) as caught:
        act(session)
    assert caught.value.code == code
    assert fake.prompts == [] and session.mask is None


def faulty(image: Image) -> dict[str, Any]:
    mask = np.zeros((image.height, image.width), bool)
    nan = np.full((4, 4), np.nan, np.float32)
    return {
        "raises": RuntimeError("out of memory"),
        "tool error": ToolError("bad prompt"),
        "nothing": None,
        "bare array": mask,
        "wrong shape": Prediction(mask[:-1]),
        "wrong type": Prediction(mask.astype(np.uint8)),  # type: ignore[arg-type]
        "list": Prediction(mask.tolist()),  # type: ignore[arg-type]
        "nan score": Prediction(mask, float("nan")),
        "nan logits": Prediction(mask, None, nan),
        "nan probability": Prediction(mask, None, None, nan),
    }


@pytest.mark.parametrize(
    "kind",
    ["raises", "tool error", "nothing", "bare array", "wrong shape", "wrong type", "list", "nan score"]
    + ["nan logits", "nan probability"],
)
def test_a_faulty_segmenter_is_a_tool_error_and_leaves_the_session(disc_image: Image, kind: str) -> None:
    fake = FakeSegmenter([answer(disc_image, 1), faulty(disc_image)[kind]])
    session = Session(fake, disc_image)
    session.add_clicks([A])
    with pytest.raises(ToolError):
        session.add_clicks([B])
    assert size(session) == 1 and session.clicks == (A,)


def test_one_prediction_is_wanted(disc_image: Image) -> None:
    fake = FakeSegmenter()
    fake.predict = lambda embedding, prompts: [answer(disc_image, 1)] * 2  # type: ignore[method-assign]
    with pytest.raises(ToolError, match="one prediction"):
        Session(fake, disc_image).add_clicks([A])


def test_encoding_failures_are_tool_errors(disc_image: Image) -> None:
    with pytest.raises(ToolError, match="could not encode the image: ValueError: bad"):
        Session(FakeSegmenter(encode_error=ValueError("bad")), disc_image)


def test_supported_kinds() -> None:
    assert supported_kinds(Capabilities(True, True, False, True)) == {"click", "undo", "discard", "terminate"}
    assert "click" not in supported_kinds(Capabilities(False, False, True, True))


def test_cache_encodes_each_image_once_and_forgets_the_oldest(disc_image: Image) -> None:
    images = [Image(np.full((4, 4, 3), n, np.uint8), disc_image.geometry) for n in range(3)]
    fake = FakeSegmenter()
    cache = EmbeddingCache(fake, max_images=2)
    for index in (0, 1, 0, 2, 0, 1):
        assert cache.get(images[index]) is not None
    # 1 was the least recently used when 2 came.
    assert fake.encoded == [images[i].sha256 for i in (0, 1, 2, 1)]
    with pytest.raises(ValueError):
        EmbeddingCache(fake, max_images=0)


def test_cache_does_not_keep_failures(disc_image: Image) -> None:
    fake = FakeSegmenter(encode_error=ValueError("once"))
    cache = EmbeddingCache(fake)
    with pytest.raises(ToolError):
        cache.get(disc_image)
    fake.encode_error = None
    assert cache.get(disc_image) is disc_image
