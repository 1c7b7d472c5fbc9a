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
    num_cases
        Cases with a weight in any run, of the targets that are kept.
    dropped_targets
        Targets that some run has cases of and another has none: they are in no number.
    """

    numbers: NDArray[np.float64]
    weights: NDArray[np.float64]
    coefficients: NDArray[np.float64]
    num_cases: int
    dropped_targets: int = 0

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
        """``float64`` (runs, clusters): how far each cluster moves each run's figure.

        Of a ratio of sums that is the figure minus the figure without the cluster, as a jackknife has it; the sum of
        squares of a run's row about its mean is then the jackknife variance. Of a mean over targets it is the sum of
        such moves of the targets, made so that the variance is right for targets that stand in few clusters.
        """
        ratios = self.numbers.sum(1) / self.weights.sum(1)
        numbers, weights = self._corrected()
        return np.asarray(((numbers - ratios[:, None] * weights) / self.weights.sum(1)[:, None]).mean(-1))

    def _corrected(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Numbers and weights, the larger the more of a target's weight the cluster holds.

        The ratio that a cluster is held against lies near its own where it holds much of the weight. A jackknife
        divides by the share that is left; for two clusters it doubles the variance, so where many targets stand in
        few clusters the root is taken, which is unbiased there.
        """
        left = np.maximum(1.0 - self.weights / self.weights.sum(1)[:, None], _LEAST_REST)
        left = left if self.numbers.shape[2] == 1 else np.sqrt(left)
        return self.numbers / left, self.weights / left

    def resampled(self, counts: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The statistic and its jackknife variance, where every cluster is drawn some times.

        Parameters
        ----------
        counts
            ``float64`` (draws, clusters), each row sums to the number of clusters.

        Returns
        -------
        values, variances
            ``float64`` (draws,). A target that a draw has no weight for keeps the data's ratio: left out, it would
            move the mean by how far targets differ, which is no matter of chance.
        """
        clusters = self.num_clusters
        targets = self.numbers.shape[2]
        whole = self.numbers.sum(1) / self.weights.sum(1)  # (runs, targets)
        corrected = self._corrected()
        values = np.zeros(len(counts))
        moved = np.zeros((len(counts), clusters))
        for run, coefficient in enumerate(self.coefficients):
            weights, numbers = counts @ self.weights[run], counts @ self.numbers[run]  # (draws, targets)
            known = weights > 0
            ratios = np.divide(numbers, weights, out=np.broadcast_to(whole[run], weights.shape).copy(), where=known)
            part = np.divide(1 / targets, weights, out=np.zeros_like(weights), where=known)
            values += coefficient * ratios.mean(axis=1)
            moved += coefficient * (part @ corrected[0][run].T - (part * ratios) @ corrected[1][run].T)
        mean = (counts * moved).sum(axis=1) / clusters
        squares = (counts * moved**2).sum(axis=1) - clusters * mean**2
        return values, np.maximum(squares, 0.0) * (clusters - 1) / clusters

    def lone_targets(self) -> NDArray[np.bool_]:
        """``bool`` (targets,): those that stand in a single cluster, so that nothing says how much they vary."""
        return np.asarray((self.weights > 0).any(axis=0).sum(axis=0) < 2)

    def lone_variance(self) -> tuple[float, int]:
        """What the lone targets add to the variance, if they vary between clusters as the others do.

        Where all are lone, the spread between targets stands for it, which is rather too much.

        Returns
        -------
        variance, degrees
            0.0 and 0 without lone targets.
        """
        lone = self.lone_targets()
        if not lone.any() or lone.size == 1:
            return 0.0, 0
        ratios = self.numbers.sum(1) / self.weights.sum(1)
        share = int(lone.sum()) / lone.size**2
        if lone.all():
            return float((self.coefficients @ ratios).var(ddof=1)) * share, lone.size - 1
        weights = self.weights.sum(1)[:, None]
        moved = np.tensordot(self.coefficients, (self.numbers - ratios[:, None] * self.weights) / weights, axes=1)
        number = (self.weights > 0).any(axis=0).sum(axis=0)  # clusters of each target
        several = number > 1
        # The variance of one cluster, by target; what a target tells of it grows with its clusters.
        own = (moved**2).sum(axis=0)[several] * number[several] ** 2 / (number[several] - 1)
        degrees = int((number[several] - 1).sum())
        return float(np.average(own, weights=number[several] - 1)) * share, degrees


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
    known = sums[1].sum(axis=1) > 0
    kept = known.all(axis=0)
    size = int(((w > 0).any(axis=0) & kept[target]).sum())
    dropped = int((known.any(axis=0) & ~kept).sum())
    sums = sums[..., kept]
    sums = sums[:, :, (sums[1] > 0).any(axis=(0, 2))]
    if not sums.size:
        return None
    return Cells(sums[0], sums[1], np.asarray(coefficients, np.float64), size, dropped)


def _numbered(labels: Sequence[Hashable]) -> tuple[NDArray[np.intp], int]:
    """Labels as numbers, in the order in which they come first: the names do not change the draws."""
    known: dict[Hashable, int] = {}
    numbers = [known.setdefault(label, len(known)) for label in labels]
    return np.asarray(numbers, np.intp), len(known)
