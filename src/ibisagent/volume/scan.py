"""Where to look in a volume: a coarse scan, then the slices that deserve a whole run."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ibisagent.rle import decode_mask
from ibisagent.volume.record import Visit

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["between", "key_candidates", "longest_stretch", "rank", "spread"]


def spread(first: int, last: int, count: int) -> list[int]:
    """`count` indices from `first` to `last`, both included, evenly spread about the middles of equal parts.

    Examples
    --------
    >>> spread(0, 24, 5)
    [2, 7, 12, 17, 22]
    >>> spread(3, 5, 9)
    [3, 4, 5]
    """
    size = last - first + 1
    if count >= size:
        return list(range(first, last + 1))
    return [first + math.floor((2 * i + 1) * size / (2 * count)) for i in range(count)]


def between(first: int, last: int, looked_at: Sequence[int]) -> list[int]:
    """The middles of the gaps that `looked_at` leaves in [first, last]: where to look next.

    Examples
    --------
    >>> between(0, 10, [2, 5, 8])
    [0, 3, 6, 9]
    """
    edges = [first - 1, *sorted(looked_at), last + 1]
    return [(a + b) // 2 for a, b in itertools.pairwise(edges) if b - a > 1]


def rank(visit: Visit) -> float:
    """How well the target shows on a scanned slice; 0 if it does not.

    The segmenter's score times the logarithm of the mask's pixels: broad slices are better ones, but the broadest mask
    of a first click is as often one that has run out over everything.

    Parameters
    ----------
    visit
        A visit of a scan.
    """
    if visit.is_absent or visit.mask is None:
        return 0.0
    pixels = int(np.count_nonzero(decode_mask(visit.mask)))
    return math.log1p(pixels) * (visit.score if visit.score is not None else 1.0)


def longest_stretch(scan: Sequence[Visit]) -> tuple[int, int] | None:
    """First and last slice of the longest row of scanned slices that do not deny the target; None if all do."""
    rows: list[list[int]] = [[]]
    for visit in sorted(scan, key=lambda visit: visit.index):
        if visit.is_absent:
            rows.append([])
        else:
            rows[-1].append(visit.index)
    longest = max(rows, key=len)
    return (longest[0], longest[-1]) if longest else None


def key_candidates(scan: Sequence[Visit], count: int, *, looked: bool) -> list[int]:
    """Slices for whole runs, the best first; later ones stand in for those that turn out to be absent.

    Parameters
    ----------
    scan
        The visits of one plane's scan.
    count
        How many are wanted.
    looked
        Whether nothing was clicked: then the longest stretch of slices on which the target was not denied is divided
        into `count` equal parts, and their middles are taken. Else the best ranks, apart from one another, of the row
        of slices whose masks lie over one another and have the greatest ranks together; then those of the next row.

    Returns
    -------
    list of int
        Indices; empty if the target was denied everywhere, or nothing was drawn.
    """
    if looked:
        stretch = longest_stretch(scan)
        return spread(*stretch, count) if stretch is not None else []
    rows = _rows_of_one_target(scan)
    rows.sort(key=lambda row: (-sum(map(rank, row)), row[0].index))
    chosen: list[int] = []
    for row in rows:
        extent = row[-1].index - row[0].index
        apart = extent / (2 * count) if count > 1 else 0
        for visit in sorted(row, key=lambda v: (-rank(v), v.index)):
            if all(abs(visit.index - other) > apart for other in chosen):
                chosen.append(visit.index)
    return chosen


def _rows_of_one_target(scan: Sequence[Visit]) -> list[list[Visit]]:
    """Scanned slices in a row whose masks lie over one another: they are of one thing, more likely than each alone."""
    rows: list[list[Visit]] = []
    last: NDArray[np.bool_] | None = None
    for visit in sorted(scan, key=lambda v: v.index):
        if visit.mask is None or rank(visit) <= 0:
            last = None
            continue
        mask = decode_mask(visit.mask)
        if last is not None and bool((mask & last).any()):
            rows[-1].append(visit)
        else:
            rows.append([visit])
        last = mask
    return rows
