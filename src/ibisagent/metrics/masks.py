"""What a metric takes: bool arrays or our run-length records, brought to one form and cut to where anything is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ibisagent.rle import Rle, decode_mask

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Mask", "as_arrays", "checked_spacing", "joint_box"]

Mask: TypeAlias = "NDArray[np.bool_] | Rle"
"""A ``bool`` array, or a record of one (H, W) mask."""


def as_arrays(a: Mask, b: Mask) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Both masks as ``bool`` arrays of one shape; records are decoded.

    Raises
    ------
    ValueError
        If a mask is not bool or the shapes differ. Masks of another type are refused rather than taken as "not
        zero": a label image or a probability map would give a number that means nothing.
    InputError
        If a record is damaged.
    """
    first = decode_mask(a) if isinstance(a, Rle) else a
    second = decode_mask(b) if isinstance(b, Rle) else b
    if first.dtype != np.bool_ or second.dtype != np.bool_ or first.shape != second.shape:
        raise ValueError(
            f"two bool masks of one shape are needed, not {first.dtype} {first.shape} and {second.dtype} {second.shape}"
        )
    return first, second


def checked_spacing(spacing: Sequence[float], ndim: int) -> tuple[float, ...]:
    """The spacing as floats, one per axis of the array, in the array's order.

    Raises
    ------
    ValueError
        If there is not one finite, positive number per axis.
    """
    values = tuple(float(value) for value in spacing)
    if len(values) != ndim or not all(math.isfinite(value) and value > 0 for value in values):
        raise ValueError(f"the spacing must be {ndim} positive numbers, one per axis of the mask, not {values}")
    return values


def joint_box(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> tuple[slice, ...] | None:
    """The smallest box that holds both masks, as one slice per axis; None if both are empty."""
    rest: NDArray[np.bool_] = np.asarray(a | b)
    box = []
    # Axis by axis, the array is cut and projected, so that only the first search sees all of it.
    while rest.ndim:
        hit = np.flatnonzero(rest.reshape(rest.shape[0], -1).any(axis=1))
        if hit.size == 0:
            return None
        box.append(slice(int(hit[0]), int(hit[-1]) + 1))
        rest = np.asarray(rest[box[-1]].any(axis=0))
    return tuple(box)
