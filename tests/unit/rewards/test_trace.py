from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from numpy.typing import NDArray
from reward_samples import (
    ABSENT_TARGET,
    TARGET,
    click,
    clicks,
    failed,
    golden,
    invalid,
    mask,
    run,
    runs,
    stop,
)

from ibisagent.actions import ClickAction, TerminateAction
from ibisagent.episode import Episode, Outcome, Step
from ibisagent.errors import InputError
from ibisagent.metrics import iou
from ibisagent.rewards import trace_episode
from ibisagent.rle import Rle, decode_mask, encode_mask
from ibisagent.scoring import score_episode


def test_a_run() -> None:
    trace = trace_episode(golden(), TARGET)
    replies = trace.replies
    assert [r.valid for r in replies] == [False, True, True, True, True, True]
    assert [r.kind for r in replies] == [None, "click", "click", "click", "click", "terminate"]
    assert [r.counts for r in replies] == [True] * 5 + [False]
    assert [r.changed for r in replies] == [False, True, False, True, True, False]
    # The third click is inside the mask already; the last two are excess (right) and background (wrong).
    assert [r.clicks_right for r in replies] == [(), (True,), (False,), (True,), (True, False), ()]
    assert [r.iou_before for r in replies] == pytest.approx([0, 0, 0.4, 0.4, 8 / 12, 0.9])
    assert [r.iou_after for r in replies] == pytest.approx([0, 0.4, 0.4, 8 / 12, 0.9, 0.9])
    assert [r.verdict for r in replies] == [None] * 5 + ["found"]
    assert (trace.initial_iou, trace.final_iou, trace.best_iou) == (0.0, 0.9, 0.9)
    assert (trace.num_steps, trace.num_invalid, trace.refused, trace.excluded) == (5, 1, False, None)
    assert not trace.absent and not trace.final_empty and trace.outcome is Outcome.DONE


@pytest.mark.parametrize(
    ("x", "y", "positive", "right"),
    [
        (7, 0, True, True),  # missed
        (7, 0, False, False),
        (2, 0, True, False),  # covered rightly
        (2, 0, False, False),
        (1, 1, True, False),  # excess
        (1, 1, False, True),
        (7, 1, True, False),  # background
        (7, 1, False, False),
    ],
)
def test_a_click_is_judged_by_the_mask_before_it(x: int, y: int, positive: bool, right: bool) -> None:
    # The mask after it would say otherwise: all of the target and nothing else.
    episode = run(click(x, y, positive, mask(10)), stop(), initial=mask(5, 3))
    assert trace_episode(episode, TARGET).replies[0].clicks_right == (right,)


def test_the_given_mask_is_where_it_begins() -> None:
    trace = trace_episode(run(stop(), initial=mask(5, 10)), TARGET)
    assert trace.initial_iou == trace.final_iou == 0.25 and trace.replies[0].iou_before == 0.25


@pytest.mark.parametrize("target", [None, ABSENT_TARGET])
def test_an_absent_target_has_no_iou(target: NDArray[np.bool_] | None) -> None:
    episode = run(click(0, 0, True, mask(3)), click(0, 0, False, mask(1)), stop("absent"))
    trace = trace_episode(episode, target)
    assert trace.absent and trace.refused and trace.final_empty
    assert trace.initial_iou is trace.final_iou is trace.best_iou is trace.replies[0].iou_after is None
    assert [r.clicks_right for r in trace.replies] == [(False,), (True,), ()]
    assert trace.replies[0].changed


def test_a_rejected_reply_changes_nothing_and_is_not_judged() -> None:
    rejected = invalid(mask(4)).model_copy(update={"action": clicks((8, 0, True))})
    facts = trace_episode(run(click(0, 0, True, mask(4)), rejected, stop()), TARGET).replies[1]
    assert (facts.valid, facts.kind, facts.counts, facts.clicks_right) == (False, "click", True, ())
    assert facts.iou_before == facts.iou_after == 0.4 and not facts.changed


def test_a_rejected_terminate_is_a_step_without_a_verdict() -> None:
    rejected = invalid().model_copy(update={"action": TerminateAction(verdict="found")})
    facts = trace_episode(run(rejected, stop("absent")), TARGET).replies[0]
    assert (facts.kind, facts.counts, facts.verdict) == ("terminate", True, None)


def test_no_mask_and_an_empty_one_are_the_same() -> None:
    assert not trace_episode(run(click(0, 0, True, mask(0)), stop("uncertain")), TARGET).replies[0].changed


@pytest.mark.parametrize(
    ("episode", "why"),
    [
        (run(failed(), outcome=Outcome.ERROR, error="ToolError: it broke"), "tool_error"),
        (run(outcome=Outcome.ERROR, error="ToolError: could not encode the image"), "tool_error"),
        (run(click(0, 0, True, mask(4)), failed(), outcome=Outcome.ERROR), "tool_error"),
        (run(click(0, 0, True, mask(4)), outcome=Outcome.ERROR, error="PolicyError: gone"), "policy_error"),
        (run(outcome=Outcome.ERROR), "error"),
        (run(click(0, 0, True, mask(4)), outcome=Outcome.STOPPED), "stopped"),
        (run(click(0, 0, True, mask(4))), None),
    ],
)
def test_who_broke_a_run(episode: Episode, why: str | None) -> None:
    assert trace_episode(episode, TARGET).excluded == why


def test_a_failed_reply_has_no_mask_to_judge() -> None:
    trace = trace_episode(run(click(0, 0, True, mask(4)), failed(), outcome=Outcome.ERROR), TARGET)
    facts = trace.replies[1]
    assert facts.failed and facts.iou_before == 0.4 and facts.iou_after is None and not facts.changed
    assert trace.final_iou is None


def test_what_cannot_be_traced() -> None:
    running = golden().model_copy(update={"outcome": None})
    with pytest.raises(ValueError, match="not ended"):
        trace_episode(running, TARGET)
    with pytest.raises(ValueError, match="target"):
        trace_episode(golden(), TARGET.T)
    with pytest.raises(ValueError, match="target"):
        trace_episode(golden(), TARGET.astype(np.uint8))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a mask is"):
        trace_episode(run(click(0, 0, True, encode_mask(TARGET.T.copy()))), TARGET)
    with pytest.raises(InputError, match="damaged"):
        trace_episode(run(click(0, 0, True, Rle(size=(2, 10), counts="5"))), TARGET)


@given(runs())
@settings(max_examples=60, deadline=None)
def test_it_agrees_with_the_scores(pair: tuple[Episode, NDArray[np.bool_] | None]) -> None:
    episode, target = pair
    trace, scores = trace_episode(episode, target), score_episode(episode, target)
    assert trace.final_iou == scores.iou and trace.num_steps == scores.num_steps
    assert len(trace.replies) - trace.num_invalid == scores.num_valid
    assert trace.absent == (scores.iou is None)
    if scores.iou_by_step is not None and target is not None:
        curve = [trace.initial_iou, *(r.iou_after for r in trace.replies if r.counts)]
        assert tuple(curve) == scores.iou_by_step
        if episode.final_mask is not None:
            assert trace.final_iou == iou(decode_mask(episode.final_mask), target)


def test_it_is_fast() -> None:
    y, x = np.mgrid[:256, :256]
    target = (x - 128) ** 2 + (y - 120) ** 2 <= 60**2
    noise = np.random.default_rng(0).random((256, 256)) < 0.01
    action = ClickAction(clicks=clicks((5, 0, True), (3, 1, False)).clicks)
    steps = [
        Step(
            index=0,
            action=action,
            mask=encode_mask(((x - 120) ** 2 + y**2 < (50 + 9 * i) ** 2) ^ noise),
            changed_pixels=9,
        )
        for i in range(6)
    ]
    episode = run(*steps, stop(), size=(256, 256))
    taken = []
    for _ in range(30):
        started = time.perf_counter()
        trace_episode(episode, target)
        taken.append(time.perf_counter() - started)
    assert min(taken) < 0.002
