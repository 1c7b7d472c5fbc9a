"""Polygons with holes as single rings: a channel of no width leads from the outside into every hole and back.

It is how DICOM wants a contour of the type ``CLOSED_PLANAR`` to leave something out, and readers agree on such rings
whether they unite a slice's contours or take them by turns (XOR).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ibisagent.io.outlines import Outline

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["keyholed"]


def keyholed(outline: Outline) -> NDArray[np.int64]:
    """One ring around an outline's pixels.

    Channels run along the edges of pixels, so no pixel's centre lies on the ring.

    Parameters
    ----------
    outline
        Shell and holes in corner coordinates.

    Returns
    -------
    NDArray of int64
        (n, 2), corners (x, y) in order, the first not repeated; the shell itself where there are no holes. Its signed
        area is that of the shell and the holes.
    """
    ring = outline.shell
    # from left to right: whatever lies to the left of a hole is part of the ring by then
    for hole in sorted(outline.holes, key=lambda h: (int(h[:, 0].min()), int(h[:, 1].min()))):
        ring = _joined(ring, hole)
    return ring


def _joined(ring: NDArray[np.int64], hole: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ring and hole, connected from the hole's leftmost corner straight to the left."""
    start = np.lexsort((hole[:, 1], hole[:, 0]))[0]
    x, y = (int(v) for v in hole[start])
    after = np.roll(ring, -1, axis=0)
    low, high = np.minimum(ring[:, 1], after[:, 1]), np.maximum(ring[:, 1], after[:, 1])
    crossed = np.flatnonzero((ring[:, 0] == after[:, 0]) & (ring[:, 0] <= x) & (low <= y) & (y <= high))
    edge = int(crossed[np.argmax(ring[crossed, 0])])
    gate = np.array([[ring[edge, 0], y]])
    way = np.concatenate([gate, np.roll(hole, -start, axis=0), hole[start : start + 1], gate])
    whole = np.concatenate([ring[: edge + 1], way, ring[edge + 1 :]])
    # a gate at a corner, or a hole that touches the ring, would repeat a point
    return whole[np.any(whole != np.roll(whole, 1, axis=0), axis=1)]
