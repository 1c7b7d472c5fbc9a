"""A comparison in words: the lines of a terminal, and Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ibisagent.evaluate.report.markdown import escape_markdown
from ibisagent.evaluate.report.model import Value
from ibisagent.evaluate.report.numbers import count_text, few_text, interval_text, number_text, p_text
from ibisagent.evaluate.report.scales import few_caution, figure_scale
from ibisagent.evaluate.statistics import is_claimed

if TYPE_CHECKING:
    from ibisagent.evaluate.compare import Change, Comparison, Line

__all__ = [
    "LineTexts", "cautions", "finding", "how_to_read", "line_texts", "line_value", "markdown", "setting", "terminal",
]  # fmt: skip


@dataclass(frozen=True)
class LineTexts:
    """A line of a comparison as a reader sees it; the names say what of it (`of` is cases and clusters)."""

    name: str
    of: str
    a: str
    b: str
    difference: str
    interval: str
    p: str
    holm: str
    tally: str
    detectable: str
    found: str


def line_value(line: Line, unit: str) -> Value:
    """The difference with its interval, which is left out where it has no width; `unit` is what a cluster is."""
    d = line.difference
    return Value.of({**d.to_json(), "value": d.difference}, unit)


def line_texts(line: Line, unit: str) -> LineTexts:
    """What the columns of a comparison hold, for terminal, Markdown and page.

    Parameters
    ----------
    line
        Of all cases, or of a target.
    unit
        What a cluster is.
    """
    d, t = line.difference, line.tally
    scale, value = figure_scale(line.figure), line_value(line, unit)
    return LineTexts(
        name=scale.heading if line.target is None else line.target,
        of=few_text(value),
        a=number_text(d.value_a, scale, unit=False),
        b=number_text(d.value_b, scale, unit=False),
        difference=number_text(value.value, scale.difference(), unit=False),
        interval=interval_text(value, scale.difference()),
        p=p_text(d.p),
        holm=p_text(line.p_holm),
        tally=f"{t.wins} / {t.ties} / {t.losses}",
        detectable=number_text(d.minimum_detectable, scale, unit=False),
        found=finding(line),
    )


def finding(line: Line) -> str:
    """``better``, ``worse``, ``higher`` or ``lower``; else ``no difference found``.

    What is claimed is what :func:`~ibisagent.evaluate.statistics.is_claimed` says.
    """
    difference = line.difference.difference
    if difference is None:
        return "nothing to compare"
    if line.p_holm is None:
        return "too few to test"
    if not is_claimed(line.difference, line.p_holm):
        return "no difference found"
    better = line.figure.higher_is_better
    if better is None:
        return "higher" if difference > 0 else "lower"
    return "better" if (difference > 0) == better else "worse"


def setting(comparison: Comparison) -> str:
    """What was compared, in one line."""
    pairs, clusters = comparison.pairing, comparison.clusters
    seeds = len(comparison.a.runs), len(comparison.b.runs)
    text = f"{count_text(len(pairs.keys), 'case')} played by both, of {count_text(clusters.number, clusters.unit)}"
    if max(seeds) > 1:
        text += f"; seeds: {seeds[0]} of {comparison.a.name}, {seeds[1]} of {comparison.b.name}"
    return text


def cautions(comparison: Comparison, *, by_target: bool = True) -> list[str]:
    """What a reader must know before the numbers, a line each; also of those by target, if they are shown."""
    pairs, unit, found = comparison.pairing, comparison.clusters.unit, []
    if pairs.only_a or pairs.only_b:
        names = ((comparison.a.name, pairs.only_a), (comparison.b.name, pairs.only_b))
        parts = [f"{len(only)} of {name} ({_listed(only)})" for name, only in names if only]
        found.append(f"without a partner, left out of the comparison: {'; '.join(parts)}")
    found += pairs.notes
    if comparison.clusters.warning:
        found.append(comparison.clusters.warning)
    if max(len(comparison.a.runs), len(comparison.b.runs)) == 1:
        found.append("one run a side: how much other seeds would differ is not in any interval")
    for line in comparison.lines:
        if line.difference.warning:
            found.append(f"{line.figure.title}: {line.difference.warning}")
    few = few_caution([line_value(line, unit) for line in comparison.by_target], unit)
    if few and by_target:
        found.append(f"by target: {few}")
    return list(dict.fromkeys(found))


def how_to_read(comparison: Comparison) -> list[str]:
    """What the columns are, a sentence each."""
    a, b = comparison.a.name, comparison.b.name
    unit = comparison.clusters.unit
    tests = sum(line.difference.p is not None for line in comparison.lines)
    seeds = max(len(comparison.a.runs), len(comparison.b.runs)) > 1
    test = (
        f"p is twice the share of these draws beyond 0, of {unit}s and of seeds, both crossed"
        if seeds
        else f"p is of a test that exchanges the results of {a} and {b} in whole {unit}s"
    )
    return [
        f"Differences are {b} less {a}, over the cases that have the figure on both sides; the interval is 95%, and "
        f"draws whole {unit}s{' and seeds' if seeds else ''}. Shares are in percent, "
        "their differences in percentage points.",
        f"{test[0].upper()}{test[1:]}. Holm's correction is over the {tests} figures, of all comparisons of this "
        "command, and over targets apart from them.",
        "A difference is claimed where p after the correction is below 0.05 and the interval excludes 0.",
        "Better, same and worse count cases"
        + (", each with its mean over seeds." if seeds else ".")
        + " Where neither direction is better they mean higher, same and lower.",
        "Detectable is the true difference that such a comparison finds in 80% of the times, with this spread and so "
        f"many {unit}s{' and seeds' if seeds else ''}, at the level that Holm's correction asks of the smallest p; 'no "
        "difference found' says nothing of smaller ones.",
    ]


def terminal(comparison: Comparison) -> str:
    """The comparison for a terminal."""
    a, b, unit = comparison.a.name, comparison.b.name, comparison.clusters.unit
    head = [a[:18], b[:18], "difference", "95% interval", "p", "Holm", "+ / = / -", "detectable", "found", "of"]
    out = [f"{b} against {a}: {setting(comparison)}"]
    for first, lines in (("", comparison.lines), ("by target", comparison.by_target)):
        if lines:
            rows = [[t.name, *_numbers(t), t.found, t.of] for t in (line_texts(line, unit) for line in lines)]
            out += [*([""] if first else []), *_aligned([[first, *head], *rows])]
    return "\n".join([*out, *(f"note: {text}" for text in cautions(comparison))])


def markdown(comparisons: Sequence[Comparison], pictures: Sequence[Sequence[tuple[Change, str | None]]]) -> str:
    """The comparisons as Markdown.

    Parameters
    ----------
    comparisons
        One or more.
    pictures
        For each, the changes that are shown, with their pictures' relative addresses; None where there is none.
    """
    out = []
    for comparison, shown in zip(comparisons, pictures, strict=True):
        a, b = escape_markdown(comparison.a.name), escape_markdown(comparison.b.name)
        out += [f"# {b} against {a}", "", f"{escape_markdown(setting(comparison))}.", ""]
        out += [*_table("Figure", comparison, comparison.lines), ""]
        if comparison.by_target:
            title = comparison.by_target[0].figure.title
            out += [f"## {title} by target", "", *_table("Target", comparison, comparison.by_target), ""]
        if shown:
            scale = figure_scale((comparison.by_target or comparison.lines)[0].figure)
            out += ["## Cases that changed most", ""]
            for change, address in shown:
                name = escape_markdown(change.key)
                out.append(
                    f"{name}: {number_text(change.value_a, scale)} → {number_text(change.value_b, scale)} "
                    f"({number_text(change.difference, scale.difference())})"
                )
                out += [*([f"![{name}]({address})"] if address else ["(no picture was kept)"]), ""]
        notes = (*cautions(comparison), *how_to_read(comparison))
        out += ["## Notes", "", *(f"- {escape_markdown(text)}" for text in notes), ""]
        for name, only in ((a, comparison.pairing.only_a), (b, comparison.pairing.only_b)):
            if only:
                out += [f"Only in {name}: {', '.join(escape_markdown(key) for key in only)}", ""]
    return "\n".join(out).rstrip() + "\n"


def _table(first: str, comparison: Comparison, lines: Sequence[Line]) -> list[str]:
    a, b = escape_markdown(comparison.a.name), escape_markdown(comparison.b.name)
    rows = [
        f"| {first} | {a} | {b} | Difference | 95% | p | p (Holm) | Better / same / worse | Detectable | Found | Of |",
        "|:--|--:|--:|--:|--:|--:|--:|--:|--:|:--|:--|",
    ]
    for line in lines:
        texts = line_texts(line, comparison.clusters.unit)
        cells = [texts.name, *_numbers(texts), texts.found, texts.of]
        rows.append(f"| {' | '.join(map(escape_markdown, cells))} |")
    return rows


def _numbers(t: LineTexts) -> list[str]:
    return [t.a, t.b, t.difference, t.interval, t.p, t.holm, t.tally, t.detectable]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    last = len(widths) - 2  # words: what was found, and of how much
    return [
        "  ".join(
            cell.ljust(width) if column == 0 or column >= last else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _listed(names: Sequence[str], most: int = 3) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
