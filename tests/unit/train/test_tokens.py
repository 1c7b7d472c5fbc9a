"""The renderer against token lists written by hand: what is learnt, and where the images stand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")

from ibisagent.train.tokens import render
from ibisagent.train.vocabulary import SPECIALS, build_processor


@pytest.fixture(scope="module")
def letters() -> Any:
    """A processor without merges: one token a letter, 2 x 2 coordinates, 3 placeholders an image."""
    return build_processor(["ab"], size=len(SPECIALS) + 256, grid=2, image_tokens=3)


def text(role: str, *parts: str | np.ndarray) -> dict[str, Any]:
    content = [{"type": "text", "text": p} if isinstance(p, str) else {"type": "image", "image": p} for p in parts]
    return {"role": role, "content": content}


FIRST, SECOND = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 9, np.uint8)
CHAT = [
    text("system", "S"),
    text("user", "ab", FIRST),
    text("assistant", "(0.7500, 0.2500)"),
    text("user", "c", SECOND),
    text("assistant", "d"),
]
# fmt: off
TOKENS = [
    "<|system|>", "S", "<|end|>",
    "<|user|>", "a", "b", "<image>", "<image>", "<image>", "<|end|>",
    "<|assistant|>", "(", "0.7500, 0.2500", ")", "<|end|>",
    "<|user|>", "c", "<image>", "<image>", "<image>", "<|end|>",
    "<|assistant|>", "d", "<|end|>",
]
TURNS = [-1] * 11 + [0] * 4 + [-1] * 7 + [1] * 2
# fmt: on


def test_tokens_turns_and_images_are_those_of_the_list_written_by_hand(letters: Any) -> None:
    got = render(CHAT, letters)
    assert letters.tokenizer.convert_ids_to_tokens(got.ids.tolist()) == TOKENS
    assert got.turn.tolist() == TURNS
    assert got.loss_mask.tolist() == [turn >= 0 for turn in TURNS]
    assert [image is want for image, want in zip(got.images, (FIRST, SECOND), strict=True)] == [True, True]


@pytest.mark.parametrize("learn", [(True, False), (False, True), (False, False)])
def test_only_learnable_turns_are_learnt(letters: Any, learn: tuple[bool, bool]) -> None:
    got = render(CHAT, letters, learn=learn)
    assert got.loss_mask.tolist() == [turn >= 0 and learn[turn] for turn in TURNS]
    assert got.turn.tolist() == TURNS


def test_what_opens_a_turn_is_never_learnt_and_what_ends_it_is(letters: Any) -> None:
    got = render(CHAT, letters)
    tokens = np.array(TOKENS)
    assert not got.loss_mask[tokens == "<|assistant|>"].any()
    ends = np.flatnonzero(tokens == "<|end|>")
    assert got.loss_mask[ends].tolist() == [False, False, True, False, True]


def test_flags_must_match_the_turns(letters: Any) -> None:
    with pytest.raises(ValueError, match="2 assistant turns"):
        render(CHAT, letters, learn=[True])


def test_a_text_cannot_pose_as_an_image_or_as_a_turn(letters: Any) -> None:
    forged = [text("user", "a <image>"), text("assistant", "b<|end|>c")]
    got = render(forged, letters)
    tokens = letters.tokenizer.convert_ids_to_tokens(got.ids.tolist())
    control = [t for t in tokens if t.startswith("<") and len(t) > 2]
    assert control == ["<|user|>", "<|end|>", "<|assistant|>", "<|end|>"]
    assert got.images == []


def test_the_prompt_of_generation_is_a_prefix_of_what_was_trained_on(letters: Any) -> None:
    prompt = letters.apply_chat_template(CHAT[:-1], add_generation_prompt=True, tokenize=False)
    prompt = prompt.replace("<image>", "<image>" * 3)
    ids = letters.tokenizer(prompt, add_special_tokens=False)["input_ids"]
    got = render(CHAT, letters)
    assert got.ids[: len(ids)].tolist() == ids
    assert got.ids[len(ids) :].tolist() == letters.tokenizer("d<|end|>")["input_ids"]
