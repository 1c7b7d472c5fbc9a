"""How sure a mean is: bootstrap intervals over cases, and over groups of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["NUM_RESAMPLES", "bootstrap_ci95", "grouped_ci95"]

NUM_RESAMPLES = 5000

_CHUNK = 2**22  # numbers held at a time


def bootstrap_ci95(
    values: Sequence[float], seed: int = 0, num_resamples: int = NUM_RESAMPLES
) -> tuple[float, float] | None:
    """Percentile bootstrap 95% interval of the mean.

    Cases are drawn with replacement, as if they were independent. Slices of one patient are not: for a claim about
    new patients the interval is too narrow, and says only how much the choice of these cases matters.

    Parameters
    ----------
    values
        One number a case.
    seed
        Seed of the resampling; equal values and seeds give equal intervals.
    num_resamples
        Number of resamples.

    Returns
    -------
    (low, high) or None
        None without values; of a single value both ends are that value. It always contains the mean.
    """
    array = np.asarray(values, np.float64)
    return _interval(array, np.ones(array.size), seed, num_resamples)


def grouped_ci95(
    values: Sequence[float], groups: Sequence[str], seed: int = 0, num_resamples: int = NUM_RESAMPLES
) -> tuple[float, float] | None:
    """Percentile bootstrap 95% interval of the mean over all values, where whole groups are drawn.

    Values of one group (questions about one image, images of one patient) are not independent; groups are.

    Parameters
    ----------
    values
        One number a case. Differences of pairs give the interval of the mean difference.
    groups
        The group of each case.
    seed, num_resamples
        As in :func:`bootstrap_ci95`, and so are the returned ends; of a single group both are its mean.
    """
    _, group = np.unique(np.asarray(groups, str), return_inverse=True)
    sums = np.bincount(group, np.asarray(values, np.float64)).astype(np.float64)  # of nothing: integers
    return _interval(sums, np.bincount(group).astype(np.float64), seed, num_resamples)


def _interval(
    sums: NDArray[np.float64], counts: NDArray[np.float64], seed: int, num_resamples: int
) -> tuple[float, float] | None:
    """Of the sum of `sums` over that of `counts`; their places are drawn together."""
    if sums.size == 0:
        return None
    rng = np.random.default_rng(seed)
    means = np.empty(num_resamples)
    rows = max(1, _CHUNK // sums.size)
    for start in range(0, num_resamples, rows):
        part = means[start : start + rows]
        drawn = rng.integers(0, sums.size, (part.size, sums.size))
        part[:] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    mean = float(sums.sum() / counts.sum())
    # Rounding can move both ends past the mean where all values are equal.
    return min(float(low), mean), max(float(high), mean)
