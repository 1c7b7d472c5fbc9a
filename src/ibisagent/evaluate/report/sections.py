"""Parts of a report that one run's summary gives: figures, steps, targets and modalities, calibration, endings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ibisagent.evaluate.figures import FIGURES, SECTIONS
from ibisagent.evaluate.report.certainty import selective_band
from ibisagent.evaluate.report.model import (
    Cell,
    Curve,
    Forest,
    ForestRow,
    Headline,
    Point,
    Scale,
    Section,
    Series,
    Table,
    Value,
)
from ibisagent.evaluate.report.numbers import SHARE, count_text, few_text, number_text, sample_text, sentence
from ibisagent.evaluate.report.scales import caution_text, few_caution, figure_scale, figure_value
from ibisagent.rendering.figure import OUTCOME_WORDS

if TYPE_CHECKING:
    from ibisagent.evaluate.result import CaseResult

__all__ = [
    "HEADLINES", "breakdown_section", "calibration_section", "figures_section", "findings", "headlines",
    "steps_section",
]  # fmt: skip

HEADLINES = (
    *("iou", "dice", "nsd_2mm", "hd95_mm", "steps", "refinement_success", "regret", "right_refusals"),
    *("false_refusals", "action_validity"),
)
"""The figures of the summary, in its order; those that no case has are left out."""

_METHODS = {"t": "Student's t", "wilson": "Wilson", "clopper-pearson": "Clopper-Pearson"}

_BREAKDOWN = ("dice", "nsd_2mm", "hd95_mm", "steps", "regret", "false_refusals", "right_refusals")


def headlines(summary: Mapping[str, Any], remarks: Mapping[str, str] | None = None) -> tuple[Headline, ...]:
    """The figures that stand first.

    Parameters
    ----------
    summary
        Of a run.
    remarks
        A short line by figure.
    """
    unit, told = _unit(summary), remarks or {}
    found = []
    for name in HEADLINES:
        value = figure_value(summary["figures"].get(name), unit, name)
        if value.value is not None:
            found.append(Headline(name, figure_scale(name), FIGURES[name].about, value, told.get(name, "")))
    return tuple(found)


def findings(summary: Mapping[str, Any]) -> list[str]:
    """Sentences about one run that need no other one."""
    pairs = _pairs(summary["per_target"])
    told = []
    overall = summary.get("target_mean_iou")
    if overall is not None and len(pairs) > 1:
        told.append(
            f"Every target counted alike, whatever the number of its cases, the mean IoU is "
            f"{number_text(overall, SHARE)} over {count_text(len(pairs), 'target')}."
        )
        ranked = sorted(pairs, key=lambda pair: (pair[1]["iou"], pair[0]))
        (worst, low), (best, high) = ranked[0], ranked[-1]
        told.append(
            f"Weakest target: {_named(worst)}, {number_text(low['iou'], SHARE)} ({count_text(low['n'], 'case')}); "
            f"strongest: {_named(best)}, {number_text(high['iou'], SHARE)} ({count_text(high['n'], 'case')})."
        )
    if summary["num_errors"]:
        told.append(
            f"{count_text(summary['num_errors'], 'row')} of {summary['num_cases']:,} could not be read or failed; "
            "present targets among them count as IoU 0."
        )
    return told


def figures_section(summary: Mapping[str, Any]) -> Section:
    """Every figure that some case has, with what it counts."""
    unit = _unit(summary)
    rows: list[tuple[Cell, ...]] = []
    groups = []
    for section, title in SECTIONS.items():
        opened = False
        for figure in FIGURES.values():
            value = figure_value(summary["figures"].get(figure.name), unit, figure.name)
            if figure.section != section or value.value is None:
                continue
            if not opened:
                groups.append((len(rows), title))
                opened = True
            about = (
                f"{figure.about} {sentence(f'interval: {value.warning}')}"
                if value.warning and not value.is_few
                else figure.about
            )
            made = _METHODS.get(value.method, value.method) if value.ci95 is not None else None
            cell = value.beside(value), figure_scale(figure.name)
            rows.append((figure.title, cell, few_text(value), made, about))
    columns = ("Figure", "Value [95% interval]", "Of", "Interval by", "What is counted")
    table = Table("figures", "All figures", "", columns, tuple(rows), tuple(groups))
    return Section("all-figures", "Figures", (table,), cautions=_cautions(summary))


def steps_section(summary: Mapping[str, Any]) -> Section | None:
    """IoU over the steps, and how runs ended; None where no target was present."""
    by_step = summary["by_step"]
    if not by_step["step"]:
        return None
    unit, last = _unit(summary), by_step["step"][-1]
    told = [figure_value(data, unit) for data in by_step["iou"]]
    if told[0].value == 0:
        told[0] = replace(told[0], ci95=(0.0, 0.0), warning="")  # nothing is drawn yet, of no image
    ends = [value for value in told if value.value is not None]
    sample = sample_text(ends[-1]) if ends else ""
    across = (0.0, float(max(last, 1)))
    iou = Curve(
        "iou-by-step",
        "IoU after each action",
        f"Mean over present targets ({sample}); a run that has ended keeps its last mask. Band: 95% interval.",
        "Actions",
        Scale("IoU"),
        (Series("IoU", tuple(Point(float(k), v) for k, v in zip(by_step["step"], told, strict=True))),),
        across,
        x_whole=True,
    )
    ended = Curve(
        "ended-by-step",
        "Runs that have ended",
        "Share of the runs on present targets that took no more actions than that.",
        "Actions",
        Scale("Runs"),
        (
            Series(
                "ended",
                tuple(Point(float(k), Value(v)) for k, v in zip(by_step["step"], by_step["ended"], strict=True)),
                "second",
            ),
        ),
        across,
        x_whole=True,
    )
    blocks = (iou, ended, _outcomes(summary))
    return Section("steps", "Steps and endings", blocks, cautions=_cautions(summary))


def breakdown_section(summary: Mapping[str, Any]) -> Section | None:
    """IoU by target and by modality, with the other headline figures as a table."""
    unit = _unit(summary)
    blocks: list[Forest | Table] = []
    pairs = _pairs(summary["per_target"])
    if pairs:
        several = len({group for (group, _), _ in pairs}) > 1
        ordered = sorted(pairs, key=lambda pair: (pair[0][0], -pair[1]["iou"], pair[0][1]))
        rows = tuple(
            ForestRow(target, _iou(data, unit), group=group if several else "") for (group, target), data in ordered
        )
        about = "IoU of the final mask; best target of each group first." if several else "Best target first."
        blocks.append(Forest("iou-by-target", "IoU by target", about, Scale("IoU"), rows))
    for key, name, about in (
        ("per_modality", "modality", "Present targets."),
        ("per_group", "group", "A group is one patient, one volume or one collection, as the list says."),
    ):
        parts = [(part, data) for part, data in summary[key].items() if _iou(data, unit).value is not None]
        if len(parts) > 1:
            ordered_parts = sorted(parts, key=lambda pair: (-(_iou(pair[1], unit).value or 0.0), pair[0]))
            rows = tuple(ForestRow(part, _iou(data, unit)) for part, data in ordered_parts)
            blocks.append(Forest(f"iou-by-{name}", f"IoU by {name}", about, Scale("IoU"), rows))
    if pairs:
        blocks.append(_breakdown_table(pairs, unit))
    if not blocks:
        return None
    caution = _cautions(summary)
    few = few_caution([_iou(data, unit) for _, data in pairs], unit)
    if few:
        caution += (few,)
    return Section("targets", "Targets", tuple(blocks), cautions=caution)


def calibration_section(summary: Mapping[str, Any], results: Sequence[CaseResult] = ()) -> Section | None:
    """Whether runs know how good their masks are; None where none said.

    Parameters
    ----------
    summary
        Of a run.
    results
        Of the same; without them the selective curve has no band.
    """
    told = summary.get("calibration")
    if not told or not told["n"]:
        return None
    unit = _unit(summary)
    bins = tuple(
        Point(b["mean_estimate"], figure_value({**b, "value": b["mean_iou"]}, unit), b["n"])
        for b in told["reliability"]
    )
    reliability = Curve(
        "reliability",
        "Estimated and true IoU",
        "Runs in bins of their own estimate; a dot's area follows its runs, the line is its 95% interval.",
        "Mean estimate",
        Scale("Mean IoU"),
        (Series("runs, by their estimate", bins),),
        (0.0, 1.0),
        x_percent=True,
        diagonal=True,
        joined=False,
        facts=_told(
            ("ECE", told["ece"], SHARE),
            ("estimate minus IoU", told["bias"], Scale("", signed=True)),
            ("rank correlation", told["spearman"], Scale("", percent=False)),
        ),
    )
    selective = told["selective_dice"]
    ends_of = dict(zip(selective["coverage"], selective_band(results, selective["coverage"]), strict=False))
    points = tuple(
        Point(share, Value(dice, _around(ends_of.get(share), dice), n, method="percentile"))
        for share, dice, n in zip(selective["coverage"], selective["dice"], selective["n"], strict=True)
    )
    lines = [Series("kept by the run's estimate", points)]
    if points:
        everything = points[-1].value.value
        lines.append(
            Series("kept at random", tuple(Point(x, Value(everything)) for x in (0.0, 1.0)), "quiet"),
        )
    curve = Curve(
        "selective-dice",
        "Dice of the cases a run is surest of",
        "If only this share of the cases is kept, by the run's own estimate, and the others go to a person. Band: "
        "95%, for each share by itself.",
        "Cases kept",
        Scale("Mean Dice"),
        tuple(lines),
        (0.0, 1.0),
        x_percent=True,
        facts=_told(
            ("area", selective["area"], SHARE),
            ("at random", selective["area_chance"], SHARE),
            ("perfect order", selective["area_best"], SHARE),
        ),
    )
    cautions = _cautions(summary)
    note = told.get("note")
    if note:
        cautions += (sentence(note),)
    about = (
        f"Does a run know how good its mask is? Its estimate is the {told['estimate']}, over "
        f"{count_text(told['n'], 'run')} on present targets."
    )
    return Section("calibration", "Calibration", (reliability, curve), about, cautions)


def _breakdown_table(pairs: list[tuple[tuple[str, str], Mapping[str, Any]]], unit: str) -> Table:
    names = [
        name for name in _BREAKDOWN if any(data["figures"].get(name, {}).get("value") is not None for _, data in pairs)
    ]
    several = len({group for (group, _), _ in pairs}) > 1
    rows: list[tuple[Cell, ...]] = []
    groups, group = [], None
    for (here, target), data in pairs:
        if several and here != group:
            groups.append((len(rows), here))
            group = here
        told = [(figure_value(data["figures"].get(name), unit, name), figure_scale(name)) for name in names]
        sample = _iou(data, unit)
        cells = [None if value.value is None else (value.beside(sample), scale) for value, scale in told]
        rows.append((target, few_text(sample), *cells))
    columns = ("Target", "Of", *(figure_scale(name).heading for name in names))
    return Table(
        "by-target",
        "Further figures by target",
        "Values with their 95% intervals.",
        columns,
        tuple(rows),
        tuple(groups),
    )


def _outcomes(summary: Mapping[str, Any]) -> Table:
    told = summary["outcomes"]
    names = [name for name in (*OUTCOME_WORDS, "unreadable") if any(told[kind].get(name) for kind in told)]
    kinds = [kind for kind in ("present", "absent") if told.get(kind)]
    rows = tuple(
        (OUTCOME_WORDS.get(name, "Row could not be read"), *(told[kind].get(name, 0) for kind in kinds))
        for name in names
    )
    columns = ("The run said", *(f"Target {kind}" for kind in kinds))
    return Table("outcomes", "How runs ended", "Number of runs.", columns, rows)


def _pairs(per_target: Mapping[str, Any]) -> list[tuple[tuple[str, str], Mapping[str, Any]]]:
    """((group, target), data) of those that have a mean IoU."""
    return [
        ((name.rpartition("/")[0], name.rpartition("/")[2]), data)
        for name, data in per_target.items()
        if data["iou"] is not None
    ]


def _named(pair: tuple[str, str]) -> str:
    return f"{pair[1]} ({pair[0]})" if pair[0] else pair[1]


def _iou(data: Mapping[str, Any], unit: str) -> Value:
    return figure_value(data["figures"].get("iou"), unit)


def _unit(summary: Mapping[str, Any]) -> str:
    return str((summary.get("intervals") or {}).get("unit") or "")


def _cautions(summary: Mapping[str, Any]) -> tuple[str, ...]:
    text = caution_text(summary.get("intervals"))
    return (text,) if text else ()


def _around(ends: tuple[float, float] | None, value: float) -> tuple[float, float] | None:
    return None if ends is None else (min(ends[0], value), max(ends[1], value))


def _told(*facts: tuple[str, float | None, Scale]) -> tuple[tuple[str, str], ...]:
    return tuple((name, number_text(value, scale)) for name, value, scale in facts if value is not None)
