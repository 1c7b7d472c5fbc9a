from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_samples import CLICK, Ran, save, stop
from run_folders import contents, without_seconds

from ibisagent.episode import Episode
from ibisagent.evaluate.store import read_run
from ibisagent.hashing import file_hash

Cli = Callable[..., Ran]
Script = Callable[..., str]
ORACLE = ("--policy", "oracle", "--segmenter", "rules")

KEYS = {
    *("num_cases", "mean_iou", "ci95_iou", "mean_dice", "target_mean_iou", "action_validity", "refinement_success"),
    *("mean_steps", "iou_by_step", "per_target", "num_errors", "right_refusals", "false_refusals", "seconds_per_case"),
}


def write(folder: Path, *rows: dict[str, Any] | str) -> Path:
    base = {"image": "../image.png", "mask": "../target.png", "target": "square", "group": "g", "modality": "CT"}
    (folder / "list").mkdir(exist_ok=True)
    path = folder / "list/cases.jsonl"
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps({**base, **row})}\n" for row in rows))
    return path


def test_all_well(cli: Cli, folder: Path) -> None:
    cases = write(folder, {"case_id": "a"}, {"case_id": "b", "mask": None}, {"case_id": "c", "group": "h"})
    ran = cli("evaluate", cases, *ORACLE, "--out", "e", "--max-steps", 5)
    assert (ran.code, ran.out) == (0, "")
    files = ["cases.csv", "episodes", "images", "results.jsonl", "run.json", "summary.json"]
    assert sorted(p.name for p in (folder / "e").iterdir()) == files
    summary = json.loads((folder / "e/summary.json").read_text())
    assert set(summary) > KEYS
    assert summary["num_cases"] == 3 and summary["num_errors"] == 0
    assert summary["mean_iou"] > 0.9 and summary["right_refusals"] == 1.0 and summary["false_refusals"] == 0.0
    assert summary["ci95_iou"][0] <= summary["mean_iou"] <= summary["ci95_iou"][1]
    assert len(summary["iou_by_step"]) == 6 and summary["iou_by_step"][0] == 0.0
    assert set(summary["per_target"]) == {"g/square", "h/square"} and summary["per_target"]["g/square"]["n"] == 1
    run = json.loads((folder / "e/run.json").read_text())
    assert run["policy"] == "oracle" and run["segmenter"] == "rules" and run["max_steps"] == 5
    assert run["schema_version"] == 1 and run["num_rows"] == 3 and run["cases_sha256"] == file_hash(cases)
    (session,) = run["sessions"]
    assert session["workers"] == 1 and session["begun_with"] == 0 and session["packages"]["numpy"]
    assert {"python", "platform", "git", "threads", "batch", "seconds"} <= set(session)
    # The interval is the one over clusters: one image gives none, whatever ci95_iou says.
    assert summary["figures"]["iou"]["ci95"] is None
    assert f"mean IoU {100 * summary['mean_iou']:.1f}%, Dice" in ran.err
    assert f"intervals: {summary['intervals']['warning']}" in ran.err


def test_a_report_of_what_was_played_or_scored_again(cli: Cli, folder: Path) -> None:
    cases = write(folder, {"case_id": "a"}, {"case_id": "b", "mask": None})
    ran = cli("evaluate", cases, *ORACLE, "--out", "e", "--report")
    page = folder / "e/report/index.html"
    assert ran.code == 0 and "e/report/index.html" in ran.err
    first = page.read_bytes()
    page.unlink()
    assert cli("evaluate", "--rescore", "e", "--report").code == 0
    assert page.read_bytes() == first


def test_json_is_the_summary(cli: Cli, folder: Path) -> None:
    ran = cli("evaluate", write(folder, {"case_id": "a"}), *ORACLE, "--out", "e", "--json")
    assert ran.json == json.loads((folder / "e/summary.json").read_text())


def test_bad_rows_are_errors_and_the_summary_is_written(cli: Cli, folder: Path) -> None:
    cases = write(folder, {"case_id": "a"}, "{oops", {"case_id": "b", "image": "gone.png"})
    ran = cli("evaluate", cases, *ORACLE, "--out", "e")
    assert ran.code == 5
    summary = json.loads((folder / "e/summary.json").read_text())
    assert summary["num_cases"] == 3 and summary["num_errors"] == 2
    lines = list(csv.DictReader((folder / "e/cases.csv").open(newline="")))
    assert [line["case_id"] for line in lines] == ["a", "", "b"]
    assert lines[0]["error"] == "" and "line 2" in lines[1]["error"] and "gone.png" in lines[2]["error"]
    assert summary["mean_iou"] == pytest.approx(float(lines[0]["iou"]) / 3, abs=1e-6)


def test_a_failing_policy_is_an_error(cli: Cli, folder: Path, script: Script) -> None:
    cases = write(folder, {"case_id": "a"}, {"case_id": "b"})
    ran = cli("evaluate", cases, "--policy", script(CLICK), "--segmenter", "rules", "--out", "e")
    summary = json.loads((folder / "e/summary.json").read_text())
    assert ran.code == 5 and summary["num_errors"] == 2 and summary["mean_iou"] == 0.0


def test_limit_seed_and_repeat(cli: Cli, folder: Path) -> None:
    cases = write(folder, *({"case_id": f"c{i}"} for i in range(5)))

    def instructions(*more: object) -> list[str]:
        assert cli("evaluate", cases, *ORACLE, "--out", "e", "--overwrite", *more).code == 0
        return [line["instruction"] for line in csv.DictReader((folder / "e/cases.csv").open(newline=""))]

    first = instructions()
    assert instructions("--limit", 2) == first[:2]
    assert instructions("--batch", 1) == first
    assert instructions("--seed", 7) != first


def test_the_same_command_goes_on_and_another_is_refused(cli: Cli, folder: Path) -> None:
    cases = write(folder, *({"case_id": f"c{i}"} for i in range(4)), "{")
    words = ("evaluate", cases, *ORACLE, "--out", "e")
    assert cli(*words).code == 5
    before = contents(folder / "e")
    journal = folder / "e/results.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[1:3]) + lines[0][:70])
    (folder / "e/summary.json").unlink()
    ran = cli(*words, "--batch", 1)
    assert ran.code == 5 and "2 of 5 cases have ended" in ran.err and "batch 8, now 1" in ran.err
    after = contents(folder / "e")
    assert after == before
    ran = cli(*words, "--json")
    assert (
        ran.code == 5 and "5 of 5 cases have ended" in ran.err and without_seconds(ran.json) == before["summary.json"]
    )
    cli(*words, "--seed", 3).assert_refused("e holds a run with seed 0, not 3", "--overwrite")
    cases.write_text(cases.read_text() + json.dumps({"case_id": "x"}) + "\n")
    cli(*words).assert_refused("cases_sha256")
    assert contents(folder / "e") == before
    assert cli(*words, "--overwrite").code == 5 and len(contents(folder / "e")["results.jsonl"]) == 6


def test_workers_give_the_same_folder(cli: Cli, folder: Path) -> None:
    cases = write(folder, *({"case_id": f"c{i}"} for i in range(3)), {"case_id": "gone", "image": "x.png"}, "{")
    for workers in (1, 2):
        assert cli("evaluate", cases, *ORACLE, "--out", f"e{workers}", "--processes", workers).code == 5
    assert contents(folder / "e1") == contents(folder / "e2")
    assert json.loads((folder / "e2/run.json").read_text())["sessions"][0]["workers"] == 2
    ran = cli("evaluate", cases, "--policy", "nobody", "--out", "x", "--processes", 2)
    ran.assert_refused("nobody")
    assert not (folder / "x").exists()


def test_rescoring_needs_nothing_but_the_folder(cli: Cli, folder: Path) -> None:
    cases = write(folder, {"case_id": "a"}, {"case_id": "b", "mask": None}, {"case_id": "c", "image": "no.png"})
    assert cli("evaluate", cases, *ORACLE, "--out", "e", "--no-images").code == 5
    assert not (folder / "e/images").exists()
    summary = (folder / "e/summary.json").read_bytes()
    table = (folder / "e/cases.csv").read_bytes()
    for name in ("summary.json", "cases.csv"):
        (folder / "e" / name).write_text("old")
    (folder / "image.png").unlink()
    cases.unlink()
    code = (
        "import sys; from ibisagent.cli import main; c = main(sys.argv[1:]); print('torch' in sys.modules); sys.exit(c)"
    )
    ran = subprocess.run([sys.executable, "-c", code, "evaluate", "--rescore", "e"], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (5, "False\n"), ran.stderr
    assert (folder / "e/summary.json").read_bytes() == summary and (folder / "e/cases.csv").read_bytes() == table
    run = json.loads((folder / "e/run.json").read_text())
    (folder / "e/run.json").write_text(json.dumps({**run, "schema_version": 9}))
    cli("evaluate", "--rescore", "e").assert_refused("schema version 9", "newer")
    cli("evaluate", "--rescore", "nowhere").assert_refused("nowhere")
    cli("evaluate", "x.jsonl", "--rescore", "e").assert_refused("leave CASES out")
    cli("evaluate").assert_refused("CASES")


def test_a_folder_stands_for_its_list(cli: Cli, folder: Path) -> None:
    cases = write(folder, {"case_id": "a"})
    assert cli("evaluate", cases.parent, *ORACLE, "--out", "e").code == 0
    assert json.loads((folder / "e/run.json").read_text())["cases"] == "cases.jsonl"
    cli("evaluate", folder, *ORACLE, "--out", "x").assert_refused("cases.jsonl")


def test_every_fault_is_named_by_its_line_and_the_rest_is_played(cli: Cli, folder: Path) -> None:
    save(folder / "small.png", np.zeros((3, 4), np.uint8))
    cases = write(
        folder,
        {"case_id": "good"},
        {"case_id": "image", "image": "gone.png"},
        {"case_id": "size", "mask": "../small.png"},
        {"case_id": "good"},
        {"case_id": "empty", "mask": "../empty.png"},
        "{",
        {"case_id": "last"},
    )
    ran = cli("evaluate", cases, *ORACLE, "--out", "e", "--json")
    assert ran.code == 5 and ran.json["num_cases"] == 7 and ran.json["num_errors"] == 5
    lines = list(csv.DictReader((folder / "e/cases.csv").open(newline="")))
    assert [bool(line["error"]) for line in lines] == [False, True, True, True, True, True, False]
    told = {2: "gone.png", 3: "4 x 3", 4: "already used in line 1", 5: "no pixel; write null", 6: "not JSON"}
    for number, words in told.items():
        error = lines[number - 1]["error"]
        assert f"line {number}" in error and words in error
        assert error in ran.err
    assert "5 of them could not be played (lines 2, 3, 4, 5, 6)" in ran.err
    assert [r.line for r in read_run(folder / "e").results] == [1, 2, 3, 4, 5, 6, 7]


def test_split(cli: Cli, folder: Path) -> None:
    rows = [{"case_id": f"{split}{i}", "split": split} for i in range(2) for split in ("train", "val")]
    cases = write(folder, *rows, {"case_id": "none"})

    def played(*more: object) -> list[str]:
        assert cli("evaluate", cases, *ORACLE, "--out", "e", "--overwrite", *more).code == 0
        return [line["case_id"] for line in csv.DictReader((folder / "e/cases.csv").open(newline=""))]

    assert played("--split", "val") == ["val0", "val1"]
    assert played("--split", "val", "--limit", 1) == ["val0"], "the limit counts rows of the split"
    assert json.loads((folder / "e/run.json").read_text())["split"] == "val"
    assert len(played()) == 5
    cli("evaluate", cases, *ORACLE, "--split", "tset", "--out", "x").assert_refused("tset", "train, val")
    assert not (folder / "x").exists()


def test_a_bad_row_counts_in_its_own_split_and_a_damaged_one_in_all(cli: Cli, folder: Path) -> None:
    bad = {"case_id": "b", "image": "gone.png"}
    cases = write(folder, {"case_id": "a", "split": "val"}, {**bad, "split": "train"}, {**bad, "split": "val"}, "{")
    ran = cli("evaluate", cases, *ORACLE, "--split", "val", "--out", "e", "--json")
    assert ran.code == 5 and ran.json["num_cases"] == 3 and ran.json["num_errors"] == 2


def test_an_unreadable_row_scores_zero_for_its_target_and_a_null_mask_stays_absent(cli: Cli, folder: Path) -> None:
    rows = [
        {"case_id": "a"},
        {"case_id": "b", "image": "gone.png"},
        {"case_id": "c", "image": "gone.png", "mask": None},
    ]
    ran = cli("evaluate", write(folder, *rows), *ORACLE, "--out", "e", "--json")
    assert ran.code == 5 and ran.json["num_cases"] == 3 and ran.json["num_errors"] == 2
    pair = ran.json["per_target"]["g/square"]
    assert pair["n"] == 2 and pair["iou"] == ran.json["target_mean_iou"] == ran.json["mean_iou"] < 0.51
    assert ran.json["right_refusals"] == 0.0


def test_episodes_are_kept_and_never_left_from_before(cli: Cli, folder: Path) -> None:
    cases = write(folder, {"case_id": "a/../b"}, {"case_id": "c"})
    assert cli("evaluate", cases, *ORACLE, "--out", "e").code == 0
    files = sorted((folder / "e/episodes").iterdir())
    assert [f.name for f in files] == ["00000_a_.._b.json", "00001_c.json"]
    assert Episode.load(files[0]).case_id == "a/../b"
    assert cli("evaluate", cases, *ORACLE, "--out", "e", "--limit", 1, "--overwrite").code == 0
    assert len(list((folder / "e/episodes").iterdir())) == 1


def test_a_folder_of_someone_else_is_left_alone(cli: Cli, folder: Path) -> None:
    (folder / "e/episodes").mkdir(parents=True)
    (folder / "e/episodes/mine.txt").write_text("mine")
    assert cli("evaluate", write(folder, {"case_id": "a"}), *ORACLE, "--out", "e").code == 0
    assert (folder / "e/episodes/mine.txt").exists()
    (folder / "f").mkdir()
    (folder / "f/run.json").write_text("{}")
    cli("evaluate", folder / "list", *ORACLE, "--out", "f").assert_refused("another kind", "--overwrite")


def test_false_refusals(cli: Cli, folder: Path, script: Script) -> None:
    policy = script(stop("Absent: nothing."))
    cases = write(folder, {"case_id": "a"}, {"case_id": "b", "mask": None})
    ran = cli("evaluate", cases, "--policy", policy, "--segmenter", "rules", "--out", "e", "--json")
    assert ran.code == 0
    assert ran.json["false_refusals"] == ran.json["right_refusals"] == 1.0 and ran.json["mean_iou"] == 0.0


@pytest.mark.parametrize("content", [None, b"", b"\n\n", b"\xff\xfe\x00junk", b"[1, 2]\n", b"no json\n"])
def test_unusable_file(cli: Cli, folder: Path, content: bytes | None) -> None:
    if content is not None:
        (folder / "bad.jsonl").write_bytes(content)
    ran = cli("evaluate", "bad.jsonl", *ORACLE, "--out", "e")
    ran.assert_refused("bad.jsonl")
    assert not (folder / "e").exists()


def test_bad_options(cli: Cli, folder: Path) -> None:
    cases = write(folder, {"case_id": "a"})
    cli("evaluate", cases, *ORACLE, "--limit", 0).assert_refused("--limit")
    cli("evaluate", cases, "--policy", "nobody", "--segmenter", "rules").assert_refused("nobody")
    cli("evaluate", cases, *ORACLE, "--out", cases).assert_refused("not a folder")
    assert not (folder / "ibisagent-evaluation").exists()
