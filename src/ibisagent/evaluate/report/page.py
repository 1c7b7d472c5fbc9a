"""``index.html``: the report as one self-contained page that needs no script and no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ibisagent.evaluate.report.axes import Axis, forest_axis, x_axis, y_axis
from ibisagent.evaluate.report.model import Block, Curve, Forest, ForestRow, Report, Scale, Series, Table
from ibisagent.evaluate.report.numbers import (
    DASH,
    SHARE,
    cell_text,
    count_text,
    interval_text,
    number_text,
    sample_text,
    value_text,
)
from ibisagent.rendering.figure import OUTCOME_WORDS
from ibisagent.web.parts import asset, content_policy, template

__all__ = ["render_report_page"]

_HEIGHT = 260
"""Of a curve's drawing area, in CSS pixels; its width is that of the window."""


@dataclass(frozen=True)
class _Track:
    """A row of a forest with its marks, in percent of the axis."""

    row: ForestRow
    dot: float | None
    low: float | None
    high: float | None
    opens: str
    """Heading that stands before it."""


@dataclass(frozen=True)
class _Line:
    """A series with its marks: paths in a box of 1000 x 1000, dots in percent."""

    series: Series
    path: str
    band: str
    dots: tuple[dict[str, Any], ...]


def render_report_page(report: Report, files: Mapping[str, Sequence[tuple[str, str]]] | None = None) -> str:
    """Make the page.

    Parameters
    ----------
    report
        What it says.
    files
        By a block's key: (word, relative address) of files that hold the same, such as a plot for print.

    Returns
    -------
    str
        HTML that can be encoded in UTF-8.
    """
    style, script = asset("theme.css", "report.css"), asset("report.js")
    page = template("report.html.jinja").render(
        policy=content_policy(style, script),
        style=style,
        script=script,
        report=report,
        parts=[(section, _together(section.blocks)) for section in report.sections],
        files=files or {},
        height=_HEIGHT,
        forest=_forest,
        curve=_curve,
        kinds=_column_kinds,
        number=number_text,
        interval=interval_text,
        sample=sample_text,
        whole=value_text,
        cell=cell_text,
        count=count_text,
        share=_share,
        outcomes=OUTCOME_WORDS,
        dash=DASH,
    )
    # Texts of models and of files may hold half of a surrogate pair, which UTF-8 cannot write.
    return page.encode("utf-8", "replace").decode("utf-8")


def _together(blocks: Sequence[Block]) -> list[list[Block]]:
    """Blocks by row of the page: curves that follow one another stand side by side."""
    rows: list[list[Block]] = []
    for block in blocks:
        if isinstance(block, Curve) and rows and isinstance(rows[-1][-1], Curve):
            rows[-1].append(block)
        else:
            rows.append([block])
    return rows


def _column_kinds(table: Table) -> list[str]:
    """Of every column: words are read from the left, short ones on one line; numbers are read from the right."""
    kinds = []
    for number in range(len(table.columns)):
        words = [cell for row in table.rows if isinstance(cell := row[number], str)]
        kinds.append("" if not words else "text" if max(map(len, words)) > 34 else "text short")
    return kinds


def _forest(forest: Forest) -> dict[str, Any]:
    axis = forest_axis(forest)

    def place(value: float | None) -> float | None:
        return None if value is None else round(100 * axis.share(value), 2)

    tracks, group = [], ""
    for row in forest.rows:
        value = row.value
        low, high = value.ci95 if value.ci95 is not None and value.value is not None else (None, None)
        opens, group = (row.group if row.group != group else ""), row.group
        tracks.append(_Track(row, place(value.value), place(low), place(high), opens))
    sampled = any(sample_text(row.value) for row in forest.rows)
    return {
        "tracks": tracks,
        "ticks": _ticks(axis),
        "reference": place(forest.reference),
        "sampled": sampled,
        "columns": 3 + sampled + bool(forest.note_title),
    }


def _curve(curve: Curve) -> dict[str, Any]:
    across, up = x_axis(curve), y_axis(curve)

    def place(x: float, y: float) -> tuple[float, float]:
        return round(100 * across.share(x), 2), round(100 * (1 - up.share(y)), 2)

    lines = []
    for series in curve.series:
        known = [point for point in series.points if point.value.value is not None]
        dots: list[dict[str, Any]] = []
        marked = series.style != "quiet"
        for point in known:
            x, y = place(point.x, float(point.value.value or 0.0))
            ends = [place(point.x, end)[1] for end in point.value.ci95 or ()]
            told = f"{number_text(point.x, _x_scale(curve)) if not curve.x_whole else f'{point.x:g}'}: "
            dots.append(
                {
                    "x": x,
                    "y": y,
                    "low": ends[0] if ends else None,
                    "high": ends[1] if ends else None,
                    "radius": _radius(point.size, known) if marked else 0.0,
                    "text": told + value_text(point.value, curve.scale),
                }
            )
        path = "M" + " L".join(f"{10 * d['x']:g} {10 * d['y']:g}" for d in dots) if curve.joined and dots else ""
        lines.append(_Line(series, path, _band(dots) if curve.joined else "", tuple(dots)))
    return {
        "lines": lines,
        "x_ticks": _ticks(across),
        "y_ticks": [(100 - place_, text) for place_, text in _ticks(up)],
        "rows": _numbers(curve),
        "several": sum(series.style != "quiet" for series in curve.series) > 1,
    }


def _radius(size: int | None, points: Sequence[Any]) -> float:
    """Of a dot: its area follows what it stands for, but it can always be seen."""
    if size is None:
        return 3.2 if len(points) <= 20 else 0.0
    most = max((point.size or 0) for point in points) or 1
    return round(2.5 + 5.0 * (size / most) ** 0.5, 1)


def _band(dots: Sequence[dict[str, Any]]) -> str:
    """Between the ends of the intervals, over those neighbours that have one."""
    held = [(dot["x"], dot["low"], dot["high"]) for dot in dots if dot["low"] is not None]
    if len(held) < 2:
        return ""
    there = [f"{10 * x:g} {10 * high:g}" for x, _, high in held]
    back = [f"{10 * x:g} {10 * low:g}" for x, low, _ in reversed(held)]
    return "M" + " L".join(there + back) + "Z"


def _numbers(curve: Curve) -> list[tuple[str, str, str, str]]:
    """(series, x, value with interval, cases) of every point, for who wants the numbers."""
    rows = []
    for series in curve.series:
        for number, point in enumerate(series.points if series.style != "quiet" else ()):
            x = f"{point.x:g}" if curve.x_whole else number_text(point.x, _x_scale(curve))
            size = point.size if point.size is not None else point.value.n
            rows.append(
                (
                    "" if number else series.name,
                    x,
                    value_text(point.value, curve.scale),
                    "" if size is None else f"{size:,}",
                )
            )
    return rows


def _x_scale(curve: Curve) -> Scale:
    return Scale("", percent=curve.x_percent)


def _ticks(axis: Axis) -> list[tuple[float, str]]:
    return [(round(100 * axis.share(value), 2), text) for value, text in axis.ticks]


def _share(value: float | None) -> str:
    """A share of a case: it has no interval."""
    return number_text(value, SHARE)
