"""Parts of a report that a lab gives: every arm beside the agent, and the paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ibisagent.evaluate.report.model import Block, Cell, Forest, ForestRow, Scale, Section, Table, Value
from ibisagent.evaluate.report.numbers import SHARE, count_text, few_text, interval_text, number_text, p_text, sentence
from ibisagent.evaluate.report.scales import figure_scale, figure_value
from ibisagent.evaluate.statistics import is_claimed

__all__ = ["difference_row", "lab_findings", "lab_remarks", "lab_sections"]

AGENT, NO_LOOK = "agent", "no-look"

_TOGETHER: tuple[tuple[str, tuple[str, ...], str, str], ...] = (
    (
        "baselines",
        ("baseline", "policy", "ceiling"),
        "Baselines and ceiling",
        "The same cases, the same tool, the same budget: what does looking add, and how far can the tool go?",
    ),
    (
        "robustness",
        ("robustness",),
        "Robustness",
        "Cases that were made harder on purpose: an instruction that misleads, a mask that is wrong or damaged, a "
        "target that is not there.",
    ),
    ("wording", ("wording",), "Wording", "The same case, asked for in other words."),
    (
        "ablations",
        ("ablation",),
        "Ablations at inference",
        "The same policy, with something taken from it: is it the reasoning?",
    ),
    ("segmenters", ("segmenter",), "Segmenters", "The same policy with another segmenter."),
)
"""(key, kinds of arms, title, text) of the sections."""

_KINDS = {"baseline": "Baselines", "policy": "Other policies with the same tool", "ceiling": "Ceiling"}

_TABLE = ("iou", "dice", "steps", "false_refusals", "right_refusals", "seconds")

_POINTS = Scale("", unit="points")
_DIFFERENCE = Scale("Difference in IoU", signed=True)


def lab_sections(summary: Mapping[str, Any]) -> list[Section]:
    """A section for every kind of arm that was played.

    Parameters
    ----------
    summary
        From :func:`ibisagent.evaluate.arms.lab_summary`.
    """
    unit = str(summary["clusters"]["unit"])
    warning = summary["clusters"].get("warning")
    cautions = (sentence(warning),) if warning else ()
    found = []
    for key, kinds, title, text in _TOGETHER:
        arms = {name: about for kind in kinds for name, about in summary["arms"].items() if about.get("kind") == kind}
        played = {name: about for name, about in arms.items() if about.get("figures")}
        if not arms:
            continue
        blocks = _blocks(key, summary, played, unit)
        if key == "baselines":
            blocks += _ceiling(summary.get("ceiling"), unit)
        elif key == "robustness":
            blocks += _robustness(summary, played, unit)
        elif key == "wording":
            blocks += _wording(summary.get("wording"), unit)
        notes = _notes(arms)
        if blocks or notes:
            found.append(Section(key, title, tuple(blocks), text, (*cautions, *notes)))
    return found


def lab_findings(summary: Mapping[str, Any]) -> list[str]:
    """Sentences: what the agent adds, what share of the ceiling it has, which arms differ for certain."""
    told = []
    titles = {name: str(about.get("title") or name) for name, about in summary["arms"].items()}
    blind = _gap(summary, NO_LOOK)
    if blind is not None:
        words = f"{_words(_turned(blind))} points of IoU"
        chance = f", {_chance(blind)}" if _chance(blind) else ""
        if not is_claimed(blind, blind.get("p_holm")):
            told.append(
                f"That looking adds anything was not found: {words} against one click that never looks{chance}."
            )
        elif blind["difference"] < 0:
            told.append(f"Looking adds {words} to one click that never looks{chance}.")
        else:
            told.append(f"Looking harms: {words} against one click that never looks{chance}.")
    ceiling = summary.get("ceiling")
    if ceiling is not None:
        over, best = (ceiling.get(f"agent_over_oracle{end}", {}).get("cases") or {} for end in ("", "_best"))
        if over.get("value") is not None:
            of_best = ""
            if best.get("value") is not None:
                share = f"{number_text(best['value'], SHARE)} {interval_text(Value.of(best), SHARE)}"
                of_best = f", {share} of the best one on the way"
            told.append(
                f"The agent reaches {number_text(over['value'], SHARE)} {interval_text(Value.of(over), SHARE)} of the "
                f"IoU of the mask that an oracle's clicks end with, same segmenter, as many steps{of_best}."
            )
    robust = [
        (name, about)
        for name, about in summary["arms"].items()
        if about.get("kind") in ("robustness", "ablation") and _clear(about)
    ]
    for name, about in robust:
        against = about["difference"].get("against")
        held = "" if against == AGENT else f" against '{titles.get(str(against), str(against))}'"
        told.append(f"{titles[name]}: {_words(_value(about['difference']['iou'], ''))} points of IoU{held}.")
    return told


def lab_remarks(summary: Mapping[str, Any]) -> dict[str, str]:
    """A line under the headline figures, of differences that are claimed."""
    blind = _gap(summary, NO_LOOK)
    if blind is None or not is_claimed(blind, blind.get("p_holm")):
        return {}
    return {"iou": f"{number_text(_turned(blind).value, _DIFFERENCE)} points over no look"}


def difference_row(label: str, data: Mapping[str, Any], unit: str, *, detail: str = "", group: str = "") -> ForestRow:
    """A paired difference (:meth:`ibisagent.evaluate.statistics.Difference.to_json`), filled where it is claimed.

    Its p-value is the corrected one, ``p_holm``.
    """
    return ForestRow(
        label,
        _value(data, unit),
        detail,
        group,
        strong=is_claimed(data, data.get("p_holm")),
        note=_chance(data),
    )


def _blocks(key: str, summary: Mapping[str, Any], arms: Mapping[str, Any], unit: str) -> list[Block]:
    """IoU of the arms under the agent's, their differences, and their further figures."""
    agent = summary["arms"].get(AGENT)
    rows, table, names = [], [], []
    shown = {AGENT: agent, **arms} if agent and agent.get("figures") else dict(arms)
    for name, about in shown.items():
        iou = figure_value(about["figures"].get("iou"), unit)
        group = _KINDS.get(str(about.get("kind")), "") if key == "baselines" else ""
        if iou.value is not None:
            title = "The agent" if name == AGENT else str(about["title"])
            rows.append(ForestRow(title, iou, group=group, strong=name == AGENT))
            table.append((title, about))
            names.append(name)
    blocks: list[Block] = []
    if len(rows) > 1:
        about = "Filled: the agent as it is." + (
            " Arms need not have the same cases; the differences below are over those that both played."
        )
        blocks.append(Forest(f"{key}-iou", "IoU", about, Scale("IoU"), tuple(rows)))
    gaps = []
    for about in arms.values():
        if about.get("difference"):
            against = str(about["difference"].get("against"))
            other = summary["arms"].get(against, {}).get("title") or against
            detail = "" if against == AGENT else f"less {str(other).lower()}"
            group = _KINDS.get(str(about.get("kind")), "") if key == "baselines" else ""
            gaps.append(
                difference_row(str(about["title"]), about["difference"]["iou"], unit, detail=detail, group=group)
            )
    if gaps:
        blocks.append(
            Forest(
                f"{key}-difference",
                "Paired difference in IoU",
                "The arm less the agent on the same cases. p-values by Holm, corrected over all arms and figures of "
                "the lab; filled: p < 0.05 and an interval without 0.",
                _DIFFERENCE,
                tuple(gaps),
                0.0,
                "left of the line: worse",
                "p (Holm)",
            )
        )
    if len(table) > 1:
        blocks.append(_table(key, table, unit))
    return blocks


def _notes(arms: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is missing from arms, and why: a reader would not see it in their figures."""
    told = []
    for about in arms.values():
        title = about.get("title")
        if about.get("skipped"):
            told.append(f"{title}, not played: {about['skipped']}")
            continue
        out = [f"{count_text(number, 'case')}, {why}" for why, number in (about.get("left_out") or {}).items()]
        if out:
            told.append(f"{title}, left out: {'; '.join(out)}")
        if not about.get("complete", True):
            told.append(f"{title}, not finished: {count_text(about.get('num_cases', 0), 'case')} so far")
        told += [f"{title}: {note}" for note in about.get("notes") or ()]
    return [sentence(text) for text in told]


def _table(key: str, arms: Sequence[tuple[str, Mapping[str, Any]]], unit: str) -> Table:
    names = [n for n in _TABLE if any(about["figures"].get(n, {}).get("value") is not None for _, about in arms)]
    macro = any(about.get("target_mean_iou") for _, about in arms)
    rows: list[tuple[Cell, ...]] = []
    for title, about in arms:
        sample = figure_value(about["figures"].get("iou"), unit)
        cells: list[Cell] = [title, few_text(sample) or None]
        for name in names:
            value = figure_value(about["figures"].get(name), unit, name)
            cells.append(None if value.value is None else (value.beside(sample), figure_scale(name)))
            if name == "iou" and macro:
                whole = Value.of(about.get("target_mean_iou"), unit)
                cells.append(None if whole.value is None else (whole.beside(sample), SHARE))
        least = (about.get("difference") or {}).get("iou", {}).get("minimum_detectable")
        cells.append(None if least is None else (Value(least), _POINTS))
        rows.append(tuple(cells))
    heads = []
    for name in names:
        heads += [figure_scale(name).heading] + (["IoU over targets, %"] if name == "iou" and macro else [])
    return Table(
        f"{key}-figures",
        "Further figures",
        "Detectable: the true difference in IoU, in points, that such a comparison finds in 80% of the times, at the "
        "level that Holm's correction over all arms asks of the smallest p.",
        ("Arm", "Of", *heads, "Detectable, points"),
        tuple(rows),
    )


def _ceiling(ceiling: Mapping[str, Any] | None, unit: str) -> list[Block]:
    if ceiling is None:
        return []
    rows = []
    shares = (
        ("agent_over_oracle", "Agent over oracle", "IoU over IoU"),
        ("share_of_ceiling", "Share of what looking can add", "(agent − no look) over (oracle − no look)"),
    )
    for end, group in (("", "Against the oracle's last mask"), ("_best", "Against the best mask of the oracle's run")):
        for name, label, detail in shares:
            for by, words in (("cases", "every case counts alike"), ("targets", "every target counts alike")):
                value = Value.of((ceiling.get(f"{name}{end}") or {}).get(by), unit)
                if value.value is not None:
                    rows.append(ForestRow(label, value, f"{detail}, {words}", group))
    if not rows:
        return []
    about = (
        "How much of what the tool can do the policy gets out of it; above 100 where it does better than the oracle."
    )
    return [Forest("ceiling-share", "Share of the ceiling", about, Scale("Share"), tuple(rows))]


def _robustness(summary: Mapping[str, Any], arms: Mapping[str, Any], unit: str) -> list[Block]:
    blocks: list[Block] = []
    recovered, rows = [], []
    for about in arms.values():
        back = about.get("recovery")
        if not back:
            continue
        title = str(about["title"])
        value = figure_value(back["recovery"], unit)
        if value.value is not None:
            recovered.append(ForestRow(title, value))
        cells = [figure_value(back.get(n), unit) for n in _RECOVERY]
        rows.append((title, few_text(value), *(None if c.value is None else (c.beside(value), SHARE) for c in cells)))
        success, tolerance = back["success"], back["tolerance"]
    if recovered:
        about = (
            f"Share of the cases with a plain IoU of {100 * success:.0f}% or more whose IoU came back to within "
            f"{100 * tolerance:.0f} points of the plain run's."
        )
        blocks.append(Forest("recovery", "Recovered", about, Scale("Cases"), tuple(recovered)))
    if any(cell is not None for row in rows for cell in (row[2], *row[4:])):
        about = (
            "Where a mask was given. Recovered by stopping: what an agent that stops at once would have. Improved and "
            f"harmed: by more than {100 * tolerance:.0f} points."
        )
        columns = ("Arm", "Of", *_RECOVERY.values())
        blocks.append(Table("given-masks", "What became of the given mask", about, columns, tuple(rows)))
    absent = summary.get("absent")
    if absent:
        found = [
            ForestRow(str(summary["arms"][name].get("title") or name), figure_value(data, unit), group=group)
            for figure, group in (
                ("right_refusals", "Absent targets that were called absent"),
                ("specificity", "Absent targets of which nothing was marked (specificity)"),
            )
            for name, data in absent[figure].items()
        ]
        for figure, group in (
            ("false_refusals", "Present targets that were called absent"),
            ("sensitivity", "Present targets of which something was marked (sensitivity)"),
        ):
            value = figure_value(absent[figure], unit)
            if value.value is not None:
                found.append(ForestRow("The agent", value, group=group))
        blocks.append(
            Forest(
                "absent-targets",
                "Absent targets",
                "Calling absent what is absent, and only that: what the agent says, and what it marks.",
                Scale("Cases"),
                tuple(found),
            )
        )
    return blocks


_RECOVERY = {
    "given_iou": "Given IoU, %",
    "recovery": "Recovered, %",
    "recovery_of_stopping": "Recovered by stopping, %",
    "improved": "Improved, %",
    "harmed": "Harmed, %",
    "discarded": "Discarded, %",
}


def _wording(wording: Mapping[str, Any] | None, unit: str) -> list[Block]:
    rows: list[tuple[Cell, ...]] = []
    for stage, told in (wording or {}).items():
        spread = Value.of(told["within_case_sd"], unit)
        largest = [told.get(name) for name in ("largest_difference", "largest_by_chance")]
        rows.append(
            (
                {"start": "Nothing drawn yet", "refine": "A mask to refine"}.get(stage, stage),
                len(told["categories"]),
                None if spread.value is None else (spread, _POINTS),
                *(None if one is None else number_text(one, SHARE, unit=False) for one in largest),
            )
        )
    if not rows:
        return []
    about = (
        "Standard deviation of a case's IoU over the wordings it was told in, mean over cases; and the largest "
        "difference between two categories, with what it is on average where wordings do not matter. Points of IoU."
    )
    columns = ("Stage", "Categories", "Within a case", "Between categories", "By chance")
    return [Table("wording-spread", "How much the wording matters", about, columns, tuple(rows))]


def _gap(summary: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    about = summary["arms"].get(name) or {}
    gap = (about.get("difference") or {}).get("iou")
    return gap if gap and gap.get("difference") is not None else None


def _clear(about: Mapping[str, Any]) -> bool:
    gap = (about.get("difference") or {}).get("iou")
    return gap is not None and is_claimed(gap, gap.get("p_holm"))


def _value(data: Mapping[str, Any], unit: str) -> Value:
    return Value.of({**data, "value": data.get("difference")}, unit)


def _turned(data: Mapping[str, Any]) -> Value:
    """The agent less the arm."""
    value = _value(data, "")
    if value.value is None:
        return value
    return Value(-value.value, None if value.ci95 is None else (-value.ci95[1], -value.ci95[0]), value.n)


def _words(value: Value) -> str:
    text = number_text(value.value, _DIFFERENCE)
    interval = interval_text(value, _DIFFERENCE)
    return f"{text} {interval}" if interval else text


def _chance(data: Mapping[str, Any]) -> str:
    p = data.get("p_holm")
    return "" if p is None else f"p {p_text(p)}" if p < 0.001 else f"p = {p_text(p)}"
