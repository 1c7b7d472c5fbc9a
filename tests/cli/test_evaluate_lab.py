"""``ibisagent evaluate --arms``: one command, one folder, and one line where something cannot be had."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_samples import CLICK, save, stop

Cli = Any


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = []
    for number in range(3):
        pixels = np.full((40, 50), 20, np.uint8)
        pixels[8 : 28 + number, 15:40] = 200
        save(tmp_path / f"i{number}.png", pixels)
        save(tmp_path / f"m{number}.png", (pixels > 100).astype(np.uint8) * 255)
        for split in ("train", "val"):
            rows.append({"case_id": f"{split}{number}", "image": f"i{number}.png", "mask": f"m{number}.png",
                         "target": "heart", "modality": "CT", "group": "g", "split": split})  # fmt: skip
    (tmp_path / "cases.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "script.txt").write_text(f"{CLICK}\n{stop('Found.')}\n")
    return tmp_path


@pytest.fixture
def lab(cli: Cli, folder: Path) -> Any:
    def run(*more: str) -> Any:
        return cli(
            "evaluate", str(folder / "cases.jsonl"), "--split", "val", "--policy", f"scripted:{folder / 'script.txt'}",
            "--segmenter", "rules", "--max-steps", "3", "--processes", "1", "--out", str(folder / "lab"), *more,
        )  # fmt: skip

    return run


def test_a_lab_is_one_folder_and_goes_on(lab: Any, folder: Path) -> None:
    ran = lab("--arms", "ceiling,no-look,corrupted-light", "--subset", "2", "--json")
    assert ran.code == 0, ran.err
    summary = json.loads((folder / "lab" / "lab_summary.json").read_text())
    assert ran.json == summary and summary["complete"]
    assert list(summary["arms"]) == ["agent", "oracle", "no-look", "corrupted-light"]
    assert all(about["num_cases"] == 2 for about in summary["arms"].values())
    assert summary["arms"]["no-look"]["figures"]["iou"]["value"] > 0.8, "the training split says where hearts are"
    assert "share of the ceiling" in ran.err and "corrupted-light" in ran.err
    assert "a subset of the list" in ran.err
    names = {path.name for path in (folder / "lab").iterdir()}
    assert names == {"lab.json", "lab_summary.json", "arms"}
    more = lab("--arms", "centre-click", "--subset", "2", "--json")
    assert list(more.json["arms"]) == [*summary["arms"], "centre-click"]
    assert more.json["arms"]["agent"] == summary["arms"]["agent"]
    lab("--arms", "agent", "--subset", "3").assert_refused("holds a lab with subset 2, not 3")


def test_a_bad_row_is_told_whatever_the_subset(lab: Any, folder: Path) -> None:
    with (folder / "cases.jsonl").open("a") as file:
        file.write('{"case_id": "broken", "split": "val"}\n')
    ran = lab("--arms", "agent", "--subset", "1", "--json")
    agent = ran.json["arms"]["agent"]
    assert ran.code == 5 and (agent["num_cases"], agent["num_errors"]) == (2, 1)
    assert "broken" in ran.err and "line 7" in ran.err


def test_what_cannot_be_played_is_one_line(lab: Any) -> None:
    ran = lab("--arms", "no-thought", "--other", "vlm:/nowhere")
    assert ran.code == 5
    assert "the arm no-thought is not played: the policy 'scripted:script.txt' cannot be kept from thinking" in ran.err
    assert "the arm other-vlm-nowhere is not played: " in ran.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--arms", "everything"], "no arm 'everything'"),
        (["--arms", "segmenters"], "give --segmenters"),
        (["--arms", "agent", "--segmenters", "sum"], "no segmenter 'sum'"),
        (["--arms", "agent", "--absent", "nothing.jsonl"], "nothing.jsonl"),
        (["--subset", "2"], "--subset is a part of a lab"),
        (["--wordings", "2"], "--wordings is a part of a lab"),
        (["--other", "vlm:x"], "--other is a part of a lab"),
        (["--arms", "agent", "--policy", "oracle"], "the oracle is an arm of its own"),
        (["--arms", "agent", "--prefill"], "--prefill means nothing to the policy 'scripted'"),
    ],
)
def test_bad_options(lab: Any, folder: Path, options: list[str], words: str) -> None:
    lab(*options).assert_refused(words)
    assert not (folder / "lab").exists()


def test_pictures_are_kept_once_or_not_at_all(lab: Any, folder: Path) -> None:
    assert lab("--arms", "centre-click").code == 0
    assert sorted(path.parent.name for path in (folder / "lab").rglob("images")) == ["agent"]
    assert lab("--arms", "centre-click", "--overwrite", "--no-images").code == 0
    assert not list((folder / "lab").rglob("images"))


@pytest.mark.parametrize(
    "more",
    [["--arms", "all"], ["--subset", "2"], ["--segmenter", "rules"], ["--max-steps", "3"], ["--no-images"],
     ["--split", "val"], ["--overwrite"], ["--out", "elsewhere"], ["--wordings", "3"]],
    ids=lambda more: more[0],
)  # fmt: skip
def test_what_a_stored_lab_cannot_be_given_is_refused(cli: Cli, lab: Any, folder: Path, more: list[str]) -> None:
    cli("evaluate", "--rescore", str(folder), *more).assert_refused(f"{more[0]} means nothing to --rescore")
