"""The interval of a statistic over clusters, and over seeds where there are several runs.

The way was chosen by measurement (``benchmarks/coverage.py``): a bootstrap-t over clusters with the jackknife's
variance. Percentile and BCa intervals are too short for the skewed figures that segmentation has (IoU near 1 with a few
failures, rates near 0 and 1); the studentised draws see the skewness, because in them a low mean comes with a wide
spread. What it cannot see is told by other means: a share that fewer than ten clusters keep from 0 or 1 takes Wilson's
interval with an effective number of trials, and fewer than ten clusters take Student's t.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ibisagent.evaluate.statistics.cells import Cells

__all__ = ["FEW_CLUSTERS", "NUM_DRAWS", "Spread", "draws", "interval", "share_interval", "spread_of"]

FEW_CLUSTERS = 10
"""Below it a bootstrap has too little to draw from."""

NUM_DRAWS = 5000

_FLOOR = 0.25
"""A draw's variance counts as at least this part of the data's: draws that miss every bad case have almost none, and
their studentised values would decide the interval."""

_CHUNK = 2**20
_KEEP = 2**26


@dataclass(frozen=True)
class Spread:
    """Variance of a statistic, by where it comes from.

    Parameters
    ----------
    clusters
        Because these clusters were drawn; the chance of single runs is not in it where `others` has it.
    others
        (variance, degrees of freedom) of every side that has several seeds, and of targets in a single cluster.
    num_clusters
        Number of clusters.
    """

    clusters: float
    others: tuple[tuple[float, int], ...]
    num_clusters: int

    @property
    def variance(self) -> float:
        """All together."""
        return self.clusters + sum(variance for variance, _ in self.others)

    @property
    def degrees(self) -> float:
        """Degrees of freedom of :attr:`variance`, after Satterthwaite."""
        parts = [(self.clusters, self.num_clusters - 1), *self.others]
        below = sum(variance**2 / df for variance, df in parts if variance > 0)
        return self.variance**2 / below if below > 0 else float(self.num_clusters - 1)


def spread_of(cells: Cells, sides: tuple[tuple[int, ...], ...]) -> Spread:
    """How much the statistic varies.

    Parameters
    ----------
    cells
        At least two clusters.
    sides
        Numbers of the runs of each side. A side of several runs has seeds that are drawn; one of a single run is
        taken as it is.
    """
    moved, values, total = cells.influence(), cells.by_run(), cells.num_clusters
    variance = _jackknife(cells.coefficients @ moved)
    others = [part for part in (cells.lone_variance(),) if part[1]]
    for side in sides:
        if len(side) < 2:
            continue
        rows, weight = moved[list(side)], cells.coefficients[side[0]]
        size = len(side)
        others.append((float(weight**2 * size * values[list(side)].var(ddof=1)), size - 1))
        # What is by chance of both a run and a cluster stands in both variances; it is to count once.
        both = sum(_jackknife(row - rows.mean(0)) for row in rows) * size / (size - 1)
        variance -= float(weight**2 * both)
    return Spread(max(variance, 0.0), tuple(others), total)


def interval(
    cells: Cells, spread: Spread, seed: int, num_draws: int = NUM_DRAWS
) -> tuple[tuple[float, float], NDArray[np.float64]]:
    """95% interval, and the values that it is a part of.

    Parameters
    ----------
    cells, spread
        The data; at least two clusters, and a variance above 0.
    seed
        Seed of the draws; equal data and seeds give equal intervals.
    num_draws
        Number of draws.

    Returns
    -------
    (low, high), candidates
        The 2.5th and 97.5th percentile of `candidates`, ``float64`` (num_draws,): values that the statistic may
        truly have, drawn as often as the data make them likely. Each is the statistic less a draw of its studentised
        deviation in whole clusters, times its standard error, plus a draw of Student's t for each side with several
        seeds and for the targets that stand in one cluster.
    """
    rng = np.random.default_rng([seed, 1])
    value, error = cells.value(), float(np.sqrt(spread.clusters))
    if error == 0 or spread.num_clusters < FEW_CLUSTERS:
        deviations = rng.permutation(_t_quantiles(spread.num_clusters - 1, num_draws))
    else:
        deviations = _studentised(cells, seed, num_draws)
    candidates = value - deviations * error
    for variance, degrees in spread.others:
        candidates = candidates + float(np.sqrt(variance)) * rng.permutation(_t_quantiles(degrees, num_draws))
    low, high = np.percentile(candidates, (2.5, 97.5))
    return (min(float(low), value), max(float(high), value)), candidates


def share_interval(value: float, spread: Spread, most: float) -> tuple[float, float]:
    """95% interval of a share: Wilson's, with as many trials as its variance says there were.

    Parameters
    ----------
    value
        The share, from 0 to 1.
    spread
        Its variance. Where that is 0 at a share of 0 or 1, every cluster counts as one trial and the interval is the
        exact (Clopper and Pearson's) one.
    most
        Trials there can have been at most (inf for shares that are no counts).
    """
    from scipy import stats

    clusters = spread.num_clusters
    if spread.variance <= 0:
        far = float(0.025 ** (1 / clusters))
        return (far, 1.0) if value > 0.5 else (0.0, 1.0 - far)
    z, trials = 1.959964, min(value * (1 - value) / spread.variance, most)
    if spread.degrees < FEW_CLUSTERS - 1:  # the variance itself is uncertain then; above it this made them too long
        trials *= (z / float(stats.t.ppf(0.975, spread.degrees))) ** 2
    centre = (value + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * float(np.sqrt(value * (1 - value) / trials + z * z / (4 * trials**2)))
    return max(0.0, centre - half), min(1.0, centre + half)


def draws(clusters: int, seed: int, num_draws: int) -> Iterator[NDArray[np.float64]]:
    """How often each cluster is drawn, as ``float64`` (some draws, clusters); all parts together are `num_draws`."""
    rows = max(1, _CHUNK // clusters)
    if clusters * num_draws <= _KEEP:
        drawn = _all_draws(clusters, seed, num_draws)
        yield from (drawn[start : start + rows].astype(np.float64) for start in range(0, num_draws, rows))
        return
    rng = np.random.default_rng(seed)
    for start in range(0, num_draws, rows):
        yield _draw(rng, clusters, min(rows, num_draws - start)).astype(np.float64)


@lru_cache(maxsize=2)
def _all_draws(clusters: int, seed: int, num_draws: int) -> NDArray[np.uint8]:
    # A run has some thirty figures over the same clusters, and drawing takes longer than the sums.
    rng, rows = np.random.default_rng(seed), max(1, _CHUNK // clusters)
    parts = [_draw(rng, clusters, min(rows, num_draws - start)) for start in range(0, num_draws, rows)]
    return np.concatenate(parts)


def _draw(rng: np.random.Generator, clusters: int, rows: int) -> NDArray[np.uint8]:
    # That one cluster is drawn more than 255 times does not happen: a byte is enough.
    return rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=rows).astype(np.uint8)


def _studentised(cells: Cells, seed: int, num_draws: int) -> NDArray[np.float64]:
    value, variance = cells.value(), _jackknife(cells.coefficients @ cells.influence())
    found = []
    for counts in draws(cells.num_clusters, seed, num_draws):
        values, variances = cells.resampled(counts)
        found.append((values - value) / np.sqrt(np.maximum(variances, _FLOOR * variance)))
    deviations = np.concatenate(found)
    return np.where(np.isfinite(deviations), deviations, 0.0)


def _jackknife(moved: NDArray[np.float64]) -> float:
    return float(((moved - moved.mean()) ** 2).sum() * (len(moved) - 1) / len(moved))


@lru_cache(maxsize=16)
def _t_quantiles(degrees: int, number: int) -> NDArray[np.float64]:
    """Evenly spaced quantiles of Student's t: less noise than as many draws."""
    from scipy import stats

    found = np.asarray(stats.t.ppf((np.arange(number) + 0.5) / number, degrees))
    found.flags.writeable = False
    return found
