"""Other runs of the same list beside the first one: paired differences, case by case."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ibisagent.evaluate.figures import case_figures
from ibisagent.evaluate.report.lab_sections import difference_row
from ibisagent.evaluate.report.model import Block, Cell, Forest, ForestRow, Scale, Section, Table
from ibisagent.evaluate.report.numbers import SHARE, count_text, few_text, number_text
from ibisagent.evaluate.report.scales import caution_text, figure_scale, figure_value
from ibisagent.evaluate.statistics import cluster_unit, holm, paired
from ibisagent.evaluate.summary import figures_with_intervals

if TYPE_CHECKING:
    from ibisagent.evaluate.figure import CaseFigures
    from ibisagent.evaluate.records import Run

__all__ = ["runs_section"]

_SHOWN = ("iou", "dice", "steps", "right_refusals", "false_refusals")


def runs_section(runs: Mapping[str, Run]) -> Section:
    """A section about several runs.

    Parameters
    ----------
    runs
        By title; the others are held against the first, over the cases that both have (by case id).
    """
    titles = list(runs)
    first = titles[0]
    figures = {title: _figures(run) for title, run in runs.items()}
    units = {title: cluster_unit(run.results) for title, run in runs.items()}
    unit = units[first]
    labels = {
        title: {r.case_id: label for r, label in zip(run.results, units[title].labels, strict=True) if r.case_id}
        for title, run in runs.items()
    }
    clusters = labels[first]
    rows, cells = [], []
    for title in titles:
        told = {name: _estimate(figures[title], name, labels[title]) for name in _SHOWN}
        iou = figure_value(told["iou"], units[title].unit)
        rows.append(ForestRow(title, iou, strong=title == first))
        values = [(figure_value(told[name], units[title].unit, name), figure_scale(name)) for name in _SHOWN[1:]]
        line: list[Cell] = [title, few_text(iou)]
        line += [None if value.value is None else (value.unmarked(), scale) for value, scale in values]
        cells.append(tuple(line))
    gaps = {title: _gap(figures[first], figures[title], clusters) for title in titles[1:]}
    corrected = holm([gap["p"] for gap in gaps.values()])
    differences = []
    for (title, gap), p in zip(gaps.items(), corrected, strict=True):
        least = gap.get("minimum_detectable")
        detail = "" if least is None else f"could find {number_text(least, SHARE, unit=False)} points"
        differences.append(difference_row(title, {**gap, "p_holm": p}, unit.unit, detail=detail))
    blocks: list[Block] = [
        Forest("runs-iou", "IoU", f"Filled: {first}, which this report is about.", Scale("IoU"), tuple(rows)),
        Forest(
            "runs-difference",
            "Paired difference in IoU",
            f"The run less {first}, over the cases that both have. p-values by Holm, corrected over these runs; "
            "filled: p < 0.05 and an interval without 0.",
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
    cautions = [caution_text({"warning": unit.warning})] if unit.warning else []
    for title in titles[1:]:
        missing = len(clusters) - len(set(clusters) & set(figures[title]))
        if missing:
            cautions.append(f"{title} lacks {count_text(missing, 'case')} of {first}: these are in no difference.")
    return Section("runs", "Other runs", tuple(blocks), cautions=tuple(cautions))


def _figures(run: Run) -> dict[str, CaseFigures]:
    return {r.case_id: case_figures(r, max_steps=run.max_steps) for r in run.results if r.case_id is not None}


def _estimate(figures: Mapping[str, CaseFigures], name: str, clusters: Mapping[str, str]) -> dict[str, Any]:
    return figures_with_intervals(list(figures.values()), [clusters[case] for case in figures], (name,))[name]


def _gap(
    first: Mapping[str, CaseFigures], other: Mapping[str, CaseFigures], clusters: Mapping[str, str]
) -> dict[str, Any]:
    common = [case for case in first if "iou" in first[case] and "iou" in other.get(case, {})]
    sides = [([side[c]["iou"][0] for c in common], [side[c]["iou"][1] for c in common]) for side in (first, other)]
    return paired(sides[0], sides[1], [clusters[c] for c in common]).to_json()
