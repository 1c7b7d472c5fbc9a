from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibisagent.evaluate.statistics import bootstrap_ci95, grouped_ci95


def test_nothing_has_no_interval() -> None:
    assert bootstrap_ci95([]) is None


def test_one_value_is_its_own_interval() -> None:
    assert bootstrap_ci95([0.7]) == (0.7, 0.7)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_contains_the_mean_and_stays_in_range(values: list[float]) -> None:
    interval = bootstrap_ci95(values, num_resamples=200)
    assert interval is not None
    low, high = interval
    mean = float(np.mean(values))
    assert min(values) - 1e-12 <= low <= mean <= high <= max(values) + 1e-12


def test_repeats_by_seed_and_not_across_seeds() -> None:
    values = list(np.random.default_rng(0).random(40))
    assert bootstrap_ci95(values) == bootstrap_ci95(values)
    assert bootstrap_ci95(values) != bootstrap_ci95(values, seed=1)


def test_width_is_that_of_the_normal_theory() -> None:
    values = np.random.default_rng(1).normal(0.5, 0.1, 400)
    low, high = bootstrap_ci95(list(values))  # type: ignore[misc]
    expected = 2 * 1.96 * values.std() / np.sqrt(400)
    assert high - low == pytest.approx(expected, rel=0.06)


def test_chunks_do_not_change_the_draws() -> None:
    values = list(np.random.default_rng(2).random(3000))  # 5000 x 3000 is drawn in several parts
    low, high = bootstrap_ci95(values)  # type: ignore[misc]
    assert high - low == pytest.approx(2 * 1.96 * np.std(values) / np.sqrt(3000), rel=0.06)


def test_groups_are_drawn_whole() -> None:
    values = [1.0] * 10 + [0.0] * 10
    groups = ["a"] * 10 + ["b"] * 10
    assert grouped_ci95(values, groups) == (0.0, 1.0)  # two groups, not twenty values
    assert grouped_ci95(values, [str(i) for i in range(20)]) == pytest.approx(bootstrap_ci95(values), abs=0.06)
    assert grouped_ci95([0.25, 0.75], ["a", "a"]) == (0.5, 0.5)
    assert grouped_ci95([], []) is None


@given(st.lists(st.tuples(st.floats(-1, 1), st.sampled_from("abcd")), min_size=1, max_size=30))
def test_the_interval_over_groups_contains_the_mean_of_all_values(pairs: list[tuple[float, str]]) -> None:
    values, groups = [v for v, _ in pairs], [g for _, g in pairs]
    low, high = grouped_ci95(values, groups, num_resamples=200)  # type: ignore[misc]
    assert min(values) - 1e-12 <= low <= float(np.mean(values)) + 1e-12
    assert max(values) + 1e-12 >= high >= float(np.mean(values)) - 1e-12
