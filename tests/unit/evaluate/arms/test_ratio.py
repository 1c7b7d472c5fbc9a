"""Shares of a ceiling and their intervals."""

from __future__ import annotations

import numpy as np
import pytest

from ibisagent.evaluate.arms.ratio import ratio_of_means


def test_a_ratio_of_means_and_of_means_over_targets() -> None:
    above, below = [1.0, 1.0, 0.0], [2.0, 2.0, 1.0]
    assert ratio_of_means(above, below, "abc")["value"] == pytest.approx(0.4)
    assert ratio_of_means(above, below, "abc", ["x", "x", "y"])["value"] == pytest.approx(1 / 3)


def test_it_is_the_same_for_the_same_cases_and_wider_for_fewer_clusters() -> None:
    rng = np.random.default_rng(0)
    below = rng.uniform(0.5, 1.0, 60)
    above = below * rng.uniform(0.4, 0.9, 60)
    many = ratio_of_means(above, below, range(60))
    assert many == ratio_of_means(above, below, range(60))
    low, high = many["ci95"]
    assert low < many["value"] < high and high - low < 0.15
    few = ratio_of_means(above, below, [i // 20 for i in range(60)])
    assert few["num_clusters"] == 3 and few["value"] == many["value"]
    assert (many["method"], many["warning"], few["method"]) == ("bootstrap-t", None, "t")
    assert "3 clusters only" in few["warning"]


def test_its_width_is_that_of_the_delta_method() -> None:
    rng = np.random.default_rng(1)
    below = rng.uniform(0.5, 1.0, 400)
    above = 0.6 * below + rng.normal(0, 0.05, 400)
    low, high = ratio_of_means(above, below, range(400))["ci95"]
    assert high - low == pytest.approx(2 * 1.96 * 0.05 / 20 / below.mean(), rel=0.1)


def test_a_rare_target_is_in_every_draw() -> None:
    # Of twenty clusters one has the target whose share is low; drawn or not, it is one of the two.
    above, below = [0.8 + 0.001 * (i % 3) for i in range(20)] + [0.1], [1.0] * 21
    found = ratio_of_means(above, below, [*range(20), 20], ["common"] * 20 + ["rare"])
    assert found["value"] == pytest.approx(0.45, abs=0.001) and found["ci95"][1] < 0.6
    assert "1 of 2 targets stand in one cluster only" in found["warning"]


def test_a_share_of_nothing_is_none() -> None:
    assert ratio_of_means([1.0], [0.0], "a")["value"] is None
    assert ratio_of_means([], [], [])["value"] is None
    assert ratio_of_means([1.0, 1.0], [1.0, 1.0], "aa")["ci95"] is None
    # Half of the draws have next to nothing below: no interval, not a wild one.
    assert ratio_of_means([1.0, 1.0], [1.0, -1.0 + 1e-6], "ab")["ci95"] is None
