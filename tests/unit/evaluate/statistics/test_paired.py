from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ibisagent.evaluate.statistics import paired

RNG = np.random.default_rng(0)


def side(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return values, np.ones_like(values)


def test_difference_of_each_sides_figure() -> None:
    a = np.array([4.0, 1.0]), np.array([4.0, 2.0])
    b = np.array([2.0, 1.0]), np.array([4.0, 1.0])  # other numbers of replies
    found = paired(a, b, ["x", "y"])
    assert found.value_a == pytest.approx(5 / 6) and found.value_b == pytest.approx(3 / 5)
    assert found.difference == pytest.approx(3 / 5 - 5 / 6)
    assert (found.n, found.num_clusters, found.seeds) == (2, 2, (1, 1))


def test_the_same_run_twice() -> None:
    values = RNG.random(40)
    found = paired(side(values), side(values), list(range(40)))
    assert (found.difference, found.ci95, found.p, found.minimum_detectable) == (0.0, (0.0, 0.0), 1.0, None)
    assert found.warning is None


def test_the_other_way_round_is_the_negative() -> None:
    a, b = side(RNG.random(60)), side(RNG.random(60))
    where = [i // 3 for i in range(60)]
    one, other = paired(a, b, where), paired(b, a, where)
    assert other.difference == pytest.approx(-one.difference)  # type: ignore[operator]
    assert other.ci95 == pytest.approx((-one.ci95[1], -one.ci95[0]))  # type: ignore[index]
    assert other.p == one.p


def test_pairing_takes_away_what_cases_have_in_common() -> None:
    rng = np.random.default_rng(1)
    hard = rng.uniform(0.2, 0.9, 50)
    found = paired(side(hard), side(hard + 0.02 + rng.normal(0, 0.01, 50)), list(range(50)))
    assert found.ci95 is not None and 0 < found.ci95[0] < 0.02 < found.ci95[1] < 0.03 and found.p is not None
    assert found.p < 0.001


@pytest.mark.parametrize("clusters", [6, 12])
def test_p_is_that_of_the_exact_permutation_test(clusters: int) -> None:
    rng = np.random.default_rng(clusters)
    a, b = rng.normal(0, 1, (2, clusters))
    expected = stats.permutation_test(
        (b, a), lambda x, y, axis: (x - y).mean(axis), permutation_type="samples", vectorized=True, n_resamples=np.inf
    )
    assert paired(side(a), side(b), list(range(clusters))).p == pytest.approx(expected.pvalue)


def test_random_exchanges_come_near_the_exact_p() -> None:
    rng = np.random.default_rng(5)
    a = rng.normal(0, 1, 40)
    b = a + rng.normal(0.3, 1, 40)
    expected = stats.ttest_rel(b, a).pvalue
    assert paired(side(a), side(b), list(range(40))).p == pytest.approx(expected, rel=0.25)


def test_five_clusters_can_show_nothing() -> None:
    found = paired(side(np.zeros(5)), side(np.array([1.0, 1.1, 0.9, 1.0, 1.2])), list("abcde"))
    assert found.p == 2 / 32 and found.minimum_detectable is None
    assert found.warning is not None and "5 clusters can give no p below 0.062" in found.warning


def test_a_single_cluster_is_not_tested() -> None:
    found = paired(side(np.zeros(3)), side(np.ones(3)), ["a"] * 3)
    assert (found.difference, found.ci95, found.p) == (1.0, None, None)


def test_few_that_differ_are_said() -> None:
    b = np.zeros(30)
    b[:4] = 0.5
    found = paired(side(np.zeros(30)), side(b), list(range(30)))
    assert found.p == pytest.approx(2 / 16) and "only 4 of 30 clusters differ" in str(found.warning)


def test_shares_differ_by_one_at_most() -> None:
    found = paired(side(np.array([0.1, 0.9])), side(np.array([0.9, 0.2])), ["a", "b"])
    assert found.ci95 == (-1.0, 1.0)


def test_the_detectable_difference_is_known_where_the_spread_is() -> None:
    delta = np.random.default_rng(6).normal(0, 0.1, 50)
    found = paired(side(np.full(50, 0.5)), side(0.5 + delta), list(range(50)))
    assert found.minimum_detectable == pytest.approx(2.85 * delta.std(ddof=1) / np.sqrt(50), rel=0.02)


def test_seeds_widen_and_are_tested_by_draws() -> None:
    rng = np.random.default_rng(7)
    base, where = rng.random(60), [i // 2 for i in range(60)]
    shifts = np.array([[0.02], [0.10], [0.18]])
    after = base + shifts + rng.normal(0, 0.02, (3, 60))
    found = paired(side(base), side(after), where)
    frozen = paired(side(base), side(after.mean(0)), where)
    assert found.seeds == (1, 3) and found.test == "draws of clusters and seeds"
    assert found.difference == pytest.approx(frozen.difference, abs=1e-12)
    assert found.ci95 is not None and frozen.ci95 is not None
    assert found.ci95[0] < 0 < frozen.ci95[0]  # three seeds so far apart prove nothing of a fourth
    assert found.p is not None and frozen.p is not None and found.p > 0.05 > frozen.p
    assert found.minimum_detectable > 3 * frozen.minimum_detectable  # type: ignore[operator]


def test_two_seeds_are_warned_of() -> None:
    found = paired(side(RNG.random(30)), side(RNG.random((2, 30))), list(range(30)))
    assert "two seeds say little" in str(found.warning)


def test_macro_differences_count_targets_the_same() -> None:
    a = np.concatenate([np.full(20, 0.5), np.full(10, 0.5)])
    b = np.concatenate([np.full(20, 0.5), np.full(10, 0.7)])
    where, targets = [*range(20), *range(10)], ["common"] * 20 + ["rare"] * 10
    assert paired(side(a), side(b), where, targets).difference == pytest.approx(0.1)
    assert paired(side(a), side(b), where).difference == pytest.approx(0.2 / 3)


def test_nothing_in_common() -> None:
    none = np.zeros(3), np.zeros(3)
    found = paired(none, none, list("abc"))
    assert found.n == 0 and found.difference is None and found.p is None


def test_a_constant_difference_has_no_p_of_zero() -> None:
    one = paired(side(np.full(8, 0.5)), side(np.full(8, 0.7)), list("aabbccdd"))
    assert one.p == 2 / 2**4 and one.ci95 == pytest.approx((0.2, 0.2)) and one.minimum_detectable is None
    assert "4 clusters only" in str(one.warning) and "no spread" in str(one.warning)
    seeds = paired(side(np.full(30, 0.5)), side(np.full((3, 30), 0.7)), list(range(30)))
    assert seeds.p is None and seeds.difference == pytest.approx(0.2) and "no spread" in str(seeds.warning)
    same = paired(side(np.full(30, 0.5)), side(np.full((3, 30), 0.5)), list(range(30)))
    assert (same.p, same.warning) == (1.0, None)


def test_targets_that_one_side_lacks_are_left_out_and_said() -> None:
    a, b = (np.array([0.5, 0.6, 0.0, 0.0]), np.array([1.0, 1, 0, 0])), side(np.array([0.6, 0.8, 0.1, 0.1]))
    found = paired(a, b, list("abcd"), ["x", "x", "y", "y"])
    assert (found.n, found.num_clusters) == (2, 2) and found.difference == pytest.approx(0.15)
    assert "1 target is left out of the mean over targets" in str(found.warning)


@pytest.mark.filterwarnings("error")
def test_exchanges_that_leave_a_side_with_nothing_count_as_extreme() -> None:
    apart = (np.array([0.1, 0.0]), np.array([1.0, 0.0])), (np.array([0.0, 0.9]), np.array([0.0, 1.0]))
    assert paired(*apart, ["u", "v"]).p == 1.0  # two of four exchanges are as large, two give one side both
    # Target x has both clusters on both sides, y stands apart: of its exchanges half leave a side without y.
    a = np.array([0.5, 0.5, 0.1, 0.0]), np.array([1.0, 1, 1, 0])
    b = np.array([0.5, 0.6, 0.0, 0.9]), np.array([1.0, 1, 0, 1])
    assert paired(a, b, list("abcd"), list("xxyy")).p == pytest.approx(6 / 8)


def test_what_can_be_found_shrinks_with_the_number_of_tests() -> None:
    delta = np.random.default_rng(6).normal(0, 0.1, 27)
    one = paired(side(np.full(27, 0.5)), side(0.5 + delta), list(range(27)))
    error = delta.std(ddof=1) / np.sqrt(27)
    assert one.standard_error == pytest.approx(error) and one.degrees == pytest.approx(26) and one.tests == 1
    found = [one.among(tests).minimum_detectable / error for tests in (1, 9, 35)]  # type: ignore[operator]
    assert found == pytest.approx([2.9, 3.9, 4.5], abs=0.06)
    assert one.among(9).warning is None and one.among(9).p == one.p


def test_eight_clusters_and_nine_figures_can_show_nothing() -> None:
    found = paired(side(np.zeros(8)), side(np.array([1.0, 1.1, 0.9, 1.0, 1.2, 1.0, 1.1, 1.3])), list("abcdefgh"))
    assert found.p == 2 / 256 and found.minimum_detectable is not None and found.among(6).minimum_detectable is not None
    many = found.among(9)
    assert many.minimum_detectable is None
    assert "8 clusters can give no p below 0.0078 (0.07 after the correction for 9 tests)" in str(many.warning)
    five = paired(side(np.zeros(5)), side(np.array([1.0, 1.1, 0.9, 1.0, 1.2])), list("abcde")).among(9)
    assert str(five.warning).count("can give no p") == 1
