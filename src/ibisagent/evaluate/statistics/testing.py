"""Tests of differences: sign flips of clusters, Holm's correction, and the difference that could have been found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ibisagent.evaluate.statistics.cells import Cells
    from ibisagent.evaluate.statistics.paired import Difference

__all__ = ["LEVEL", "holm", "is_claimed", "least_p", "minimum_detectable", "sign_flip"]

LEVEL = 0.05
"""Chance of a false finding that is taken, and 1 less the probability of the intervals."""

NUM_FLIPS = 9999
_EXACT = 13
"""Up to so many clusters every exchange is tried: 2^13 are fewer than the random ones."""


def least_p(clusters: int) -> float:
    """The smallest p that :func:`sign_flip` can give: two exchanges are as extreme as the data, at least."""
    return 2 / 2**clusters if clusters <= _EXACT else 1 / (NUM_FLIPS + 1)


def sign_flip(cells: Cells, seed: int = 0) -> float:
    """p that two paired runs are exchangeable within clusters (two-sided).

    Where the runs are the same but for chance, each cluster's results might as well have come from the other run. All
    results of a cluster are exchanged together, and the statistic is computed again: p is the share of exchanges with
    a difference at least as large. No shape of the scores and no number of clusters is assumed. An exchange that leaves
    a side, or a target of it, without any case has no difference, and counts as one that is as large: p is then rather
    too large.

    Parameters
    ----------
    cells
        Two runs, with coefficients -1 and 1.
    seed
        Seed of the exchanges, where there are too many to try all.

    Returns
    -------
    float
        In (0, 1]; 1 where the runs do not differ.
    """
    numbers, weights = cells.numbers, cells.weights
    differ = ((numbers[0] != numbers[1]) | (weights[0] != weights[1])).any(axis=1)
    if not differ.any():
        return 1.0
    fixed_n, fixed_w = (part[0, ~differ].sum(0) for part in (numbers, weights))
    first_n, second_n = numbers[:, differ]
    first_w, second_w = weights[:, differ]
    observed = abs(cells.value())
    extreme = tried = 0
    for kept in _exchanges(int(differ.sum()), seed):
        with np.errstate(invalid="ignore", divide="ignore"):  # an exchange may leave a side without any case
            one = (fixed_n + kept @ first_n + (1 - kept) @ second_n) / (
                fixed_w + kept @ first_w + (1 - kept) @ second_w
            )
            two = (fixed_n + kept @ second_n + (1 - kept) @ first_n) / (
                fixed_w + kept @ second_w + (1 - kept) @ first_w
            )
            difference = np.abs((two - one).mean(axis=1))
        extreme += int(((difference >= observed - 1e-12) | ~np.isfinite(difference)).sum())
        tried += len(kept)
    if differ.sum() <= _EXACT:
        return extreme / tried
    return (extreme + 1) / (tried + 1)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction: the chance of one false finding among all of them is kept at the level.

    Parameters
    ----------
    p_values
        In any order. None (not tested) stays None and does not count.
    """
    order = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    found: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, place) in enumerate(order):
        highest = max(highest, min(1.0, p * (len(order) - rank)))
        found[place] = highest
    return found


def is_claimed(difference: Difference | Mapping[str, Any], p_holm: float | None) -> bool:
    """Whether a difference is said to be one: p after the correction is below 5% and the interval excludes 0.

    The two are made in different ways. Where they disagree (few clusters, rare targets) the more careful one counts.

    Parameters
    ----------
    difference
        From :func:`~ibisagent.evaluate.statistics.paired`, or as its ``to_json`` gives it.
    p_holm
        Its p after Holm's correction; None (not tested) claims nothing.
    """
    ends = difference["ci95"] if isinstance(difference, Mapping) else difference.ci95
    return p_holm is not None and p_holm < LEVEL and ends is not None and not ends[0] <= 0 <= ends[1]


def minimum_detectable(error: float, degrees: float, power: float = 0.8, level: float = 0.05) -> float:
    """The true difference that a two-sided t test of one comparison would find with a probability.

    Parameters
    ----------
    error
        Standard error of the paired difference, as observed.
    degrees
        Its degrees of freedom (clusters - 1 where one run is held against another). Few of them make it larger: the
        distribution is Student's, and the noncentral one gives the power.
    power, level
        Wanted probability to find it, and the test's level. For one of m tests that are corrected, 0.05 / m: Holm's
        correction asks no more of any of them.

    Returns
    -------
    float
        In the unit of `error`; 0 where that is 0.
    """
    return error * _detectable_errors(round(degrees, 3), power, level)


@lru_cache(maxsize=256)
def _detectable_errors(degrees: float, power: float, level: float) -> float:
    from scipy import optimize, stats

    limit = float(stats.t.ppf(1 - level / 2, degrees))

    def lacks(shift: float) -> float:
        upper, lower = stats.nct.sf(limit, degrees, shift), stats.nct.cdf(-limit, degrees, shift)
        return float(upper + (0.0 if np.isnan(lower) else lower)) - power

    return float(optimize.brentq(lacks, 0.1, 3 * limit + 10))


def _exchanges(clusters: int, seed: int) -> list[NDArray[np.float64]]:
    """Which clusters stay as they are, as ``float64`` (exchanges, clusters) of 0 and 1, in parts."""
    if clusters <= _EXACT:
        codes = np.arange(2**clusters)[:, None]
        return [((codes >> np.arange(clusters)) & 1).astype(np.float64)]
    rng = np.random.default_rng([seed, 2])
    rows = max(1, 2**20 // clusters)
    sizes = [min(rows, NUM_FLIPS - start) for start in range(0, NUM_FLIPS, rows)]
    return [rng.integers(0, 2, (size, clusters)).astype(np.float64) for size in sizes]
