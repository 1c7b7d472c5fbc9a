"""Longest diameter of a region in one slice, and the longest one at right angles to it.

The border of a region runs half way between the centres of pixels inside and of their neighbours outside (edges of the
slice count as outside). Diameters are distances between two points of that border: one pixel is as long as its side is,
and a line of n pixels n sides. They are measured on the convex hull, as calipers do: a sickle's goes through the air.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Caliper", "longest_diameter"]


@dataclass(frozen=True)
class Caliper:
    """The two diameters of one region.

    Parameters
    ----------
    long_mm
        Longest diameter in mm.
    long_ends
        Its ends in pixel indices (first axis, second axis) of the slice, fractions allowed.
    short_mm
        Longest chord of the hull at right angles to it, in mm.
    short_ends
        Its ends.
    """

    long_mm: float
    long_ends: tuple[tuple[float, float], tuple[float, float]]
    short_mm: float
    short_ends: tuple[tuple[float, float], tuple[float, float]]


def longest_diameter(mask: NDArray[np.bool_], axes_mm: NDArray[np.float64], at_least: float = 0.0) -> Caliper | None:
    """The longest diameter of the connected regions of a slice (pixels that touch at a corner are connected).

    Parameters
    ----------
    mask
        ``bool`` (n, m).
    axes_mm
        (3, 2): the step in mm from a pixel to the next along either axis; they need not stand at right angles.
    at_least
        Regions that cannot have a longer diameter than this (mm) are passed over.

    Returns
    -------
    Caliper or None
        None if no region is longer than `at_least`. Of equals, the first in reading order.
    """
    import cv2

    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return None
    first = np.array([int(rows[0]), int(columns[0])])
    cropped = np.ascontiguousarray(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(cropped.view(np.uint8), connectivity=8, ltype=cv2.CV_32S)
    best: Caliper | None = None
    longest = at_least
    for n in range(1, count):
        left, top, width, height = (int(v) for v in boxes[n][:4])
        if _diagonal(axes_mm, height, width) <= longest:
            continue
        region = labels[top : top + height, left : left + width] == n
        caliper = _caliper(_hull(region) + first + (top, left), axes_mm)
        if caliper.long_mm > longest:
            best, longest = caliper, caliper.long_mm
    return best


def _diagonal(axes_mm: NDArray[np.float64], height: int, width: int) -> float:
    """The longer diagonal of a box in mm."""
    down, across = axes_mm[:, 0] * height, axes_mm[:, 1] * width
    return float(max(np.linalg.norm(down + across), np.linalg.norm(down - across)))


def _hull(region: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Corners (n, 2) of the convex hull of the border's points, in pixel indices."""
    import cv2

    padded = np.pad(region, 1)
    points = []
    for step in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        border = np.argwhere(padded & ~np.roll(padded, (-step[0], -step[1]), axis=(0, 1)))
        points.append(2 * (border - 1) + step)  # doubled, so that halves are whole numbers and the hull exact
    hull = cv2.convexHull(np.concatenate(points).astype(np.int32)).reshape(-1, 2)
    return np.asarray(hull, np.float64) / 2


def _caliper(hull: NDArray[np.float64], axes_mm: NDArray[np.float64]) -> Caliper:
    points = hull @ axes_mm.T
    gaps = np.linalg.norm(points[:, None] - points[None], axis=2)
    a, b = (int(v) for v in np.unravel_index(int(gaps.argmax()), gaps.shape))
    length = float(gaps[a, b])
    along = (points[b] - points[a]) / length
    offsets = points - points[a]
    u = offsets @ along
    # in the slice's plane, at right angles to `along`
    normal = np.cross(axes_mm[:, 0], axes_mm[:, 1])
    across = np.cross(normal / np.linalg.norm(normal), along)
    v = offsets @ across
    v[[a, b]] = 0.0
    # the two sides of the hull meet at the ends of the diameter; the gap between them is greatest at a corner
    sides = []
    for side in (v >= 0, v <= 0):
        order = np.argsort(u[side], kind="stable")
        sides.append(np.interp(u, u[side][order], v[side][order]))
    widest = int(np.argmax(sides[0] - sides[1]))
    foot = points[a] + u[widest] * along
    ends = np.stack([foot + s[widest] * across for s in sides])
    back = np.linalg.pinv(axes_mm)
    (c, d), (e, f) = (ends @ back.T).tolist()
    return Caliper(
        length,
        ((float(hull[a, 0]), float(hull[a, 1])), (float(hull[b, 0]), float(hull[b, 1]))),
        float(sides[0][widest] - sides[1][widest]),
        ((c, d), (e, f)),
    )
