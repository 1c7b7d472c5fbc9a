"""Other runs of the same list beside the first one: paired differences, case by case."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ibisagent.evaluate.compare import compare
from ibisagent.evaluate.compare_text import cautions
from ibisagent.evaluate.figures import case_figures
from ibisagent.evaluate.pairing import Side
from ibisagent.evaluate.report.lab_sections import difference_row
from ibisagent.evaluate.report.model import Block, Cell, Forest, ForestRow, Scale, Section, Table
from ibisagent.evaluate.report.numbers import SHARE, few_text, number_text, sentence
from ibisagent.evaluate.report.scales import figure_scale, figure_value
from ibisagent.evaluate.statistics import cluster_unit
from ibisagent.evaluate.summary import figures_with_intervals

if TYPE_CHECKING:
    from ibisagent.evaluate.records import Run

__all__ = ["runs_section"]

_SHOWN = ("iou", "dice", "steps", "right_refusals", "false_refusals")


def runs_section(runs: Mapping[str, Run]) -> Section:
    """A section about several runs.

    Parameters
    ----------
    runs
        By title; the others are held against the first as :func:`~ibisagent.evaluate.compare.compare` does.

    Raises
    ------
    InputError
        If two runs have no case in common, or were scored against different references.
    """
    titles = list(runs)
    first = titles[0]
    rows, cells = [], []
    for title, run in runs.items():
        clusters = cluster_unit(run.results)
        figures = [case_figures(r, max_steps=run.max_steps) for r in run.results]
        told = figures_with_intervals(figures, clusters.labels, _SHOWN)
        iou = figure_value(told["iou"], clusters.unit)
        rows.append(ForestRow(title, iou, strong=title == first))
        line: list[Cell] = [title, few_text(iou)]
        for name in _SHOWN[1:]:
            value = figure_value(told[name], clusters.unit, name)
            line.append(None if value.value is None else (value.beside(iou), figure_scale(name)))
        cells.append(tuple(line))
    differences, notes = [], []
    for found in compare([Side(title, (run,)) for title, run in runs.items()], ("iou",)):
        (main,) = found.lines
        data = {**main.difference.to_json(), "p_holm": main.p_holm}
        least = main.difference.minimum_detectable
        detail = "" if least is None else f"could find {number_text(least, SHARE, unit=False)} points"
        differences.append(difference_row(found.b.name, data, found.clusters.unit, detail=detail))
        notes += cautions(found, by_target=False)
    blocks: list[Block] = [
        Forest("runs-iou", "IoU", f"Filled: {first}, which this report is about.", Scale("IoU"), tuple(rows)),
        Forest(
            "runs-difference",
            "Paired difference in IoU",
            f"The run less {first}, over the cases that both have. p-values by Holm, corrected over these runs; "
            "filled: p < 0.05 and an interval without 0. Could find: in 80% of the times, at the level that the "
            "correction asks of the smallest p.",
            Scale("Difference in IoU", signed=True),
            tuple(differences),
            0.0,
            "left of the line: worse",
            "p (Holm)",
        ),
        Table(
            "runs-figures",
            "Further figures",
            "",
            ("Run", "Of", *(figure_scale(n).heading for n in _SHOWN[1:])),
            tuple(cells),
        ),
    ]
    return Section("runs", "Other runs", tuple(blocks), cautions=tuple(sentence(note) for note in dict.fromkeys(notes)))
