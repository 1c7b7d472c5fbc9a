from __future__ import annotations

import csv
import io
import json

import pytest

from ibisagent.episode import Episode, ImageRecord, Outcome
from ibisagent.evaluate.result import CaseResult
from ibisagent.evaluate.summary import CSV_COLUMNS, cases_csv, summarise
from ibisagent.scoring import Scores

KEYS = {
    *("num_cases", "mean_iou", "ci95_iou", "mean_dice", "target_mean_iou", "action_validity", "refinement_success"),
    *("mean_steps", "iou_by_step", "per_target", "num_errors", "right_refusals", "false_refusals", "seconds_per_case"),
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


def absent(scores: Scores | None, **fields: object) -> CaseResult:
    return result("absent", scores, absent=True, **fields)


def refusal(right: bool) -> Scores:
    none = {"iou": None, "dice": None, "iou_by_step": None, "num_refinements": None, "num_improvements": None}
    outcome = Outcome.ABSENT if right else Outcome.DONE
    return scored(outcome, right_refusal=right, false_refusal=None, num_steps=7, num_valid=0, **none)


def test_the_keys_are_the_contract() -> None:
    summary = summarise([result(scores=scored())], max_steps=3, seconds=2.0)
    assert set(summary) == KEYS
    assert json.loads(json.dumps(summary)) == summary
    assert summary["ci95_iou"] == [0.5, 0.5]
    assert summary["iou_by_step"] == [0.0, 0.5, 0.5, 0.5]
    assert summary["per_target"] == {"g/t": {"n": 1, "iou": 0.5, "dice": 0.6}}
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
    assert summary["per_target"] == {"g/t": {"n": 4, "iou": pytest.approx(0.2), "dice": pytest.approx(0.225)}}
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
    assert lines[0]["iou"] == "0.5" and lines[0]["outcome"] == "done" and lines[0]["seconds"] == "0.25"
    assert lines[1]["iou"] == "" and lines[1]["right_refusal"] == "1" and lines[1]["false_refusal"] == ""
    assert lines[2]["error"] == 'line 3: not "JSON", cut off' and lines[2]["iou"] == "0.0"
