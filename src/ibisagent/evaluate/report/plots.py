"""Forests and curves as files for a paper: one column wide, letters of 8 points, vector graphics."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ibisagent.evaluate.report.axes import forest_axis, x_axis, y_axis
from ibisagent.evaluate.report.model import Block, Curve, Forest, Report
from ibisagent.evaluate.report.numbers import number_text
from ibisagent.rendering.plot_style import GREY, STYLE, figure_bytes, plain
from ibisagent.rendering.png import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["PLOT_KINDS", "plot_bytes", "write_plots"]

PLOT_KINDS: tuple[Literal["pdf", "svg"], ...] = ("pdf", "svg")
"""For LaTeX, and for everything else."""

_COLUMN = 3.45
"""Inches: a column of a two-column page."""

_ROW, _HEAD = 0.19, 0.75
_MOST_ROWS = 60
"""Rows of one plot; more do not fit a page."""

_INK, _ACCENT, _SECOND = "#14181d", "#0a66a3", "#a66a00"
_COLOURS = {"main": _ACCENT, "second": _SECOND, "quiet": GREY}
_DASHES: dict[str, Any] = {"main": "-", "second": (0, (5, 2)), "quiet": (0, (1, 2))}


def write_plots(report: Report, folder: Path) -> dict[str, list[tuple[str, str]]]:
    """Write every forest and curve of a report, in each of :data:`PLOT_KINDS`.

    Parameters
    ----------
    report
        Whose plots.
    folder
        Must exist.

    Returns
    -------
    dict
        (word, file name) of the files by the block's key.

    Raises
    ------
    ValueError
        If a key is no name for a file: not of ASCII letters, digits and dashes alone. Nothing has been written then.
    """
    blocks = list(_plotted(report))
    for block in blocks:
        if not re.fullmatch(r"[A-Za-z0-9-]+", block.key):
            raise ValueError(f"the key {block.key!r} of a plot is no name for a file")
    written: dict[str, list[tuple[str, str]]] = {}
    for block in blocks:
        for kind, data in zip(PLOT_KINDS, _drawn(block, PLOT_KINDS), strict=True):
            name = f"{block.key}.{kind}"
            write_atomic(data, folder / name)
            written.setdefault(block.key, []).append((kind.upper(), name))
    return written


def plot_bytes(block: Forest | Curve, kind: Literal["pdf", "svg", "png"]) -> bytes:
    """A forest or a curve as a file's content, which depends on what it shows alone."""
    return _drawn(block, (kind,))[0]


def _drawn(block: Forest | Curve, kinds: Sequence[Literal["pdf", "svg", "png"]]) -> list[bytes]:
    import matplotlib as mpl

    style = {**STYLE, "font.size": 8.0, "axes.titlesize": 8.5, "pdf.fonttype": 42, "legend.fontsize": 7.5}
    with mpl.rc_context(style):
        figure = _forest(block) if isinstance(block, Forest) else _curve(block)
        return [figure_bytes(figure, kind) for kind in kinds]


def _plotted(report: Report) -> Iterator[Forest | Curve]:
    for section in report.sections:
        for block in section.blocks:
            if _has_something(block):
                yield block  # type: ignore[misc]


def _has_something(block: Block) -> bool:
    if isinstance(block, Forest):
        return 0 < len(block.rows) <= _MOST_ROWS and any(row.value.value is not None for row in block.rows)
    return isinstance(block, Curve) and any(series.points for series in block.series)


def _forest(forest: Forest) -> Figure:
    from matplotlib.figure import Figure

    lines: list[tuple[str, int | None]] = []  # heading, or row of the forest
    group = ""
    for number, row in enumerate(forest.rows):
        if row.group != group:
            lines.append((row.group, None))
            group = row.group
        lines.append((row.label, number))
    figure = Figure(figsize=(_COLUMN, _HEAD + _ROW * len(lines)), layout="constrained")
    axes = figure.add_subplot()
    axis = forest_axis(forest)
    for height, (text, index) in enumerate(lines):
        y = -height
        if index is None:
            axes.annotate(plain(text, 24), (0, y), (-4, 0), ("axes fraction", "data"), textcoords="offset points",
                          ha="right", va="center", weight="bold", color="#53606d")  # fmt: skip
            continue
        row = forest.rows[index]
        value, colour = row.value, _ACCENT if row.strong else _INK
        if value.value is None:
            continue
        if value.ci95 is not None:
            axes.plot(value.ci95, (y, y), color=colour, linewidth=1.2, solid_capstyle="butt")
        fill = colour if row.strong else "white"
        axes.plot([value.value], [y], "o", color=colour, markerfacecolor=fill, markersize=4.2, markeredgewidth=1.1)
        axes.annotate(number_text(value.value, forest.scale, unit=False), (1, y), (4, 0), ("axes fraction", "data"),
                      textcoords="offset points", ha="left", va="center", fontsize=7.5)  # fmt: skip
    rows = [(-height, forest.rows[index]) for height, (_, index) in enumerate(lines) if index is not None]
    axes.set_yticks([y for y, _ in rows], [plain(row.label, 24) for _, row in rows])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-len(lines) + 0.4, 0.6)
    axes.set_xlim(axis.low, axis.high)
    axes.set_xticks([v for v, _ in axis.ticks], [text for _, text in axis.ticks])
    axes.set_xlabel(plain(forest.scale.heading, 60))
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    if forest.reference is not None:
        axes.axvline(forest.reference, color="#53606d", linewidth=1.0, zorder=1)
    return figure


def _curve(curve: Curve) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_COLUMN, _COLUMN * (0.9 if curve.diagonal else 0.68)), layout="constrained")
    axes: Axes = figure.add_subplot()
    across, up = x_axis(curve), y_axis(curve)
    if curve.diagonal:
        axes.plot(curve.x_range, curve.y_range, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)))
    for series in curve.series:
        points = [(p.x, p.value.value, p.value.ci95, p.size) for p in series.points if p.value.value is not None]
        if not points:
            continue
        colour = _COLOURS[series.style]
        x, y = [p[0] for p in points], [p[1] for p in points]
        held = [(p[0], p[2]) for p in points if p[2] is not None]
        if curve.joined:
            axes.fill_between([a for a, _ in held], [c[0] for _, c in held], [c[1] for _, c in held],
                              color=colour, alpha=0.18, linewidth=0)  # fmt: skip
            marks = "o" if len(points) <= 20 and series.style != "quiet" else ""
            axes.plot(x, y, color=colour, linestyle=_DASHES[series.style], marker=marks, markersize=3, linewidth=1.5,
                      label=plain(series.name, 40))  # fmt: skip
        else:
            for place, ends in held:
                axes.plot((place, place), ends, color=colour, linewidth=1.1)
            most = max((p[3] or 1) for p in points)
            axes.scatter(x, y, [12 + 48 * (p[3] or 1) / most for p in points], color=colour, zorder=3)
    axes.set_xlim(across.low, across.high)
    axes.set_ylim(up.low, up.high)
    axes.set_xticks([v for v, _ in across.ticks], [text for _, text in across.ticks])
    axes.set_yticks([v for v, _ in up.ticks], [text for _, text in up.ticks])
    axes.set_xlabel(plain(f"{curve.x_title}, %" if curve.x_percent else curve.x_title, 60))
    axes.set_ylabel(plain(curve.scale.heading, 60))
    axes.grid()
    if curve.joined and len(curve.series) > 1:
        axes.legend(frameon=False, loc="best")
    return figure
