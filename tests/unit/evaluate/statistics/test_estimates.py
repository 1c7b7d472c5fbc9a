from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ibisagent.evaluate.statistics import Estimate, estimate, intervals, macro_estimate

RNG = np.random.default_rng(0)


def labels(clusters: int, each: int) -> list[int]:
    return [cluster for cluster in range(clusters) for _ in range(each)]


def test_it_is_a_ratio_of_sums() -> None:
    found = estimate([3.0, 1.0, 0.0], [4.0, 1.0, 0.0], ["a", "b", "c"])
    assert (found.value, found.n, found.num_clusters) == (0.8, 2, 2)  # c has no part in it


def test_nothing_has_no_value() -> None:
    assert estimate([], [], []) == Estimate(None, None, 0, 0)
    assert estimate([0.0], [0.0], ["a"]) == Estimate(None, None, 0, 0)


def test_one_cluster_has_no_interval() -> None:
    found = estimate([0.2, 0.8], None, ["a", "a"])
    assert found.value == 0.5 and found.ci95 is None
    assert found.warning is not None and "one cluster only" in found.warning


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(1, 5), st.integers(0, 14)), min_size=1, max_size=40),
    st.integers(0, 3),
)
def test_intervals_hold_the_value_and_shares_stay_shares(cases: list[tuple[float, int, int]], seed: int) -> None:
    numbers, weights = [v * w for v, w, _ in cases], [float(w) for _, w, _ in cases]
    clusters = [c for _, _, c in cases]
    found = estimate(numbers, weights, clusters, seed)
    assert found.value == pytest.approx(sum(numbers) / sum(weights))
    assert found == estimate(numbers, weights, [f"patient {c}" for c in clusters], seed)  # names change nothing
    if found.ci95 is None:
        assert len(set(clusters)) == 1
    else:
        low, high = found.ci95
        assert 0 <= low <= found.value + 1e-12 and found.value - 1e-12 <= high <= 1  # type: ignore[operator]


def test_other_seeds_draw_otherwise() -> None:
    values, where = RNG.random(60), labels(20, 3)
    assert estimate(values, None, where).ci95 != estimate(values, None, where, seed=1).ci95


def test_width_is_that_of_normal_theory_where_there_is_much() -> None:
    values = np.random.default_rng(1).normal(2.0, 0.1, 400)
    found = estimate(values, None, list(range(400)))
    assert found.method == "bootstrap-t" and found.warning is None and found.ci95 is not None
    assert found.ci95[1] - found.ci95[0] == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.06)


def test_cases_of_a_cluster_that_are_equal_count_once() -> None:
    means = np.random.default_rng(2).random(30)
    once, often = estimate(means, None, labels(30, 1)), estimate(np.repeat(means, 10), None, labels(30, 10))
    assert often.ci95 == pytest.approx(once.ci95)
    assert often.n == 300 and often.num_clusters == 30


def test_parts_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    values, where = RNG.random(60), labels(20, 3)
    whole = estimate(values, None, where)
    monkeypatch.setattr(intervals, "_KEEP", 0)  # as with thousands of clusters, which are drawn again every time
    assert estimate(values, None, where) == whole
    monkeypatch.setattr(intervals, "_CHUNK", 999)
    assert estimate(values, None, where) == whole


def test_the_longer_end_is_where_the_tail_is() -> None:
    values = np.where(np.arange(40) % 8 == 0, 0.1, 0.95)  # IoU near 1, five failures
    found = estimate(values, None, list(range(40)))
    low, high = found.ci95  # type: ignore[misc]
    assert found.value - low > 1.5 * (high - found.value)  # type: ignore[operator]


def test_below_ten_clusters_it_is_students_and_warns() -> None:
    means = np.array([1.2, 2.0, 2.4, 3.1, 2.2, 1.7, 2.9])
    found = estimate(np.repeat(means, 3), None, labels(7, 3))
    half = stats.t.ppf(0.975, 6) * means.std(ddof=1) / np.sqrt(7)
    assert found.method == "t" and found.ci95 == pytest.approx((means.mean() - half, means.mean() + half), abs=2e-3)
    assert found.warning is not None and "7 clusters only: the interval says how much" in found.warning
    assert estimate(RNG.random(10), None, list(range(10))).warning is None


def test_a_rare_failure_takes_wilsons_interval() -> None:
    values = [1.0] * 47 + [0.0] * 3
    found = estimate(values, None, list(range(50)))
    low, high = stats.binomtest(47, 50).proportion_ci(method="wilson")
    assert found.method == "wilson" and found.ci95 == pytest.approx((low, high))


@pytest.mark.parametrize("yes", [35, 40, 41, 49])
def test_one_answer_a_cluster_takes_wilsons_interval_however_many_fail(yes: int) -> None:
    found = estimate([1.0] * yes + [0.0] * (50 - yes), None, list(range(50)))
    low, high = stats.binomtest(yes, 50).proportion_ci(method="wilson")
    assert found.method == "wilson" and found.ci95 == pytest.approx((low, high))


def test_no_failure_at_all_is_no_certainty() -> None:
    found = estimate([2.0] * 20, [2.0] * 20, list(range(20)))
    assert found.method == "clopper-pearson" and found.ci95 == (pytest.approx(0.025 ** (1 / 20)), 1.0)
    assert found.warning is not None and "all 20 clusters gave 1" in found.warning
    assert estimate([0.0] * 20, None, list(range(20))).ci95 == (0.0, pytest.approx(1 - 0.025 ** (1 / 20)))


def test_rounding_is_no_failure() -> None:
    found = estimate([1.0 - 1e-12, *[1.0] * 19], None, list(range(20)))
    assert found.method == "clopper-pearson" and found.ci95 == (pytest.approx(0.025 ** (1 / 20)), 1.0)
    assert estimate([5e-324, 0.0, 0.0], None, list("abc")).method == "clopper-pearson"


def test_equal_numbers_that_are_no_extreme_have_no_width_and_say_so() -> None:
    found = estimate([3.0] * 12, None, list(range(12)))
    assert (
        found.ci95 == (3.0, 3.0) and found.method == "constant" and "all clusters gave the same" in str(found.warning)
    )


def test_macro_counts_every_target_the_same() -> None:
    values = [0.9] * 18 + [0.1] * 2
    targets = ["brain"] * 18 + ["tumour"] * 2
    found = macro_estimate(values, None, [i % 10 for i in range(20)], targets)
    assert found.value == pytest.approx(0.5)
    one = macro_estimate(RNG.random(30), None, labels(15, 2), ["x"] * 30)
    assert one.value is not None and one.warning is None


def test_macro_of_one_target_is_the_estimate() -> None:
    values, where = RNG.normal(0, 1, 60), labels(20, 3)
    assert macro_estimate(values, None, where, ["t"] * 60) == estimate(values, None, where)


def test_macro_takes_the_spread_of_a_lone_target_from_the_others() -> None:
    rng = np.random.default_rng(3)
    values = [*rng.normal(0.5, 0.1, 30), *rng.normal(0.5, 0.1, 30), 0.5]
    where = [*range(30), *range(30), 30]
    with_lone = macro_estimate(values, None, where, ["a"] * 30 + ["b"] * 30 + ["c"])
    without = macro_estimate(values[:-1], None, where[:-1], ["a"] * 30 + ["b"] * 30)
    assert with_lone.warning == "1 of 3 targets stand in one cluster only: their spread is taken from the other targets"
    width, other = (e.ci95[1] - e.ci95[0] for e in (with_lone, without))  # type: ignore[index]
    # 0.1 / 3 for the lone one alone, which dwarfs 0.1 / sqrt(30).
    assert width == pytest.approx(2 * 1.96 * 0.1 / 3, rel=0.35) and width > 2 * other


def test_seeds_are_averaged_and_drawn() -> None:
    rng = np.random.default_rng(4)
    base, where = rng.random(90), labels(30, 3)
    same = estimate(np.stack([base] * 3), None, where)
    assert same.method == "bootstrap-t + seeds" and same.ci95 == pytest.approx(estimate(base, None, where).ci95)
    shifts = np.array([[-0.1], [0.0], [0.1]])
    apart = estimate(base + shifts, None, where)
    assert apart.value == pytest.approx(base.mean())
    low, high = apart.ci95  # type: ignore[misc]
    # Three seeds 0.1 apart: Student's t with 2 degrees of freedom, 4.3 x 0.1 / sqrt(3), and the clusters'.
    assert high - low == pytest.approx(2 * 4.303 * 0.1 / np.sqrt(3), rel=0.15)


@pytest.mark.parametrize(
    ("values", "weights", "clusters"),
    [([1.0], [1.0, 2.0], ["a"]), ([1.0], [1.0], ["a", "b"]), ([float("nan")], [1.0], ["a"]), ([1.0], [-1.0], ["a"])],
)
def test_nonsense_is_refused(values: list[float], weights: list[float], clusters: list[str]) -> None:
    with pytest.raises(ValueError, match=r"fit|finite"):
        estimate(values, weights, clusters)


def test_json() -> None:
    told = estimate([0.5, 0.7], None, ["a", "b"]).to_json()
    assert set(told) == {"value", "ci95", "n", "num_clusters", "warning", "method"} and isinstance(told["ci95"], list)


def test_a_count_that_is_one_everywhere_is_no_share() -> None:
    clusters = [f"p{i}" for i in range(12)]
    assert estimate([1.0] * 12, None, clusters).method == "clopper-pearson"
    steps = estimate([1.0] * 12, None, clusters, share=False)
    assert steps.ci95 == (1.0, 1.0) and steps.method == "constant"
    beyond = estimate([0.0] * 11 + [1.0], None, clusters, share=False)
    assert beyond.method == "bootstrap-t"


def test_targets_that_a_seed_lacks_are_left_out_and_said() -> None:
    values, weights = [[0.5, 0.7, 0.9, 0.1], [0.5, 0.7, 0.0, 0.0]], [[1.0, 1, 1, 1], [1.0, 1, 0, 0]]
    found = macro_estimate(values, weights, list("abcd"), ["x", "x", "y", "z"])
    assert (found.value, found.n, found.num_clusters) == (pytest.approx(0.6), 2, 2)
    assert "2 targets are left out" in str(found.warning)


def test_five_of_five_is_not_said_to_miss_rare_failures() -> None:
    five = estimate([1.0] * 5, None, list("abcde"))
    assert five.ci95 == (pytest.approx(0.025 ** (1 / 5)), 1.0) and "rare failure" not in str(five.warning)
    assert "5 clusters only: the interval is rough" in str(five.warning) and "all 5 clusters gave 1" in str(
        five.warning
    )
    assert "rare failure" not in str(estimate([1.0, 1, 1, 1, 0], None, list("abcde")).warning)
    assert "rare failure" in str(estimate([0.9, 0.8, 0.85, 0.95, 0.9], None, list("abcde")).warning)


def test_a_mean_over_targets_of_all_ones_is_no_certainty() -> None:
    found = macro_estimate([1.0] * 24, None, labels(12, 2), ["x", "y"] * 12)
    assert found.method == "clopper-pearson" and found.ci95 == (pytest.approx(0.025 ** (1 / 12)), 1.0)
