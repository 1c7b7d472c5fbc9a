"""A figure over a list of cases, with its interval."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.evaluate.statistics.cells import Cells, make_cells
from ibisagent.evaluate.statistics.intervals import FEW_CLUSTERS, Spread, interval, share_interval, spread_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["Estimate", "dropped_targets", "estimate", "few_clusters", "joined", "lone_targets", "macro_estimate"]


@dataclass(frozen=True)
class Estimate:
    """A figure and how sure it is.

    Parameters
    ----------
    value
        Sum of numbers over sum of weights, or the mean of that over targets; None where nothing has weight.
    ci95
        Ends of the 95% interval; None where nothing has weight and where there is a single cluster.
    n
        Cases with a weight, but for those of targets that some run has none of.
    num_clusters
        Clusters with a weight.
    warning
        What the interval does not say, in one line; None where it can be taken as it is.
    method
        ``"bootstrap-t"``, ``"wilson"``, ``"clopper-pearson"``, ``"t"``, ``"constant"`` or ``"none"``: how the
        interval was made; ``" + seeds"`` where seeds were drawn, too.
    """

    value: float | None
    ci95: tuple[float, float] | None
    n: int
    num_clusters: int
    warning: str | None = None
    method: str = "none"

    def to_json(self) -> dict[str, Any]:
        """As JSON has it: the interval is a list."""
        return asdict(self) | {"ci95": None if self.ci95 is None else list(self.ci95)}


def estimate(
    values: ArrayLike,
    weights: ArrayLike | None,
    clusters: Sequence[Hashable],
    seed: int = 0,
    *,
    share: bool = True,
) -> Estimate:
    """A ratio of sums with its 95% interval over clusters.

    Parameters
    ----------
    values
        One number a case; or (seeds, cases) for several runs of the same list, whose figures are averaged.
    weights
        Of the same shape; None is 1 for every case. The figure is sum(values) / sum(weights), so the values are
        weighted already, as :func:`~ibisagent.evaluate.figures.case_figures` gives them. A case without part in the
        figure has value and weight 0.
    clusters
        Label of every case.
    seed
        Seed of the draws; equal data and seeds give equal intervals.
    share
        Whether the figure cannot leave [0, 1], so that the intervals of shares are for it. False for counts,
        distances and times, which may well lie there (one step in every case).

    Raises
    ------
    ValueError
        If lengths do not fit, a number is not finite or a weight negative.
    """
    return _estimate(values, weights, clusters, None, seed, share)


def macro_estimate(
    values: ArrayLike,
    weights: ArrayLike | None,
    clusters: Sequence[Hashable],
    targets: Sequence[Hashable],
    seed: int = 0,
    *,
    share: bool = True,
) -> Estimate:
    """The mean over targets of a ratio of sums, with its 95% interval over clusters.

    The targets are taken as they are, clusters are drawn: the interval is for other patients with these targets.

    Parameters
    ----------
    values, weights, clusters, seed, share
        As for :func:`estimate`.
    targets
        Target of every case; every target counts the same.

    Raises
    ------
    ValueError
        As :func:`estimate`.
    """
    return _estimate(values, weights, clusters, targets, seed, share)


def few_clusters(clusters: int, *, counts: bool = False) -> str | None:
    """What an interval over so few clusters means; None if there are enough.

    Parameters
    ----------
    clusters
        How many.
    counts
        Whether it is Wilson's of counts, or Clopper and Pearson's: these do hold failures that were not seen.
    """
    if clusters >= FEW_CLUSTERS:
        return None
    if clusters < 2:
        return "one cluster only: nothing says how much others would differ, so there is no interval"
    if counts:
        return f"{clusters} clusters only: the interval is rough, since how much clusters differ is hardly known"
    return (
        f"{clusters} clusters only: the interval says how much these {clusters} differ, if others are like them and "
        "none is exceptional; a rare failure that none of them shows is not in it, so take it for a rough lower bound "
        "of the doubt"
    )


def dropped_targets(cells: Cells) -> str | None:
    """That a mean over targets leaves some out; None if it does not."""
    number = cells.dropped_targets
    if not number:
        return None
    which = "1 target is" if number == 1 else f"{number} targets are"
    return f"{which} left out of the mean over targets: some run has no case there"


def joined(warnings: Sequence[str | None]) -> str | None:
    """Warnings in one line; None if there is none."""
    return "; ".join(w for w in warnings if w) or None


def lone_targets(cells: Cells) -> str | None:
    """What an interval of a mean over targets means where some stand in one cluster; None if none does."""
    lone, total = int(cells.lone_targets().sum()), cells.numbers.shape[2]
    if not lone or total == 1:
        return None
    return f"{lone} of {total} targets stand in one cluster only: their spread is taken from the other targets"


def _estimate(
    values: ArrayLike,
    weights: ArrayLike | None,
    clusters: Sequence[Hashable],
    targets: Sequence[Hashable] | None,
    seed: int,
    share: bool,
) -> Estimate:
    n = np.atleast_2d(np.asarray(values, np.float64))
    w = np.ones_like(n) if weights is None else np.atleast_2d(np.asarray(weights, np.float64))
    runs = len(n)
    if not n.size:
        return Estimate(None, None, 0, 0)
    cells = make_cells(n, w, clusters, targets, [1 / runs] * runs)
    if cells is None:
        return Estimate(None, None, 0, 0)
    size, value, total = cells.num_cases, cells.value(), cells.num_clusters
    warnings = [dropped_targets(cells)]
    if total < 2:
        return Estimate(value, None, size, total, joined([few_clusters(total), *warnings]))
    spread = spread_of(cells, (tuple(range(runs)),))
    share = share and bool(((n >= 0) & (n <= w)).all())
    counts = bool((n == np.floor(n)).all() and (w == np.floor(w)).all())
    ends, method = _interval(cells, spread, n, w, share, counts, targets is not None, seed)
    of_counts = method == "clopper-pearson" or (method == "wilson" and counts)
    warnings.insert(0, few_clusters(total, counts=of_counts))
    if method == "constant":
        warnings.append("all clusters gave the same: what they do not show is not in the interval")
    elif method == "clopper-pearson":
        warnings.append(f"all {total} clusters gave {value:g}: the interval takes each of them for one trial")
    warnings.append(lone_targets(cells))
    method += " + seeds" if runs > 1 else ""
    return Estimate(value, ends, size, total, joined(warnings), method)


def _interval(
    cells: Cells,
    spread: Spread,
    n: NDArray[np.float64],
    w: NDArray[np.float64],
    share: bool,
    counts: bool,
    macro: bool,
    seed: int,
) -> tuple[tuple[float, float], str]:
    value = cells.value()
    if share and min(value, 1 - value) < 1e-9:  # but for rounding, all or nothing
        low, high = share_interval(round(value), replace(spread, clusters=0.0, others=()), np.inf)
        return (min(low, value), max(high, value)), "clopper-pearson"
    if spread.variance <= 1e-24:
        return (value, value), "constant"
    # Yes or no of cases that are independent: the variance need not be estimated, and no draws are wanted.
    alone = counts and len(n) == 1 and bool(w.max() <= 1) and cells.num_cases == cells.num_clusters
    if share and not macro and (alone or _away_from_ends(cells) < FEW_CLUSTERS):
        if alone:
            spread = replace(spread, clusters=value * (1 - value) / cells.num_clusters)
        low, high = share_interval(value, spread, float(w.sum() / len(w)) if counts else np.inf)
        return (min(low, value), max(high, value)), "wilson"
    ends, _ = interval(cells, spread, seed)
    if share:
        ends = max(ends[0], 0.0), min(ends[1], 1.0)
    return ends, "t" if cells.num_clusters < FEW_CLUSTERS else "bootstrap-t"


def _away_from_ends(cells: Cells) -> int:
    """Clusters that keep a share from 0, or from 1, whichever are fewer."""
    numbers, weights = cells.numbers.sum(axis=(0, 2)), cells.weights.sum(axis=(0, 2))
    return min(int((numbers > 1e-12).sum()), int((weights - numbers > 1e-12).sum()))
