from __future__ import annotations

import numpy as np
import pytest

from ibisagent.actions import Click, ClickAction, TerminateAction, UndoAction
from ibisagent.episode import Episode, ImageRecord, Invalid, Outcome, Step, encode_mask
from ibisagent.rle import Rle
from ibisagent.scoring import score_episode

TARGET = np.zeros((2, 10), bool)
TARGET[0] = True  # ten pixels
CLICK = ClickAction(clicks=(Click(x=0.5, y=0.5, positive=True),))


def part(size: int) -> Rle:
    mask = np.zeros_like(TARGET)
    mask.ravel()[:size] = True
    return encode_mask(mask)


def episode(steps: list[Step], outcome: Outcome | None, final: Rle | None, initial: Rle | None = None) -> Episode:
    return Episode(
        instruction="",
        image=ImageRecord(sha256="", width=10, height=2),
        steps=[s.model_copy(update={"index": i}) for i, s in enumerate(steps)],
        outcome=outcome,
        final_mask=final,
        initial_mask=initial,
    )


def click(size: int) -> Step:
    return Step(index=0, action=CLICK, mask=part(size), changed_pixels=1)


def invalid(size: int | None) -> Step:
    return Step(index=0, invalid=Invalid(code="x", reason="x"), mask=part(size) if size is not None else None)


def stop(size: int | None) -> Step:
    return Step(index=0, action=TerminateAction(), mask=part(size) if size is not None else None)


def test_a_run() -> None:
    steps = [
        invalid(None),
        click(4),
        click(8),
        click(5),
        Step(index=0, action=UndoAction(), mask=part(8), changed_pixels=3),
    ]
    scores = score_episode(episode([*steps, stop(8)], Outcome.DONE, part(8)), TARGET)
    assert scores.iou == 0.8 and scores.dice == pytest.approx(16 / 18)
    assert scores.iou_by_step == (0.0, 0.0, 0.4, 0.8, 0.5, 0.8)
    assert scores.num_steps == 5 and scores.num_replies == 6 and scores.num_valid == 5
    assert scores.action_validity == 5 / 6
    # Refinements: the second and the third click and the undo; the third click made it worse.
    assert (scores.num_refinements, scores.num_improvements) == (3, 2)
    assert scores.refinement_success == 2 / 3
    assert scores.false_refusal is False and scores.right_refusal is None and not scores.is_error


def test_a_rejected_reply_is_a_refinement_that_failed() -> None:
    scores = score_episode(
        episode([invalid(None), click(4), invalid(4), click(8), stop(8)], Outcome.DONE, part(8)), TARGET
    )
    assert (scores.num_refinements, scores.num_improvements) == (2, 1)


def test_a_given_mask_makes_every_action_a_refinement() -> None:
    scores = score_episode(episode([click(4), click(4)], Outcome.OUT_OF_STEPS, part(4), part(2)), TARGET)
    assert scores.iou_by_step == (0.2, 0.4, 0.4)
    assert (scores.num_refinements, scores.num_improvements) == (2, 1)


def test_an_error_scores_zero_whatever_went_before() -> None:
    failed = Step(index=0, action=CLICK)
    scores = score_episode(episode([click(9), failed], Outcome.ERROR, None), TARGET)
    assert scores.iou == scores.dice == 0.0 and scores.is_error
    assert scores.iou_by_step == (0.0, 0.9, 0.0)
    empty = score_episode(episode([], Outcome.ERROR, None), TARGET)
    assert empty.iou == 0.0 and empty.iou_by_step == (0.0,) and empty.action_validity is None


def test_a_false_refusal_scores_zero() -> None:
    scores = score_episode(episode([stop(None)], Outcome.ABSENT, part(0)), TARGET)
    assert scores.iou == 0.0 and scores.false_refusal is True and scores.right_refusal is None
    assert scores.refinement_success is None and scores.iou_by_step == (0.0,)


@pytest.mark.parametrize("target", [None, np.zeros_like(TARGET)])
@pytest.mark.parametrize(("outcome", "right"), [(Outcome.ABSENT, True), (Outcome.DONE, False), (Outcome.ERROR, False)])
def test_absent_targets_count_in_refusals_only(target: np.ndarray | None, outcome: Outcome, right: bool) -> None:
    scores = score_episode(episode([stop(0)], outcome, None), target)
    assert scores.right_refusal is right and scores.false_refusal is None
    assert scores.iou is scores.dice is scores.iou_by_step is scores.refinement_success is None
    assert scores.action_validity == 1.0


def test_misuse_is_refused() -> None:
    with pytest.raises(ValueError, match="not ended"):
        score_episode(episode([], None, None), TARGET)
    with pytest.raises(ValueError, match="target is"):
        score_episode(episode([], Outcome.DONE, part(1)), TARGET.T)
