"""Figures of runs that the real environment made, on real images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ibisagent.episode import Episode
from ibisagent.evaluate.figures import case_figures
from ibisagent.evaluate.result import CaseResult
from ibisagent.rle import encode_mask
from sample_episodes import absent_episode, click_episode, failed_episode, mini_image, mini_mask, refine_episode
from sample_results import run_of, scored

IMAGE = mini_image("dsb2018_000_000", spacing=0.5)
TARGET = mini_mask("dsb2018_000_000__largest-nucleus")


def result(episode: Episode, target: np.ndarray | None, error: str = "") -> CaseResult:
    mask = None if target is None else encode_mask(target)
    facts = CaseResult(
        "a", absent=target is None, target_mask=mask, episode=episode, error=error, spacing_mm=(0.5, 0.5)
    )
    return scored(facts)


def value(figures: object, name: str) -> float:
    number, weight = figures[name]  # type: ignore[index]
    return number / weight


def test_expert_clicks() -> None:
    # Four clicks that come closer each time, and one reply that is no action.
    figures = case_figures(result(click_episode(IMAGE, TARGET, "Segment it.", "nucleus"), TARGET))
    assert value(figures, "click_correctness") == 1.0 and figures["click_correctness"][1] == 4
    assert figures["action_validity"] == (5, 6)
    assert figures["refinement_success"] == (3, 4) and figures["refinement_harm"] == (0, 4)
    assert value(figures, "regret") == 0.0 and value(figures, "late_stops") == 0.0
    assert value(figures, "iou") == value(figures, "nsd_2mm") == value(figures, "entity_f1") == 1.0
    assert value(figures, "hd95_mm") == 0.0 and value(figures, "steps_to_90") == 5.0
    assert value(figures, "seconds") >= 0.81 + 0.91 + 1.01 + 1.11 + 0.5 + 0.4


def test_a_run_that_undoes_and_discards_until_the_steps_are_gone() -> None:
    episode = refine_episode(IMAGE, TARGET)
    figures = case_figures(result(episode, TARGET))
    trace = scored(result(episode, TARGET)).scores
    assert trace is not None and trace.iou_by_step is not None
    assert value(figures, "regret") == pytest.approx(max(trace.iou_by_step) - value(figures, "iou"))
    assert value(figures, "out_of_steps") == 1.0 and value(figures, "steps") == episode.num_steps
    assert figures["refinement_success"][1] == figures["refinement_harm"][1] == episode.num_steps
    assert value(figures, "gain_over_first") == pytest.approx(value(figures, "iou") - trace.iou_by_step[0])
    assert "premature_stops" not in figures


def test_a_refusal_and_a_failing_tool() -> None:
    refused = case_figures(result(absent_episode(IMAGE), None))
    assert value(refused, "right_refusals") == value(refused, "specificity") == value(refused, "giou_all") == 1.0
    failed = case_figures(result(failed_episode(IMAGE, TARGET), TARGET, "out of memory"))
    assert value(failed, "errors") == 1.0 and value(failed, "iou") == value(failed, "nsd_2mm") == 0.0
    height, width = TARGET.shape
    assert value(failed, "hd95_mm") == pytest.approx(0.5 * np.hypot(height, width))


def test_a_run_without_scores_is_not_taken_for_a_failure() -> None:
    with pytest.raises(ValueError, match="scored"):
        case_figures(replace(run_of([20]), scores=None))
