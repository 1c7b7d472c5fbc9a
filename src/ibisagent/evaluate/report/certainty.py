"""How sure the curves of calibration are: an interval for every bin, a band for the selective curve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ibisagent.evaluate.calibration import NUM_BINS, quality_estimate
from ibisagent.evaluate.report.model import Value
from ibisagent.evaluate.statistics import cluster_unit, estimate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ibisagent.evaluate.result import CaseResult

__all__ = ["bin_values", "selective_band"]

_DRAWS = 400


def bin_values(results: Sequence[CaseResult]) -> dict[int, Value]:
    """Mean IoU of the runs in each bin of their own estimate, with an interval over clusters.

    Parameters
    ----------
    results
        Scored; the same that :func:`~ibisagent.evaluate.calibration.calibrate` was given.

    Returns
    -------
    dict
        By the bin's number, from 0 for the lowest of :data:`~ibisagent.evaluate.calibration.NUM_BINS`.
    """
    told, iou, _, labels, unit = _judged(results)
    bins = np.minimum((told * NUM_BINS).astype(int), NUM_BINS - 1)
    found = {}
    for number in sorted(set(bins.tolist())):
        mine = np.flatnonzero(bins == number)
        made = estimate(iou[mine], None, [labels[i] for i in mine])
        found[number] = Value(made.value, made.ci95, made.n, made.num_clusters, unit, made.warning or "")
    return found


def selective_band(results: Sequence[CaseResult], coverages: Sequence[float]) -> list[tuple[float, float]]:
    """95% band of the mean Dice of the runs that are surest, pointwise: percentiles over draws of whole clusters.

    In every draw runs are ordered anew, so the band holds the doubt about the order, too.

    Parameters
    ----------
    results
        Scored.
    coverages
        Shares of the runs that are kept, in (0, 1].

    Returns
    -------
    list of (low, high)
        One a coverage; empty where fewer than two clusters have an estimate.
    """
    told, _, dice, labels, _ = _judged(results)
    names, cluster = np.unique(np.asarray(labels, str), return_inverse=True)
    if len(names) < 2:
        return []
    members = [np.flatnonzero(cluster == k) for k in range(len(names))]
    rng = np.random.default_rng(0)
    drawn = np.empty((_DRAWS, len(coverages)))
    for row in drawn:
        cases = np.concatenate([members[k] for k in rng.integers(0, len(names), len(names))])
        order = cases[np.argsort(-told[cases], kind="stable")]
        kept = np.maximum(1, np.ceil(np.asarray(coverages) * order.size - 1e-9).astype(int))
        row[:] = (np.cumsum(dice[order]) / np.arange(1, order.size + 1))[kept - 1]
    return [(float(low), float(high)) for low, high in np.percentile(drawn, [2.5, 97.5], axis=0).T]


def _judged(
    results: Sequence[CaseResult],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], list[str], str]:
    """Estimate, IoU, Dice and cluster of the runs on present targets that said how good they are."""
    unit = cluster_unit(results)
    rows = [
        (said, r.iou, r.dice, label)
        for r, label in zip(results, unit.labels, strict=True)
        if not r.absent and r.scores is not None and r.episode is not None and not r.error
        if (said := quality_estimate(r.episode)) is not None
    ]
    table = np.array([row[:3] for row in rows], np.float64).reshape(len(rows), 3)
    return table[:, 0], table[:, 1], table[:, 2], [str(row[3]) for row in rows], unit.unit
