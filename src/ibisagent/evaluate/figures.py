"""The figures of one case: every number that an evaluation averages, by name, with its weight.

A figure is the sum of its numbers over the sum of their weights, over the cases that have it. A mean has weight 1 in
every case; a rate such as action validity has (legal replies, replies). So one rule makes means, rates, their
bootstrap and their differences. What is undefined in a case is missing from it: neither zero nor a case that counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ibisagent.evaluate.result import CaseResult

__all__ = ["FIGURES", "CaseFigures", "Figure", "case_figures"]

CaseFigures = Mapping[str, tuple[float, float]]
"""(number, weight) by the figure's name."""


@dataclass(frozen=True)
class Figure:
    """What a figure means.

    Parameters
    ----------
    name
        As in summary.json; conventions are part of it (``nsd_2mm``, ``hd95_mm``).
    title
        For tables and plots.
    about
        One sentence: what is counted, over which cases, and what empty masks give.
    higher_is_better
        None where neither is (the number of steps).
    percent
        Whether people read it as a share.
    """

    name: str
    title: str
    about: str
    higher_is_better: bool | None = True
    percent: bool = True


FIGURES: dict[str, Figure] = {
    figure.name: figure
    for figure in (
        Figure("iou", "IoU", "IoU of the final mask over present targets; errors and false refusals are 0."),
        Figure("dice", "Dice", "Dice of the final mask over present targets; errors and false refusals are 0."),
        Figure("action_validity", "Action validity", "Legal replies over all replies, present targets."),
        Figure(
            "refinement_success",
            "Refinement success",
            "Steps after the first mask that raised the IoU, over all such steps; present targets.",
        ),
        Figure("steps", "Steps", "Actions before the stop, present targets, runs without error.", None, False),
        Figure("right_refusals", "Right refusals", "Absent targets that were called absent, over absent targets."),
        Figure("false_refusals", "False refusals", "Present targets that were called absent.", False),
        Figure("errors", "Errors", "Rows that could not be read and runs that failed, over all rows.", False),
    )
}
"""Every figure, in the order of the tables."""


def case_figures(result: CaseResult) -> CaseFigures:
    """Numbers and weights of one case (see :data:`FIGURES`).

    Parameters
    ----------
    result
        Scored.

    Returns
    -------
    Mapping
        (number, weight) by name; figures that this case has no part in are missing.
    """
    found: dict[str, tuple[float, float]] = {"errors": (float(bool(result.error)), 1.0)}
    scores = result.scores
    if result.absent:
        found["right_refusals"] = (float(bool(scores and scores.right_refusal)), 1.0)
        return found
    assert result.iou is not None and result.dice is not None  # a present case has an overlap
    found |= {"iou": (result.iou, 1.0), "dice": (result.dice, 1.0)}
    found["false_refusals"] = (float(bool(scores and scores.false_refusal)), 1.0)
    if scores is not None:
        if scores.num_replies:
            found["action_validity"] = (scores.num_valid, scores.num_replies)
        if scores.num_refinements:
            found["refinement_success"] = (scores.num_improvements or 0, scores.num_refinements)
        if not scores.is_error:
            found["steps"] = (scores.num_steps, 1.0)
    return found
