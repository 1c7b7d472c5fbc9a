"""How far the tool can be taken: the IoU that oracle clicks reach on each case of a lab."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ibisagent.evaluate.result import CaseResult

if TYPE_CHECKING:
    from ibisagent.evaluate.arms.lab import Lab

__all__ = ["ORACLE", "best_iou", "ceilings_of"]

ORACLE = "oracle"
"""Name of the arm that says what the tool can do."""


_SAME = ("segmenter", "segmenter_weights_sha256", "max_steps", "max_seconds", "cases_sha256")
"""Facts of a run that its ceiling depends on."""


def best_iou(result: CaseResult) -> float | None:
    """IoU of the best mask of a run, the given one included; 0.0 after an error, None for an absent target.

    The oracle's last mask need not be its best one: a click may do harm, and none takes it back.
    """
    curve = result.scores.iou_by_step if result.scores is not None and not result.error else None
    return result.iou if result.iou is None or curve is None else max(*curve, result.iou)


def ceilings_of(lab: Lab, name: str) -> dict[str, float]:
    """Ceilings of an arm by case id: the best IoU of the oracle's run (:func:`best_iou`).

    Empty without an oracle, and where the arm's list, segmenter or budget is another than the oracle's. Cases whose
    oracle failed have none, nor have those that began with another mask than the oracle did: nobody has measured what
    can be reached from there.
    """
    arm, oracle = lab.arms.get(name), lab.arms.get(ORACLE)
    if arm is None or oracle is None or any(arm.facts.get(fact) != oracle.facts.get(fact) for fact in _SAME):
        return {}
    best = {r.case_id: (best_iou(r), r.episode) for r in oracle.results if r.case_id is not None and not r.error}
    found = {}
    for result in arm.results:
        iou, start = best.get(result.case_id or "", (None, None))
        if result.case_id is None or iou is None or start is None:
            continue
        if result.episode is None or result.episode.initial_mask == start.initial_mask:
            found[result.case_id] = iou
    return found
