"""A ratio of two differences over the same cases, with its interval: shares of a ceiling are such."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

__all__ = ["ratio_of_means"]

_DRAWS = 2000


def ratio_of_means(
    above: Sequence[float],
    below: Sequence[float],
    clusters: Sequence[Hashable],
    targets: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Mean of one number over mean of another, with a percentile bootstrap over clusters.

    Parameters
    ----------
    above, below
        One number a case each, of either sign.
    clusters
        What is drawn.
    targets
        With them, both means are means over targets of each target's mean; a target that a draw leaves out is left out
        of both.
    seed
        Of the draws.

    Returns
    -------
    dict
        ``value``, None where the mean below is not positive; ``ci95``, None where there are fewer than two clusters or
        where a draw in forty has a mean below that is not positive: a share of next to nothing has no interval; ``n``
        and ``num_clusters``.
    """
    labels = sorted({str(c) for c in clusters})
    place = {label: i for i, label in enumerate(labels)}
    kinds = sorted({str(t) for t in targets}) if targets is not None else [""]
    kind = {name: i for i, name in enumerate(kinds)}
    sums = np.zeros((len(labels), len(kinds), 3))
    for i, (a, b, cluster) in enumerate(zip(above, below, clusters, strict=True)):
        k = 0 if targets is None else kind[str(targets[i])]
        sums[place[str(cluster)], k] += (a, b, 1.0)
    found: dict[str, Any] = {"value": None, "ci95": None, "n": len(above), "num_clusters": len(labels)}
    if not len(above):
        return found
    value = _ratio(sums.sum(axis=0)[None])[0]
    if not np.isfinite(value):
        return found
    found["value"] = float(value)
    if len(labels) < 2:
        return found
    rng = np.random.default_rng(seed)
    draws = _ratio(np.stack([sums[rng.integers(len(labels), size=len(labels))].sum(axis=0) for _ in range(_DRAWS)]))
    if np.isnan(draws).mean() > 1 / 40:
        return found
    low, high = np.nanpercentile(draws, (2.5, 97.5))
    found["ci95"] = [float(low), float(high)]
    return found


def _ratio(sums: np.ndarray) -> np.ndarray:
    """(draws, targets, 3) sums of above, below, counts -> ratios; NaN where the mean below is not positive."""
    counts = sums[..., 2]
    there = counts > 0
    safe = np.where(there, counts, 1.0)
    means = np.where(there[..., None], sums[..., :2] / safe[..., None], 0.0).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(means[:, 1] > 1e-9, means[:, 0] / means[:, 1], np.nan)
