"""Which of many objects a word singles out beyond doubt: the largest, the leftmost, the brightest …

Pure functions on label maps. The rules are those by which ``data/mini`` and the phantoms name single nuclei, made
stricter where two readings of a word are possible:

- Only whole objects are named: none that has a pixel in the first or last row or column, because nobody sees how
  large it is. There must be at least three whole ones.
- An object is named only if it is ahead of *every* other one by a clear margin, the cut-off ones included as far
  as they are seen. A field whose leftmost nucleus is cut in half has no ``leftmost nucleus``.
- Places go by the centroid, and the object's outermost pixel must agree. Brightness is the mean gray value.
- Specks are never named, although they count as rivals.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["WORDS", "Margins", "Thing", "measure", "refer"]

WORDS = ("largest", "smallest", "leftmost", "rightmost", "uppermost", "lowest", "brightest")
"""Every word that :func:`refer` knows."""


@dataclass(frozen=True)
class Margins:
    """How far ahead of the runner-up is clear.

    Parameters
    ----------
    area, brightness
        As a ratio.
    levels
        Brightness also, in gray levels: a ratio alone is nothing where all is dark.
    place
        In parts of the image's side.
    least_pixels
        Smaller objects are specks.
    least_whole
        Fewest whole objects of which one is named (never below two).
    """

    area: float = 1.10
    brightness: float = 1.15
    levels: float = 8.0
    place: float = 0.025
    least_pixels: int = 12
    least_whole: int = 3


@dataclass(frozen=True)
class Thing:
    """One object of a label map.

    Parameters
    ----------
    label
        Its number.
    area
        In pixels.
    x, y
        Centroid, in pixels.
    x0, y0, x1, y1
        Outermost pixels.
    brightness
        Mean gray value, or None where no image was given.
    whole
        Whether it has no pixel in the first or last row or column.
    """

    label: int
    area: int
    x: float
    y: float
    x0: int
    y0: int
    x1: int
    y1: int
    brightness: float | None
    whole: bool


def measure(labels: NDArray[np.integer[Any]], gray: NDArray[Any] | None = None) -> tuple[Thing, ...]:
    """Measure every object of a label map, in the order of their numbers.

    Parameters
    ----------
    labels
        Integers (H, W), 0 for background; the numbers may be large and have gaps.
    gray
        (H, W) gray values, or None.
    """
    height, width = labels.shape
    numbers, index = np.unique(labels, return_inverse=True)
    index = index.reshape(-1)
    count = len(numbers)
    area = np.bincount(index, minlength=count)
    ys, xs = np.divmod(np.arange(labels.size), width)
    x = np.bincount(index, xs, count) / area
    y = np.bincount(index, ys, count) / area
    box = np.array([np.full(count, width), np.full(count, height), np.full(count, -1), np.full(count, -1)])
    np.minimum.at(box[0], index, xs)
    np.minimum.at(box[1], index, ys)
    np.maximum.at(box[2], index, xs)
    np.maximum.at(box[3], index, ys)
    level = None if gray is None else np.bincount(index, np.asarray(gray, np.float64).reshape(-1), count) / area
    return tuple(
        Thing(
            label=int(numbers[i]),
            area=int(area[i]),
            x=float(x[i]),
            y=float(y[i]),
            x0=int(box[0, i]),
            y0=int(box[1, i]),
            x1=int(box[2, i]),
            y1=int(box[3, i]),
            brightness=None if level is None else float(level[i]),
            whole=bool(box[0, i] > 0 and box[1, i] > 0 and box[2, i] < width - 1 and box[3, i] < height - 1),
        )
        for i in range(count)
        if numbers[i] != 0
    )


def refer(things: Collection[Thing], shape: tuple[int, int], margins: Margins = Margins()) -> dict[str, int]:
    """Words that single out one object beyond doubt.

    Parameters
    ----------
    things
        All objects of the image, from :func:`measure`.
    shape
        (H, W) of the image.
    margins
        What is clear.

    Returns
    -------
    dict
        Word -> label, in the order of :data:`WORDS`; several words may name one object.
    """
    things = sorted(things, key=lambda thing: thing.label)
    if sum(thing.whole for thing in things) < max(2, margins.least_whole):
        return {}
    height, width = shape
    found: dict[str, int] = {}
    for word in WORDS:
        chosen = _first(word, things, height, width, margins)
        if chosen is not None and chosen.whole and chosen.area >= margins.least_pixels:
            found[word] = chosen.label
    return found


def _first(word: str, things: list[Thing], height: int, width: int, margins: Margins) -> Thing | None:
    """The object that is ahead of all others, if it is by the margin."""
    if word in ("largest", "smallest"):
        ranked = sorted(things, key=lambda t: t.area, reverse=word == "largest")
        small, large = sorted((ranked[0].area, ranked[1].area))
        return ranked[0] if large >= margins.area * small else None
    if word == "brightest":
        if any(t.brightness is None for t in things):
            return None
        levels = sorted(((t.brightness or 0.0, -t.label, t) for t in things), key=lambda row: row[:2], reverse=True)
        best, second = levels[0][0], levels[1][0]
        clear = best >= margins.brightness * second and best - second >= margins.levels
        return levels[0][2] if clear else None
    sign = 1.0 if word in ("leftmost", "uppermost") else -1.0
    sideways = word in ("leftmost", "rightmost")
    side = width if sideways else height

    def centre(t: Thing) -> float:
        return sign * (t.x if sideways else t.y)

    def edge(t: Thing) -> float:
        return sign * {"leftmost": t.x0, "rightmost": t.x1, "uppermost": t.y0, "lowest": t.y1}[word]

    ranked = sorted(things, key=centre)
    ahead = centre(ranked[1]) - centre(ranked[0]) >= margins.place * side
    return ranked[0] if ahead and edge(ranked[0]) == min(edge(t) for t in things) else None
