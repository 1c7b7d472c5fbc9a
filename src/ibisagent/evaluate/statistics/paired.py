"""Two sides that played the same cases: their difference, how sure it is, and what could have been found."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.evaluate.statistics.cells import make_cells
from ibisagent.evaluate.statistics.estimates import dropped_targets, few_clusters, joined, lone_targets
from ibisagent.evaluate.statistics.intervals import FEW_CLUSTERS, NUM_DRAWS, interval, spread_of
from ibisagent.evaluate.statistics.testing import LEVEL, least_p, minimum_detectable, sign_flip

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["Difference", "paired"]


@dataclass(frozen=True)
class Difference:
    """B less A over the same cases.

    Parameters
    ----------
    value_a, value_b
        Each side's figure, the mean over its seeds; None where nothing has weight on both sides.
    difference
        ``value_b - value_a``.
    ci95
        95% interval of it; None where there are fewer than two clusters.
    p
        That there is none, two-sided; None where there are fewer than two clusters, and where seeds and clusters
        differ by the same throughout.
    test
        ``"sign flip of clusters"`` for two runs; ``"draws of clusters and seeds"`` where a side has several: the
        share of the interval's draws beyond 0, doubled. Exchanging three seeds' labels could never be significant.
    minimum_detectable
        True difference that a comparison with this spread and so many clusters and seeds finds in 80% of the times, at
        p < 0.05 after a correction for `tests`; None where it finds none, however large.
    n, num_clusters, seeds
        Cases with a weight (but for those of targets that some run has none of), their clusters, and the runs of A and
        of B.
    warning
        What these numbers do not say, in one line.
    standard_error, degrees
        Of the difference, and their degrees of freedom; None where there are fewer than two clusters or no spread.
    tests
        Number of tests that `minimum_detectable` is corrected for (see :meth:`among`).
    """

    value_a: float | None
    value_b: float | None
    difference: float | None
    ci95: tuple[float, float] | None
    p: float | None
    test: str
    minimum_detectable: float | None
    n: int
    num_clusters: int
    seeds: tuple[int, int]
    warning: str | None = None
    standard_error: float | None = None
    degrees: float | None = None
    tests: int = 1

    def among(self, tests: int) -> Difference:
        """The same as one of `tests` that are corrected together: with what can be found then.

        The level is 0.05 / tests, which Holm's correction asks of the smallest p; of the others it asks less. Where so
        few clusters (or draws) can never give such a p, the warning says so.
        """
        if self.standard_error is None or self.degrees is None:
            return replace(self, tests=tests)
        flips = max(self.seeds) == 1
        least = least_p(self.num_clusters) if flips else 2 / (NUM_DRAWS + 1)
        if least * tests < LEVEL:
            level = LEVEL / tests
            detectable = minimum_detectable(self.standard_error, self.degrees, level=level)
            return replace(self, minimum_detectable=detectable, tests=tests)
        if least * self.tests >= LEVEL:  # said already
            return replace(self, tests=tests)
        what = f"{self.num_clusters} clusters" if flips else f"{NUM_DRAWS} draws"
        told = f"{what} can give no p below {least:.2g}"
        told += f" ({min(1.0, least * tests):.2g} after the correction for {tests} tests)" if tests > 1 else ""
        told += ", whatever the difference"
        return replace(self, minimum_detectable=None, tests=tests, warning=joined([self.warning, told]))

    def to_json(self) -> dict[str, Any]:
        """As JSON has it: tuples are lists."""
        return asdict(self) | {"ci95": None if self.ci95 is None else list(self.ci95), "seeds": list(self.seeds)}


def paired(
    a: tuple[ArrayLike, ArrayLike],
    b: tuple[ArrayLike, ArrayLike],
    clusters: Sequence[Hashable],
    targets: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> Difference:
    """Hold two sides against each other, case by case.

    Whole clusters are drawn, with the results of both sides together; a side with several seeds has these drawn, too,
    crossed with the clusters (every seed played every case). Seeds of A and of B are taken as independent.

    Parameters
    ----------
    a, b
        Each side's numbers and weights, (cases,) or (seeds, cases); a case without part in the figure has 0 and 0.
    clusters, targets
        Label of every case; with targets the figure is the mean over them (see :func:`macro_estimate
        <ibisagent.evaluate.statistics.macro_estimate>`).
    seed
        Seed of the draws and exchanges.

    Raises
    ------
    ValueError
        If lengths do not fit, a number is not finite or a weight negative.
    """
    (na, wa), (nb, wb) = ((np.atleast_2d(np.asarray(x, np.float64)) for x in side) for side in (a, b))
    seeds = (len(na), len(nb))
    numbers, weights = np.concatenate([na, nb]), np.concatenate([wa, wb])
    flips = max(seeds) == 1
    test = "sign flip of clusters" if flips else "draws of clusters and seeds"
    coefficients = [-1 / seeds[0]] * seeds[0] + [1 / seeds[1]] * seeds[1]
    cells = make_cells(numbers, weights, clusters, targets, coefficients) if numbers.size else None
    if cells is None:
        return Difference(None, None, None, None, None, test, None, 0, 0, seeds)
    size, total = cells.num_cases, cells.num_clusters
    by_run = cells.by_run()
    value_a, value_b = float(by_run[: seeds[0]].mean()), float(by_run[seeds[0] :].mean())
    known = (value_a, value_b, value_b - value_a)
    if total < 2:
        told = joined([few_clusters(total), dropped_targets(cells)])
        return Difference(*known, None, None, test, None, size, total, seeds, told)
    spread = spread_of(cells, (tuple(range(seeds[0])), tuple(range(seeds[0], sum(seeds)))))
    warnings = [few_clusters(total), dropped_targets(cells), lone_targets(cells)]
    if spread.variance <= 1e-24:
        # Draws that are all equal test nothing, but for whether the sides are the same.
        p: float | None = sign_flip(cells, seed) if flips else 1.0 if known[2] == 0 else None
        if known[2] != 0:
            warnings.append("the clusters show no spread: the interval has no width, and others may well differ")
        return Difference(*known, (known[2], known[2]), p, test, None, size, total, seeds, joined(warnings))
    ends, candidates = interval(cells, spread, seed)
    if ((numbers >= 0) & (numbers <= weights)).all():  # shares cannot differ by more than 1
        ends = max(ends[0], -1.0), min(ends[1], 1.0)
    error = float(np.sqrt(spread.variance))
    if flips:
        p = sign_flip(cells, seed)
        differing = int(((cells.numbers[0] != cells.numbers[1]) | (cells.weights[0] != cells.weights[1])).any(1).sum())
        if differing < FEW_CLUSTERS <= total:
            warnings.append(f"only {differing} of {total} clusters differ at all: the interval is rough, p is not")
    else:
        beyond = min(int((candidates <= 0).sum()), int((candidates >= 0).sum()))
        p = min(1.0, 2 * (beyond + 1) / (len(candidates) + 1))
        if min(count for count in seeds if count > 1) < 3:
            warnings.append("two seeds say little of how much seeds differ")
    told = joined(warnings)
    found = Difference(*known, ends, p, test, None, size, total, seeds, told, error, spread.degrees, tests=0)
    return found.among(1)
