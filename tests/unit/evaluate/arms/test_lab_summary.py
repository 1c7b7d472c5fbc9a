"""What a lab's summary says, on labs whose every number is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ibisagent.episode import Outcome
from ibisagent.evaluate.arms import lab_summary
from ibisagent.evaluate.arms.ceiling import ceilings_of
from ibisagent.evaluate.arms.lab import Lab
from ibisagent.evaluate.records import Run
from ibisagent.evaluate.result import CaseResult
from ibisagent.evaluate.statistics import holm
from sample_results import Run as Steps
from sample_results import first, run_of

FACTS = {"segmenter": "rules", "segmenter_weights_sha256": None, "max_steps": 8, "cases_sha256": "a"}


def arm(kind: str, areas: Sequence[Sequence[int]], *, facts: dict[str, Any] | None = None, **about: Any) -> Any:
    """An arm of cases whose masks have these areas step by step, of a target that has 50 pixels."""
    results = named([run_of(list(steps)) for steps in areas])
    return {"kind": kind, "against": None, **about}, (results, {**FACTS, **(facts or {})})


def named(results: Sequence[CaseResult]) -> list[CaseResult]:
    return [replace(result, case_id=f"c{i}", image=f"i{i}") for i, result in enumerate(results)]


def lab_of(**arms: Any) -> Lab:
    runs = {n.replace("_", "-"): Run(Path(), {**f, "num_rows": len(r)}, r) for n, (_, (r, f)) in arms.items()}
    return Lab(Path(), {"arms": {n.replace("_", "-"): about for n, (about, _) in arms.items()}}, runs)


def test_the_oracles_last_mask_is_no_ceiling_and_its_best_one_is() -> None:
    lab = lab_of(
        agent=arm("agent", [[40], [40]]),
        oracle=arm("ceiling", [[30, 45, 40], [30, 45, 40]]),
        no_look=arm("baseline", [[10], [10]]),
    )
    assert ceilings_of(lab, "agent") == {"c0": 0.9, "c1": 0.9}
    summary = lab_summary(lab)
    found = summary["ceiling"]
    assert (found["oracle_iou"], found["oracle_best_iou"]) == (pytest.approx(0.8), pytest.approx(0.9))
    for by in ("cases", "targets"):
        assert found["agent_over_oracle"][by]["value"] == pytest.approx(1)
        assert found["agent_over_oracle_best"][by]["value"] == pytest.approx(8 / 9)
        assert found["share_of_ceiling"][by]["value"] == pytest.approx(1)
        assert found["share_of_ceiling_best"][by]["value"] == pytest.approx(6 / 7)
    assert found["premature_stops"]["value"] == 1, "it stopped 0.1 below what the oracle had reached on the way"
    shares = {name: about["figures"]["ceiling_share"]["value"] for name, about in summary["arms"].items()}
    assert shares["agent"] == pytest.approx(8 / 9) and shares["oracle"] == pytest.approx(8 / 9)


def test_refusals_are_what_was_said_and_specificity_is_what_was_marked() -> None:
    gone = {"target": None, "absent": True}
    said = run_of([], Outcome.ABSENT, **gone)
    marked, empty = run_of([20], **gone), run_of([], Outcome.UNCERTAIN, **gone)
    failed = Steps().click(first(40)).failing().end(Outcome.ERROR)
    plain = [run_of([40]), run_of([40], Outcome.ABSENT), run_of([], Outcome.UNCERTAIN), failed]
    summary = lab_summary(
        lab_of(
            agent=({"kind": "agent", "against": None}, (named(plain), FACTS)),
            absent_near=({"kind": "robustness", "against": None}, (named([said, marked, empty, empty]), FACTS)),
        )
    )["absent"]
    assert summary["right_refusals"]["absent-near"]["value"] == 0.25
    assert summary["specificity"]["absent-near"]["value"] == 0.75, "three of four marked nothing, one of them said so"
    assert summary["sensitivity"]["value"] == 0.25 and summary["sensitivity"]["n"] == 4, "an error found nothing"
    assert summary["false_refusals"]["value"] == 0.25


def test_what_else_is_played_changes_no_interval_of_the_plain_run() -> None:
    plain = arm("agent", [[10 + i] for i in range(12)])
    elsewhere = [
        replace(run_of([5 * i], target=None, absent=True), case_id=f"x{i}", image=f"y{i}", patient=f"p{i}")
        for i in range(12)
    ]
    absent = {"kind": "robustness", "against": None}, (elsewhere, {**FACTS, "cases_sha256": "b"})
    alone, both = lab_summary(lab_of(agent=plain)), lab_summary(lab_of(agent=plain, absent_list=absent))
    assert both["clusters"] == alone["clusters"] and both["clusters"]["unit"] == "image"
    assert both["arms"]["agent"] == alone["arms"]["agent"]
    # The other way round: patients of the plain run are drawn in every arm on its images, named there or not.
    results = [replace(r, patient=f"p{i // 2}") for i, r in enumerate(named([run_of([10 + i]) for i in range(24)]))]
    again = [replace(r, patient=None) for r in results]
    known = {"kind": "agent", "against": None}, (results, FACTS)
    same = {"kind": "ablation", "against": "agent"}, (again, FACTS)
    told = lab_summary(lab_of(agent=known, no_history=same))["arms"]
    assert told["no-history"]["figures"]["iou"]["ci95"] == told["agent"]["figures"]["iou"]["ci95"]
    assert told["no-history"]["figures"]["iou"]["num_clusters"] == 12


def test_a_ceiling_holds_for_the_oracles_own_segmenter_budget_and_start() -> None:
    given = named([Steps(given=first(30)).click(first(45)).end(), run_of([40])])
    lab = lab_of(
        agent=arm("agent", [[40], [40]]),
        oracle=arm("ceiling", [[45], [45]]),
        one_shot=arm("baseline", [[40], [40]], facts={"max_steps": 1}),
        segmenter_sam=arm("segmenter", [[40], [40]], facts={"segmenter": "sam"}),
        segmenter_tuned=arm("segmenter", [[40], [40]], facts={"segmenter_weights_sha256": "ff"}),
        good_mask=({"kind": "robustness", "against": None}, (given, FACTS)),
    )
    assert {name: len(ceilings_of(lab, name)) for name in lab.arms} == {
        "agent": 2, "oracle": 2, "one-shot": 0, "segmenter-sam": 0, "segmenter-tuned": 0, "good-mask": 1,
    }  # fmt: skip
    arms = lab_summary(lab)["arms"]
    assert [name for name, about in arms.items() if "ceiling_share" in about["figures"]] == [
        "agent", "oracle", "good-mask",
    ]  # fmt: skip
    assert arms["good-mask"]["figures"]["ceiling_share"]["n"] == 1


def test_the_largest_of_many_differences_is_told_with_what_chance_would_give() -> None:
    def told(category: str, areas: Sequence[Sequence[int]]) -> Any:
        return arm("wording", areas, against="agent", condition=f"wording:start:{category}")

    # Two cases, told in two ways each: b is 20 points better in both. By chance both are in one of two ways each time.
    lab = lab_of(agent=arm("agent", [[30], [30]]), a=told("a", [[20], [20]]), b=told("b", [[30], [30]]))
    start = lab_summary(lab)["wording"]["start"]
    assert start["largest_difference"] == pytest.approx(0.2)
    assert start["largest_by_chance"] == pytest.approx(0.1, abs=0.01)  # half of the exchanges give 0.2, the others 0


def test_every_p_is_corrected_over_all_figures_of_all_arms() -> None:
    steps = [[10 + i] for i in range(12)]
    lab = lab_of(
        agent=arm("agent", steps),
        worse=arm("baseline", [[max(1, s[0] - 6)] for s in steps], against="agent"),
        slower=arm("ablation", [[1, *s] for s in steps], against="agent"),
        wording_start_polite=arm(
            "wording", [[s[0] - 1] for s in steps], against="agent", condition="wording:start:polite"
        ),
    )
    summary = lab_summary(lab)
    gaps = [
        found
        for about in summary["arms"].values()
        for found in about.get("difference", {}).values()
        if isinstance(found, dict)
    ]
    assert len(gaps) == 3 * 5
    assert [gap["p_holm"] for gap in gaps] == holm([gap["p"] for gap in gaps])
    assert min(gap["p_holm"] for gap in gaps if gap["p"] < 1) > min(gap["p"] for gap in gaps)
    told = summary["wording"]["start"]["categories"]["polite"]["difference"]
    assert told == summary["arms"]["wording-start-polite"]["difference"]["iou"] and told["p_holm"] is not None
