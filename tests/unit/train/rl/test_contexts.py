"""Contexts: the ids that the update scores are those that the model was shown and drew, one after another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from ibisagent.train.rl.contexts import Context

PICTURE = np.zeros((8, 8, 3), np.uint8)


def says(role: str, *parts: Any) -> dict[str, Any]:
    content = [{"type": "text", "text": p} if isinstance(p, str) else {"type": "image", "image": p} for p in parts]
    return {"role": role, "content": content}


FIRST = [says("system", "Segment."), says("user", "Segment the disc.", PICTURE)]
AFTER = [says("user", "The new mask is shown in green.", PICTURE + 9)]
REFUSED = [says("user", "The reply was not carried out: no action.")]
REPLIES = ("<think>a</think><action>Undo</action>", "nonsense", "<action>Terminate</action>")


def grown(renderer: Any) -> Context:
    """Prompt, reply, observation with a picture, reply, observation without, reply."""
    context = Context.begin("0/0", FIRST, renderer)
    for reply, after in zip(REPLIES, (AFTER, REFUSED, None), strict=True):
        context.reply([int(i) for i in renderer.reply(reply)], True, renderer.end_id)
        if after is not None:
            assert context.observe(after, renderer)
    return context


def test_a_context_is_the_conversation_that_sft_would_render(renderer: Any) -> None:
    context = grown(renderer)
    chat = [*FIRST, says("assistant", REPLIES[0]), *AFTER, says("assistant", REPLIES[1]), *REFUSED,
            says("assistant", REPLIES[2])]  # fmt: skip
    whole = renderer.conversation(chat)
    assert context.ids == whole.ids.tolist()
    assert context.own == whole.loss_mask.tolist()
    assert context.turn == whole.turn.tolist()
    assert [image.max() for image in context.images] == [0, 9]
    assert context.num_prompt == len(renderer.prompt(FIRST).ids) and context.num_turns == 3
    assert not context.truncated


def test_every_own_token_is_in_the_reply_of_its_number(renderer: Any) -> None:
    context = grown(renderer)
    ids, turn = np.array(context.ids), np.array(context.turn)
    assert [renderer.text(ids[turn == k]) for k in range(3)] == list(REPLIES)
    assert all((number >= 0) == own for number, own in zip(context.turn, context.own, strict=True))
    assert not any(context.own[: context.num_prompt])


def test_siblings_begin_alike_and_grow_apart(renderer: Any) -> None:
    one = Context.begin("0/0", FIRST, renderer)
    two = one.twin("0/1")
    assert two.key == "0/1" and two.ids == one.ids and two.num_prompt == one.num_prompt
    two.reply([5, 6], True, renderer.end_id)
    two.observe(AFTER, renderer)
    fresh = Context.begin("0/2", FIRST, renderer)
    for name in ("ids", "own", "turn", "num_turns"):
        assert getattr(one, name) == getattr(fresh, name), name
    assert len(one.images) == 1 and len(two.images) == 2


def test_a_reply_that_was_cut_off_gets_an_end_that_is_not_the_model_s(renderer: Any) -> None:
    context = Context.begin("0/0", FIRST, renderer)
    context.reply([20, 21], False, renderer.end_id)
    assert context.ids[-3:] == [20, 21, renderer.end_id]
    assert context.own[-3:] == [True, True, False] and context.turn[-3:] == [0, 0, -1]
    assert context.truncated and context.num_turns == 1
    context.reply([22], True, renderer.end_id)
    assert context.turn[-1] == 1


def test_an_observation_that_does_not_fit_changes_nothing(renderer: Any) -> None:
    context = Context.begin("0/0", FIRST, renderer)
    context.reply([20, renderer.end_id], True, renderer.end_id)
    before = (list(context.ids), list(context.own), list(context.turn), len(context.images))
    needed = len(context.ids) + len(renderer.observation(AFTER).ids)
    assert not context.observe(AFTER, renderer, needed - 1)
    assert (context.ids, context.own, context.turn, len(context.images)) == before and context.truncated
    context.truncated = False
    assert context.observe(AFTER, renderer, needed)
    assert len(context.ids) == needed and len(context.images) == 2 and not context.truncated
