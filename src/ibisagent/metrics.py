"""Overlap of two masks, as pure functions.

Convention for empty masks: two empty masks agree, so their IoU and Dice are 1.0; an empty mask
against one that is not is 0.0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["dice", "iou"]


def iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Intersection over union of two ``bool`` masks of one shape; 1.0 if both are empty.

    Raises
    ------
    ValueError
        If a mask is not bool or the shapes differ.
    """
    both, size_a, size_b = _counts(a, b)
    union = size_a + size_b - both
    return both / union if union else 1.0


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Dice coefficient, ``2 |A & B| / (|A| + |B|)``; 1.0 if both are empty.

    Raises
    ------
    ValueError
        If a mask is not bool or the shapes differ.
    """
    both, size_a, size_b = _counts(a, b)
    total = size_a + size_b
    return 2 * both / total if total else 1.0


def _counts(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> tuple[int, int, int]:
    if a.dtype != np.bool_ or b.dtype != np.bool_ or a.shape != b.shape:
        raise ValueError(f"two bool masks of one shape are needed, not {a.dtype} {a.shape} and {b.dtype} {b.shape}")
    return int(np.count_nonzero(a & b)), int(np.count_nonzero(a)), int(np.count_nonzero(b))
