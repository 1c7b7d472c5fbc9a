"""Sums by run, cluster and target: what every statistic is computed of, and how each cluster moves it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from numpy.typing import ArrayLike, NDArray

__all__ = ["Cells", "make_cells"]

_LEAST_REST = 0.05
"""Of a cluster that holds nearly all weight, what is left without it is taken to be at least this share."""


@dataclass(frozen=True, eq=False)
class Cells:
    """Numbers and weights, summed within clusters and targets.

    The statistic is the sum over runs of coefficient x (mean over targets of numbers / weights). One run with
    coefficient 1 is a figure; two runs with 1 and -1 a difference; S seeds have 1/S each.

    Parameters
    ----------
    numbers, weights
        ``float64`` (runs, clusters, targets). One target makes the statistic a ratio of sums, more a macro mean.
    coefficients
        ``float64`` (runs,).
    """

    numbers: NDArray[np.float64]
    weights: NDArray[np.float64]
    coefficients: NDArray[np.float64]

    @property
    def num_clusters(self) -> int:
        """Number of clusters with a weight in any run."""
        return int(self.numbers.shape[1])

    def by_run(self) -> NDArray[np.float64]:
        """``float64`` (runs,): the figure of every run."""
        return np.asarray((self.numbers.sum(1) / self.weights.sum(1)).mean(-1))

    def value(self) -> float:
        """The statistic."""
        return float(self.coefficients @ self.by_run())

    def influence(self) -> NDArray[np.float64]:
        """``float64`` (runs, clusters): how far each cluster moves each run's figure, as a jackknife has it.

        That is the figure minus the figure without the cluster, exactly so for a ratio of sums. The sum of squares
        of a run's row, about its mean, is the jackknife variance.
        """
        weights = self.weights.sum(1)  # (runs, targets)
        ratios = self.numbers.sum(1) / weights
        moved = ((self.numbers - ratios[:, None] * self.weights) / weights[:, None]).mean(-1)
        return np.asarray(moved / self.rest())

    def rest(self) -> NDArray[np.float64]:
        """``float64`` (runs, clusters): share of the weight that a run has left without the cluster."""
        held = (self.weights / self.weights.sum(1)[:, None]).mean(-1)
        return np.maximum(1.0 - held, _LEAST_REST)

    def resampled(self, counts: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The statistic and its jackknife variance, where every cluster is drawn some times.

        Parameters
        ----------
        counts
            ``float64`` (draws, clusters), each row sums to the number of clusters.

        Returns
        -------
        values, variances
            ``float64`` (draws,). Targets that a draw has no weight for are left out of its mean; a draw without any
            gives NaN.
        """
        clusters = self.num_clusters
        with np.errstate(invalid="ignore", divide="ignore"):
            weights = np.stack([counts @ w for w in self.weights])  # (runs, draws, targets)
            numbers = np.stack([counts @ n for n in self.numbers])
            known = (weights > 0).all(axis=0)
            share = known / known.sum(axis=1, keepdims=True)  # of each target in the mean; NaN if none
            values = np.zeros(len(counts))
            moved = np.zeros((len(counts), clusters))
            for run, coefficient in enumerate(self.coefficients):
                part = np.where(known, share / weights[run], 0.0)
                ratios = np.where(known, numbers[run] / weights[run], 0.0)
                values += coefficient * (ratios * share).sum(axis=1)
                change = part @ self.numbers[run].T - (part * ratios) @ self.weights[run].T
                moved += coefficient * change / self.rest()[run]
        mean = (counts * moved).sum(axis=1) / clusters
        squares = (counts * moved**2).sum(axis=1) - clusters * mean**2
        return values, np.maximum(squares, 0.0) * (clusters - 1) / clusters


def make_cells(
    numbers: ArrayLike,
    weights: ArrayLike,
    clusters: Sequence[Hashable],
    targets: Sequence[Hashable] | None = None,
    coefficients: Sequence[float] = (1.0,),
) -> Cells | None:
    """Sum cases into cells.

    Parameters
    ----------
    numbers, weights
        (runs, cases); a case that has no part in a run's figure has number 0 and weight 0 there.
    clusters, targets
        Label of every case. Clusters without weight are dropped, and so are targets that some run has none for. None
        makes all cases one target.
    coefficients
        One a run.

    Returns
    -------
    Cells or None
        None where nothing has weight.

    Raises
    ------
    ValueError
        If lengths do not fit, a number is not finite or a weight negative.
    """
    n, w = np.atleast_2d(np.asarray(numbers, np.float64)), np.atleast_2d(np.asarray(weights, np.float64))
    labels = [clusters, targets if targets is not None else [0] * n.shape[1]]
    if n.shape != w.shape or len(n) != len(coefficients) or any(len(label) != n.shape[1] for label in labels):
        raise ValueError(f"numbers {n.shape}, weights {w.shape}, {len(clusters)} clusters: they do not fit")
    if not (np.isfinite(n).all() and np.isfinite(w).all() and (w >= 0).all()):
        raise ValueError("numbers and weights must be finite, and no weight negative")
    (cluster, num_clusters), (target, num_targets) = (_numbered(label) for label in labels)
    sums = np.zeros((2, len(n), num_clusters, num_targets))
    for run in range(len(n)):
        np.add.at(sums[0, run], (cluster, target), n[run])
        np.add.at(sums[1, run], (cluster, target), w[run])
    sums = sums[..., (sums[1].sum(axis=1) > 0).all(axis=0)]
    sums = sums[:, :, (sums[1] > 0).any(axis=(0, 2))]
    if not sums.size:
        return None
    return Cells(sums[0], sums[1], np.asarray(coefficients, np.float64))


def _numbered(labels: Sequence[Hashable]) -> tuple[NDArray[np.intp], int]:
    """Labels as numbers, in the order in which they come first: the names do not change the draws."""
    known: dict[Hashable, int] = {}
    numbers = [known.setdefault(label, len(known)) for label in labels]
    return np.asarray(numbers, np.intp), len(known)
