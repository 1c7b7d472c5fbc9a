"""The curve of scores over the steps, as an SVG that needs no script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ibisagent.web.frames import Frame

__all__ = ["Chart", "Series", "build_chart"]

WIDTH, HEIGHT = 340, 132
_LEFT, _RIGHT, _TOP, _BOTTOM = 30, 10, 8, 22


@dataclass(frozen=True)
class Series:
    """One line of the chart: its name, its class in the style sheet, its path and its dots (x, y, text)."""

    name: str
    css: str
    path: str
    dots: tuple[tuple[float, float, str], ...]


@dataclass(frozen=True)
class Chart:
    """Everything the template draws; coordinates are those of the view box."""

    width: int
    height: int
    series: tuple[Series, ...]
    grid: tuple[tuple[float, str], ...]
    ticks: tuple[tuple[float, str], ...]
    top: int
    bottom: int
    left: int
    right: int


def build_chart(frames: Sequence[Frame]) -> Chart | None:
    """Draw the segmenter's score, and IoU and Dice where a reference is known, over start and steps.

    Returns None where there is nothing to draw.
    """
    stops = [frame for frame in frames if frame.kind != "result"]
    values = (
        ("segmenter's own score", "own", [frame.segmenter_score for frame in stops]),
        ("IoU", "iou", [frame.iou for frame in stops]),
        ("Dice", "dice", [frame.dice for frame in stops]),
    )
    if len(stops) < 2 or not any(v is not None for _, _, line in values for v in line):
        return None
    room = WIDTH - _LEFT - _RIGHT

    def place_x(index: int) -> float:
        return round(_LEFT + room * index / (len(stops) - 1), 1)

    def place_y(value: float) -> float:
        return round(HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * min(max(value, 0.0), 1.0), 1)

    series = []
    for name, css, line in values:
        dots = tuple((place_x(i), place_y(v), f"{v:.3f}") for i, v in enumerate(line) if v is not None)
        if dots:
            path = "M" + " L".join(f"{x} {y}" for x, y, _ in dots)
            series.append(Series(name, css, path, dots))
    every = max(1, -(-len(stops) // 12))  # at most a dozen labels
    return Chart(
        width=WIDTH,
        height=HEIGHT,
        series=tuple(series),
        grid=tuple((place_y(v), f"{v:g}") for v in (0.0, 0.5, 1.0)),
        ticks=tuple((place_x(i), stops[i].label if i else "0") for i in range(0, len(stops), every)),
        top=_TOP,
        bottom=HEIGHT - _BOTTOM,
        left=_LEFT,
        right=WIDTH - _RIGHT,
    )
