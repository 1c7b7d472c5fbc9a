"""Outlines of masks along the edges of pixels: polygons that cover exactly the pixels of the mask.

Vertices are corners of pixels: pixel (x, y) covers the square from (x, y) to (x + 1, y + 1), so an image begins at
(0, 0). Add -0.5 for coordinates in which pixel centres are integers. Pixels that touch at a corner only belong to
different polygons unless they hang together elsewhere, and no ring passes a point twice: the polygons are valid by the
rules of GeoJSON and of geometry libraries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Outline", "pixel_outlines", "ring_area"]


@dataclass(frozen=True, eq=False)
class Outline:
    """The outline of one connected part of a mask (pixels are connected along edges).

    Parameters
    ----------
    shell
        ``int64`` (n, 2), corners (x, y) in order, the first not repeated, with a positive :func:`ring_area`.
    holes
        Rings of the same kind with negative area.
    """

    shell: NDArray[np.int64]
    holes: tuple[NDArray[np.int64], ...] = ()


def ring_area(ring: NDArray[Any]) -> float:
    """Signed area of a ring (n, 2) by the shoelace formula, positive for shells as they are made here."""
    x, y = np.asarray(ring, np.float64).T
    return float(x @ np.roll(y, -1) - np.roll(x, -1) @ y) / 2


_EAST, _SOUTH, _WEST, _NORTH = range(4)

# Where a border turns, by which of the four pixels around a vertex are foreground (1 upper left, 2 upper right, 4 lower
# left, 8 lower right): the direction of arrival and of departure, foreground always on the same side.
_TURNS = {
    1: (_SOUTH, _WEST),
    2: (_WEST, _NORTH),
    4: (_EAST, _SOUTH),
    8: (_NORTH, _EAST),
    14: (_EAST, _NORTH),
    13: (_SOUTH, _EAST),
    11: (_NORTH, _WEST),
    7: (_WEST, _SOUTH),
}
# Two pixels that touch at the vertex: each goes round itself, or, where both are of one part, round the background.
_APART = {9: ((_SOUTH, _WEST), (_NORTH, _EAST)), 6: ((_EAST, _SOUTH), (_WEST, _NORTH))}
_JOINED = {9: ((_SOUTH, _EAST), (_NORTH, _WEST)), 6: ((_EAST, _NORTH), (_WEST, _SOUTH))}

# offset (row, column) from a vertex to the foreground pixel beside the edge that departs from it, in the padded mask
_BESIDE = np.array([(1, 1), (1, 0), (0, 0), (0, 1)])


def pixel_outlines(mask: NDArray[np.bool_]) -> list[Outline]:
    """Outlines of all connected parts of a mask.

    Parameters
    ----------
    mask
        ``bool`` (H, W).

    Returns
    -------
    list of Outline
        By the first pixel of each part in reading order; empty for an empty mask. The areas of their rings add up to
        the number of pixels.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return []
    top, left = int(rows[0]), int(columns[0])
    padded = np.pad(mask[top : int(rows[-1]) + 1, left : int(columns[-1]) + 1], 1).view(np.uint8)
    y, x, arrive, depart, part = _turns(padded)
    rings: dict[int, list[NDArray[np.int64]]] = {}
    corners = np.stack([x + left, y + top], axis=1)
    for ring in _rings(_successors(y, x, arrive, depart)):
        rings.setdefault(int(part[ring[0]]), []).append(corners[ring])
    outlines = []
    for found in rings.values():
        # turns are in reading order, so a part's first ring holds its first pixel's corner: the shell
        outlines.append(Outline(found[0], tuple(found[1:])))
    return outlines


def _turns(padded: NDArray[np.uint8]) -> tuple[NDArray[Any], ...]:
    """Every turn of a border in reading order: row and column of its vertex, arrival, departure, and the part."""
    import cv2

    around = padded[:-1, :-1] + 2 * padded[:-1, 1:] + 4 * padded[1:, :-1] + 8 * padded[1:, 1:]
    parts: NDArray[np.int32] = cv2.connectedComponents(padded, connectivity=4, ltype=cv2.CV_32S)[1]
    y, x = np.nonzero(np.isin(around, (*_TURNS, *_APART)))
    kind = around[y, x]
    first, second = np.where(kind == 9, 0, 1), np.where(kind == 9, 1, 0)
    joined = parts[y, x + first] == parts[y + 1, x + second]
    table = np.zeros((2, 2, 16, 2), np.int64)  # (joined, which pass, kind, arrival or departure)
    for code, turn in _TURNS.items():
        table[:, 0, code] = turn
    for is_joined, saddles in enumerate((_APART, _JOINED)):
        for code, passes in saddles.items():
            table[is_joined, :, code] = passes
    saddle = np.isin(kind, tuple(_APART))
    # a saddle is passed twice
    which = np.repeat(np.arange(kind.size), 1 + saddle)
    again = np.zeros(which.size, np.int64)
    again[1:] = which[1:] == which[:-1]
    arrive, depart = table[joined[which].astype(np.int64), again, kind[which]].T
    y, x = y[which], x[which]
    beside = _BESIDE[depart]
    return y, x, arrive, depart, parts[y + beside[:, 0], x + beside[:, 1]]


def _successors(y: NDArray[Any], x: NDArray[Any], arrive: NDArray[Any], depart: NDArray[Any]) -> NDArray[np.int64]:
    """For every turn the turn at the end of its straight run.

    Runs of one direction on one line do not overlap, so the n-th departure along the line belongs to the n-th arrival.
    """
    following = np.empty(y.size, np.int64)
    for direction in (_EAST, _SOUTH, _WEST, _NORTH):
        line, place = (y, x) if direction in (_EAST, _WEST) else (x, y)
        starts, ends = np.flatnonzero(depart == direction), np.flatnonzero(arrive == direction)
        starts = starts[np.lexsort((place[starts], line[starts]))]
        following[starts] = ends[np.lexsort((place[ends], line[ends]))]
    return following


def _rings(following: NDArray[np.int64]) -> list[list[int]]:
    """The cycles of a permutation, by their first member."""
    after = following.tolist()
    rings = []
    for start, at in enumerate(after):
        if at < 0:
            continue
        ring, here = [], start
        while after[here] >= 0:
            ring.append(here)
            after[here], here = -1, after[here]
        rings.append(ring)
    return rings
