"""How often 95% intervals hold the truth, and how often tests find differences that are none.

    python benchmarks/coverage.py --out docs/results/coverage.json [--draws 2000] [--clusters 50 20 10 5]

Clustered scores are drawn from laws whose mean is known, as segmentation has them; each draw is a data set, of which
an interval is made. The bar is 93% to 97% of 2,000 data sets of 50 clusters. "percentile" is the ordinary bootstrap,
for comparison. The standard error of a coverage of 95% is 0.5 points over 2,000 data sets.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibisagent.evaluate.statistics import estimate, macro_estimate, minimum_detectable, paired

Scores = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.intp]]
"""Numbers, weights and clusters of cases."""


@dataclass(frozen=True)
class Law:
    """A law of clustered scores: a sentence, how a data set is drawn, and whether the bar is about it."""

    about: str
    draw: Callable[[np.random.Generator, int], Scores]
    in_bar: bool = True


def beta(rng: np.random.Generator, mean: Any, strength: float, size: int) -> NDArray[np.float64]:
    """Draws with a mean; the larger `strength`, the less they differ."""
    return rng.beta(mean * strength, (1 - mean) * strength, size)


def spread(sizes: NDArray[np.intp]) -> NDArray[np.intp]:
    return np.repeat(np.arange(len(sizes)), sizes)


def ones(cases: int) -> NDArray[np.float64]:
    return np.ones(cases)


def symmetric(rng: np.random.Generator, clusters: int) -> Scores:
    where = spread(np.full(clusters, 4))
    values = rng.normal(0.6, 0.1, clusters)[where] + rng.normal(0, 0.1, len(where))
    return values, ones(len(where)), where


def skewed(rng: np.random.Generator, clusters: int) -> Scores:
    where = spread(np.full(clusters, 4))
    means = np.clip(beta(rng, 0.88, 12, clusters), 0.02, 0.98)
    return beta(rng, means[where], 20, len(where)), ones(len(where)), where


def failing(chance: float) -> Callable[[np.random.Generator, int], Scores]:
    """IoU near 1, but for some cases at 0; clusters differ in how many."""

    def draw(rng: np.random.Generator, clusters: int) -> Scores:
        where = spread(rng.integers(2, 7, clusters))
        failed = rng.random(len(where)) < beta(rng, chance, 3, clusters)[where]
        return np.where(failed, 0.0, beta(rng, 0.93, 30, len(where))), ones(len(where)), where

    return draw


def unequal(rng: np.random.Generator, clusters: int) -> Scores:
    where = spread(np.clip(np.round(rng.lognormal(1, 0.8, clusters)), 1, 40).astype(int))
    return beta(rng, beta(rng, 0.7, 6, clusters)[where] * 0.98 + 0.01, 20, len(where)), ones(len(where)), where


def informative(rng: np.random.Generator, clusters: int) -> Scores:
    sizes = np.clip(np.round(rng.lognormal(1, 0.8, clusters)), 1, 40).astype(int)
    where = spread(sizes)
    values = (0.85 - 0.5 / (1 + sizes) + rng.normal(0, 0.1, clusters))[where] + rng.normal(0, 0.1, len(where))
    return values, ones(len(where)), where


def rate(chance: float, strength: float | None, more: float = 4.0) -> Callable[[np.random.Generator, int], Scores]:
    """Yes or no, 1 + Poisson(`more`) cases a cluster; None makes cases of a cluster independent."""

    def draw(rng: np.random.Generator, clusters: int) -> Scores:
        where = spread(1 + rng.poisson(more, clusters))
        chances = np.full(clusters, chance) if strength is None else beta(rng, chance, strength, clusters)
        return (rng.random(len(where)) < chances[where]).astype(float), ones(len(where)), where

    return draw


def validity(rng: np.random.Generator, clusters: int) -> Scores:
    """Legal replies of replies, several cases an image."""
    where = spread(rng.integers(2, 6, clusters))
    replies = rng.integers(2, 9, len(where))
    return rng.binomial(replies, beta(rng, 0.96, 8, clusters)[where]).astype(float), replies.astype(float), where


def difference(rng: np.random.Generator, clusters: int) -> Scores:
    where = spread(rng.integers(1, 6, clusters))
    own = np.where(rng.random(len(where)) < 0.5, 0.0, rng.standard_t(3, len(where)) * 0.08)
    return own + rng.normal(0.02, 0.05, clusters)[where], ones(len(where)), where


def rescues(rng: np.random.Generator, clusters: int) -> Scores:
    where = spread(rng.integers(1, 6, clusters))
    saved = rng.random(len(where)) < 0.1
    return np.where(saved, rng.beta(2, 2, len(where)), rng.normal(0, 0.02, len(where))), ones(len(where)), where


LAWS = {
    "symmetric": Law("normal, 4 cases a cluster, half of the variance between clusters", symmetric),
    "skewed": Law("IoU near 1: beta with mean 0.88, clusters differ", skewed),
    "failing": Law("IoU 0.93 with 6% of cases at 0, clustered; 2-6 cases a cluster", failing(0.06)),
    "unequal": Law("IoU with mean 0.7; 1-40 cases a cluster, log-normal", unequal),
    "size-matters": Law("as unequal, and large clusters score higher", informative),
    "rate-0.05": Law("rate 0.05, clusters differ (beta of strength 5), 5 cases a cluster", rate(0.05, 5)),
    "rate-0.5": Law("rate 0.5, clusters differ", rate(0.5, 4)),
    "rate-0.9": Law("rate 0.9, clusters differ", rate(0.9, 4)),
    "rate-0.95": Law("rate 0.95, clusters differ", rate(0.95, 5)),
    "rate-0.97": Law("rate 0.97, clusters differ less", rate(0.97, 20)),
    "rate-0.98": Law("rate 0.98: some four clusters keep it from 1", rate(0.98, 5)),
    "validity": Law("legal replies of replies, 0.96; clusters differ", validity),
    "difference": Law("paired: half of the cases equal, heavy tails, mean 0.02", difference),
    "rescues": Law("paired: 10% of the cases rescued, the others nearly equal", rescues),
    "rate-0.9-one": Law("rate 0.9, one case a cluster: five failures expected", rate(0.9, None, 0), False),
    "rate-0.95-one": Law("rate 0.95, one case a cluster: 2.5 failures expected", rate(0.95, None, 0), False),
    "failing-rarely": Law("IoU 0.93 with 1% of cases at 0, clustered; 2-6 cases a cluster", failing(0.01), False),
    "rate-0.99": Law("rate 0.99: often no failure at all", rate(0.99, 10), False),
}
"""The laws. Those not in the bar have so few possible data sets that coverage jumps with the rate, or failures that
many data sets do not show at all."""


def percentile(numbers: NDArray[np.float64], weights: NDArray[np.float64], where: NDArray[np.intp], draws: Any) -> Any:
    """The ordinary cluster bootstrap, for comparison."""
    sums = np.bincount(where, numbers), np.bincount(where, weights)
    return np.percentile((draws @ sums[0]) / (draws @ sums[1]), (2.5, 97.5))


def coverage(law: Law, clusters: int, draws: int, seed: int) -> dict[str, Any]:
    """Share of data sets whose interval holds the truth, and the sides on which others miss it."""
    numbers, weights, _ = law.draw(np.random.default_rng([seed, 99]), 400_000)
    truth = float(numbers.sum() / weights.sum())
    rng = np.random.default_rng([seed, clusters])
    counts = np.random.default_rng(0).multinomial(clusters, np.full(clusters, 1 / clusters), size=2000)
    below = above = plain = 0
    width = 0.0
    methods: dict[str, int] = {}
    for _ in range(draws):
        numbers, weights, where = law.draw(rng, clusters)
        found = estimate(numbers, weights, where.tolist())
        assert found.ci95 is not None
        low, high = found.ci95
        above += truth < low
        below += truth > high
        width += high - low
        methods[found.method] = methods.get(found.method, 0) + 1
        low, high = percentile(numbers, weights, where, counts)
        plain += bool(low <= truth <= high)
    return {
        "about": law.about,
        "truth": round(truth, 4),
        "coverage": round(1 - (above + below) / draws, 4),
        "too_high": round(above / draws, 4),
        "too_low": round(below / draws, 4),
        "mean_width": round(width / draws, 4),
        "percentile_coverage": round(plain / draws, 4),
        "methods": {name: round(number / draws, 3) for name, number in sorted(methods.items())},
        "in_bar": law.in_bar,
    }


MACRO = {
    "macro": ("mean over 8 targets, in 15% to all of the patients", [1.0, 0.9, 0.8, 0.6, 0.5, 0.3, 0.2, 0.15]),
    "macro-rare": ("mean over 16 targets, half of them in 4% of the patients", [0.9, 0.6, 0.4, 0.2] * 2 + [0.04] * 8),
}


def macro(name: str, clusters: int, draws: int, seed: int) -> dict[str, Any]:
    """Means over targets, of which some are rare; IoU, patients and targets differ."""
    about, chances = MACRO[name]
    often = np.array(chances)
    levels = np.tile([0.95, 0.9, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5], 2)[: len(often)]
    rng = np.random.default_rng([seed, clusters, 1])
    hits, width = 0, 0.0
    for _ in range(draws):
        where, target = np.nonzero(rng.random((clusters, len(often))) < often)
        means = np.clip(levels[target] + rng.normal(0, 0.02, clusters)[where], 0.05, 0.98)
        found = macro_estimate(beta(rng, means, 10, len(where)), None, where.tolist(), target.tolist())
        low, high = found.ci95 or (0.0, 0.0)
        # Targets that a data set does not have are no part of its figure, nor of its truth.
        hits += low <= float(levels[np.unique(target)].mean()) <= high
        width += high - low
    return {"about": about, "in_bar": True, "coverage": round(hits / draws, 4), "mean_width": round(width / draws, 4)}


def with_seeds(clusters: int, seeds: int, scale: float, draws: int, seed: int) -> dict[str, Any]:
    """One run against several seeds: a difference of 0 for the mean seed; seeds and clusters and both vary."""
    rng = np.random.default_rng([seed, clusters, seeds, int(scale * 1000)])
    hits = fixed = rejected = 0
    where = spread(np.full(clusters, 3))
    weights = np.ones(len(where))
    for _ in range(draws):
        base = np.clip(rng.normal(0.7, 0.15, clusters)[where] + rng.normal(0, 0.1, len(where)), 0, 1)
        common = rng.normal(0, 0.05, clusters)[where]
        own = rng.normal(0, scale, (seeds, 1)) + rng.normal(0, 0.08, (seeds, len(where)))
        after = base + common + own
        found = paired((base, weights), (after, np.ones_like(after)), where.tolist())
        low, high = found.ci95 or (0.0, 0.0)
        hits += low <= 0 <= high
        rejected += found.p is not None and found.p < 0.05
        frozen = estimate((after - base).mean(0), None, where.tolist()).ci95 or (0.0, 0.0)
        fixed += frozen[0] <= 0 <= frozen[1]
    return {
        "clusters": clusters,
        "seeds": seeds,
        "deviation_of_seeds": scale,
        "coverage": round(hits / draws, 4),
        "coverage_if_seeds_are_not_drawn": round(fixed / draws, 4),
        "false_findings": round(rejected / draws, 4),
    }


def tests(clusters: int, draws: int, seed: int) -> dict[str, Any]:
    """False findings of the paired test, and its power at the minimum detectable difference."""
    told: dict[str, Any] = {"clusters": clusters}
    for name, shift in (("false_findings", 0.0), ("power_at_minimum_detectable", None)):
        rng = np.random.default_rng([seed, clusters, 3])
        found = 0
        for _ in range(draws):
            where = spread(rng.integers(1, 6, clusters))
            delta = rng.normal(0, 0.05, clusters)[where] + rng.standard_t(4, len(where)) * 0.05
            weights = np.ones(len(where))
            moved = shift
            if moved is None:
                sums, sizes = np.bincount(where, delta), np.bincount(where)
                # The true spread of this law, not each data set's own: the power at a fixed difference.
                error = np.sqrt(0.05**2 * (sizes**2).sum() + 0.05**2 * 2 * sizes.sum()) / sizes.sum()
                moved = minimum_detectable(float(error), clusters - 1) if sums.size else 0.0
            result = paired((np.zeros(len(where)), weights), (delta + moved, weights), where.tolist())
            found += result.p is not None and result.p < 0.05
        told[name] = round(found / draws, 4)
    return told


PARTS = ("laws", "macro", "seeds", "tests")


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--clusters", type=int, nargs="+", default=[50, 20, 10, 5])
    p.add_argument("--draws", type=int, default=2000, help="data sets of 50 clusters; half as many of others")
    p.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="only these; what else --out has stays")
    p.add_argument("--laws", nargs="+", choices=sorted(LAWS), default=list(LAWS), help="only these laws")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", type=Path)
    a = p.parse_args()
    started = time.perf_counter()
    told: dict[str, Any] = {"intervals": {}}
    if a.out and a.out.exists() and set(a.parts) != set(PARTS):
        told = json.loads(a.out.read_text(encoding="utf-8"))
    told |= {"draws_of_50": a.draws, "draws_of_others": a.draws // 2, "seed": a.seed}
    for clusters in a.clusters:
        draws = a.draws if clusters == 50 else a.draws // 2
        rows = told["intervals"].setdefault(str(clusters), {})
        for name in a.laws if "laws" in a.parts else ():
            rows[name] = coverage(LAWS[name], clusters, draws, a.seed)
            print(clusters, name, rows[name], file=sys.stderr, flush=True)
        for name in MACRO if "macro" in a.parts else ():
            rows[name] = macro(name, clusters, draws, a.seed)
            print(clusters, name, rows[name], file=sys.stderr, flush=True)
    if "seeds" in a.parts:
        told["seeds"] = [
            with_seeds(clusters, seeds, scale, a.draws // 2, a.seed)
            for clusters, seeds, scale in ((50, 3, 0.0), (50, 3, 0.01), (50, 3, 0.04), (50, 5, 0.02), (27, 3, 0.02))
        ]
    if "tests" in a.parts:
        told["tests"] = [tests(clusters, a.draws // 2, a.seed) for clusters in (50, 27, 10, 7)]
    rows = [row for row in told["intervals"].get("50", {}).values() if row["in_bar"]]
    if rows:
        least, most = min(r["coverage"] for r in rows), max(r["coverage"] for r in rows)
        told["bar"] = {"least": least, "most": most, "met": least >= 0.93 and most <= 0.97}
    text = json.dumps(told, indent=1) + "\n"
    print(told.get("bar"), f"{time.perf_counter() - started:.0f} s", file=sys.stderr)
    if a.out:
        a.out.parent.mkdir(parents=True, exist_ok=True)
        a.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
