"""Overlap, contours and absent targets, in masks that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from ibisagent.episode import Outcome
from ibisagent.evaluate.figures import FIGURES, case_figures, pooled
from ibisagent.evaluate.result import CaseResult
from sample_results import TARGET, Run, first, run_of


def test_a_mask_with_missed_and_excess_pixels() -> None:
    # 40 of the target's 50 pixels, and 20 beyond: precision 40/60, recall 40/50, IoU 40/70.
    figures = case_figures(Run().click(first(40, beyond=20)).end())
    assert figures["precision"] == (pytest.approx(2 / 3), 1) and figures["recall"] == (pytest.approx(0.8), 1)
    assert figures["iou"] == (pytest.approx(4 / 7), 1) and figures["dice"] == (pytest.approx(80 / 110), 1)
    assert figures["ciou"] == figures["ciou_all"] == (40, 70)
    assert figures["area_error"] == figures["area_bias"] == (pytest.approx(0.2), 1)
    assert figures["entity_f1"] == (2, 2) and figures["sensitivity"] == (1, 1)
    assert [figures[f"p_at_{level}"][0] for level in (50, 60, 70, 80, 90)] == [1, 0, 0, 0, 0]


def test_a_mask_that_misses_its_target_is_invented_and_missed() -> None:
    figures = case_figures(run_of([20]))
    assert figures["entity_f1"] == (0, 2) and figures["area_bias"] == (pytest.approx(-0.6), 1)
    assert figures["area_error"] == (pytest.approx(0.6), 1)


@pytest.mark.parametrize("how", ["empty", "refused", "failed"])
def test_nothing_for_a_present_target(how: str) -> None:
    if how == "failed":
        result = Run().click(first(45)).failing().end(Outcome.ERROR, spacing_mm=(3.0, 4.0))
    elif how == "refused":
        result = run_of([45], Outcome.ABSENT, spacing_mm=(3.0, 4.0))
    else:
        result = Run().invalid().end(Outcome.UNCERTAIN, spacing_mm=(3.0, 4.0))
    figures = case_figures(result)
    for name in ("iou", "dice", "precision", "recall", "p_at_50", "nsd_2mm", "sensitivity", "giou_all"):
        assert figures[name] == (0, 1), name
    assert figures["entity_f1"] == (0, 1) and figures["ciou"] == (0, 50)
    assert figures["area_error"] == (1, 1) and figures["area_bias"] == (-1, 1)
    assert figures["hd95_mm"] == (pytest.approx(50.0), 1), "the diagonal of 10 x 10 pixels of 3 x 4 mm"
    assert "hd95_mm_nonempty" not in figures


def test_contours_are_measured_in_millimetres_and_only_where_these_are_known() -> None:
    shifted = np.roll(TARGET, 1, axis=0)  # the straight lower border lies one row, 3 mm, too low; the upper one too
    result = Run().click(shifted).end(spacing_mm=(3.0, 1.0))
    figures = case_figures(result)
    assert figures["hd95_mm"] == figures["hd95_mm_nonempty"] == (pytest.approx(3.0), 1)
    assert 0 < figures["nsd_2mm"][0] < 1
    exact = case_figures(run_of([50], spacing_mm=(3.0, 1.0)))
    assert exact["hd95_mm"] == (0, 1) and exact["nsd_2mm"] == (1, 1)
    unknown = case_figures(run_of([50]))
    assert {"hd95_mm", "nsd_2mm", "hd95_mm_nonempty"} & set(unknown) == set()


def test_pooled_figures_weigh_large_targets_more() -> None:
    small = np.zeros_like(TARGET)
    small[9, 9] = True
    cases = [case_figures(run_of([50])), case_figures(Run().click(first(1)).end(target=small))]
    assert pooled(cases, "ciou") == pytest.approx(50 / 52) and pooled(cases, "iou") == 0.5
    cases.append(case_figures(run_of([48], target=None)))
    assert pooled(cases, "ciou") == pytest.approx(50 / 52), "absent targets are another figure's"
    assert pooled(cases, "ciou_all") == pytest.approx(0.5) and pooled(cases, "giou_all") == pytest.approx(1 / 3)
    assert pooled(cases, "entity_f1") == pytest.approx(2 / (2 + 2 + 1))


def test_scores_without_masks_give_what_scores_can_say() -> None:
    result = run_of([40])
    bare = CaseResult("a", absent=False, scores=result.scores)
    figures = case_figures(bare)
    assert figures["iou"] == (0.8, 1) and figures["p_at_80"] == (1, 1)
    assert {"precision", "ciou", "nsd_2mm", "area_error", "entity_f1"} & set(figures) == set()


def test_masks_of_another_size_are_refused() -> None:
    from dataclasses import replace

    from ibisagent.rle import encode_mask

    with pytest.raises(ValueError, match="the reference"):
        case_figures(replace(run_of([40]), target_mask=encode_mask(TARGET[:4])))


def test_every_figure_is_explained() -> None:
    for name, figure in FIGURES.items():
        assert figure.name == name and figure.title and figure.about.endswith(".") and figure.section, name
        assert not (figure.percent and figure.unit), f"{name} is a share or has a unit"
    titles = [figure.title for figure in FIGURES.values()]
    assert len(set(titles)) == len(titles)
