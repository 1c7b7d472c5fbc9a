"""From results to figures: ``summary.json`` and ``cases.csv``, and the conventions behind every number.

- Cases whose target is absent (null or empty mask) count in ``right_refusals``, and beside it only in ``num_cases``,
  ``num_errors`` and ``seconds_per_case``. All other figures are over cases whose target is present.
- An error (unreadable row, failed run) and a false refusal score IoU and Dice 0. A row that is too damaged to say
  whether its target is present counts as present.
- What is undefined (a mean of nothing) is None, never zero.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ibisagent.evaluate.result import CaseResult
from ibisagent.evaluate.statistics import bootstrap_ci95

__all__ = ["CSV_COLUMNS", "cases_csv", "summarise"]

CSV_COLUMNS = (
    "case_id group target modality split instruction category outcome iou dice num_steps num_replies num_valid "
    "right_refusal false_refusal answer seconds error"
).split()


def summarise(results: Sequence[CaseResult], *, max_steps: int, seconds: float) -> dict[str, Any]:
    """The figures of ``summary.json``.

    Parameters
    ----------
    results
        All rows' results.
    max_steps
        Budget of the runs; ``iou_by_step`` has one value more.
    seconds
        Wall-clock seconds of all runs together, models already loaded.

    Returns
    -------
    dict
        ``mean_iou``, ``mean_dice``, ``ci95_iou``: over present cases. ``target_mean_iou``: mean over distinct (group,
        target) pairs of the pair's mean IoU, which ``per_target`` lists. ``action_validity``: legal replies over all
        replies. ``refinement_success``: share of steps after the first mask that raised the IoU (a rejected reply
        raises nothing). ``mean_steps``: over runs without error; Terminate is no step. ``iou_by_step[k]``: mean IoU
        after k actions, a run that has ended carries its last value, which is 0 for errors and false refusals.
        ``right_refusals``: share of absent cases that were called absent (an error is none). ``false_refusals``: share
        of present cases that were. ``seconds_per_case``: seconds over cases.
    """
    present = [r for r in results if not r.absent]
    absent = [r for r in results if r.absent]
    ious = [_number(r.iou) for r in present]
    played = [r.scores for r in present if r.scores is not None]
    pairs = _per_target(present)
    interval = bootstrap_ci95(ious)
    return {
        "num_cases": len(results),
        "mean_iou": _mean(ious),
        "ci95_iou": None if interval is None else list(interval),
        "mean_dice": _mean([_number(r.dice) for r in present]),
        "target_mean_iou": _mean([pair["iou"] for pair in pairs.values()]),
        "action_validity": _ratio(sum(s.num_valid for s in played), sum(s.num_replies for s in played)),
        "refinement_success": _ratio(
            sum(s.num_improvements or 0 for s in played), sum(s.num_refinements or 0 for s in played)
        ),
        "mean_steps": _mean([s.num_steps for s in played if not s.is_error]),
        "iou_by_step": _mean_curve(present, max_steps),
        "per_target": pairs,
        "num_errors": sum(bool(r.error) for r in results),
        "right_refusals": _mean([bool(r.scores and r.scores.right_refusal) for r in absent]),
        "false_refusals": _mean([bool(r.scores and r.scores.false_refusal) for r in present]),
        "seconds_per_case": seconds / len(results) if results else None,
    }


def cases_csv(results: Iterable[CaseResult]) -> str:
    """The text of ``cases.csv``: one line a row of the list, undefined values empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for r in results:
        line: dict[str, Any] = {
            "case_id": r.case_id,
            "group": r.group,
            "target": r.target,
            "modality": r.modality,
            "split": r.split,
            "instruction": r.instruction,
            "category": r.category,
            "outcome": "error",  # of a row that was never played
            "iou": _rounded(r.iou),
            "dice": _rounded(r.dice),
            "error": r.error,
        }
        if r.scores is not None and r.episode is not None:
            line |= {
                "outcome": r.scores.outcome,
                "num_steps": r.scores.num_steps,
                "num_replies": r.scores.num_replies,
                "num_valid": r.scores.num_valid,
                "right_refusal": _flag(r.scores.right_refusal),
                "false_refusal": _flag(r.scores.false_refusal),
                "answer": r.episode.answer,
                "seconds": round(r.episode.seconds_total, 3),
            }
        writer.writerow(line)
    return out.getvalue()


def _per_target(present: Sequence[CaseResult]) -> dict[str, dict[str, Any]]:
    """n, mean IoU and mean Dice by "group/target"; rows too damaged to name a target are left out."""
    groups: dict[tuple[str, str], list[CaseResult]] = {}
    for r in present:
        if r.target is not None:
            groups.setdefault((r.group or "", r.target), []).append(r)
    return {
        f"{group}/{target}": {
            "n": len(members),
            "iou": _mean([_number(r.iou) for r in members]),
            "dice": _mean([_number(r.dice) for r in members]),
        }
        for (group, target), members in sorted(groups.items())
    }


def _mean_curve(present: Sequence[CaseResult], max_steps: int) -> list[float]:
    if not present:
        return []
    curves = np.zeros((len(present), max_steps + 1))
    for row, result in zip(curves, present, strict=True):
        scores = result.scores
        if scores is None or scores.iou_by_step is None:
            continue  # never played: 0 throughout
        values = scores.iou_by_step[: max_steps + 1]
        row[: len(values)] = values
        row[len(values) :] = values[-1]
        if scores.is_error or scores.false_refusal:
            row[len(values) - 1 :] = 0.0  # the run ended there with nothing
    return [float(value) for value in curves.mean(axis=0)]


def _number(value: float | None) -> float:
    assert value is not None, "a present case has an overlap"
    return value


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _flag(value: bool | None) -> int | None:
    return None if value is None else int(value)
