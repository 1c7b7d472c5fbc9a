"""A comparison in words: the lines of a terminal, and Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ibisagent.evaluate.compare import Change, Comparison, Line

__all__ = ["cautions", "finding", "how_to_read", "markdown", "number", "p_text", "setting", "signed", "terminal"]

LEVEL = 0.05


def number(value: float | None, decimals: int = 3) -> str:
    """A figure; a dash where there is none."""
    return "–" if value is None else f"{value:.{decimals}f}"


def signed(value: float | None, decimals: int = 3) -> str:
    """A difference, with its sign; nothing that rounds to zero has one."""
    if value is None:
        return "–"
    text = f"{value:+.{decimals}f}".replace("-", "−")
    return text[1:] if float(f"{value:.{decimals}f}") == 0 else text


def p_text(p: float | None) -> str:
    """A p value, never as 0."""
    if p is None:
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def finding(line: Line) -> str:
    """``better``, ``worse``, ``higher`` or ``lower``; else ``no difference found``.

    A difference is claimed where p after Holm's correction is below 5% and the interval excludes 0: the two are made in
    different ways, and where they disagree (few clusters, rare targets) the more careful one counts.
    """
    difference = line.difference.difference
    if difference is None:
        return "nothing to compare"
    if line.p_holm is None:
        return "too few to test"
    ends = line.difference.ci95
    if line.p_holm >= LEVEL or ends is None or ends[0] <= 0 <= ends[1]:
        return "no difference found"
    better = line.figure.higher_is_better
    if better is None:
        return "higher" if difference > 0 else "lower"
    return "better" if (difference > 0) == better else "worse"


def setting(comparison: Comparison) -> str:
    """What was compared, in one line."""
    pairs, clusters = comparison.pairing, comparison.clusters
    seeds = len(comparison.a.runs), len(comparison.b.runs)
    unit = f"{clusters.number} {clusters.unit}{'' if clusters.number == 1 else 's'}"
    text = f"{len(pairs.keys)} cases played by both, of {unit}"
    if max(seeds) > 1:
        text += f"; seeds: {seeds[0]} of {comparison.a.name}, {seeds[1]} of {comparison.b.name}"
    return text


def cautions(comparison: Comparison) -> list[str]:
    """What a reader must know before the numbers, a line each."""
    pairs, found = comparison.pairing, []
    if pairs.only_a or pairs.only_b:
        names = ((comparison.a.name, pairs.only_a), (comparison.b.name, pairs.only_b))
        parts = [f"{len(only)} of {name} ({_listed(only)})" for name, only in names if only]
        found.append(f"without a partner, in no number below: {'; '.join(parts)}")
    found += pairs.notes
    if comparison.clusters.warning:
        found.append(comparison.clusters.warning)
    if max(len(comparison.a.runs), len(comparison.b.runs)) == 1:
        found.append("one run a side: how much other seeds would differ is not in any interval")
    for line in comparison.lines:
        if line.difference.warning:
            found.append(f"{line.figure.title}: {line.difference.warning}")
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
        f"Differences are {b} less {a}, over the same cases; the interval is 95%, and draws whole {unit}s"
        + (" and seeds." if seeds else "."),
        f"{test[0].upper()}{test[1:]}. Holm's correction is over the {tests} figures, of all comparisons of this "
        "command, and over targets apart from them.",
        "A difference is claimed where p after the correction is below 0.05 and the interval excludes 0.",
        "Better, same and worse count cases"
        + (", each with its mean over seeds." if seeds else ".")
        + " Where neither direction is better they mean higher, same and lower.",
        "Detectable is the true difference that such a comparison finds at p < 0.05 (uncorrected) in 80% of the times, "
        f"with this spread and so many {unit}s{' and seeds' if seeds else ''}; 'no difference found' says nothing of "
        "smaller ones.",
    ]


def terminal(comparison: Comparison) -> str:
    """The comparison for a terminal."""
    a, b = comparison.a.name, comparison.b.name
    rows = [["", a[:18], b[:18], "difference", "95% interval", "p", "Holm", "+ / = / -", "detectable", ""]]
    rows += [_cells(line) for line in comparison.lines]
    out = [f"{b} against {a}: {setting(comparison)}", *_aligned(rows)]
    if comparison.by_target:
        rows = [["by target", *rows[0][1:]]] + [_cells(line) for line in comparison.by_target]
        out += ["", *_aligned(rows)]
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
        a, b = _plain(comparison.a.name), _plain(comparison.b.name)
        head = f"| {{}} | {a} | {b} | Difference [95%] | p | p (Holm) | Better / same / worse | Detectable | Found |"
        rule = "|:--|--:|--:|--:|--:|--:|--:|--:|:--|"
        out += [f"# {b} against {a}", "", f"{_plain(setting(comparison))}.", ""]
        out += [head.format("Figure"), rule, *(_row(line) for line in comparison.lines), ""]
        if comparison.by_target:
            title = comparison.by_target[0].figure.title
            out += [f"## {title} by target", "", head.format("Target"), rule]
            out += [*(_row(line) for line in comparison.by_target), ""]
        if shown:
            out += ["## Cases that changed most", ""]
            for change, address in shown:
                text = f"{_plain(change.key)}: {number(change.value_a)} → {number(change.value_b)}"
                text += f" ({signed(change.difference)})"
                out += [text, *([f"![{_plain(change.key)}]({address})"] if address else ["(no picture was kept)"]), ""]
        out += [
            "## Notes",
            "",
            *(f"- {_plain(text)}" for text in (*cautions(comparison), *how_to_read(comparison))),
            "",
        ]
        for name, only in ((a, comparison.pairing.only_a), (b, comparison.pairing.only_b)):
            if only:
                out += [f"Only in {name}: {', '.join(_plain(key) for key in only)}", ""]
    return "\n".join(out).rstrip() + "\n"


def _row(line: Line) -> str:
    d, t = line.difference, line.tally
    ends = "" if d.ci95 is None else f" [{signed(d.ci95[0])}, {signed(d.ci95[1])}]"
    name = line.figure.title if line.target is None else f"{line.target} ({d.n})"
    cells = [
        _plain(name),
        number(d.value_a),
        number(d.value_b),
        f"{signed(d.difference)}{ends}",
        p_text(d.p),
        p_text(line.p_holm),
        f"{t.wins} / {t.ties} / {t.losses}",
        number(d.minimum_detectable),
        finding(line),
    ]
    return f"| {' | '.join(cells)} |"


def _cells(line: Line) -> list[str]:
    d, t = line.difference, line.tally
    return [
        line.figure.title if line.target is None else f"{line.target} ({d.n})",
        number(d.value_a),
        number(d.value_b),
        signed(d.difference),
        "–" if d.ci95 is None else f"{signed(d.ci95[0])} {signed(d.ci95[1])}",
        p_text(d.p),
        p_text(line.p_holm),
        f"{t.wins}/{t.ties}/{t.losses}",
        number(d.minimum_detectable),
        finding(line),
    ]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    last = len(widths) - 1
    return [
        "  ".join(
            cell.ljust(width) if column in (0, last) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _listed(names: Sequence[str], most: int = 3) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _plain(text: str) -> str:
    """Somebody else's text in Markdown: one line in which nothing is markup."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return "".join("\\" + c if c in "\\`*_[]<>|#!" else c for c in line)
