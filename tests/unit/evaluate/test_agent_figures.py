"""What the agent did, in runs small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibisagent.actions import DiscardAction, UndoAction
from ibisagent.episode import Outcome
from ibisagent.evaluate.figures import FIGURES, CaseFigures, case_figures, pooled
from ibisagent.evaluate.result import CaseResult
from sample_results import TARGET, Run, first, run_of


def values(figures: CaseFigures, *names: str) -> list[float | None]:
    return [None if name not in figures else figures[name][0] / figures[name][1] for name in names]


def test_a_run_that_rises_falls_and_stops() -> None:
    # IoU 0, 0.4, 0.8 (best), 0.5, then the stop: one of two refinements helped, one harmed.
    figures = case_figures(run_of([20, 40, 25]))
    assert figures["refinement_success"] == (1, 2) and figures["refinement_harm"] == (1, 2)
    assert figures["regret"] == (pytest.approx(0.3), 1)
    assert figures["steps_after_best"] == (1, 1) and figures["late_stops"] == (1, 1)
    assert figures["gain_over_first"] == (pytest.approx(0.1), 1)
    assert figures["steps"] == (3, 1)
    assert figures["premature_stops"] == (0, 1), "the last step did not help: it did not stop too early"
    assert figures["out_of_steps"] == (0, 1)


def test_stopping_while_it_still_helps_is_premature_only_with_steps_left_and_a_poor_mask() -> None:
    assert case_figures(run_of([20, 25]))["premature_stops"] == (1, 1)
    assert case_figures(run_of([20, 45]))["premature_stops"] == (0, 1)
    assert case_figures(run_of([20, 25], max_steps=2))["premature_stops"] == (0, 1)
    assert case_figures(run_of([20, 25], Outcome.UNCERTAIN))["premature_stops"] == (1, 1)
    assert "premature_stops" not in case_figures(run_of([20, 25], Outcome.OUT_OF_STEPS, max_steps=2))
    assert "premature_stops" not in case_figures(run_of([20, 25], Outcome.ABSENT))
    kept = Run(given=first(10)).end()
    assert case_figures(kept)["premature_stops"] == (1, 1), "a poor mask was kept without a step"


def test_the_ceiling_comes_from_the_caller() -> None:
    result = run_of([20, 25])
    assert {"premature_vs_ceiling", "ceiling_share"} & set(case_figures(result)) == set()
    figures = case_figures(result, ceiling_iou=0.9)
    assert figures["premature_vs_ceiling"] == (1, 1) and figures["ceiling_share"] == (0.5, 0.9)
    assert case_figures(result, ceiling_iou=0.54)["premature_vs_ceiling"] == (0, 1)
    lost = CaseResult("a", absent=False, error="no such image")
    assert case_figures(lost, ceiling_iou=0.8)["ceiling_share"] == (0.0, 0.8)


def test_a_false_refusal_regrets_its_best_mask_and_an_error_regrets_nothing() -> None:
    refused = case_figures(run_of([20, 40], Outcome.ABSENT))
    assert refused["regret"] == (0.8, 1) and refused["iou"] == (0, 1) and refused["false_refusals"] == (1, 1)
    assert refused["steps_to_80"] == (8, 1) and refused["reached_80"] == (0, 1), "what it threw away does not count"
    failed = case_figures(Run().click(first(40)).failing().end(Outcome.ERROR))
    assert {"regret", "steps", "late_stops", "premature_stops", "gain_over_first"} & set(failed) == set()
    assert failed["iou"] == (0, 1) and failed["steps_to_80"] == (8, 1) and failed["errors"] == (1, 1)
    assert failed["wasted_actions"] == (0, 1), "what failed was not carried out"


def test_an_undo_is_late_but_regrets_nothing() -> None:
    run = Run().click(first(40)).click(first(40, beyond=30)).act(UndoAction(), first(40))
    figures = case_figures(run.end())
    assert figures["regret"] == (0, 1) and figures["steps_after_best"] == (2, 1)
    assert figures["refinement_success"] == (1, 2) and figures["refinement_harm"] == (1, 2)


def test_a_final_mask_of_an_earlier_step_is_what_counts() -> None:
    figures = case_figures(run_of([40, 5], Outcome.OUT_OF_STEPS, max_steps=2, final=first(40), final_step=0))
    assert figures["regret"] == (0, 1) and figures["out_of_steps"] == (1, 1)
    assert figures["steps_after_best"] == (1, 1)


def test_repeats_are_the_same_pixels_and_signs() -> None:
    run = Run().click(first(10), (1, 1, True), (2, 2, False)).click(first(10), (2, 2, False), (1, 1, True))
    run.click(first(10), (1, 1, False))
    assert case_figures(run.end())["repeated_actions"] == (1, 3)
    states = Run().click(first(5)).act(UndoAction(), None).act(DiscardAction(), None).act(DiscardAction(), None)
    assert case_figures(states.end())["repeated_actions"] == (0, 4)
    babble = Run().invalid("eh").invalid("oh").invalid("eh ")
    assert case_figures(babble.end(Outcome.UNCERTAIN))["repeated_actions"] == (1, 3)


def test_wasted_actions_changed_no_pixel() -> None:
    run = Run().click(first(10)).click(first(10)).invalid().click(first(12))
    figures = case_figures(run.end())
    assert figures["wasted_actions"] == (1, 3) and figures["action_validity"] == (4, 5)
    assert "wasted_actions" not in case_figures(Run().invalid().end(Outcome.UNCERTAIN))


def test_clicks_are_right_in_missed_and_excess_pixels_of_the_mask_before() -> None:
    run = Run().click(first(10, beyond=5), (0, 0, True), (9, 9, True))  # one inside the target, one outside
    run.click(first(10), (0, 5, False), (0, 0, False), (0, 0, True))  # excess, right pixel, already covered
    figures = case_figures(run.end())
    assert figures["click_correctness"] == (2, 5)
    assert figures["positive_click_correctness"] == (1, 3)
    assert figures["negative_click_correctness"] == (1, 2)
    assert "click_correctness" not in case_figures(Run(given=first(9)).end())


def test_clicks_until_a_level_and_the_area_under_the_curve() -> None:
    figures = case_figures(run_of([20, 40, 45], max_steps=4))
    assert [figures[f"steps_to_{level}"][0] for level in (80, 85, 90)] == [2, 3, 3]
    assert [figures[f"reached_{level}"][0] for level in (80, 85, 90)] == [1, 1, 1]
    # 0, 0.4, 0.8, 0.9, 0.9 (carried on)
    assert figures["iou_auc"][0] == pytest.approx((0.2 + 0.6 + 0.85 + 0.9) / 4)
    never = case_figures(run_of([20], max_steps=6))
    assert never["steps_to_85"] == (6, 1) and never["reached_85"] == (0, 1)
    kept = case_figures(Run(given=first(50)).end())
    assert kept["steps_to_90"] == (0, 1) and kept["iou_auc"] == (1, 1)


def test_cost_is_what_the_replies_took() -> None:
    figures = case_figures(run_of([20, 40]))
    assert figures["seconds"] == (pytest.approx(3 * 0.75), 1)
    assert figures["tokens"] == (30, 1) and figures["prompt_tokens"] == (300, 1)
    silent = run_of([20])
    assert silent.episode is not None
    for step in silent.episode.steps:
        step.num_tokens = None
    assert "tokens" not in case_figures(silent) and "prompt_tokens" in case_figures(silent)


def test_an_absent_target_has_costs_and_refusals_and_no_other_figure() -> None:
    figures = case_figures(run_of([3], target=None))
    assert set(figures) == {
        *("errors", "right_refusals", "specificity", "giou_all", "absent_area", "ciou_all", "entity_f1"),
        *("seconds", "tokens", "prompt_tokens"),
    }
    assert figures["absent_area"] == (0.03, 1) and figures["ciou_all"] == (0, 3) and figures["entity_f1"] == (0, 1)
    assert figures["specificity"] == figures["right_refusals"] == figures["giou_all"] == (0, 1)
    refused = case_figures(run_of([3], Outcome.ABSENT, target=None))
    assert values(refused, "specificity", "right_refusals", "giou_all") == [1, 1, 1]
    assert "entity_f1" not in refused and "ciou_all" not in refused
    open_end = case_figures(Run().end(Outcome.UNCERTAIN, target=None))
    assert values(open_end, "specificity", "right_refusals") == [1, 0], "nothing marked, but it did not say so"
    failed = case_figures(Run().failing().end(Outcome.ERROR, target=None))
    assert values(failed, "specificity", "right_refusals", "giou_all", "absent_area") == [0, 0, 0, None]


def test_a_row_that_was_never_played_is_a_miss_where_a_miss_has_a_value() -> None:
    figures = case_figures(CaseResult("a", absent=False, error="no such image", spacing_mm=(1.0, 1.0)), max_steps=5)
    zero = "iou dice precision recall p_at_50 p_at_90 nsd_2mm sensitivity giou_all iou_auc reached_80 entity_f1"
    assert values(figures, *zero.split()) == [0.0] * len(zero.split())
    assert values(figures, "area_error", "area_bias", "steps_to_85", "errors") == [1, -1, 5, 1]
    missing = {"ciou", "hd95_mm", "steps", "regret", "action_validity", "seconds", "out_of_steps", "click_correctness"}
    assert missing & set(figures) == set()
    assert "steps_to_85" not in case_figures(CaseResult("a", absent=False, error="no such image"))


RUNS = st.lists(
    st.one_of(
        st.tuples(st.just("click"), st.integers(0, 50), st.integers(0, 50)),
        st.tuples(st.just("invalid"), st.just(0), st.just(0)),
        st.tuples(st.just("undo"), st.integers(0, 50), st.integers(0, 50)),
    ),
    max_size=8,
)


@settings(max_examples=80, deadline=None)
@given(
    RUNS,
    st.sampled_from([Outcome.DONE, Outcome.ABSENT, Outcome.UNCERTAIN, Outcome.OUT_OF_STEPS, Outcome.ERROR]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, (0.7, 1.3)]),
)
def test_bounds(
    told: list[tuple[str, int, int]],
    outcome: Outcome,
    present: bool,
    given: bool,
    spacing: tuple[float, float] | None,
) -> None:
    run = Run(given=first(30, 10) if given else None)
    for kind, size, beyond in told:
        if kind == "click":
            run.click(first(size, beyond), (size % 10, beyond % 10, size % 2 == 0), score=size / 50)
        elif kind == "undo":
            run.act(UndoAction(), first(size, beyond))
        else:
            run.invalid()
    result = run.end(outcome, target=TARGET if present else None, spacing_mm=spacing)
    figures = case_figures(result, ceiling_iou=0.9)
    assert set(figures) <= set(FIGURES) and list(figures) == [name for name in FIGURES if name in figures]
    for name, (number, weight) in figures.items():
        assert weight > 0 and np.isfinite(number), name
        if FIGURES[name].percent and name not in ("area_error", "area_bias", "ceiling_share"):
            assert 0 <= number <= weight * (1 + 1e-12), name
        if name not in ("area_bias", "gain_over_first"):
            assert number >= 0, name
    success, harm = values(figures, "refinement_success", "refinement_harm")
    assert (success or 0) + (harm or 0) <= 1
    if "regret" in figures:
        assert figures["regret"][0] + figures["iou"][0] <= 1 + 1e-12
    noc = [v for v in values(figures, "steps_to_80", "steps_to_85", "steps_to_90") if v is not None]
    assert noc == sorted(noc)
    levels = [v for v in values(figures, "p_at_50", "p_at_60", "p_at_70", "p_at_80", "p_at_90") if v is not None]
    assert levels == sorted(levels, reverse=True)
    assert ("nsd_2mm" in figures) == (present and spacing is not None), "without a spacing there is no millimetre"


def test_pooled_is_a_ratio_of_sums() -> None:
    cases = [{"a": (1.0, 4.0)}, {"a": (3.0, 4.0)}, {}]
    assert pooled(cases, "a") == 0.5 and pooled(cases, "b") is None
