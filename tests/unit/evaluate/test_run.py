from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from ibisagent.config import RolloutConfig
from ibisagent.engine.language.instructions import all_templates, fill
from ibisagent.engine.language.naming import target_phrases
from ibisagent.episode import Outcome
from ibisagent.evaluate import evaluate
from ibisagent.evaluate.run import Targets
from ibisagent.evaluate.store import RunFolder, read_run
from ibisagent.io import read_cases
from ibisagent.policies.oracle import OraclePolicy
from ibisagent.policies.scripted import ScriptedPolicy
from ibisagent.segmenters.rules import make as make_rules

REFUSE = "<think>Nothing here.</think><action>Terminate</action><answer>Absent: not in this image.</answer>"


def save(path: Path, array: np.ndarray) -> str:
    PIL.Image.fromarray(array).save(path)
    return path.name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pixels = np.full((40, 50), 20, np.uint8)
    pixels[10:30, 15:40] = 200
    save(tmp_path / "image.png", pixels)
    save(tmp_path / "mask.png", (pixels > 100).astype(np.uint8) * 255)
    save(tmp_path / "empty.png", np.zeros_like(pixels))
    save(tmp_path / "small.png", np.zeros((5, 5), np.uint8))
    return tmp_path


def write(folder: Path, *rows: dict[str, Any] | str) -> Path:
    base = {"image": "image.png", "mask": "mask.png", "target": "square", "group": "g", "modality": "CT"}
    lines = [row if isinstance(row, str) else json.dumps({**base, **row}) for row in rows]
    path = folder / "cases.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def play(path: Path, policy: Any = None, **options: Any) -> Any:
    targets: Targets = {}
    policy = policy or OraclePolicy(targets)
    results = evaluate(read_cases(path), path.parent, policy, make_rules(None), targets=targets, **options)
    assert targets == {}, "no target outlives its case"
    return results


def test_oracle_takes_each_cases_mask(folder: Path) -> None:
    results = play(write(folder, {"case_id": "a"}, {"case_id": "b", "mask": None}))
    assert [r.case_id for r in results] == ["a", "b"] and [r.line for r in results] == [1, 2]
    assert results[0].iou >= 0.9 and results[0].scores.outcome is Outcome.DONE
    assert results[1].absent and results[1].iou is None and results[1].scores.right_refusal is True


def test_a_mask_file_without_a_pixel_is_a_fault_and_no_absent_target(folder: Path) -> None:
    results = play(write(folder, {"case_id": "a"}, {"case_id": "b", "mask": "empty.png"}))
    assert not results[0].error and results[1].absent is False and results[1].iou == 0.0
    assert results[1].scores is None and results[1].line == 2
    for told in ("cases.jsonl line 2", "empty.png", "write null"):
        assert told in results[1].error


def test_bad_rows_keep_their_place(folder: Path) -> None:
    rows = [{"case_id": "gone", "image": "no.png"}, {"case_id": "a"}, "{", {"case_id": "size", "mask": "small.png"}]
    results = play(write(folder, *rows, {"case_id": "z"}), max_live=2)
    assert [r.case_id for r in results] == ["gone", "a", None, "size", "z"]
    assert [bool(r.error) for r in results] == [True, False, True, True, False]
    assert "5 x 5" in results[3].error and results[3].target == "square"
    assert [r.line for r in results] == [1, 2, 3, 4, 5]
    assert all(f"line {r.line}" in r.error for r in results if r.error)
    assert [r.iou > 0.9 for r in results] == [False, True, False, False, True]
    assert [results[i].iou for i in (0, 2, 3)] == [0.0] * 3


def test_a_null_mask_stays_absent_where_the_image_cannot_be_read(folder: Path) -> None:
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    (result,) = play(write(folder, {"case_id": "a", "image": "broken.png", "mask": None}))
    assert result.error and result.absent is True and result.iou is None


def test_policy_failure_is_an_error_that_scores_zero(folder: Path) -> None:
    results = play(write(folder, {"case_id": "a"}, {"case_id": "b", "mask": None}), ScriptedPolicy([]))
    assert [r.scores.outcome for r in results] == [Outcome.ERROR] * 2
    assert "script" in results[0].error
    assert [r.iou for r in results] == [0.0, None] and results[1].scores.right_refusal is False


def test_false_refusal(folder: Path) -> None:
    (result,) = play(write(folder, {"case_id": "a"}), ScriptedPolicy([REFUSE]))
    assert result.scores.false_refusal is True and result.iou == 0.0 and not result.error


def test_instructions_are_given_or_drawn_by_seed_and_case(folder: Path) -> None:
    rows = [{"case_id": f"c{i}"} for i in range(6)]
    path = write(folder, *rows, {"case_id": "own", "instruction": "Do it."})
    first = play(path)
    assert first[-1].instruction == "Do it." and first[-1].category == ""
    phrase = target_phrases("square")[0]
    full = play(path, library="full")
    for library, results in (("core", first), ("full", full)):
        test = all_templates("start", "test", library)
        for r in results[:-1]:
            assert r.instruction in {fill(t, phrase, "CT", library=library) for t in test[r.category]}
    assert [r.instruction for r in full] != [r.instruction for r in first]
    assert len({r.instruction for r in first}) > 3
    assert [r.instruction for r in play(path)] == [r.instruction for r in first]
    other = play(path, config=RolloutConfig(seed=5))
    assert [r.instruction for r in other] != [r.instruction for r in first]
    alone = play(write(folder, rows[4]))
    assert alone[0].instruction == first[4].instruction, "neither order nor --limit matters"


def test_given_mask_is_shown_and_asks_for_refinement(folder: Path) -> None:
    (result,) = play(write(folder, {"case_id": "a", "initial_mask": "mask.png"}))
    assert result.category in all_templates("refine")
    assert result.scores.iou_by_step == (1.0,) and result.scores.num_steps == 0


def test_results_come_as_cases_end(folder: Path) -> None:
    seen: list[str | None] = []
    play(write(folder, {"case_id": "a"}, "{", {"case_id": "b"}), on_case=lambda r: seen.append(r.case_id))
    assert sorted(map(str, seen)) == ["None", "a", "b"]


def test_what_a_folder_has_is_not_played_again(folder: Path) -> None:
    path = write(folder, {"case_id": "a"}, "{", {"case_id": "b"}, {"case_id": "c"})
    facts = {"num_rows": 4, "max_steps": 8}
    seen: list[str | None] = []
    with RunFolder.open(folder / "whole", facts, environment={}) as record:
        whole = play(path, record=record)
        assert set(record.done) == {0, 1, 2, 3} and record.results() == whole
    with RunFolder.open(folder / "parts", facts, environment={}) as record:
        for position in (1, 3):
            record.append(position, whole[position])
        again = play(path, record=record, on_case=lambda r: seen.append(r.case_id))
    assert seen == ["a", "b"]
    strip = [replace(r, episode=None) for r in again]
    assert strip == [replace(r, episode=None) for r in whole]
    run = read_run(folder / "parts")
    assert run.is_complete and run.results == again
    picture = run.image(run.results[0])
    assert picture is not None and picture.shape == (40, 50, 3)
