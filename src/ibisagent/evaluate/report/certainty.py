"""How sure the selective curve of calibration is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ibisagent.evaluate.calibration import judged_cases
from ibisagent.evaluate.statistics import cluster_unit

if TYPE_CHECKING:
    from ibisagent.evaluate.result import CaseResult

__all__ = ["selective_band"]

_DRAWS = 400


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
    judged = judged_cases(results)
    told, dice = judged.estimate, judged.dice
    labels = np.asarray(cluster_unit(results).labels, str)[judged.places]
    names, cluster = np.unique(labels, return_inverse=True)
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
