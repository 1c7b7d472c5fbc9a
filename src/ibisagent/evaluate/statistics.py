"""How sure a mean is: bootstrap intervals over cases."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["NUM_RESAMPLES", "bootstrap_ci95"]

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
    if array.size == 0:
        return None
    rng = np.random.default_rng(seed)
    means = np.empty(num_resamples)
    rows = max(1, _CHUNK // array.size)
    for start in range(0, num_resamples, rows):
        part = means[start : start + rows]
        part[:] = array[rng.integers(0, array.size, (part.size, array.size))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    mean = float(array.mean())
    # Rounding can move both ends past the mean where all values are equal.
    return min(float(low), mean), max(float(high), mean)
