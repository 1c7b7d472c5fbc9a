from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibisagent.metrics import auc, auc_cvpr25, clicks_to_reach, noc

CURVE = [0.0, 0.4, 0.82, 0.7, 0.91]
curves = st.lists(st.floats(0, 1), min_size=1, max_size=25)


def test_clicks_to_a_threshold() -> None:
    assert [noc(CURVE, q) for q in (0.8, 0.85, 0.9)] == [2, 4, 4]
    assert clicks_to_reach(CURVE, 0.82) == 2  # the bound itself counts
    assert clicks_to_reach(CURVE, 0.95) is None and noc(CURVE, 0.95) == 20
    assert noc(CURVE, 0.9, cap=3) == noc(CURVE, 0.95, cap=3) == 3
    assert noc([0.9, 0.2], 0.85) == 0  # the mask that was given is good enough


def test_stopping_early_costs_the_cap() -> None:
    assert noc([0.0, 0.84], 0.85) == 20 > noc([0.0] + [0.84] * 9 + [0.86], 0.85) == 10


def test_areas_by_hand() -> None:
    assert auc([0.0, 1.0]) == 0.5
    assert auc([0.0, 1.0], steps=4) == (0.5 + 3) / 4  # the last value is kept
    assert auc([0.0, 0.5, 1.0, 0.0], steps=2) == 0.5  # and what comes later is cut
    assert auc([0.3]) == auc([0.3], steps=0) == 0.3
    assert auc([0.3], steps=5) == pytest.approx(0.3)


def test_cvpr25_area_leaves_out_the_first_value_and_is_not_normalised() -> None:
    from scipy.integrate import cumulative_trapezoid

    values = [0.1, 0.5, 0.6, 0.65, 0.8, 0.9]
    assert auc_cvpr25(values) == pytest.approx(cumulative_trapezoid(np.array(values[-5:]), np.arange(5))[-1])
    assert auc_cvpr25([1.0] * 5) == 4.0


@given(curves, st.integers(0, 30))
def test_bounds(curve: list[float], steps: int) -> None:
    seen = curve[: steps + 1]
    assert min(seen) - 1e-9 <= auc(curve, steps) <= max(seen) + 1e-9
    assert auc([1 - value for value in curve], steps) == pytest.approx(1 - auc(curve, steps))
    assert noc(curve, 0.9) <= 20 and noc(curve, 0.8) <= noc(curve, 0.85) <= noc(curve, 0.9)
    if len(curve) > 1:
        assert auc(curve) == pytest.approx(np.trapezoid(curve) / (len(curve) - 1))


def test_wrong_input_is_refused() -> None:
    for number in (auc, lambda c: noc(c, 0.5), lambda c: clicks_to_reach(c, 0.5)):
        with pytest.raises(ValueError, match="one value"):
            number([])
    with pytest.raises(ValueError, match="cap"):
        noc(CURVE, 0.5, cap=0)
    with pytest.raises(ValueError, match="steps"):
        auc(CURVE, -1)
    with pytest.raises(ValueError, match="two clicks"):
        auc_cvpr25([0.1, 0.2])
