"""Recovery: what became of the cases that somebody made harder, each held against its own plain run.

The paper's figure 12 shows such runs as pictures; these are the rates. Present targets only:

- A case *counts* for recovery if its plain run reached IoU :data:`SUCCESS`: one that fails anyway can show no recovery.
- It *recovered* if its IoU under the condition is at most :data:`TOLERANCE` below that of its plain run.
- Where a mask was given: ``recovery_of_stopping`` is the rate of an agent that stops at once; a run *improved* or
  *harmed* the given mask if its IoU is more than :data:`TOLERANCE` above or below the given mask's, over all cases;
  it *discarded* it if a Discard was carried out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ibisagent.evaluate.result import CaseResult
from ibisagent.evaluate.statistics import estimate

__all__ = ["SUCCESS", "TOLERANCE", "recovery"]

SUCCESS = 0.5
"""Least IoU of a plain run that counts."""

TOLERANCE = 0.05
"""Largest loss of IoU that is none."""


def recovery(
    results: Sequence[CaseResult], plain: Mapping[str, CaseResult], clusters: Mapping[str, str]
) -> dict[str, Any]:
    """Rates of a condition.

    Parameters
    ----------
    results
        Of the condition's arm.
    plain
        Of the plain run, by case id; cases without one are left out.
    clusters
        Cluster of a case, by case id.

    Returns
    -------
    dict
        ``n`` (cases with a plain run), ``plain_iou`` and ``iou`` (means over them), and as
        :meth:`~ibisagent.evaluate.statistics.Estimate.to_json`: ``recovery``; where masks were given also
        ``given_iou``, ``recovery_of_stopping``, ``improved``, ``harmed``, ``discarded``. ``success`` and ``tolerance``
        are the thresholds.
    """
    pairs = [
        (r, plain[r.case_id].iou or 0.0, r.iou or 0.0)
        for r in results
        if r.case_id is not None and r.case_id in plain and not r.absent and not plain[r.case_id].absent
    ]
    labels = [clusters[r.case_id or ""] for r, _, _ in pairs]
    counts = [float(before >= SUCCESS) for _, before, _ in pairs]
    found: dict[str, Any] = {
        "success": SUCCESS,
        "tolerance": TOLERANCE,
        "n": len(pairs),
        "plain_iou": _mean([before for _, before, _ in pairs]),
        "iou": _mean([after for _, _, after in pairs]),
        "recovery": estimate(
            [c * float(after >= before - TOLERANCE) for c, (_, before, after) in zip(counts, pairs, strict=True)],
            counts,
            labels,
        ).to_json(),
    }
    given = [r.condition.get("given_iou") for r, _, _ in pairs]
    known = [(i, float(g)) for i, g in enumerate(given) if isinstance(g, int | float)]
    if not known:
        return found
    some = [labels[i] for i, _ in known]

    def share(flags: list[bool], weights: list[float] | None = None) -> dict[str, Any]:
        w = [1.0] * len(flags) if weights is None else weights
        return estimate([float(f) * x for f, x in zip(flags, w, strict=True)], w, some).to_json()

    found["given_iou"] = estimate([g for _, g in known], None, some).to_json()
    found["recovery_of_stopping"] = share(
        [g >= pairs[i][1] - TOLERANCE for i, g in known], [counts[i] for i, _ in known]
    )
    found["improved"] = share([pairs[i][2] > g + TOLERANCE for i, g in known])
    found["harmed"] = share([pairs[i][2] < g - TOLERANCE for i, g in known])
    found["discarded"] = share([_discarded(pairs[i][0]) for i, _ in known])
    return found


def _discarded(result: CaseResult) -> bool:
    steps = result.episode.steps if result.episode is not None else []
    return any(s.action is not None and s.action.kind == "discard" and s.invalid is None for s in steps)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
