"""A ratio of two differences over the same cases, with its interval: shares of a ceiling are such."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from ibisagent.evaluate.statistics import Estimate, estimate, macro_estimate

__all__ = ["ratio_of_means"]

_LEAST = 1e-9


def ratio_of_means(
    above: Sequence[float],
    below: Sequence[float],
    clusters: Sequence[Hashable],
    targets: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Mean of one number over mean of another, with an interval over clusters.

    The interval is that of the mean of above - ratio x below, over the mean below: how far each cluster moves the
    ratio, to first order. That mean's interval is an ordinary one (bootstrap-t; Student's t below ten clusters), with
    its warnings.

    Parameters
    ----------
    above, below
        One number a case each, of either sign.
    clusters
        What is drawn.
    targets
        With them, both means are means over targets of each target's mean; targets are not drawn.
    seed
        Of the draws.

    Returns
    -------
    dict
        As :meth:`~ibisagent.evaluate.statistics.Estimate.to_json`. ``value`` is None where the mean below is not
        positive; ``ci95`` where there are fewer than two clusters or where the interval of the mean below reaches 0: a
        share of next to nothing has no interval.
    """
    a, b = np.asarray(above, np.float64), np.asarray(below, np.float64)
    base = _mean(b, clusters, targets, seed)
    if base.value is None or base.value <= _LEAST:
        return Estimate(None, None, base.n, base.num_clusters).to_json()
    value = float(_mean(a, clusters, targets, seed).value or 0.0) / base.value
    rest = _mean(a - value * b, clusters, targets, seed)
    if rest.ci95 is None or base.ci95 is None:
        return Estimate(value, None, rest.n, rest.num_clusters, rest.warning).to_json()
    if base.ci95[0] <= 0:
        told = "what it is a share of may be nothing: it has no interval"
        return Estimate(value, None, rest.n, rest.num_clusters, told).to_json()
    ends = value + rest.ci95[0] / base.value, value + rest.ci95[1] / base.value
    return Estimate(value, ends, rest.n, rest.num_clusters, rest.warning, rest.method).to_json()


def _mean(values: np.ndarray, clusters: Sequence[Hashable], targets: Sequence[Hashable] | None, seed: int) -> Estimate:
    if targets is None:
        return estimate(values, None, clusters, seed, share=False)
    return macro_estimate(values, None, clusters, targets, seed, share=False)
