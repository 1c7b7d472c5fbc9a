"""Figures of many cases, averaged over parts of them: overall, by modality, by target, by source."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ibisagent.evaluate.figures import FIGURES
from ibisagent.evaluate.statistics import Estimate, cluster_unit, estimate, macro_estimate

if TYPE_CHECKING:
    from ibisagent.evaluate.figures import CaseFigures
    from ibisagent.evaluate.result import CaseResult

__all__ = ["PARTS", "FigureTable"]

PARTS: dict[str, Callable[[CaseResult], str]] = {
    "modality": lambda result: result.modality or "unknown",
    "target": lambda result: result.target or "unknown",
    "source": lambda result: result.source or "unknown",
    "group": lambda result: result.group or "unknown",
}
"""What a table can be divided by."""


class FigureTable:
    """Numbers and weights of all cases, and the clusters of their intervals.

    Parameters
    ----------
    results
        Scored.
    figures
        Numbers and weights of each.
    weigh
        How much each of some cases counts among them; multiplies its numbers and its weights. It is asked for every
        figure and every part anew, with the cases that have the figure there.
    bounds
        Least and largest value that a figure can have, where it is no share: no interval reaches further.
    """

    def __init__(
        self,
        results: Sequence[CaseResult],
        figures: Sequence[CaseFigures],
        weigh: Callable[[Sequence[CaseResult]], Sequence[float]],
        bounds: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        self.bounds = dict(bounds or {})
        self.results, self.figures, self.weigh = list(results), list(figures), weigh
        self.names = list(dict.fromkeys(name for one in figures for name in one))
        # One unit for the whole table, so that its rows can be compared.
        self.clusters = cluster_unit(self.results)

    def clusters_json(self) -> dict[str, Any]:
        """What is drawn for the intervals."""
        found = self.clusters
        return {"unit": found.unit, "number": len(set(found.labels)), "warning": found.warning}

    def numbers(self, name: str, places: Iterable[int] | None = None) -> tuple[list[float], list[float], list[str]]:
        """Numbers, weights and clusters of a figure.

        Parameters
        ----------
        name
            Of the figure.
        places
            Which of the cases; None takes all.
        """
        all_places = range(len(self.results)) if places is None else places
        chosen = [place for place in all_places if name in self.figures[place]]
        pairs = [self.figures[place][name] for place in chosen]
        counts = self.weigh([self.results[place] for place in chosen])
        return (
            [number * count for (number, _), count in zip(pairs, counts, strict=True)],
            [weight * count for (_, weight), count in zip(pairs, counts, strict=True)],
            [self.clusters.labels[place] for place in chosen],
        )

    def target_means(self) -> dict[str, Any]:
        """Shares as means over target names, each counting the same, as JSON."""
        found = {}
        for name in filter(self._is_share, self.names):
            parts = {target: self.numbers(name, places) for target, places in sorted(self.places("target").items())}
            numbers, weights, clusters = ([x for part in parts.values() for x in part[i]] for i in range(3))
            targets = [target for target, part in parts.items() for _ in part[0]]
            found[name] = macro_estimate(numbers, weights, clusters, targets).to_json()
        return found

    def _is_share(self, name: str) -> bool:
        return FIGURES[name].percent if name in FIGURES else name not in self.bounds

    def estimate(self, name: str, places: Iterable[int] | None = None) -> Estimate:
        """A figure over some of the cases, with its interval."""
        found = estimate(*self.numbers(name, places), share=self._is_share(name))
        if name not in self.bounds or found.ci95 is None:
            return found
        low, high = self.bounds[name]
        return replace(found, ci95=(max(found.ci95[0], low), min(found.ci95[1], high)))

    def row(self, places: Iterable[int] | None = None) -> dict[str, Any]:
        """All figures over some of the cases, as JSON."""
        chosen = list(range(len(self.results)) if places is None else places)
        found = {name: self.estimate(name, chosen) for name in self.names}
        return {name: one.to_json() for name, one in found.items() if one.value is not None}

    def rows(self, by: str) -> dict[str, dict[str, Any]]:
        """:meth:`row` for every part of :data:`PARTS`, by name; empty where all cases are one part."""
        places = self.places(by)
        return {part: self.row(mine) for part, mine in sorted(places.items())} if len(places) > 1 else {}

    def places(self, by: str) -> dict[str, list[int]]:
        """Which cases each part has."""
        found: dict[str, list[int]] = {}
        for place, result in enumerate(self.results):
            found.setdefault(PARTS[by](result), []).append(place)
        return found
