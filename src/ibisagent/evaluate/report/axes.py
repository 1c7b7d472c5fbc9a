"""Axes: from where to where, with ticks at round numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ibisagent.evaluate.report.model import Curve, Forest, Scale
from ibisagent.evaluate.report.numbers import number_text

__all__ = ["Axis", "forest_axis", "nice_axis", "x_axis", "y_axis"]


@dataclass(frozen=True)
class Axis:
    """A range and its ticks (place, text)."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]

    def share(self, value: float) -> float:
        """Where a number lies between the ends, from 0 to 1; beyond them at the end."""
        return min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)


def nice_axis(low: float, high: float, scale: Scale, count: int = 5) -> Axis:
    """The smallest range with round ends that holds `low` and `high`, with about `count` ticks."""
    if not high > low:
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return _axis(first * step, last * step, step, scale)


def forest_axis(forest: Forest) -> Axis:
    """Of a forest: shares from 0 to 1, other numbers from 0, differences around 0."""
    ends = list(_ends(forest))
    if not forest.scale.signed and forest.scale.percent and max(ends, default=0.0) <= 1 + 1e-9:
        return _axis(0.0, 1.0, 0.2, forest.scale)
    ends += [0.0] if forest.reference is None else [forest.reference]
    return nice_axis(min(ends), max(ends), forest.scale)


def x_axis(curve: Curve) -> Axis:
    """Of a curve: whole numbers where it counts."""
    low, high = curve.x_range
    if curve.x_whole:
        step = max(1, math.ceil((high - low) / 10))
        return Axis(low, high, tuple((float(v), f"{v}") for v in range(int(low), int(high) + 1, step)))
    return _axis(low, high, (high - low) / 5, Scale("", percent=curve.x_percent))


def y_axis(curve: Curve) -> Axis:
    """Of a curve."""
    low, high = curve.y_range
    if (low, high) == (0.0, 1.0):
        return _axis(low, high, 0.2, curve.scale)
    return nice_axis(low, high, curve.scale)


def _axis(low: float, high: float, step: float, scale: Scale) -> Axis:
    count = round((high - low) / step)
    places = [low + k * step for k in range(count + 1)]
    texts = [number_text(0.0 if abs(v) < step * 1e-6 else v, scale, unit=False) for v in places]
    if all(text.endswith((".0", ".00")) for text in texts):
        texts = [text.split(".")[0] for text in texts]
    elif all(text.endswith("0") and "." in text for text in texts):
        texts = [text[:-1] for text in texts]
    return Axis(low, high, tuple(zip(places, texts, strict=True)))


def _ends(forest: Forest) -> Iterable[float]:
    for row in forest.rows:
        if row.value.value is not None:
            yield row.value.value
            yield from row.value.ci95 or ()
