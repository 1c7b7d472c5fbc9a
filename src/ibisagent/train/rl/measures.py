"""What a batch of runs says in numbers: rewards by part, IoU, steps, validity, refusals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ibisagent.rewards import means
from ibisagent.rewards.vqa import VQA
from ibisagent.scoring import score_episode
from ibisagent.train.rl.question_run import Answered

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ibisagent.rewards import Rubric
    from ibisagent.train.rl.play import Played

__all__ = ["measure"]


def measure(rollouts: Sequence[Played], rubric: Rubric, num_siblings: int) -> dict[str, float]:
    """Means over the runs; NaN where nothing applies.

    Answers to visual questions are apart: all but ``reward/vqa``, ``questions``, ``groups_alike`` and ``truncated`` is
    about the runs that act, and compares with a training without questions.

    Parameters
    ----------
    rollouts
        Siblings one after another.
    rubric
        What they were scored with.
    num_siblings
        Runs in a group.

    Returns
    -------
    dict
        ``reward`` and its deviation, ``reward/PART`` before its weight, ``iou`` (present targets), ``steps``,
        ``validity``, ``refinement_success``, ``refusal/right`` and ``refusal/false``, shares of runs that ended in each
        way, ``failed`` (excluded), ``truncated``, ``groups_alike`` (no advantage in them), ``questions`` (share of runs
        that answered one) and ``reward/vqa`` (share of these that were right).
    """
    acted = [r for r in rollouts if not isinstance(r, Answered)]
    answers = [r for r in rollouts if isinstance(r, Answered)]
    earned = means(r.breakdown for r in acted)
    scores = [score_episode(r.episode, r.prompt.target) for r in acted]
    totals = _totals(acted)
    grouped = _totals(rollouts).reshape(-1, num_siblings)
    known = ~np.isnan(grouped)
    spread = np.where(known, grouped, -np.inf).max(1) - np.where(known, grouped, np.inf).min(1)
    values = {
        "reward": earned.get("total", float("nan")),
        "reward_std": float("nan") if np.isnan(totals).all() else float(np.nanstd(totals)),
        "groups_alike": float(np.mean(~(spread > 1e-9))),
        "failed": earned.get("excluded", float("nan")),
        "truncated": float(np.mean([r.context.truncated for r in rollouts])),
        "iou": _mean([s.iou for s in scores]),
        "steps": _mean([s.num_steps for s in scores]),
        "validity": _ratio(sum(s.num_valid for s in scores), sum(s.num_replies for s in scores)),
        "refinement_success": _ratio(
            sum(s.num_improvements or 0 for s in scores), sum(s.num_refinements or 0 for s in scores)
        ),
        "refusal/right": _mean([s.right_refusal for s in scores]),
        "refusal/false": _mean([s.false_refusal for s in scores]),
    }
    for outcome in ("done", "absent", "uncertain", "out_of_steps"):
        values[f"ended/{outcome}"] = _mean(
            [float(s.outcome is not None and s.outcome.value == outcome) for s in scores]
        )
    for name in rubric.names:
        values[f"reward/{name}"] = earned.get(name, float("nan"))
    values["questions"] = len(answers) / len(rollouts)
    values[f"reward/{VQA}"] = means(r.breakdown for r in answers).get(VQA, float("nan"))
    return values


def _totals(runs: Sequence[Played]) -> NDArray[np.float64]:
    return np.array([np.nan if r.breakdown.total is None else r.breakdown.total for r in runs], np.float64)


def _mean(values: Sequence[float | None]) -> float:
    kept = [v for v in values if v is not None]
    return float(np.mean(kept)) if kept else float("nan")


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
