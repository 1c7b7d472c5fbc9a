"""Where published protocols of interactive segmentation put the next click, on masks of any number of dimensions.

Two rules, for evaluation alone (training's are in :mod:`ibisagent.clicks`). Both measure depth in pixels or voxels,
not in mm, and take the edge of the array for a border.

- :func:`largest_component_click`, CVPR 2025 interactive track: missed and excess pixels together, so that a piece of
  error may hold both; the largest piece that is connected through faces, edges or corners (8 neighbours in 2-D, 26 in
  3-D); its deepest pixel. The reference says which kind of click it is.
- :func:`deepest_error_click`, the clicks of NoC figures: the deepest pixel of all missed ones against that of all
  excess ones, whichever lies deeper; never twice on one pixel.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

__all__ = ["ErrorClick", "deepest_error_click", "depth_of", "largest_component_click"]

_TIES_SEED = 42
"""The challenge draws among equally deep voxels with NumPy's old generator, seeded with this before every click."""


@dataclass(frozen=True)
class ErrorClick:
    """A click on an array.

    Parameters
    ----------
    index
        One number an axis, in the array's order: (row, column) of a picture, (z, y, x) of a volume so stored.
    positive
        Whether it is on the target.
    """

    index: tuple[int, ...]
    positive: bool


def largest_component_click(current: NDArray[np.bool_] | None, target: NDArray[np.bool_]) -> ErrorClick | None:
    """The challenge's click, or None if nothing is wrong.

    Parameters
    ----------
    current
        ``bool`` mask so far, of the target's shape; None counts as empty.
    target
        ``bool`` reference of one or more dimensions.

    Returns
    -------
    ErrorClick or None
        Of equally large pieces in the one whose first pixel in row-major order comes first; of equally deep pixels on
        one that is drawn with a fixed seed: the same masks always give the same click.

    Raises
    ------
    ValueError
        If a mask is not bool, or the shapes differ.
    """
    current = _checked(current, target)
    wrong = current ^ target
    if not wrong.any():
        return None
    from scipy import ndimage

    pieces, _ = ndimage.label(wrong, np.ones((3,) * wrong.ndim, bool))
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    label = int(np.argmax(sizes))  # labels are given in row-major order, so the first of equals is the first met
    box = ndimage.find_objects(pieces, label)[label - 1]
    depth = depth_of(pieces[box] == label)
    deepest = np.argwhere(depth == depth.max())
    chosen = deepest[np.random.RandomState(_TIES_SEED).choice(len(deepest))]
    index = tuple(int(at) + part.start for at, part in zip(chosen, box, strict=True))
    return ErrorClick(index, bool(target[index]))


def deepest_error_click(
    current: NDArray[np.bool_] | None, target: NDArray[np.bool_], clicked: Iterable[tuple[int, ...]] = ()
) -> ErrorClick | None:
    """The click of NoC figures, or None if nothing is wrong.

    Parameters
    ----------
    current, target
        As for :func:`largest_component_click`.
    clicked
        Indices of earlier clicks, which are not clicked again.

    Returns
    -------
    ErrorClick or None
        Positive only where the missed pixels lie deeper than the excess ones; of equally deep pixels on the first in
        row-major order. None too where every wrong pixel was clicked before.

    Raises
    ------
    ValueError
        If a mask is not bool, or the shapes differ.
    """
    current = _checked(current, target)
    missed, excess = depth_of(target & ~current), depth_of(current & ~target)
    for index in clicked:
        missed[index] = excess[index] = 0.0
    positive = bool(missed.max(initial=0.0) > excess.max(initial=0.0))
    depth = missed if positive else excess
    if depth.max(initial=0.0) == 0.0:
        return None
    at = np.unravel_index(int(np.argmax(depth)), depth.shape)
    return ErrorClick(tuple(int(number) for number in at), positive)


def depth_of(region: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Euclidean distance of every pixel of a region to the nearest one outside; what lies beyond the array is outside.

    Parameters
    ----------
    region
        ``bool``, any number of dimensions.

    Returns
    -------
    NDArray of float64
        Of the region's shape, in pixels; 0 outside the region. Square roots of whole numbers, so that equal depths
        are exactly equal.
    """
    found: NDArray[np.float64] = np.zeros(region.shape)
    box = _box(region)
    if box is not None:
        from scipy.ndimage import distance_transform_edt

        # All outside the box is outside the region, so one pixel of it on every side is enough.
        padded = np.pad(region[box], 1)
        inner = (slice(1, -1),) * region.ndim
        found[box] = distance_transform_edt(padded)[inner]
    return found


def _box(region: NDArray[np.bool_]) -> tuple[slice, ...] | None:
    """The smallest box around a region; None if it is empty."""
    parts = []
    for axis in range(region.ndim):
        others = tuple(other for other in range(region.ndim) if other != axis)
        held: NDArray[Any] = np.flatnonzero(region.any(axis=others))
        if not held.size:
            return None
        parts.append(slice(int(held[0]), int(held[-1]) + 1))
    return tuple(parts)


def _checked(current: NDArray[np.bool_] | None, target: NDArray[np.bool_]) -> NDArray[np.bool_]:
    if target.dtype != np.bool_ or target.ndim == 0:
        raise ValueError(f"target must be a bool array, not {target.dtype} {target.shape}")
    if current is None:
        return np.zeros_like(target)
    if current.dtype != np.bool_ or current.shape != target.shape:
        raise ValueError(f"current must be bool {target.shape}, not {current.dtype} {current.shape}")
    return current
