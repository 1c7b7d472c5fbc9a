"""Numbers over many cases that are not a mean of a metric: pooled IoU, shares above a threshold, F1 over entities."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ibisagent.metrics.overlap import Overlap

__all__ = ["IOU_THRESHOLDS", "EntityCounts", "entity_counts", "entity_f1", "mean_iou", "pooled_iou", "share_at"]

IOU_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""The thresholds of P@0.5 to P@0.9."""


def mean_iou(overlaps: Iterable[Overlap]) -> float:
    """gIoU: the mean of the cases' IoU, where an absent target with nothing drawn is a case of IoU 1.0.

    Raises
    ------
    ValueError
        If there is no case.
    """
    values = [case.iou for case in overlaps]
    return sum(values) / _some(len(values))


def pooled_iou(overlaps: Iterable[Overlap]) -> float:
    """cIoU: all cases' intersections over all their unions, so that large targets weigh more; 1.0 if all are empty.

    Raises
    ------
    ValueError
        If there is no case.
    """
    cases = list(overlaps)
    _some(len(cases))
    union = sum(case.union for case in cases)
    return sum(case.both for case in cases) / union if union else 1.0


def share_at(ious: Iterable[float], threshold: float) -> float:
    """P@threshold: the share of cases whose IoU is `threshold` or more (the bound itself counts).

    Raises
    ------
    ValueError
        If there is no case.
    """
    values = list(ious)
    return sum(value >= threshold for value in values) / _some(len(values))


@dataclass(frozen=True)
class EntityCounts:
    """How many entities were found, invented and missed; counts add up over cases.

    Parameters
    ----------
    found
        Present targets whose mask has an IoU of the threshold or more (true positives).
    invented
        Masks that match nothing (false positives): drawn for an absent target, or drawn for a present one but with an
        IoU below the threshold.
    missed
        Present targets without a matching mask (false negatives).
    """

    found: int = 0
    invented: int = 0
    missed: int = 0

    def __add__(self, other: EntityCounts) -> EntityCounts:
        return EntityCounts(self.found + other.found, self.invented + other.invented, self.missed + other.missed)

    @property
    def weight(self) -> int:
        """``2 found + invented + missed``: what F1 divides by, and so the weight of these cases in it."""
        return 2 * self.found + self.invented + self.missed

    @property
    def f1(self) -> float:
        """``2 found / (2 found + invented + missed)``; 1.0 if there was nothing to find and nothing was drawn."""
        return 2 * self.found / self.weight if self.weight else 1.0


def entity_counts(case: Overlap, threshold: float = 0.5) -> EntityCounts:
    """One case as entities: a question about one target, answered with one mask.

    A mask that misses its target counts twice, as invented and as missed: it is a structure that is not there, and
    the one that is there is not found. An absent target with nothing drawn is right, and counts nowhere, as in every
    F1.

    Parameters
    ----------
    case
        The counts of the answer's mask against the target's.
    threshold
        Least IoU of a match, in (0, 1]; the bound itself matches.

    Raises
    ------
    ValueError
        If `threshold` is not in (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"the threshold of a match must be above 0 and at most 1, not {threshold}")
    if case.target and case.iou >= threshold:
        return EntityCounts(found=1)
    return EntityCounts(invented=int(case.prediction > 0), missed=int(case.target > 0))


def entity_f1(overlaps: Iterable[Overlap], threshold: float = 0.5) -> float:
    """F1 over all cases' entities (see :func:`entity_counts`); pooled, so not the mean of the cases' F1.

    Raises
    ------
    ValueError
        If there is no case, or `threshold` is not in (0, 1].
    """
    counts = [entity_counts(case, threshold) for case in overlaps]
    _some(len(counts))
    return sum(counts, EntityCounts()).f1


def _some(count: int) -> int:
    if not count:
        raise ValueError("a number over cases needs one case at least")
    return count
