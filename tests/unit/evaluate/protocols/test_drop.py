from __future__ import annotations

import math

import numpy as np
import pytest

from ibisagent.evaluate.protocols.drop import drop_between
from ibisagent.evaluate.statistics import estimate


def side(values: list[float], name: str) -> tuple[list[float], list[float], list[str]]:
    return values, [1.0] * len(values), [f"{name}{number // 2}" for number in range(len(values))]


def test_drop_joins_the_intervals_of_the_two_sides() -> None:
    rng = np.random.default_rng(3)
    inside, outside = side(rng.uniform(0.6, 0.9, 60).tolist(), "a"), side(rng.uniform(0.3, 0.9, 44).tolist(), "b")
    first, second, drop = drop_between(inside, outside)
    assert first == estimate(*inside) and drop.method == "mover" and drop.warning is None
    assert drop.value == pytest.approx(np.mean(inside[0]) - np.mean(outside[0]))
    low, high = drop.ci95
    assert drop.value - low == pytest.approx(math.hypot(first.value - first.ci95[0], second.ci95[1] - second.value))
    # wider than either side's own, narrower than their sum
    widths = [one.ci95[1] - one.ci95[0] for one in (first, second)]
    assert max(widths) < high - low < sum(widths)


def test_interval_covers() -> None:
    """The true drop of 0.1 lies inside in most draws of clustered scores."""
    rng = np.random.default_rng(11)
    hits = 0
    for _ in range(60):
        sides = []
        for name, mean, clusters in (("a", 0.8, 25), ("b", 0.7, 15)):
            levels = np.repeat(rng.normal(mean, 0.08, clusters), 3)
            values = levels + rng.normal(0, 0.05, levels.size)
            sides.append((values.tolist(), [1.0] * values.size, [f"{name}{n // 3}" for n in range(values.size)]))
        low, high = drop_between(*sides)[2].ci95
        hits += low <= 0.1 <= high
    assert hits / 60 >= 0.9


def test_patients_on_both_sides_are_drawn_together() -> None:
    # Every patient is 0.2 worse outside: the drop is sure, though patients differ much.
    levels = np.linspace(0.3, 0.9, 12)
    clusters = [f"p{n}" for n in range(12)]
    inside = (levels.tolist(), [1.0] * 12, clusters)
    outside = ((levels - 0.2).tolist(), [1.0] * 12, clusters)
    drop = drop_between(inside, outside)[2]
    assert drop.method == "joint" and "both sides" in (drop.warning or "")
    assert drop.value == pytest.approx(0.2) and drop.ci95 == pytest.approx((0.2, 0.2), abs=1e-6)
    apart = drop_between(inside, (outside[0], outside[1], [f"q{n}" for n in range(12)]))[2]
    assert apart.ci95[1] - apart.ci95[0] > 0.1


def test_few_clusters_and_nothing() -> None:
    one = ([0.5, 0.7], [1.0, 1.0], ["a", "a"])
    drop = drop_between(one, side([0.4, 0.2, 0.1, 0.3], "b"))[2]
    assert drop.value == pytest.approx(0.35) and drop.ci95 is None and "in domain: one cluster only" in drop.warning
    first, second, drop = drop_between(one, ([], [], []))
    assert first.value == pytest.approx(0.6) and second.value is None
    assert drop.value is None and drop.to_json()["ci95"] is None and "no case" in drop.warning
