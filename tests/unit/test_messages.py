from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ibisagent.actions import DIALECTS, Dialect, DiscardAction, Turn, UndoAction
from ibisagent.environment import SegmentationEnv
from ibisagent.hashing import pixel_hash
from ibisagent.messages import (
    SIDES,
    build_messages,
    default_system_prompt,
    messages_for_record,
    new_messages,
    system_prompt_for_weights,
)
from ibisagent.policies.nano import WEIGHTS_DIR
from ibisagent.rendering import agent_overlay
from ibisagent.rle import decode_mask
from ibisagent.segmenters.rules import RulesSegmenter
from ibisagent.types import Case

CLICK = "<think>in</think><action>Positive Point (0.6328, 0.4271)</action>"


def played(case: Case, *replies: str) -> SegmentationEnv:
    env = SegmentationEnv(RulesSegmenter())
    env.reset(case)
    for reply in replies:
        env.step(reply)
    return env


def texts(messages: list[dict[str, Any]]) -> list[str]:
    return [" | ".join(p["text"] for p in m["content"] if p["type"] == "text") for m in messages]


def images(messages: list[dict[str, Any]]) -> list[NDArray[np.uint8]]:
    return [p["image"] for m in messages for p in m["content"] if p["type"] == "image"]


def test_first_request(disc_case: Case) -> None:
    messages = build_messages(played(disc_case).view, "You segment.")
    assert [m["role"] for m in messages] == ["system", "user"]
    assert texts(messages) == ["You segment.", "Segment the disc."]
    assert np.array_equal(images(messages)[0], disc_case.image.pixels)


def test_whole_conversation(disc_case: Case, disc_target: NDArray[np.bool_]) -> None:
    env = played(disc_case, CLICK, "what?", "<think>x</think><action>Undo</action>")
    messages = build_messages(env.view, "")
    assert [m["role"] for m in messages] == ["user", *(["assistant", "user"] * 3)]
    assert texts(messages) == [
        "Segment the disc.",
        CLICK,
        "The new mask is shown in green.",
        "what?",
        "The reply was not carried out: the tag <think> is missing.",
        "<think>x</think><action>Undo</action>",
        "There is no mask now.",
    ]
    first, overlay, after_undo = images(messages)  # the rejected reply shows no image
    assert np.array_equal(first, after_undo)
    mask = env.episode.steps[0].mask
    assert mask is not None
    assert np.array_equal(overlay, agent_overlay(disc_case.image.pixels, decode_mask(mask)))


def test_given_mask_is_shown_and_said(disc_case: Case, disc_target: NDArray[np.bool_]) -> None:
    case = replace(disc_case, initial_mask=disc_target)
    env = played(case)
    messages = build_messages(env.view, "")
    assert texts(messages) == ["Segment the disc.\nThe given mask is shown in green."]
    assert np.array_equal(images(messages)[0], agent_overlay(case.image.pixels, disc_target))
    env.step(Turn(thought="wrong one", action=DiscardAction()))
    assert texts(build_messages(env.view, ""))[-1] == "There is no mask now."


def test_without_history_only_the_newest_is_shown(disc_case: Case) -> None:
    env = played(disc_case, CLICK)
    messages = build_messages(env.view, "S", history=False)
    assert [m["role"] for m in messages] == ["system", "user"]
    assert texts(messages)[1] == "Segment the disc. | The new mask is shown in green."
    assert np.array_equal(images(messages)[0], images(build_messages(env.view, "S"))[-1])


def test_old_images_can_be_dropped(disc_case: Case) -> None:
    env = played(disc_case, CLICK, "<think>x</think><action>Undo</action>", CLICK)
    whole, cut = build_messages(env.view, ""), build_messages(env.view, "", max_images=2)
    assert len(images(whole)) == 4 and len(images(cut)) == 2
    assert np.array_equal(images(cut)[-1], images(whole)[-1])
    assert texts(cut)[0] == "Segment the disc. | [an earlier image]"


@pytest.mark.parametrize("history", [True, False])
def test_new_messages_are_the_end_of_the_whole(disc_case: Case, history: bool) -> None:
    env = played(disc_case)
    whole = messages_for_record(build_messages(env.view, "S", history))
    assert messages_for_record(new_messages(env.view, "S", history)) == whole
    for reply in (CLICK, "junk"):
        env.step(reply)
        whole = messages_for_record(build_messages(env.view, "S", history))
        assert messages_for_record(new_messages(env.view, "S", history)) == whole[-1:]


def test_steps_record_what_was_new(disc_case: Case) -> None:
    env = played(disc_case, CLICK, "junk")
    recorded = [step.messages for step in env.episode.steps]
    assert [m["role"] for m in recorded[0]] == ["system", "user"]
    assert [m["role"] for m in recorded[1]] == ["user"]
    assert recorded[0][1]["content"][1] == {"type": "image", "sha256": pixel_hash(disc_case.image.pixels)}
    json.dumps(recorded)


def test_record_leaves_the_messages_alone(disc_case: Case) -> None:
    messages = build_messages(played(disc_case).view, "S")
    recorded = messages_for_record(messages)
    assert "image" in messages[1]["content"][1] and "image" not in recorded[1]["content"][1]
    assert messages_for_record(recorded) == recorded


def test_empty_and_unchanged_masks_are_said(disc_case: Case) -> None:
    negative = CLICK.replace("Positive", "Negative")
    env = played(disc_case, negative)
    assert texts(build_messages(env.view, ""))[2] == "The mask is empty now."
    env = played(disc_case, CLICK, CLICK)
    assert texts(build_messages(env.view, ""))[-1] == "The mask did not change."


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_prompts_quote_the_grammar(dialect: Dialect) -> None:
    assert dialect.describe() in default_system_prompt(dialect)
    assert DIALECTS["ibis-paper"].describe() in system_prompt_for_weights()


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_prompts_say_whose_left_is_meant(dialect: Dialect) -> None:
    assert SIDES in default_system_prompt(dialect) and "the patient's left is on the right" in SIDES
    # published weights are told what they were trained with
    assert SIDES not in system_prompt_for_weights()


def test_nano_is_told_what_it_was_trained_with() -> None:
    prompt = (WEIGHTS_DIR / "system_prompt.txt").read_text(encoding="utf-8").strip()
    assert prompt == "Segment the target by clicks. Look, think, act, and stop when the mask fits."


def test_undo_turns_need_no_text(disc_case: Case) -> None:
    env = played(disc_case, CLICK)
    env.step(Turn(thought="", action=UndoAction()))
    assert env.view.mask is None


@pytest.mark.parametrize(
    "reply, shown",
    [
        ("<think>a\nb</think><action>Discard</action>", "<think></think><action>Discard</action>"),
        ("<think>a, <action> b</think> c", "<think></think> c"),
        ("<think>never closed <action>Discard</action>", "<think></think><action>Discard</action>"),
        ("<think>never closed, and cut off", "<think></think>"),
        ("<action>Discard</action>", "<action>Discard</action>"),
    ],
)
def test_no_thought_is_left_in_a_history_without_thoughts(disc_case: Case, reply: str, shown: str) -> None:
    messages = build_messages(played(disc_case, reply).view, "", thoughts=False)
    said = [m["content"][0]["text"] for m in messages if m["role"] == "assistant"]
    assert said == [shown]
