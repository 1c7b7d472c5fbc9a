"""``ibisagent evaluate`` with visual questions in place of cases."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from cli_samples import CLICK, Ran

from sample_questions import write_questions

Cli = Callable[..., Ran]


class Yes:
    """A policy that says yes."""

    name, weights_sha256 = "yes", "0" * 64

    def __init__(self) -> None:
        self.asked: list[int] = []

    def chat(self, conversations: Sequence[Any], seed: int = 0) -> list[str]:
        self.asked.append(len(conversations))
        return ["Yes, I think so."] * len(conversations)


@pytest.fixture
def yes(monkeypatch: pytest.MonkeyPatch) -> Yes:
    policy = Yes()
    monkeypatch.setattr("ibisagent.api.resolve_policy", lambda *args, **options: policy)
    return policy


def test_all_well(cli: Cli, folder: Path, yes: Yes) -> None:
    write_questions(folder / "rad")
    ran = cli("evaluate", "vqa-rad:rad?split=all", "--policy", "nano", "--out", "e", "--batch", 3, "--json")
    assert ran.code == 0 and yes.asked == [3, 3, 2]
    assert sorted(p.name for p in (folder / "e").iterdir()) == ["answers.csv", "run.json", "summary.json"]
    summary = json.loads((folder / "e/summary.json").read_text())
    assert ran.json == summary and summary["num"] == 8 and summary["num_groups"] == 3
    assert summary["closed"] == {"value": 0.5, "ci95": [0.5, 0.5], "n": 6}  # one of two about every image
    assert summary["open"]["value"] == 0.0
    lines = list(csv.DictReader((folder / "e/answers.csv").open(newline="")))
    assert lines[0]["right"] == "True" and lines[0]["reply"] == "Yes, I think so." and lines[1]["right"] == "False"
    assert "8 questions about 3 images or patients: right 0.375 [" in ran.err
    assert json.loads((folder / "e/run.json").read_text())["questions"] == "vqa-rad:rad?split=all"


def test_split_and_limit(cli: Cli, folder: Path, yes: Yes) -> None:
    write_questions(folder / "rad")
    for words, num in (((), 3), (("--split", "train"), 5), (("--split", "train", "--limit", 2), 2)):
        assert cli("evaluate", "vqa-rad:rad", "--policy", "nano", "--out", "e", "--json", *words).json["num"] == num


def test_what_cannot_be_done_is_said_in_a_line(cli: Cli, folder: Path, script: Callable[..., str]) -> None:
    write_questions(folder / "rad")
    cli("evaluate", "vqa-rad:rad", "--policy", script(CLICK)).assert_refused("answers no questions", "vlm:PATH_OR_ID")
    cli("evaluate", "vqa-rad:rad?split=val").assert_refused("no visual question of split 'val'", "test (3)")
    cli("evaluate", "slake:rad").assert_refused("no train.json")
    cli("evaluate", "vqa-rad:rad", "--no-images").assert_refused("--no-images means nothing to visual questions")
    assert not (folder / "ibisagent-evaluation").exists()
