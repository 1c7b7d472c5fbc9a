"""The drop of a figure from one set of cases to another, with its interval."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ibisagent.evaluate.statistics import Estimate, estimate, paired

__all__ = ["Drop", "drop_between"]

Numbers = tuple[Sequence[float], Sequence[float], Sequence[Hashable]]
"""Numbers, weights and clusters of the cases that have a figure."""


@dataclass(frozen=True)
class Drop:
    """A figure inside less the figure outside.

    Parameters
    ----------
    value
        Above 0: worse outside, where higher is better. None where a side has no case.
    ci95
        95% interval; None where a side has fewer than two clusters.
    method
        ``"mover"``: the two sides' own intervals, joined (Zou and Donner's way), for sides that share no cluster;
        ``"joint"``: clusters drawn with the cases of both sides together, where some cluster is on both.
    warning
        What the interval does not say, in one line.
    """

    value: float | None
    ci95: tuple[float, float] | None
    method: str
    warning: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As JSON has it: the interval is a list."""
        return asdict(self) | {"ci95": None if self.ci95 is None else list(self.ci95)}


def drop_between(inside: Numbers, outside: Numbers, seed: int = 0) -> tuple[Estimate, Estimate, Drop]:
    """Both sides' figures and the drop from the first to the second.

    Parameters
    ----------
    inside, outside
        Each side's cases. Clusters (patients) of one side are independent of each other; those that stand on both
        sides are not, and are then drawn with all their cases.
    seed
        Of the draws.
    """
    first, second = estimate(*inside, seed=seed), estimate(*outside, seed=seed + 1)
    if first.value is None or second.value is None:
        return first, second, Drop(None, None, "none", "one of the two sides has no case")
    value = first.value - second.value
    told = "; ".join(
        f"{name}: {one.warning}" for name, one in (("in domain", first), ("out of domain", second)) if one.warning
    )
    if set(inside[2]) & set(outside[2]):
        ends = _joint(inside, outside, seed)
        both = "some clusters stand on both sides and were drawn with the cases of both"
        return first, second, Drop(value, ends, "joint", "; ".join(filter(None, (both, told))))
    if first.ci95 is None or second.ci95 is None:
        return first, second, Drop(value, None, "none", told or None)
    low = value - math.hypot(first.value - first.ci95[0], second.ci95[1] - second.value)
    high = value + math.hypot(first.ci95[1] - first.value, second.value - second.ci95[0])
    return first, second, Drop(value, (low, high), "mover", told or None)


def _joint(inside: Numbers, outside: Numbers, seed: int) -> tuple[float, float] | None:
    """Every case has a weight on its own side alone; what is drawn is clusters, each with its cases of both."""
    none_in, none_out = [0.0] * len(inside[0]), [0.0] * len(outside[0])
    a = ([*none_in, *outside[0]], [*none_in, *outside[1]])
    b = ([*inside[0], *none_out], [*inside[1], *none_out])
    return paired(a, b, [*inside[2], *outside[2]], seed=seed).ci95
