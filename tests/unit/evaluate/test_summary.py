from __future__ import annotations

import csv
import io
import json
import random
import time
from dataclasses import replace
from typing import Any

import pytest

from ibisagent.episode import Episode, ImageRecord, Outcome
from ibisagent.evaluate.figures import FIGURES, HEADLINE, case_figures
from ibisagent.evaluate.result import CaseResult
from ibisagent.evaluate.summary import CSV_COLUMNS, cases_csv, summarise
from ibisagent.scoring import Scores
from sample_results import Run, first, run_of

FIRST_COLUMNS = (
    "case_id group target modality split instruction category outcome iou dice num_steps num_replies num_valid "
    "right_refusal false_refusal answer seconds_total error"
).split()

KEYS = {
    *("num_cases", "mean_iou", "ci95_iou", "mean_dice", "target_mean_iou", "action_validity", "refinement_success"),
    *("mean_steps", "iou_by_step", "per_target", "num_errors", "right_refusals", "false_refusals", "seconds_per_case"),
}
"""What summaries have had from the first: readers of old ones find the same here."""

NEW_KEYS = {
    *("schema_version", "figures", "intervals", "target_mean", "per_modality", "per_group", "by_step", "calibration"),
    *("outcomes", "target_name_mean"),
}


def scored(outcome: Outcome = Outcome.DONE, **changes: object) -> Scores:
    fields: dict[str, object] = {
        "iou": 0.5,
        "dice": 0.6,
        "iou_by_step": (0.0, 0.5),
        "outcome": outcome,
        "is_error": outcome is Outcome.ERROR,
        "right_refusal": None,
        "false_refusal": False,
        "num_steps": 1,
        "num_replies": 2,
        "num_valid": 2,
        "num_refinements": 0,
        "num_improvements": 0,
    }
    return Scores(**{**fields, **changes})  # type: ignore[arg-type]


def result(case_id: str = "a", scores: Scores | None = None, **fields: object) -> CaseResult:
    episode = None
    if scores is not None:
        image = ImageRecord(sha256="0", width=2, height=2)
        episode = Episode(instruction="x", image=image, outcome=scores.outcome, answer="Found.", seconds_total=0.25)
    known = {"group": "g", "target": "t", "absent": False, **fields}
    return CaseResult(case_id, scores=scores, episode=episode, **known)  # type: ignore[arg-type]


def overlaps(summary: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: {key: pair[key] for key in ("n", "iou", "dice")} for name, pair in summary["per_target"].items()}


def absent(scores: Scores | None, **fields: object) -> CaseResult:
    return result("absent", scores, absent=True, **fields)


def refusal(right: bool) -> Scores:
    none = {"iou": None, "dice": None, "iou_by_step": None, "num_refinements": None, "num_improvements": None}
    outcome = Outcome.ABSENT if right else Outcome.DONE
    return scored(outcome, right_refusal=right, false_refusal=None, num_steps=7, num_valid=0, **none)


def test_the_keys_are_the_contract() -> None:
    summary = summarise([result(scores=scored())], max_steps=3, seconds=2.0)
    assert set(summary) == KEYS | NEW_KEYS
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary["ci95_iou"] == [0.5, 0.5]
    assert summary["iou_by_step"] == [0.0, 0.5, 0.5, 0.5]
    assert overlaps(summary) == {"g/t": {"n": 1, "iou": 0.5, "dice": 0.6}}
    assert set(summary["per_target"]["g/t"]) == {"n", "iou", "dice", "figures"}
    assert summary["seconds_per_case"] == 2.0
    assert summary["right_refusals"] is None and summary["false_refusals"] == 0.0
    assert summary["refinement_success"] is None


def test_nothing_is_undefined_not_zero() -> None:
    summary = summarise([], max_steps=3, seconds=0.0)
    assert summary["num_cases"] == summary["num_errors"] == 0
    assert summary["iou_by_step"] == [] and summary["per_target"] == {}
    others = KEYS - {"num_cases", "num_errors", "iou_by_step", "per_target"}
    assert all(summary[key] is None for key in others)


def test_errors_and_false_refusals_score_zero() -> None:
    rows = [
        result("good", scored(iou=0.8, dice=0.9, iou_by_step=(0.0, 0.4, 0.8), num_steps=2)),
        result("failed", scored(Outcome.ERROR, iou=0.0, dice=0.0, iou_by_step=(0.0, 0.6)), error="the tool broke"),
        result("refused", scored(Outcome.ABSENT, iou=0.0, dice=0.0, false_refusal=True, iou_by_step=(0.0, 0.6))),
        result("unreadable", None, error="no such image"),
        CaseResult(None, error="not JSON"),
    ]
    summary = summarise(rows, max_steps=2, seconds=5.0)
    assert summary["num_cases"] == 5 and summary["num_errors"] == 3
    assert summary["mean_iou"] == pytest.approx(0.8 / 5) and summary["mean_dice"] == pytest.approx(0.9 / 5)
    assert overlaps(summary) == {"g/t": {"n": 4, "iou": pytest.approx(0.2), "dice": pytest.approx(0.225)}}
    assert summary["target_mean_iou"] == pytest.approx(0.2)
    assert summary["false_refusals"] == pytest.approx(1 / 5)
    assert summary["iou_by_step"] == pytest.approx([0.0, 0.4 / 5, 0.8 / 5])
    assert summary["mean_steps"] == pytest.approx(1.5)  # of the good one and the refused one


def test_absent_targets_count_in_right_refusals_only() -> None:
    present = [result(scores=scored())]
    alone = summarise(present, max_steps=2, seconds=1.0)
    rows = [*present, absent(refusal(True)), absent(refusal(False)), absent(None, error="failed")]
    summary = summarise(rows, max_steps=2, seconds=4.0)
    assert summary["right_refusals"] == pytest.approx(1 / 3)
    assert summary["num_cases"] == 4 and summary["num_errors"] == 1
    for key in KEYS - {"right_refusals", "num_cases", "num_errors", "seconds_per_case"}:
        assert summary[key] == alone[key], key


def test_target_mean_weighs_pairs_equally() -> None:
    rows = [result(str(i), scored(iou=0.9)) for i in range(3)]
    rows.append(result("x", scored(iou=0.1), group="other"))
    rows.append(result("y", scored(iou=0.5), target="u"))
    summary = summarise(rows, max_steps=1, seconds=1.0)
    assert set(summary["per_target"]) == {"g/t", "other/t", "g/u"}
    assert summary["target_mean_iou"] == pytest.approx(0.5)
    assert summary["mean_iou"] == pytest.approx((2.7 + 0.6) / 5)
    # Where every patient is a group, only the names say what a mean over targets says.
    assert summary["target_name_mean"]["iou"]["value"] == pytest.approx(((2.7 + 0.1) / 4 + 0.5) / 2)
    assert summarise([result("z", scored(), group=None)], max_steps=1)["per_target"].keys() == {"/t"}


def test_rates_are_pooled_over_replies() -> None:
    rows = [
        result("a", scored(num_replies=1, num_valid=1, num_refinements=3, num_improvements=3)),
        result("b", scored(num_replies=3, num_valid=0, num_refinements=1, num_improvements=0)),
    ]
    summary = summarise(rows, max_steps=4, seconds=1.0)
    assert summary["action_validity"] == pytest.approx(1 / 4)
    assert summary["refinement_success"] == pytest.approx(3 / 4)


def test_csv_has_one_line_a_row_with_the_message() -> None:
    rows = [result("a", scored()), absent(refusal(True)), CaseResult(None, error='line 3: not "JSON", cut off')]
    lines = list(csv.DictReader(io.StringIO(cases_csv(rows))))
    assert [list(line) for line in lines] == [CSV_COLUMNS] * 3
    assert CSV_COLUMNS[:18] == FIRST_COLUMNS and set(FIGURES) <= set(CSV_COLUMNS)
    assert len(set(CSV_COLUMNS)) == len(CSV_COLUMNS)
    assert lines[0]["iou"] == "0.5" and lines[0]["outcome"] == "done"
    assert lines[0]["seconds_total"] == "0.25" and lines[0]["seconds"] == "0.0"
    assert lines[1]["iou"] == "" and lines[1]["right_refusal"] == "1" and lines[1]["false_refusal"] == ""
    assert lines[2]["error"] == 'line 3: not "JSON", cut off' and lines[2]["iou"] == "0.0"


def several() -> list[CaseResult]:
    """Twelve runs on six images of three patients: of every kind, and a row that could not be read."""
    rows = [
        replace(
            run_of([5 + 4 * k, 20 + 2 * k, 15 + 3 * k][: 1 + k % 3], spacing_mm=(0.8, 1.2)),
            case_id=f"c{k}",
            image=f"i{k // 2}.png",
            patient=f"p{k // 4}",
            group=f"p{k // 4}",
            target="ab"[k % 2],
            modality=["CT", "MRI"][k // 4 % 2],
        )
        for k in range(8)
    ]
    rows.append(replace(run_of([40], Outcome.ABSENT), case_id="refused", image="i5.png", patient="p2"))
    rows.append(replace(run_of([30], Outcome.ABSENT, target=None), case_id="none", image="i5.png", patient="p2"))
    rows.append(Run().click(first(30)).failing().end(Outcome.ERROR))
    rows.append(CaseResult(None, line=3, error="line 3: not JSON"))
    return rows


def test_figures_come_with_intervals_and_say_what_is_drawn() -> None:
    summary = summarise(several(), max_steps=8)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert list(summary["figures"]) == list(FIGURES)
    for name, figure in summary["figures"].items():
        assert set(figure) == {"value", "ci95", "n", "num_clusters", "warning", "method"}
        if figure["value"] is None:
            assert figure["n"] == 0 and figure["ci95"] is None, name
        elif figure["ci95"] is not None:
            assert figure["ci95"][0] <= figure["value"] <= figure["ci95"][1], name
    assert summary["figures"]["iou"]["value"] == pytest.approx(summary["mean_iou"])
    assert summary["figures"]["dice"]["value"] == pytest.approx(summary["mean_dice"])
    assert summary["target_mean"]["iou"]["value"] == pytest.approx(summary["target_mean_iou"])
    assert summary["figures"]["errors"]["value"] == summary["num_errors"] / summary["num_cases"]
    for name in ("action_validity", "refinement_success", "right_refusals", "false_refusals"):
        assert summary["figures"][name]["value"] == summary[name], name
    assert summary["figures"]["steps"]["value"] == summary["mean_steps"]
    assert summary["figures"]["ceiling_share"]["value"] is None
    assert summary["intervals"]["unit"] == "image" and "images" in summary["intervals"]["warning"]


def test_parts_steps_and_outcomes() -> None:
    rows = several()
    summary = summarise(rows, max_steps=8)
    assert set(summary["per_modality"]) == {"CT", "MRI"} and set(summary["per_group"]) == {"p0", "p1", "g"}
    assert sum(part["n"] for part in summary["per_modality"].values()) == len(rows) - 1, "one row has no modality"
    for part in (*summary["per_modality"].values(), *summary["per_target"].values()):
        assert tuple(part["figures"]) == HEADLINE
    curve = summary["by_step"]
    assert curve["step"] == list(range(9)) and [p["value"] for p in curve["iou"]] == pytest.approx(
        summary["iou_by_step"]
    )
    assert curve["ended"] == sorted(curve["ended"]) and curve["ended"][-1] == 1.0
    assert summary["outcomes"] == {
        "present": {"done": 8, "absent": 1, "error": 1, "unreadable": 1},
        "absent": {"absent": 1},
    }


def test_ceilings_go_to_their_cases() -> None:
    summary = summarise(several(), max_steps=8, ceilings={"c0": 0.5, "c7": 1.0, "gone": 0.9})
    share = summary["figures"]["ceiling_share"]
    assert share["n"] == 2 and share["value"] == pytest.approx((5 / 50 + 34 / 50) / 1.5)


def test_seconds_follow_from_the_stored_replies_where_nobody_measured_them() -> None:
    rows = [run_of([20]), run_of([20, 30])]
    assert summarise(rows, max_steps=8)["seconds_per_case"] == pytest.approx((2 + 3) * 0.75 / 2)
    assert summarise(rows, max_steps=8, seconds=8.0)["seconds_per_case"] == 4.0


def test_the_same_results_give_the_same_summary() -> None:
    rows = several()
    text = json.dumps(summarise(rows, max_steps=8))
    assert json.dumps(summarise(rows, max_steps=8)) == text
    random.Random(0).shuffle(rows)
    again = summarise(rows, max_steps=8)
    for name, figure in json.loads(text)["figures"].items():
        assert again["figures"][name]["value"] == pytest.approx(figure["value"]), name


def test_csv_has_the_figures_of_each_case() -> None:
    lines = list(csv.DictReader(io.StringIO(cases_csv(several()))))
    assert lines[1]["iou"] == "0.44" and float(lines[1]["regret"]) == 0.0 and lines[1]["p_at_50"] == "0.0"
    assert lines[9]["regret"] == "" and lines[9]["specificity"] == "1.0"
    assert lines[11]["case_id"] == "" and lines[11]["precision"] == "0.0"


def test_csv_and_summary_say_the_same() -> None:
    rows = several()
    lines = list(csv.DictReader(io.StringIO(cases_csv(rows, max_steps=8))))
    assert lines[11]["steps_to_80"] == "8.0", "a row that could not be read costs the whole budget in both"
    for name, figure in summarise(rows, max_steps=8)["figures"].items():
        weights = {case[name][1] for r in rows if name in (case := case_figures(r, max_steps=8))}
        told = [float(line[name]) for line in lines if line[name]]
        assert len(told) == figure["n"], name
        if weights == {1.0}:
            assert sum(told) / len(told) == pytest.approx(figure["value"], abs=1e-6), name


def test_all_figures_of_a_hundred_runs_take_seconds() -> None:
    rows = several() * 8
    began = time.perf_counter()
    summarise(rows, max_steps=8)
    assert time.perf_counter() - began < 10
