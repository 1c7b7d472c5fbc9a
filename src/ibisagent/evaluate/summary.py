"""From results to figures: ``summary.json`` and ``cases.csv``, and the conventions behind every number.

- Cases whose target is absent (null or empty mask) count in ``right_refusals``, and beside it only in ``num_cases``,
  ``num_errors`` and ``seconds_per_case``. All other figures at the top are over cases whose target is present; those
  of ``figures`` say themselves what they are over (:data:`ibisagent.evaluate.figures.FIGURES`).
- An error (unreadable row, failed run) and a false refusal score IoU and Dice 0. A row that is too damaged to say
  whether its target is present counts as present.
- What is undefined (a mean of nothing) is None, never zero.
- Everything follows from the stored facts of the results, in any order of computing: equal results, equal summary.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ibisagent.episode import Outcome
from ibisagent.evaluate.agent_figures import episode_seconds, run_curve
from ibisagent.evaluate.calibration import calibrate
from ibisagent.evaluate.figures import FIGURES, HEADLINE, CaseFigures, case_figures
from ibisagent.evaluate.result import CaseResult
from ibisagent.evaluate.statistics import bootstrap_ci95, cluster_unit, estimate, macro_estimate

__all__ = ["CSV_COLUMNS", "SCHEMA_VERSION", "cases_csv", "figures_with_intervals", "summarise"]

SCHEMA_VERSION = 1
"""Of the summary. Added keys keep it; renamed, removed or reinterpreted ones raise it."""

_OWN_COLUMNS = (
    "case_id group target modality split instruction category outcome iou dice num_steps num_replies num_valid "
    "right_refusal false_refusal answer seconds_total error"
).split()

CSV_COLUMNS = [*_OWN_COLUMNS, *(name for name in FIGURES if name not in _OWN_COLUMNS)]
"""Columns of ``cases.csv``: facts first, then the case's value (number over weight) of every figure."""


def summarise(
    results: Sequence[CaseResult],
    *,
    max_steps: int,
    seconds: float | None = None,
    ceilings: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """The figures of ``summary.json``.

    Parameters
    ----------
    results
        All rows' results.
    max_steps
        Budget of the runs; ``iou_by_step`` has one value more.
    seconds
        Wall-clock seconds of all runs together, models already loaded; None takes what the episodes' replies took
        (:func:`~ibisagent.evaluate.agent_figures.episode_seconds`), which a resumed or re-scored run can still say.
    ceilings
        IoU that oracle clicks reach with the same segmenter, by case id.

    Returns
    -------
    dict
        ``mean_iou``, ``mean_dice``, ``ci95_iou``: over present cases; this one interval is kept for readers of earlier
        versions and draws cases as if they were independent (``figures`` has the one to use). ``target_mean_iou``:
        mean over distinct (group, target) pairs of the pair's mean IoU, which ``per_target`` lists.
        ``action_validity``: legal replies over all replies. ``refinement_success``: share of steps after the first
        mask that raised the IoU (a rejected reply raises nothing). ``mean_steps``: over runs without error; Terminate
        is no step. ``iou_by_step[k]``: mean IoU after k actions, a run that has ended carries its last value, which is
        0 for errors and false refusals. ``right_refusals``: share of absent cases that were called absent (an error is
        none). ``false_refusals``: share of present cases that were. ``seconds_per_case``: seconds over cases.

        ``figures``: every figure by name, ``{"value", "ci95", "n", "num_clusters", "warning", "method"}`` (see
        :class:`~ibisagent.evaluate.statistics.Estimate`); n is the number of cases that have it, and where none has,
        value and interval are None. ``intervals``: what all intervals but ``ci95_iou`` draw (``unit``), how many there
        are, and what that does not say. ``target_mean``: like ``target_mean_iou``, with intervals; where every patient
        or image is a group of its own, that is close to a mean over cases. ``target_name_mean``: the same over target
        names, whatever the group. ``per_target``
        (present cases), ``per_modality`` and ``per_group`` (all cases): the figures of
        :data:`~ibisagent.evaluate.figures.HEADLINE`. ``by_step``: mean IoU after each step with its interval, and the
        share of runs that had ended by then. ``calibration``: see
        :func:`~ibisagent.evaluate.calibration.calibrate`. ``outcomes``: how runs ended, by whether the target was
        present; ``unreadable`` rows were never played.
    """
    present = [r for r in results if not r.absent]
    absent = [r for r in results if r.absent]
    ious = [_number(r.iou) for r in present]
    played = [r.scores for r in present if r.scores is not None]
    interval = bootstrap_ci95(ious)
    known = ceilings or {}
    cases = [case_figures(r, max_steps=max_steps, ceiling_iou=known.get(r.case_id or "")) for r in results]
    unit = cluster_unit(results)
    labels = unit.labels
    pairs = _parts(results, cases, labels, lambda r: None if r.absent or r.target is None else r.pair)
    if seconds is None:
        seconds = sum(episode_seconds(r.episode) for r in results if r.episode is not None)
    return {
        "schema_version": SCHEMA_VERSION,
        "num_cases": len(results),
        "mean_iou": _mean(ious),
        "ci95_iou": None if interval is None else list(interval),
        "mean_dice": _mean([_number(r.dice) for r in present]),
        "target_mean_iou": _mean([pair["figures"]["iou"]["value"] for pair in pairs.values()]),
        "action_validity": _ratio(sum(s.num_valid for s in played), sum(s.num_replies for s in played)),
        "refinement_success": _ratio(
            sum(s.num_improvements or 0 for s in played), sum(s.num_refinements or 0 for s in played)
        ),
        "mean_steps": _mean([s.num_steps for s in played if not s.is_error]),
        "iou_by_step": _mean_curve(present, max_steps),
        "per_target": {
            name: {
                "n": pair["n"],
                "iou": pair["figures"]["iou"]["value"],
                "dice": pair["figures"]["dice"]["value"],
                "figures": pair["figures"],
            }
            for name, pair in pairs.items()
        },
        "num_errors": sum(bool(r.error) for r in results),
        "right_refusals": _mean([bool(r.scores and r.scores.right_refusal) for r in absent]),
        "false_refusals": _mean([bool(r.scores and r.scores.false_refusal) for r in present]),
        "seconds_per_case": seconds / len(results) if results else None,
        "figures": figures_with_intervals(cases, labels),
        "intervals": {
            "unit": unit.unit,
            "num_clusters": unit.number,
            "warning": unit.warning,
        },
        "target_mean": _target_means(results, cases, labels, lambda r: r.pair),
        "target_name_mean": _target_means(results, cases, labels, lambda r: r.target or "unknown"),
        "per_modality": _parts(results, cases, labels, lambda r: r.modality),
        "per_group": _parts(results, cases, labels, lambda r: r.group),
        "by_step": _by_step(results, labels, max_steps),
        "calibration": calibrate(results, labels),
        "outcomes": {"present": _outcomes(present), "absent": _outcomes(absent)},
    }


def figures_with_intervals(
    cases: Sequence[CaseFigures], labels: Sequence[str], names: Iterable[str] = tuple(FIGURES)
) -> dict[str, dict[str, Any]]:
    """Figures over cases.

    Parameters
    ----------
    cases
        From :func:`~ibisagent.evaluate.figures.case_figures`.
    labels
        The cluster of each case.
    names
        Which figures.

    Returns
    -------
    dict
        :meth:`~ibisagent.evaluate.statistics.Estimate.to_json` by name; ``n`` is the number of cases that have it.
    """
    found = {}
    for name in names:
        mine = [(*case[name], label) for case, label in zip(cases, labels, strict=True) if name in case]
        numbers, weights, clusters = zip(*mine, strict=True) if mine else ((), (), ())
        found[name] = estimate(numbers, weights, clusters, share=FIGURES[name].percent).to_json()
    return found


def cases_csv(results: Iterable[CaseResult], max_steps: int | None = None) -> str:
    """The text of ``cases.csv``: one line a row of the list, undefined values empty.

    Parameters
    ----------
    results
        All rows' results.
    max_steps
        Budget of the runs, as for :func:`summarise`.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for r in results:
        line: dict[str, Any] = {name: _rounded(n / w) for name, (n, w) in case_figures(r, max_steps=max_steps).items()}
        line |= {
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
            "seconds_total": None,
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
                "seconds_total": round(r.episode.seconds_total, 3),
            }
        writer.writerow(line)
    return out.getvalue()


def _parts(
    results: Sequence[CaseResult],
    cases: Sequence[CaseFigures],
    labels: Sequence[str],
    name_of: Callable[[CaseResult], str | None],
) -> dict[str, dict[str, Any]]:
    """n and the headline figures of the cases that share a name; rows too damaged to have one are left out."""
    members: dict[str, list[int]] = {}
    for number, result in enumerate(results):
        name = name_of(result)
        if name is not None:
            members.setdefault(name, []).append(number)
    return {
        name: {
            "n": len(mine),
            "figures": figures_with_intervals([cases[i] for i in mine], [labels[i] for i in mine], HEADLINE),
        }
        for name, mine in sorted(members.items())
    }


def _target_means(
    results: Sequence[CaseResult],
    cases: Sequence[CaseFigures],
    labels: Sequence[str],
    name_of: Callable[[CaseResult], str],
) -> dict[str, dict[str, Any]]:
    """Means over targets of the targets' means, so that a target with many cases weighs no more."""
    found = {}
    for name in ("iou", "dice", "nsd_2mm"):
        rows = [
            (*case[name], label, name_of(r))
            for r, case, label in zip(results, cases, labels, strict=True)
            if name in case and r.target is not None
        ]
        numbers, weights, clusters, targets = zip(*rows, strict=True) if rows else ((), (), (), ())
        found[name] = macro_estimate(numbers, weights, clusters, targets).to_json()
    return found


def _by_step(results: Sequence[CaseResult], labels: Sequence[str], max_steps: int) -> dict[str, Any]:
    rows = [(r, label) for r, label in zip(results, labels, strict=True) if not r.absent]
    if not rows:
        return {"step": [], "iou": [], "ended": []}
    curves = np.array([run_curve(r, max_steps) for r, _ in rows])
    steps = np.array([r.scores.num_steps if r.scores is not None else 0 for r, _ in rows])
    clusters = [label for _, label in rows]
    return {
        "step": list(range(max_steps + 1)),
        "iou": [estimate(column, None, clusters).to_json() for column in curves.T],
        "ended": [float(np.mean(steps <= k)) for k in range(max_steps + 1)],
    }


def _outcomes(results: Sequence[CaseResult]) -> dict[str, int]:
    counts = Counter(
        "unreadable" if r.scores is None or r.scores.outcome is None else str(r.scores.outcome) for r in results
    )
    return {name: counts[name] for name in (*map(str, Outcome), "unreadable") if counts[name]}


def _mean_curve(present: Sequence[CaseResult], max_steps: int) -> list[float]:
    if not present:
        return []
    return [float(value) for value in np.mean([run_curve(r, max_steps) for r in present], axis=0)]


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
