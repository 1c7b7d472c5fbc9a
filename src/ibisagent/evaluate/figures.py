"""The figures of one case: every number that an evaluation averages, by name, with its weight.

A figure is the sum of its numbers over the sum of their weights, over the cases that have it. A mean has weight 1 in
every case; a rate such as action validity has (legal replies, replies). So one rule makes means, rates, their
bootstrap and their differences. What is undefined in a case is missing from it: neither zero nor a case that counts.
"""

from __future__ import annotations

from collections.abc import Iterable

from ibisagent.evaluate.agent_figures import agent_figures
from ibisagent.evaluate.figure import CaseFigures, Figure
from ibisagent.evaluate.figure_table import FIGURES, HEADLINE, SECTIONS
from ibisagent.evaluate.mask_figures import mask_figures
from ibisagent.evaluate.result import CaseResult

__all__ = ["FIGURES", "HEADLINE", "SECTIONS", "CaseFigures", "Figure", "case_figures", "pooled"]


def case_figures(result: CaseResult, *, max_steps: int | None = None, ceiling_iou: float | None = None) -> CaseFigures:
    """Numbers and weights of one case (see :data:`FIGURES`).

    Parameters
    ----------
    result
        Scored.
    max_steps
        Budget of the run; None takes the episode's. Without it a row that was never played has no ``steps_to_*``.
    ceiling_iou
        IoU that oracle clicks reach on this case with the same segmenter, for ``ceiling_share`` and
        ``premature_vs_ceiling``; without one these two are missing.

    Returns
    -------
    Mapping
        (number, weight) by name, weights above 0; figures that this case has no part in are missing.

    Raises
    ------
    InputError
        If a mask of the record is damaged.
    ValueError
        If its masks differ in size, or it has a run and no scores: that would count as a failure.
    """
    if result.episode is not None and result.scores is None and not result.error:
        raise ValueError(f"the run of {result.case_id} has not been scored")
    found = {
        "errors": (float(bool(result.error)), 1.0),
        **mask_figures(result),
        **agent_figures(result, max_steps=max_steps, ceiling_iou=ceiling_iou),
    }
    return {name: (float(found[name][0]), float(found[name][1])) for name in FIGURES if name in found}


def pooled(cases: Iterable[CaseFigures], name: str) -> float | None:
    """A figure over cases: the sum of its numbers over the sum of its weights; None where no case has it."""
    pairs = [case[name] for case in cases if name in case]
    weight = sum(w for _, w in pairs)
    return sum(n for n, _ in pairs) / weight if weight else None
