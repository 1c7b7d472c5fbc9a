"""Groups that are played: what siblings share, what ends a run, and that tokens and environment agree.

Faults of the published code (numbers of the project's list) that concern the loop: 3 (single states of stored runs in
place of the model's own, multi-turn ones), 2 (history), 6 (a failed tool), 9 (another picture in training than in use).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from ibisagent.episode import Outcome
from ibisagent.errors import InputError
from ibisagent.hashing import pixel_hash
from ibisagent.messages import build_messages
from ibisagent.policies.protocol import View
from ibisagent.segmenters.fake import FakeSegmenter
from ibisagent.segmenters.protocol import Capabilities
from sample_rl import ABSENT, FOUND, INSIDE, OUTSIDE, UNDO, CountingSegmenter

SCRIPT = {
    "0/0": [INSIDE, FOUND],
    "0/1": [INSIDE, OUTSIDE, UNDO, "nonsense", FOUND],
    "0/2": [OUTSIDE, INSIDE, OUTSIDE, INSIDE, INSIDE],
    "1/0": [ABSENT],
    "1/1": [INSIDE, "too long…", ABSENT],
    "1/2": [INSIDE, FOUND],
}

Make = Callable[..., Any]


def same(rollout: Any) -> dict[str, Any]:
    """An episode without its times."""
    record = rollout.episode.model_dump(mode="json", exclude={"seconds_total"})
    for step in record["steps"]:
        step.pop("seconds")
    return record


def check_tokens(rollout: Any, renderer: Any) -> None:
    """The context is the conversation of the record: no reply more, no reply less, every picture that was shown."""
    context, episode = rollout.context, rollout.episode
    ids, turn = np.array(context.ids), np.array(context.turn)
    said = [renderer.text(ids[turn == k]) for k in range(context.num_turns)]
    assert said == [step.raw_text for step in episode.steps] + (
        [episode.unused_reply] if episode.unused_reply is not None else []
    )
    chat = build_messages(View(rollout.prompt.case, episode, None), "Segment.")
    chat = chat[: 2 + 2 * len(episode.steps)]
    if episode.unused_reply is None:
        chat = chat[:-1]  # nothing is asked after the last reply
    pictures = [part["image"] for message in chat for part in message["content"] if part["type"] == "image"]
    assert [pixel_hash(p) for p in context.images] == [pixel_hash(p) for p in pictures]
    placeholders = sum(renderer.image_lengths(context.images))
    assert context.ids.count(renderer.image_id) == placeholders


def test_groups_are_played_to_their_ends(
    make_player: Make, scripted: Make, disc_prompt: Any, absent_prompt: Any, renderer: Any
) -> None:
    sampler = scripted(SCRIPT)
    rollouts = make_player().play([disc_prompt, absent_prompt], 3, sampler, seed=5)
    assert sampler.seeds == [5] and not any(sampler.script.values())
    assert [(r.prompt.key, r.sibling, r.context.key) for r in rollouts] == [
        (key, sibling, f"{group}/{sibling}") for group, key in enumerate(("disc", "none")) for sibling in range(3)
    ]
    assert [r.episode.outcome for r in rollouts] == [
        Outcome.DONE, Outcome.DONE, Outcome.OUT_OF_STEPS, Outcome.ABSENT, Outcome.ABSENT, Outcome.DONE,
    ]  # fmt: skip
    for rollout in rollouts:
        check_tokens(rollout, renderer)
        assert rollout.breakdown.excluded is None
    best, _, lost, refused, late, fooled = (r.breakdown.total for r in rollouts)
    assert best == max(best, lost) and refused > late > fooled


def test_the_model_sees_all_that_came_before_and_its_own_mask(
    make_player: Make, scripted: Make, disc_prompt: Any, renderer: Any
) -> None:
    """Faults 2, 3 and 9: history is on, states are the model's own, pictures are those of inference."""
    sampler = scripted({"0/0": [INSIDE, OUTSIDE, FOUND]})
    (rollout,) = make_player().play([disc_prompt], 1, sampler, seed=0)
    lengths = [len(ids) for _, ids, _ in sampler.asked]
    assert [images for _, _, images in sampler.asked] == [1, 2, 3]
    final = rollout.context.ids
    assert all(final[: len(ids)] == ids for _, ids, _ in sampler.asked) and lengths == sorted(set(lengths))
    steps = rollout.episode.steps
    assert [len(step.messages) for step in steps] == [2, 1, 1]
    told = [p["sha256"] for step in steps for m in step.messages for p in m["content"] if p["type"] == "image"]
    assert told == [pixel_hash(image) for image in rollout.context.images]
    assert (rollout.context.images[1] != rollout.context.images[0]).any()
    assert rollout.episode.history and [step.num_prompt_tokens for step in steps] == lengths
    assert [s.num_tokens for s in steps] == [len(renderer.reply(t)) for t in (INSIDE, OUTSIDE, FOUND)]


def test_siblings_share_the_embedding_and_equal_predictions(
    make_player: Make, scripted: Make, disc_prompt: Any
) -> None:
    player = make_player()
    script = {f"0/{i}": [INSIDE, OUTSIDE if i else INSIDE, FOUND] for i in range(4)}
    player.play([disc_prompt], 4, scripted(script), seed=0)
    assert player.segmenter.num_encoded == 1
    # One prompt for all first clicks; of the second ones two differ, and are put together.
    assert player.segmenter.calls == [1, 2]
    plain = make_player(batched=False)
    plain.play([disc_prompt], 4, scripted(script), seed=0)
    assert plain.segmenter.num_encoded == 4 and plain.segmenter.calls == [1] * 8


def test_batched_and_plain_give_the_same_runs(
    make_player: Make, scripted: Make, disc_prompt: Any, absent_prompt: Any
) -> None:
    prompts = [disc_prompt, absent_prompt]
    one = make_player().play(prompts, 3, scripted(SCRIPT), seed=0)
    other = make_player(batched=False).play(prompts, 3, scripted(SCRIPT), seed=0)
    for a, b in zip(one, other, strict=True):
        assert same(a) == same(b) and a.breakdown == b.breakdown
        assert (a.context.ids, a.context.own, a.context.turn) == (b.context.ids, b.context.own, b.context.turn)


@pytest.mark.parametrize("batched", [True, False])
def test_a_failing_segmenter_excludes_its_run_and_no_other(
    batched: bool, make_player: Make, scripted: Make, disc_prompt: Any, renderer: Any
) -> None:
    """Fault 6: it is recorded, earns nothing, and is left out of the batch."""
    player = make_player(CountingSegmenter(broken_row=43), batched=batched)  # where OUTSIDE clicks
    script = {"0/0": [INSIDE, FOUND], "0/1": [OUTSIDE], "0/2": [INSIDE, OUTSIDE], "0/3": [INSIDE, FOUND]}
    rollouts = player.play([disc_prompt], 4, scripted(script), seed=0)
    assert [r.breakdown.excluded for r in rollouts] == [None, "tool_error", "tool_error", None]
    assert [r.breakdown.total is None for r in rollouts] == [False, True, True, False]
    assert rollouts[0].breakdown == rollouts[3].breakdown
    assert [r.episode.outcome for r in rollouts][1:3] == [Outcome.ERROR] * 2
    for rollout in rollouts:
        check_tokens(rollout, renderer)


def test_an_image_that_cannot_be_encoded_ends_its_group_before_a_word(
    make_player: Make, scripted: Make, disc_prompt: Any
) -> None:
    player = make_player(FakeSegmenter(encode_error=RuntimeError("broken")))
    rollouts = player.play([disc_prompt], 2, scripted({}), seed=0)
    assert [r.breakdown.excluded for r in rollouts] == ["tool_error"] * 2
    assert all(r.context.num_turns == 0 and not any(r.context.own) for r in rollouts)


def test_an_invalid_reply_is_observed_with_its_reason_and_without_a_picture(
    make_player: Make, scripted: Make, disc_prompt: Any, renderer: Any
) -> None:
    sampler = scripted({"0/0": ["nonsense", FOUND, INSIDE, FOUND]})
    (rollout,) = make_player().play([disc_prompt], 1, sampler, seed=0)
    steps = rollout.episode.steps
    assert [step.invalid is not None for step in steps] == [True, True, False, False]  # nothing to be found yet
    tail = renderer.tokenizer.decode(sampler.asked[1][1][len(sampler.asked[0][1]) :])
    assert "The reply was not carried out: " + steps[0].invalid.reason in tail
    assert [images for _, _, images in sampler.asked] == [1, 1, 1, 2]
    # Invalid replies are steps with rewards of their own: numbers of turns and of rewards agree.
    assert len(rollout.breakdown.by_turn["format"]) == rollout.context.num_turns == 4
    assert rollout.breakdown.by_turn["format"] == (-1.0, -1.0, 0.0, 0.0)


def test_a_full_context_ends_the_run_and_nothing_happens_unseen(
    make_player: Make, scripted: Make, disc_prompt: Any, renderer: Any
) -> None:
    """trl rolls the observation back though the tool has acted; here the run ends at the reply that acted."""
    (whole,) = make_player().play([disc_prompt], 1, scripted({"0/0": [INSIDE, OUTSIDE, INSIDE, FOUND]}), seed=0)
    sampler = scripted({"0/0": [INSIDE, OUTSIDE, INSIDE, FOUND]})
    second = whole.context.turn.index(2)  # where the third reply begins
    player = make_player(max_context=second - 1)
    (rollout,) = player.play([disc_prompt], 1, sampler, seed=0)
    episode, context = rollout.episode, rollout.context
    assert episode.outcome is Outcome.OUT_OF_STEPS and episode.end_reason == "max_tokens"
    assert len(episode.steps) == context.num_turns == 2 and context.truncated
    assert context.own[-1] and context.ids == whole.context.ids[: len(context.ids)] and len(context.ids) < second
    assert player.segmenter.calls == [1, 1] and sampler.script["0/0"] == [INSIDE, FOUND]
    assert rollout.breakdown.excluded is None and len(rollout.breakdown.by_turn["gain"]) == 2
    check_tokens(rollout, renderer)
    (fits,) = make_player(max_context=second).play(
        [disc_prompt], 1, scripted({"0/0": [INSIDE, OUTSIDE, FOUND]}), seed=0
    )
    assert fits.episode.outcome is Outcome.DONE


def test_a_reply_that_is_cut_off_is_read_as_far_as_it_goes(
    make_player: Make, scripted: Make, disc_prompt: Any, renderer: Any
) -> None:
    sampler = scripted({"0/0": ["<think>so" + "…", INSIDE, FOUND]})
    (rollout,) = make_player().play([disc_prompt], 1, sampler, seed=0)
    assert rollout.episode.steps[0].invalid is not None and rollout.episode.steps[0].raw_text == "<think>so"
    assert rollout.context.truncated
    assert [step.num_prompt_tokens for step in rollout.episode.steps] == [len(ids) for _, ids, _ in sampler.asked]
    check_tokens(rollout, renderer)


@pytest.mark.parametrize("batched", [True, False])
def test_the_reply_to_the_last_call_is_in_the_tokens_and_not_in_the_steps(
    batched: bool, make_player: Make, scripted: Make, disc_prompt: Any, renderer: Any
) -> None:
    player = make_player(max_steps=1, batched=batched)
    (rollout,) = player.play([disc_prompt], 1, scripted({"0/0": [INSIDE, OUTSIDE]}), seed=0)
    assert rollout.episode.unused_reply == OUTSIDE and len(rollout.episode.steps) == 1
    assert rollout.context.num_turns == 2 and len(rollout.breakdown.by_turn["gain"]) == 1
    assert player.segmenter.calls == [1]  # neither carried out nor foreseen
    check_tokens(rollout, renderer)


def test_seconds_add_up(make_player: Make, scripted: Make, disc_prompt: Any) -> None:
    player = make_player()
    player.play([disc_prompt], 1, scripted({"0/0": [INSIDE, FOUND]}), seed=0)
    seconds = player.seconds
    assert 0 < seconds.segmenter < seconds.total and 0 < seconds.policy < seconds.total
    assert seconds.rest == pytest.approx(seconds.total - seconds.policy - seconds.segmenter)


def test_siblings_have_seeds_of_their_own(make_player: Make, scripted: Make, disc_prompt: Any) -> None:
    rollouts = make_player().play([disc_prompt], 3, scripted({f"0/{i}": [ABSENT] for i in range(3)}), seed=0)
    assert [r.episode.seed for r in rollouts] == [0, 1, 2]


def test_a_segmenter_that_understands_no_clicks_is_refused(make_player: Make, scripted: Make, disc_prompt: Any) -> None:
    blind = FakeSegmenter(capabilities=Capabilities(False, False, False, False))
    with pytest.raises(InputError, match="share neither clicks nor boxes"):
        make_player(blind).play([disc_prompt], 1, scripted({}), seed=0)
