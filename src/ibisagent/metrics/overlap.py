"""Overlap of two masks: counted once, read as IoU, Dice, precision, recall and errors of size.

Convention for empty masks: two empty masks agree, so every share is 1.0 and every error 0.0; an empty mask against
one that is not has share 0.0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ibisagent.metrics.masks import Mask, as_arrays, checked_spacing

__all__ = ["Overlap", "dice", "iou", "overlap", "precision", "recall"]


@dataclass(frozen=True)
class Overlap:
    """The three counts of a pair of masks that every overlap metric is made of.

    Parameters
    ----------
    both
        Pixels (or voxels) that both masks have.
    prediction, target
        Pixels of each.
    """

    both: int
    prediction: int
    target: int

    @property
    def union(self) -> int:
        """Pixels that either mask has."""
        return self.prediction + self.target - self.both

    @property
    def iou(self) -> float:
        """Intersection over union; 1.0 if both masks are empty."""
        return _share(self.both, self.union, both_empty=not self.union)

    @property
    def dice(self) -> float:
        """``2 |A & B| / (|A| + |B|)``; 1.0 if both masks are empty."""
        return _share(2 * self.both, self.prediction + self.target, both_empty=not self.union)

    @property
    def precision(self) -> float:
        """Share of the prediction that is in the target; 1.0 if both are empty, 0.0 if only the prediction is."""
        return _share(self.both, self.prediction, both_empty=not self.union)

    @property
    def recall(self) -> float:
        """Share of the target that is in the prediction; 1.0 if both are empty, 0.0 if only the target is."""
        return _share(self.both, self.target, both_empty=not self.union)

    @property
    def relative_size_error(self) -> float:
        """``(|prediction| - |target|) / |target|``: positive if too large; 0.0 if both are empty, inf if only the
        target is."""
        difference = self.prediction - self.target
        if not self.target:
            return math.inf if difference else 0.0
        return difference / self.target

    def area_error_mm2(self, spacing: Sequence[float]) -> float:
        """Area of the prediction less that of the target, in mm2: positive if too large.

        Parameters
        ----------
        spacing
            (row, column) distance of pixel centres in mm.

        Raises
        ------
        ValueError
            If `spacing` is not two positive numbers.
        """
        return (self.prediction - self.target) * math.prod(checked_spacing(spacing, 2))

    def volume_error_ml(self, spacing: Sequence[float]) -> float:
        """Volume of the prediction less that of the target, in ml (1000 mm3): positive if too large.

        Parameters
        ----------
        spacing
            Distance of voxel centres in mm along the three axes.

        Raises
        ------
        ValueError
            If `spacing` is not three positive numbers.
        """
        return (self.prediction - self.target) * math.prod(checked_spacing(spacing, 3)) / 1000


def overlap(prediction: Mask, target: Mask) -> Overlap:
    """Count a pair of masks of any number of dimensions.

    Raises
    ------
    ValueError
        If a mask is not bool or the shapes differ.
    InputError
        If a record is damaged.
    """
    a, b = as_arrays(prediction, target)
    return Overlap(int(np.count_nonzero(a & b)), int(np.count_nonzero(a)), int(np.count_nonzero(b)))


def iou(a: Mask, b: Mask) -> float:
    """Intersection over union of two masks of one shape; 1.0 if both are empty.

    Raises
    ------
    ValueError
        If a mask is not bool or the shapes differ.
    InputError
        If a record is damaged.
    """
    return overlap(a, b).iou


def dice(a: Mask, b: Mask) -> float:
    """Dice coefficient, ``2 |A & B| / (|A| + |B|)``; 1.0 if both are empty.

    Raises
    ------
    ValueError
        If a mask is not bool or the shapes differ.
    InputError
        If a record is damaged.
    """
    return overlap(a, b).dice


def precision(prediction: Mask, target: Mask) -> float:
    """Share of the prediction that is in the target; 1.0 if both are empty, 0.0 if only the prediction is.

    Raises
    ------
    ValueError
        If a mask is not bool or the shapes differ.
    InputError
        If a record is damaged.
    """
    return overlap(prediction, target).precision


def recall(prediction: Mask, target: Mask) -> float:
    """Share of the target that is in the prediction; 1.0 if both are empty, 0.0 if only the target is.

    Raises
    ------
    ValueError
        If a mask is not bool or the shapes differ.
    InputError
        If a record is damaged.
    """
    return overlap(prediction, target).recall


def _share(part: int, whole: int, *, both_empty: bool) -> float:
    if both_empty:
        return 1.0
    return part / whole if whole else 0.0
