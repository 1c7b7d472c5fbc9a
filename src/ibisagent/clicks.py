"""The simulated expert's click: where a person who knows the target would click next.

Four rules, :data:`CLICK_RULES`, that take the current mask, the target and a generator:

- ``paper`` (its ancestor is Xu et al. 2016): take the region that the mask misses and the region that it covers too
  much; in the one with more pixels, click on the pixel that lies deepest, that is farthest from the region's border,
  where the image's edge is a border too. It needs no generator.
- ``component``: the deepest pixel of the largest connected piece of either region. Likewise. (The CVPR 2025 challenge
  takes pieces of both regions together: :mod:`ibisagent.error_clicks` has its rule.)
- ``jittered``: as ``paper``, but now and then on a pixel less deep.
- ``human``: in one of the larger pieces, not always the largest, and off its deepest pixel by a hand's tremor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ibisagent.types import PixelClick

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "CLICK_RULES",
    "component_click",
    "deepest_point",
    "human_click",
    "jittered_click",
    "next_click",
    "squared_depth",
]


def next_click(current: NDArray[np.bool_] | None, target: NDArray[np.bool_]) -> PixelClick | None:
    """The expert's next click, or None if nothing is wrong.

    Parameters
    ----------
    current
        ``bool`` (H, W) mask so far; None counts as empty.
    target
        ``bool`` (H, W) reference mask.

    Returns
    -------
    PixelClick or None
        Positive in a missed region, negative in an excess region. Ties go to the missed region, and
        among equally deep pixels to the first in row-major order, so that the answer is unique.

    Raises
    ------
    ValueError
        If a mask is not bool (H, W) or the shapes differ.
    """
    missed, excess = _errors(current, target)
    num_missed, num_excess = int(np.count_nonzero(missed)), int(np.count_nonzero(excess))
    if num_missed == num_excess == 0:
        return None
    positive = num_missed >= num_excess
    x, y = deepest_point(missed if positive else excess)
    return PixelClick(x, y, positive)


def component_click(current: NDArray[np.bool_] | None, target: NDArray[np.bool_]) -> PixelClick | None:
    """Click in the largest connected piece of error, missed and excess pixels apart; None if nothing is wrong.

    Parameters
    ----------
    current, target
        As for :func:`next_click`.

    Returns
    -------
    PixelClick or None
        Pixels that touch at a corner are connected (the 2-D form of the challenge's 26 neighbours). Of equally large
        pieces a missed one comes first, then the one whose first pixel in row-major order comes first.

    Raises
    ------
    ValueError
        If a mask is not bool (H, W) or the shapes differ.
    """
    import cv2

    best: tuple[int, bool, NDArray[np.bool_]] | None = None
    for region, positive in zip(_errors(current, target), (True, False), strict=True):
        if not region.any():
            continue
        _, labels = cv2.connectedComponents(region.astype(np.uint8), connectivity=8)
        sizes = np.bincount(labels.ravel())[1:]
        of_most = np.flatnonzero(sizes == sizes.max()) + 1
        # The labels' own order is OpenCV's affair: the first pixel decides.
        flat = labels.ravel()
        label = flat[int(np.argmax(np.isin(flat, of_most)))]
        if best is None or sizes.max() > best[0]:
            best = int(sizes.max()), positive, labels == label
    if best is None:
        return None
    x, y = deepest_point(best[2])
    return PixelClick(x, y, best[1])


def jittered_click(
    current: NDArray[np.bool_] | None, target: NDArray[np.bool_], rng: np.random.Generator, share: float = 0.35
) -> PixelClick | None:
    """Click as :func:`next_click`, but in ``share`` of all cases on a pixel drawn by the square of its depth.

    Parameters
    ----------
    current, target
        As for :func:`next_click`.
    rng
        The only source of randomness.
    share
        In [0, 1].

    Raises
    ------
    ValueError
        If a mask is not bool (H, W) or the shapes differ.
    """
    missed, excess = _errors(current, target)
    positive = int(np.count_nonzero(missed)) >= int(np.count_nonzero(excess))
    region = missed if positive else excess
    if not region.any():
        return None
    if rng.random() >= share:
        x, y = deepest_point(region)
        return PixelClick(x, y, positive)
    flat = squared_depth(region).ravel().astype(np.float64)
    at = int(rng.choice(flat.size, p=flat / flat.sum()))
    return PixelClick(at % region.shape[1], at // region.shape[1], positive)


def _errors(
    current: NDArray[np.bool_] | None, target: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """What the mask misses and what it covers too much; ValueError where the masks are no masks."""
    if target.dtype != np.bool_ or target.ndim != 2:
        raise ValueError(f"target must be bool (H, W), not {target.dtype} {target.shape}")
    if current is None:
        current = np.zeros_like(target)
    if current.dtype != np.bool_ or current.shape != target.shape:
        raise ValueError(f"current must be bool {target.shape}, not {current.dtype} {current.shape}")
    return target & ~current, current & ~target


def squared_depth(region: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Squared Euclidean distance of every pixel of a region to its outside; 0 outside it.

    Parameters
    ----------
    region
        ``bool`` (H, W). What lies beyond the image is outside.

    Returns
    -------
    NDArray of int64
        (H, W), exact. Distances as OpenCV gives them differ in their last digits with the place of an array in
        memory (its IPP build), and then equally deep pixels would not tie: the same masks would give other clicks.
    """
    import cv2  # half a tenth of a second to import: only where a click is wanted

    # One pixel of outside on every side makes the image's edge a border.
    padded = np.pad(region, 1).astype(np.uint8)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1].astype(np.float64)
    if depth.max(initial=0.0) <= _SINGLE_PRECISION:
        return np.rint(depth * depth).astype(np.int64)
    from scipy.ndimage import distance_transform_edt

    nearest = distance_transform_edt(padded, return_distances=False, return_indices=True)
    offsets = nearest.astype(np.int64) - np.indices(padded.shape)
    return np.ascontiguousarray((offsets**2).sum(axis=0)[1:-1, 1:-1])


_SINGLE_PRECISION = 1500.0
"""Distance in pixels up to which the square of a single-precision distance is surely within half of its integer."""


def _bounds(region: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Rows and columns of the smallest box around a region that is not empty."""
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def deepest_point(region: NDArray[np.bool_]) -> tuple[int, int]:
    """Pixel (x, y) of a ``bool`` (H, W) region with the largest exact Euclidean distance to its outside.

    What lies beyond the image is outside. Ties go to the first pixel in row-major order.

    Raises
    ------
    ValueError
        If the region is empty.
    """
    if not region.any():
        raise ValueError("an empty region has no deepest point")
    # All that lies outside the box is outside the region, so that the distances stay what they are.
    box = _bounds(region)
    depth = squared_depth(region[box])
    y, x = np.unravel_index(int(np.argmax(depth)), depth.shape)
    return int(x) + box[1].start, int(y) + box[0].start


def human_click(
    current: NDArray[np.bool_] | None, target: NDArray[np.bool_], rng: np.random.Generator, tremor: float = 0.3
) -> PixelClick | None:
    """Click as a person might: in one of the larger pieces of error, near its middle but not on it.

    Parameters
    ----------
    current, target
        As for :func:`next_click`.
    rng
        The only source of randomness.
    tremor
        Standard deviation of the offset from the deepest pixel, as a share of its depth.

    Returns
    -------
    PixelClick or None
        In a piece that is at least a quarter as large as the largest (drawn by size), inside it always.

    Raises
    ------
    ValueError
        If a mask is not bool (H, W) or the shapes differ.
    """
    import cv2

    pieces: list[tuple[int, bool, int, NDArray[np.int32]]] = []
    for region, positive in zip(_errors(current, target), (True, False), strict=True):
        if region.any():
            _, labels = cv2.connectedComponents(region.astype(np.uint8), connectivity=8)
            sizes = np.bincount(labels.ravel())
            pieces += [(int(sizes[label]), positive, label, labels) for label in range(1, sizes.size)]
    if not pieces:
        return None
    largest = max(size for size, *_ in pieces)
    pieces = [piece for piece in pieces if 4 * piece[0] >= largest]
    weights = np.array([size for size, *_ in pieces], np.float64)
    _, positive, label, labels = pieces[int(rng.choice(len(pieces), p=weights / weights.sum()))]
    region = labels == label
    x, y = deepest_point(region)
    box = _bounds(region)
    spread = tremor * float(np.sqrt(squared_depth(region[box]).max()))
    for dx, dy in rng.normal(0.0, spread, (8, 2)):
        px, py = x + round(float(dx)), y + round(float(dy))
        if 0 <= px < region.shape[1] and 0 <= py < region.shape[0] and region[py, px]:
            return PixelClick(px, py, positive)
    return PixelClick(x, y, positive)


CLICK_RULES: dict[
    str, Callable[[NDArray[np.bool_] | None, NDArray[np.bool_], np.random.Generator], PixelClick | None]
] = {
    "paper": lambda current, target, rng: next_click(current, target),
    "component": lambda current, target, rng: component_click(current, target),
    "jittered": jittered_click,
    "human": human_click,
}
"""By name: (current, target, generator) to the next click, or None if nothing is wrong."""
