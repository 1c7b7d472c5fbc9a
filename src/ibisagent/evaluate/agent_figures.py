"""Figures of what the agent did: its actions, whether they helped, when it stopped, what it cost."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ibisagent.actions import BoxAction, ClickAction, DiscardAction, UndoAction
from ibisagent.episode import Episode, Outcome, Step
from ibisagent.evaluate.figure_table import CEILING_MARGIN, GOOD_IOU, STEP_LEVELS
from ibisagent.evaluate.result import CaseResult
from ibisagent.metrics import auc, clicks_to_reach
from ibisagent.rewards.trace import trace_episode
from ibisagent.rle import decode_mask
from ibisagent.scoring import Scores

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["agent_figures", "episode_seconds", "run_curve"]

_Found = dict[str, tuple[float, float]]

_BY_ITSELF = (Outcome.DONE, Outcome.UNCERTAIN)


def agent_figures(result: CaseResult, *, max_steps: int | None = None, ceiling_iou: float | None = None) -> _Found:
    """Numbers and weights of the sections actions, refinement, stopping and cost.

    Parameters
    ----------
    result
        Scored.
    max_steps
        Budget; None takes the episode's. A row that was never played has ``steps_to_*`` only where it is given.
    ceiling_iou
        IoU that oracle clicks reach on the case with the same segmenter; None where that is not known.

    Raises
    ------
    InputError
        If a mask of the record is damaged.
    """
    found: _Found = {}
    if result.episode is not None:
        found |= _cost(result.episode)
    if result.absent:
        return found
    scores, episode = result.scores, result.episode
    if max_steps is None and episode is not None:
        max_steps = episode.max_steps
    found |= _over_steps(result, max_steps)
    if ceiling_iou is not None and ceiling_iou > 0 and result.iou is not None:
        found["ceiling_share"] = (result.iou, ceiling_iou)
    if scores is None:
        return found
    if scores.num_replies:
        found["action_validity"] = (scores.num_valid, scores.num_replies)
    if scores.num_refinements:
        found["refinement_success"] = (scores.num_improvements or 0, scores.num_refinements)
    found["out_of_steps"] = (float(scores.outcome is Outcome.OUT_OF_STEPS), 1.0)
    if not scores.is_error:
        found["steps"] = (scores.num_steps, 1.0)
    if episode is not None:
        found |= _actions(episode) | _clicks(result)
        if scores.iou_by_step is not None and len(scores.iou_by_step) == episode.num_steps + 1:
            found |= _refinement(episode, scores, scores.iou_by_step)
            if not scores.is_error:
                found |= _stopping(scores, scores.iou_by_step, episode.max_steps, ceiling_iou)
    return found


def run_curve(result: CaseResult, max_steps: int) -> NDArray[np.float64]:
    """IoU of a present case after 0 to `max_steps` actions.

    Returns
    -------
    ``float64`` (max_steps + 1,)
        A run that has ended carries its last value on, which is 0 after an error or a false refusal. All zeros for
        a case that was never played.
    """
    curve = np.zeros(max_steps + 1)
    scores = result.scores
    if scores is None or scores.iou_by_step is None:
        return curve
    values = scores.iou_by_step[: max_steps + 1]
    curve[: len(values)] = values
    curve[len(values) :] = values[-1]
    if scores.is_error or scores.false_refusal:
        curve[len(values) - 1 :] = 0.0  # the run ended there with nothing
    return curve


def episode_seconds(episode: Episode) -> float:
    """What policy and segmenter took for the run's replies; a batch's time is shared out among its runs."""
    return float(sum(step.seconds.policy + step.seconds.segmenter for step in episode.steps))


def _cost(episode: Episode) -> _Found:
    found = {"seconds": (episode_seconds(episode), 1.0)}
    for name, counts in (
        ("tokens", [step.num_tokens for step in episode.steps]),
        ("prompt_tokens", [step.num_prompt_tokens for step in episode.steps]),
    ):
        known = [count for count in counts if count is not None]
        if known:
            found[name] = (float(sum(known)), 1.0)
    return found


def _over_steps(result: CaseResult, max_steps: int | None) -> _Found:
    """``iou_auc``, ``steps_to_*`` and ``reached_*``."""
    scores = result.scores
    if scores is not None and scores.iou_by_step is None:
        return {}
    curve = run_curve(result, max_steps or 0)
    found: _Found = {}
    if scores is None:
        found["iou_auc"] = (0.0, 1.0)
    elif max_steps is not None:
        found["iou_auc"] = (auc(curve.tolist(), max_steps), 1.0)
    gave_nothing = scores is None or scores.is_error or bool(scores.false_refusal)
    for level in STEP_LEVELS:
        steps = None if gave_nothing else clicks_to_reach(curve.tolist(), level / 100)
        found[f"reached_{level}"] = (float(steps is not None), 1.0)
        if max_steps is not None:
            found[f"steps_to_{level}"] = (float(max_steps if steps is None else steps), 1.0)
    return found


def _actions(episode: Episode) -> _Found:
    found: _Found = {}
    said: set[Hashable] = set()
    repeats = 0
    steps = [step for step in episode.steps if step.counts]
    for step in steps:
        key = _said(step, episode)
        repeats += key is not None and key in said
        said.add(key)
    if steps:
        found["repeated_actions"] = (repeats, len(steps))
    changes = [step.changed_pixels for step in steps if step.invalid is None and step.changed_pixels is not None]
    if changes:
        found["wasted_actions"] = (changes.count(0), len(changes))
    return found


def _said(step: Step, episode: Episode) -> Hashable:
    """What a step says, so that two texts for the same pixels are the same; None for what cannot repeat."""
    action, width, height = step.action, episode.image.width, episode.image.height
    if isinstance(action, UndoAction | DiscardAction):
        return None  # the same word in another state is another action
    if isinstance(action, ClickAction):
        return tuple(sorted((p.x, p.y, p.positive) for p in (c.to_pixel(width, height) for c in action.clicks)))
    if isinstance(action, BoxAction):
        return action.to_pixels(width, height)
    return step.raw_text.strip()


def _clicks(result: CaseResult) -> _Found:
    episode = result.episode
    if episode is None or result.target_mask is None:
        return {}
    kinds = [step.action.kind for step in episode.steps if step.action is not None]
    if "click" not in kinds:
        return {}
    trace = trace_episode(episode, decode_mask(result.target_mask))
    right: dict[bool, list[bool]] = {True: [], False: []}
    for step, facts in zip(episode.steps, trace.replies, strict=True):
        if facts.clicks_right and isinstance(step.action, ClickAction):
            for click, is_right in zip(step.action.clicks, facts.clicks_right, strict=True):
                right[click.positive].append(is_right)
    both = right[True] + right[False]
    named = {"click": both, "positive_click": right[True], "negative_click": right[False]}
    return {f"{name}_correctness": (sum(hits), len(hits)) for name, hits in named.items() if hits}


def _refinement(episode: Episode, scores: Scores, curve: Sequence[float]) -> _Found:
    """``refinement_harm`` and ``gain_over_first``; refinements are those of :class:`~ibisagent.scoring.Scores`."""
    found: _Found = {}
    first = 0 if episode.initial_mask is not None else None
    refinements = harms = 0
    for number, step in enumerate((step for step in episode.steps if step.counts), start=1):
        if first is not None and not step.failed:
            refinements += 1
            harms += curve[number] < curve[number - 1]
        if first is None and step.mask is not None:
            first = number
    if refinements:
        found["refinement_harm"] = (harms, refinements)
    if first is not None and not scores.is_error and scores.iou is not None:
        found["gain_over_first"] = (scores.iou - curve[first], 1.0)
    return found


def _stopping(scores: Scores, curve: Sequence[float], budget: int, ceiling: float | None) -> _Found:
    iou = scores.iou
    if iou is None:
        return {}
    best = max(*curve, iou)
    found: _Found = {"regret": (best - iou, 1.0)}
    if best > 0:
        after = len(curve) - 1 - int(np.argmax(curve))
        found["steps_after_best"] = (after, 1.0)
        found["late_stops"] = (float(after > 0), 1.0)
    if scores.outcome in _BY_ITSELF:
        steps_left = len(curve) - 1 < budget
        still_helped = len(curve) == 1 or curve[-1] > curve[-2]
        found["premature_stops"] = (float(steps_left and iou < GOOD_IOU and still_helped), 1.0)
        if ceiling is not None:
            found["premature_vs_ceiling"] = (float(steps_left and iou < ceiling - CEILING_MARGIN), 1.0)
    return found
