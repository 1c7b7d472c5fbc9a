"""The faults of the published code that concern rewards, each played through the real environment.

Numbers as in the project's list of them. Fault 3 (single states of stored runs in place of the model's own episodes) is
one of the training loop.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ibisagent.config import RolloutConfig
from ibisagent.environment import SegmentationEnv
from ibisagent.episode import Episode, Outcome
from ibisagent.errors import PolicyError
from ibisagent.rewards import Breakdown, Rubric, load_rubric, trace_episode
from ibisagent.segmenters.fake import FakeSegmenter
from ibisagent.types import Case, Prediction

BOTH = [load_rubric("paper"), load_rubric("ibis")]
both = pytest.mark.parametrize("rubric", BOTH, ids=lambda rubric: rubric.name)

Mask = NDArray[np.bool_]


def say(body: str, answer: str | None = None) -> str:
    return f"<think>t</think><action>{body}</action>" + (f"<answer>{answer}</answer>" if answer is not None else "")


INSIDE = say("Positive Point (0.6328, 0.4271)")  # on the disc
OUTSIDE = say("Positive Point (0.0703, 0.9000)")
NEGATIVE = say("Negative Point (0.6328, 0.4271)")
FOUND, ABSENT = say("Terminate", "Found: it"), say("Terminate", "Absent: no")


def play(case: Case, replies: list[str | Exception], answers: list[Mask | Exception], max_steps: int = 8) -> Episode:
    """Play replies against a segmenter that gives these masks in turn."""
    segmenter = FakeSegmenter([Prediction(a, 0.9) if isinstance(a, np.ndarray) else a for a in answers])
    env = SegmentationEnv(segmenter, RolloutConfig(max_steps=max_steps, max_repeated_actions=99))
    env.reset(case)
    for reply in replies:
        if isinstance(reply, Exception):
            env.fail(reply)
        else:
            env.step(reply)
    if env.last_call:
        env.step("")  # the offer to stop, not taken
    assert env.done
    return env.episode


def total(breakdown: Breakdown) -> float:
    assert breakdown.total is not None and breakdown.excluded is None
    return breakdown.total


def half(target: Mask) -> Mask:
    """The disc without its right part."""
    cut = target.copy()
    cut[:, 42:] = False
    return cut


# -- 1 and 12: one grammar --------------------------------------------------------------------


@both
def test_1_the_word_that_the_prompt_asks_for_is_the_word_that_is_rewarded(
    rubric: Rubric, disc_case: Case, disc_target: Mask
) -> None:
    prompt = SegmentationEnv(FakeSegmenter()).dialect.describe()
    assert "Terminate" in prompt and "Termination" not in prompt
    right = play(disc_case, [INSIDE, FOUND], [disc_target])
    wrong = play(disc_case, [INSIDE, say("Termination", "Found: it")], [disc_target], max_steps=2)
    assert right.outcome is Outcome.DONE and trace_episode(wrong, disc_target).num_invalid == 1
    assert total(rubric.score(right, disc_target)) > total(rubric.score(wrong, disc_target))


@pytest.mark.parametrize(
    ("reply", "legal"),
    [
        (say("Positive Point ( 0.6328, 0.4271 )"), True),  # the published parser rejected it, its reward did not
        (say("Positive Point (1.0000, 1.0000)"), True),  # indexed past the image
        (say("Positive Point (1.0001, 0.5000)"), False),
        (say("Positive Point (0.63, 0.43)"), False),
        ("so " + INSIDE, False),  # junk around the tags passed the format check
        (INSIDE + " and so on", False),
        (INSIDE.replace("</think>", ""), False),
        ("", False),
    ],
)
def test_12_rewards_accept_what_the_parser_accepts(reply: str, legal: bool, disc_case: Case, disc_target: Mask) -> None:
    episode = play(disc_case, [reply, INSIDE, FOUND], [disc_target] * 2)
    assert (episode.steps[0].invalid is None) is legal
    paper, ibis = (rubric.score(episode, disc_target) for rubric in BOTH)
    assert paper.parts["format"] == float(legal)
    assert ibis.parts["format"] == (0.0 if legal else -1.0)


def test_12_the_corner_is_the_last_pixel(disc_case: Case) -> None:
    target = np.zeros((disc_case.image.height, disc_case.image.width), bool)
    target[-1, -1] = True
    episode = play(disc_case, [say("Positive Point (1.0000, 1.0000)"), FOUND], [target])
    assert trace_episode(episode, target).replies[0].clicks_right == (True,)


# -- 4: nothing is dead -----------------------------------------------------------------------


def test_4_progress_and_length_need_nothing_but_the_episode(tmp_path: Path, disc_case: Case, disc_target: Mask) -> None:
    quick = play(disc_case, [INSIDE, FOUND], [disc_target])
    slow = play(disc_case, [INSIDE] * 7 + [FOUND], [half(disc_target)] * 6 + [disc_target])
    found = []
    for number, episode in enumerate((quick, slow)):
        episode.save(tmp_path / f"{number}.json")
        stored = BOTH[0].score(Episode.load(tmp_path / f"{number}.json"), disc_target)
        assert stored == BOTH[0].score(episode, disc_target)
        found.append((stored.parts["progress"], stored.parts["length"]))
    # One of one step raised the IoU; two of seven did, and seven steps are two too many.
    assert found == [(1.0, 1.0), (pytest.approx(2 / 7), pytest.approx(-0.4))]


# -- 5: stopping is learnt --------------------------------------------------------------------


@both
@pytest.mark.parametrize("useless", [INSIDE, OUTSIDE, NEGATIVE], ids=["covered", "background", "negative"])
def test_5_a_right_stop_beats_a_useless_click(rubric: Rubric, useless: str, disc_case: Case, disc_target: Mask) -> None:
    stopped = rubric.score(play(disc_case, [INSIDE, FOUND], [disc_target]), disc_target)
    then_stopped = rubric.score(play(disc_case, [INSIDE, useless, FOUND], [disc_target] * 2), disc_target)
    never_stopped = rubric.score(play(disc_case, [INSIDE] + [useless] * 7, [disc_target] * 8), disc_target)
    assert total(stopped) > total(then_stopped) > total(never_stopped)
    # And at the reply itself, for credit by turn.
    assert rubric.turn_rewards(stopped)[1] > rubric.turn_rewards(then_stopped)[1]


def test_5_the_state_after_the_last_click_is_there(disc_case: Case, disc_target: Mask) -> None:
    trace = trace_episode(play(disc_case, [INSIDE, FOUND], [disc_target]), disc_target)
    assert trace.replies[-1].verdict == "found" and trace.replies[-1].iou_before == 1.0


# -- 6: a failing tool ------------------------------------------------------------------------


@both
@pytest.mark.parametrize("answer", [RuntimeError("out of memory"), np.zeros((3, 3), bool)], ids=["raises", "shape"])
def test_6_a_failed_tool_earns_nothing_and_is_excluded(
    rubric: Rubric, answer: Exception | Mask, disc_case: Case, disc_target: Mask
) -> None:
    for episode in (
        play(disc_case, [INSIDE], [answer]),
        play(disc_case, [INSIDE, INSIDE], [disc_target, answer]),  # however good the mask was before
    ):
        for target in (disc_target, None):
            breakdown = rubric.score(episode, target)
            assert breakdown.total is None and breakdown.excluded == "tool_error"
            assert set(breakdown.parts.values()) == {None} and breakdown.by_turn == {}


@both
def test_6_so_does_a_policy_whose_server_is_gone(rubric: Rubric, disc_case: Case, disc_target: Mask) -> None:
    breakdown = rubric.score(play(disc_case, [INSIDE, PolicyError("no answer")], [disc_target]), disc_target)
    assert breakdown.total is None and breakdown.excluded == "policy_error"


def test_6_an_image_that_cannot_be_encoded(disc_case: Case, disc_target: Mask) -> None:
    env = SegmentationEnv(FakeSegmenter(encode_error=RuntimeError("broken")))
    env.reset(disc_case)
    assert BOTH[1].score(env.episode, disc_target).excluded == "tool_error"


# -- 7: absent targets ------------------------------------------------------------------------


@both
def test_7_absent_and_refused_earns(rubric: Rubric, disc_case: Case, disc_target: Mask) -> None:
    refused = play(disc_case, [ABSENT], [])
    others = [
        play(disc_case, [INSIDE, FOUND], [disc_target]),
        play(disc_case, [say("Terminate", "Uncertain: hm")], []),
        play(disc_case, ["nonsense", "nonsense"], [], max_steps=2),  # its final mask is empty too
        play(disc_case, [INSIDE], [np.zeros_like(disc_target)], max_steps=1),
    ]
    for empty in (None, np.zeros_like(disc_target)):
        earned = total(rubric.score(refused, empty))
        assert earned > 0
        assert all(earned > total(rubric.score(other, empty)) for other in others)


@both
def test_7_present_and_refused_is_the_worst_end_of_a_good_run(
    rubric: Rubric, disc_case: Case, disc_target: Mask
) -> None:
    ends = [FOUND, say("Terminate", "Uncertain: hm"), ABSENT]
    earned = [total(rubric.score(play(disc_case, [INSIDE, end], [disc_target]), disc_target)) for end in ends]
    assert earned[2] < earned[1] <= earned[0]
    assert earned[0] > earned[1] or rubric.name == "paper"  # the publication knows one way to stop


# -- 8: what is written is what is read -------------------------------------------------------


def test_8_polarity_and_masks_survive_the_record(tmp_path: Path, disc_case: Case, disc_target: Mask) -> None:
    found = {}
    for name, reply in (("positive", INSIDE), ("negative", NEGATIVE)):
        episode = play(disc_case, [reply, FOUND], [half(disc_target)])
        episode.save(tmp_path / "episode.json")
        stored = Episode.load(tmp_path / "episode.json")
        assert trace_episode(stored, disc_target) == trace_episode(episode, disc_target)
        assert all(rubric.score(stored, disc_target) == rubric.score(episode, disc_target) for rubric in BOTH)
        found[name] = BOTH[0].score(stored, disc_target).parts["click"]
    assert found == {"positive": 1.0, "negative": -1.0}
