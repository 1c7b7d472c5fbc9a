"""What a run says of its mask against what the mask is worth."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibisagent.actions import UndoAction
from ibisagent.episode import Outcome
from ibisagent.evaluate.calibration import calibrate, quality_estimate, selective_dice
from ibisagent.evaluate.result import CaseResult
from sample_results import TARGET, Run, first


def said(size: int, score: float | None, **options: object) -> CaseResult:
    """IoU size / 50, and what the segmenter said of it."""
    return Run().click(first(size), score=score).end(**options)  # type: ignore[arg-type]


def test_the_estimate_is_the_score_of_the_final_mask() -> None:
    run = Run().click(first(40), score=0.9).click(first(30), score=0.4).act(UndoAction(), first(40))
    result = run.end(final_step=0)
    assert result.episode is not None and quality_estimate(result.episode) == 0.9
    assert quality_estimate(said(40, 1.2).episode) == 1.0  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "result",
    [
        Run(given=first(40)).end(),
        said(40, None),
        said(40, 0.8, outcome=Outcome.ABSENT),
        Run().click(first(40), score=0.8).failing().end(Outcome.ERROR),
        said(40, float("nan")),
    ],
    ids=["given mask", "no score", "refused", "failed", "not a number"],
)
def test_no_estimate_is_none_and_not_zero(result: CaseResult) -> None:
    assert result.episode is not None and quality_estimate(result.episode) is None
    found = calibrate([result])
    assert found["n"] == 0 and found["mean_estimate"] is None and found["ece"] is None and found["reliability"] == []
    assert found["num_without"] == (0 if result.error else 1) and "no run" in found["note"]


def test_by_hand() -> None:
    results = [said(40, 0.85), said(45, 0.85), said(10, 0.65), said(30, 0.0), Run(given=first(25)).end()]
    results.append(Run().click(first(9), score=0.7).end(target=None))
    found = calibrate(results)
    assert found["n"] == 4 and found["num_without"] == 1 and found["without_mean_iou"] == 0.5
    assert found["absent"] == {"n": 1, "mean_estimate": 0.7}
    assert [(b["low"], b["n"]) for b in found["reliability"]] == [(0.0, 1), (0.6, 1), (0.8, 2)]
    assert found["reliability"][2]["mean_iou"] == pytest.approx(0.85)
    assert found["ece"] == pytest.approx((0.6 + 0.45 + 0.0) / 4)
    assert found["mse"] == pytest.approx((0.05**2 + 0.05**2 + 0.45**2 + 0.6**2) / 4)
    assert found["bias"] == pytest.approx((0.85 + 0.85 + 0.65) / 4 - (0.8 + 0.9 + 0.2 + 0.6) / 4)
    assert "only 4 runs" in found["note"] and "a run without" in found["note"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_bins_have_intervals_over_clusters() -> None:
    results = [said(size, 0.5 + size / 1000) for size in (10, 20, 30, 40)]
    apart = calibrate(results)["reliability"][0]
    assert apart["n"] == 4 and apart["ci95"][0] < apart["mean_iou"] < apart["ci95"][1]
    pairs = calibrate(results, ["a", "a", "b", "b"])["reliability"][0]["ci95"]
    assert pairs[1] - pairs[0] > apart["ci95"][1] - apart["ci95"][0], "two images say less than four"
    assert calibrate(results, ["a"] * 4)["reliability"][0]["ci95"] is None, "one image says nothing of others"


def test_a_perfect_estimate() -> None:
    found = calibrate([said(size, size / 50) for size in (5, 12, 20, 31, 44, 50)])
    assert found["ece"] == pytest.approx(0) and found["mse"] == pytest.approx(0) and found["bias"] == pytest.approx(0)
    assert found["pearson"] == pytest.approx(1) and found["spearman"] == pytest.approx(1)
    assert found["selective_dice"]["gain"] == pytest.approx(1)


def test_where_nothing_varies_there_is_no_correlation() -> None:
    found = calibrate([said(size, 0.5) for size in (5, 12, 20)])
    assert found["pearson"] is None and found["spearman"] is None
    assert found["selective_dice"]["gain"] == pytest.approx(0, abs=1e-12), "one estimate for all orders nothing"


def test_selective_dice_by_hand() -> None:
    found = selective_dice(np.array([0.2, 0.9, 0.5, 0.5]), np.array([0.0, 1.0, 0.4, 0.8]))
    assert found["n"] == [1, 2, 3, 4] and found["coverage"] == [0.25, 0.5, 0.75, 1.0]
    assert found["dice"] == pytest.approx([1.0, 0.8, 2.2 / 3, 0.55])  # the two of 0.5 count as 0.6 each
    assert found["area_chance"] == pytest.approx(0.55)
    assert found["area_best"] == pytest.approx((1.0 + 0.9 + 2.2 / 3 + 0.55) / 4)


SHARES = st.integers(0, 8).map(lambda k: k / 8)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(SHARES, SHARES), min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_selective_dice_does_not_depend_on_the_order(pairs: list[tuple[float, float]], random: object) -> None:
    estimate, dice = (np.array(column) for column in zip(*pairs, strict=True))
    found = selective_dice(estimate, dice)
    assert found["dice"][-1] == pytest.approx(dice.mean()) and found["n"][-1] == len(pairs)
    assert len(found["dice"]) == len(found["n"]) <= 20
    assert found["area"] <= found["area_best"] + 1e-12
    assert found["area_best"] >= found["area_chance"] - 1e-12
    if found["gain"] is not None:
        assert found["gain"] <= 1 + 1e-9
    order = list(range(len(pairs)))
    random.shuffle(order)  # type: ignore[attr-defined]
    again = selective_dice(estimate[order], dice[order])
    assert again["area"] == pytest.approx(found["area"]) and again["dice"] == pytest.approx(found["dice"])


def test_the_reference_is_not_needed_for_the_estimate() -> None:
    result = said(40, 0.7, target=np.zeros_like(TARGET))
    assert result.absent and calibrate([result])["n"] == 0
