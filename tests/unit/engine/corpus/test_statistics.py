"""Figures of a corpus, counted from its tables and compared with figures worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import sample_corpus
from ibisagent.engine.corpus.statistics import MAX_CURVE, statistics, summary
from ibisagent.engine.corpus.writer import shard_path, write_table
from ibisagent.errors import InputError


def test_the_sample_corpus_by_hand(tmp_path: Path) -> None:
    rows = [run.row for run in sample_corpus.write_sample_corpus(tmp_path)]
    found = statistics(tmp_path)
    assert found["tables"]["images"] == {"test": 1, "train": 2} and found["tables"]["sft"] == {"train": 4}
    assert found["images"]["num_groups"] == 3
    assert found["licences"] == {"toy": {"CC0-1.0": {"test": 1, "train": 2}}}
    sft = found["sft"]
    assert (sft["num"], sft["num_absent"], sft["num_replies"], sft["num_learnt_replies"]) == (4, 1, 10, 9)
    assert sft["by"]["modality"] == {"CT": 2, "dermoscopy": 2}
    assert sft["by"]["outcome"] == {"done": 3, "absent": 1}
    assert sft["intents"]["start"] == 3 and sft["intents"]["undo"] == 1
    # a refusal is right by definition and must not raise the mean
    ious = [row["final_iou"] for row in rows[:3]]
    assert sft["with_target"]["final_iou"]["mean"] == pytest.approx(np.mean(ious), abs=1e-6)
    assert sft["with_target"]["final_iou"]["num"] == 3
    assert sft["with_target"]["num_steps"]["mean"] == 2.0 and sft["num_steps"]["mean"] == 1.5
    assert sft["lengths"] == {
        "absent": {"0": 1}, "mismatched_mask": {"2": 1}, "plain": {"1": 1}, "self_correction": {"3": 1},
    }  # fmt: skip
    assert sum(sft["final_iou_histogram"]["counts"]) == 3
    by_target = {row["target"]: row for row in sft["by_modality_and_target"]}
    assert by_target["liver"]["final_iou"]["median"] == pytest.approx(rows[0]["final_iou"], abs=1e-6)
    assert by_target["spleen"]["final_iou"] is None and by_target["spleen"]["num"] == 1
    assert [by_target[name]["num_present"] for name in ("liver", "spleen")] == [1, 0]
    assert sft["iou_by_step"]["self_correction"]["mean"][:2] == [0.0, 0.0]
    assert len(sft["iou_by_step"]["self_correction"]["mean"]) == 3  # the Terminate is no point of the curve
    assert "absent" not in sft["iou_by_step"] and "absent" not in sft["by_scenario"]
    assert sft["made_with"]["segmenter"] == ["rules"]
    assert (found["rl"]["num_absent"], found["rl"]["num_given_mask"]) == (1, 1)
    assert found["test"]["by"]["split"] == {"test": 2}
    assert (found["vqa"]["num"], found["vqa"]["num_closed"]) == (2, 1)
    assert json.loads(json.dumps(found)) == found


def test_a_trajectory_that_has_ended_keeps_its_last_value(tmp_path: Path) -> None:
    row = sample_corpus.sft_runs()[0].row
    long = json.loads(json.dumps(row))
    step = long["steps"][0]
    long["steps"] = [{**step, "iou": 0.02 * k} for k in range(MAX_CURVE + 5)] + [long["steps"][-1]]
    long["num_steps"], long["trajectory_id"] = MAX_CURVE + 6, "long"  # rows may count the Terminate or not
    write_table(shard_path(tmp_path, "sft", "train", 0, 1), "sft", [row, long])
    found = statistics(tmp_path)["sft"]
    assert found["lengths"] == {"plain": {"1": 1, str(MAX_CURVE + 5): 1}}
    curve = found["iou_by_step"]["plain"]
    assert len(curve["mean"]) == MAX_CURVE
    last = row["steps"][0]["iou"]
    assert curve["mean"][10] == pytest.approx((last + 0.2) / 2, abs=1e-6)
    assert curve["still_going"] == [2] + [1] * (MAX_CURVE - 1)


def test_empty_tables_and_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        statistics(tmp_path / "nowhere")
    for table in ("images", "sft", "rl", "vqa"):
        write_table(shard_path(tmp_path, table, "train", 0, 1), table, [])
    found = statistics(tmp_path)
    assert found["sft"]["num"] == 0 and found["sft"]["with_target"]["final_iou"] is None
    assert found["images"]["sides"] is None and found["rl"]["num"] == 0


def test_summaries() -> None:
    assert summary([]) is None
    found = summary(range(1, 102))
    assert found is not None
    assert (found["num"], found["mean"], found["median"], found["min"], found["max"]) == (101, 51.0, 51.0, 1.0, 101.0)
    assert (found["q05"], found["q25"], found["q75"], found["q95"]) == (6.0, 26.0, 76.0, 96.0)
