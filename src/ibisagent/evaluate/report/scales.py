"""Figures of an evaluation as numbers of a report: how they are read, and what to beware of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ibisagent.evaluate.figure import Figure
from ibisagent.evaluate.figures import FIGURES
from ibisagent.evaluate.report.model import FEW_CLUSTERS, Scale, Value
from ibisagent.evaluate.report.numbers import count_text, sentence

__all__ = ["caution_text", "few_caution", "figure_scale", "figure_value"]


def figure_scale(of: str | Figure) -> Scale:
    """Scale of a figure, or of the one of that name in :data:`~ibisagent.evaluate.figures.FIGURES`.

    Differences of overlaps (regret, gain) are shown in points, as the overlaps themselves are in percent.
    """
    figure = FIGURES[of] if isinstance(of, str) else of
    points = not figure.percent and not figure.unit
    return Scale(
        figure.title, figure.percent or points, figure.higher_is_better, unit="points" if points else figure.unit
    )


def figure_value(data: Mapping[str, Any] | None, unit: str, name: str = "iou") -> Value:
    """A figure of ``summary.json``.

    Parameters
    ----------
    data
        ``{"value", "ci95", "n", "num_clusters", "warning"}``.
    unit
        What a cluster is: ``"patient"``, ``"image"`` or ``"case"``.
    name
        Of the figure. Distances and counts are never negative, so their intervals begin at 0 where a symmetric one
        of few clusters would begin below.
    """
    value = Value.of(data, unit)
    if value.ci95 is not None and FIGURES[name].unit and value.ci95[0] < 0:
        return replace(value, ci95=(0.0, value.ci95[1]))
    return value


def caution_text(intervals: Mapping[str, Any] | None) -> str:
    """What a reader must know of all intervals of a run, as one sentence or two; empty if nothing.

    Parameters
    ----------
    intervals
        Of ``summary.json``: ``unit``, ``num_clusters``, ``warning``.
    """
    warning = (intervals or {}).get("warning")
    return sentence(warning) if warning else ""


def few_caution(values: Sequence[Value], unit: str) -> str:
    """What a reader must know of a table by target in which some rest on few clusters; empty if none does.

    Parameters
    ----------
    values
        The number of every target.
    unit
        What a cluster is.
    """
    small = sum(value.is_few for value in values)
    if not small:
        return ""
    return (
        f"{small} of {count_text(len(values), 'target')} rest on fewer than {FEW_CLUSTERS} {unit or 'cluster'}s each "
        "(marked): their intervals say how much these few differ, if others are like them. Take them for a lower "
        "bound of the doubt; of one there is no interval."
    )
