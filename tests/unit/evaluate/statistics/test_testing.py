from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ibisagent.evaluate.statistics import holm, is_claimed, minimum_detectable, paired


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, None, 0.03, 0.005]) == pytest.approx([0.03, 0.06, None, 0.06, 0.02])
    assert holm([]) == [] and holm([None]) == [None] and holm([0.4]) == [0.4]


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_keeps_the_order_and_never_makes_smaller(p: list[float]) -> None:
    found = holm(p)
    assert all(before <= after <= 1 for before, after in zip(p, found, strict=True))  # type: ignore[operator]
    order = np.argsort(p, kind="stable")
    assert all(found[i] <= found[j] for i, j in pairwise(order))  # type: ignore[operator]


def test_detectable_is_the_textbook_one_for_many() -> None:
    assert minimum_detectable(0.01, 1e6) == pytest.approx(0.01 * (1.95996 + 0.84162), rel=1e-3)
    assert minimum_detectable(0.0, 10) == 0.0


@pytest.mark.parametrize("clusters", [4, 10])
def test_the_power_is_what_is_said_with_few_clusters_too(clusters: int) -> None:
    rng = np.random.default_rng(0)
    shift = minimum_detectable(1 / np.sqrt(clusters), clusters - 1)
    p = stats.ttest_1samp(rng.normal(shift, 1, (20_000, clusters)), 0, axis=1).pvalue
    assert (p < 0.05).mean() == pytest.approx(0.8, abs=0.01)


def test_a_claim_needs_the_corrected_p_and_the_interval() -> None:
    values = np.linspace(0.1, 0.3, 12)
    found = paired((np.zeros(12), np.ones(12)), (values, np.ones(12)), list(range(12)))
    assert is_claimed(found, 0.04) and is_claimed(found.to_json(), 0.04)
    assert not is_claimed(found, 0.05) and not is_claimed(found, None)
    told = found.to_json()
    assert not is_claimed({**told, "ci95": [0.0, 0.1]}, 0.001) and not is_claimed({**told, "ci95": None}, 0.001)
