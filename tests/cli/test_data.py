"""``ibisagent data``: pages, the served review, conversions, and one-line errors."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cli_samples import Ran, save

from ibisagent.engine.corpus.decisions import Decision, Decisions, append_decision
from sample_corpus import write_sample_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("corpora") / "toy"
    write_sample_corpus(place)
    return place


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def page_data(path: Path) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text("utf-8"), re.S)
    assert found is not None
    return json.loads(found.group(1))


def test_show_writes_a_page(cli: Callable[..., Ran], corpus: Path, here: Path) -> None:
    ran = cli("data", "show", corpus)
    assert ran.code == 0 and ran.out == "toy-review.html\n" and "4 trajectories" in ran.err
    assert len(page_data(here / "toy-review.html")["rows"]) == 4


def test_show_filters_samples_and_takes_decisions(cli: Callable[..., Ran], corpus: Path, here: Path) -> None:
    decisions = here / "mine.jsonl"
    append_decision(decisions, Decision(trajectory_id="toy-2-cyst", decision="reject", note="too small"))
    ran = cli("data", "show", corpus, "--target", "cyst", "--out", "p.html", "--decisions", decisions, "--who", "A")
    assert ran.code == 0
    data = page_data(here / "p.html")
    assert [row["id"] for row in data["rows"]] == ["toy-2-cyst"] and data["who"] == "A" and data["token"] is None
    assert data["decisions"] == [{"trajectory_id": "toy-2-cyst", "decision": "reject", "note": "too small"}]
    ran = cli("data", "show", corpus, "--sample", 2, "--seed", 5, "--split", "train", "--out", "q.html")
    assert ran.code == 0 and "2 of 4 trajectories" in ran.err and len(page_data(here / "q.html")["rows"]) == 2


def test_decisions_beside_the_corpus_are_found(cli: Callable[..., Ran], here: Path) -> None:
    write_sample_corpus(here / "own")
    append_decision(here / "own" / "decisions.jsonl", Decision(trajectory_id="toy-0-liver", decision="accept"))
    assert cli("data", "show", "own").code == 0
    assert page_data(here / "own-review.html")["decisions"][0]["trajectory_id"] == "toy-0-liver"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["show", "nowhere"], "no such folder"),
        (["show", "CORPUS", "--target", "heart"], "no trajectories with target 'heart'"),
        (["show", "CORPUS", "--split", "night"], "no split 'night'"),
        (["show", "CORPUS", "--out", "no/page.html"], "--out no/page.html"),
        (["show", "CORPUS", "--out", "."], "--out ."),
        (["show", "CORPUS", "--decisions", "none.jsonl"], "no such file"),
        (["show", "CORPUS", "--decisions", "bad.jsonl"], "line 2"),
        (["show", "CORPUS", "--serve", "--decisions", "bad.jsonl"], "line 2"),
        (["show", "CORPUS", "--serve", "--out", "page.html"], "not both"),
        (["show", "CORPUS", "--serve", "70000"], "a port from 0 to 65535"),
        (["show", "CORPUS", "--sample", "0"], "a whole number from 1"),
        (["show"], "CORPUS"),
        ([], "ACTION"),
        (["convert", "CORPUS", "--to", "csv", "--out", "x"], "invalid choice"),
        (["convert", "CORPUS", "--to", "verl", "--table", "sft", "--out", "x"], "no use for the table 'sft'"),
    ],
)
def test_errors_are_one_line(
    cli: Callable[..., Ran], corpus: Path, here: Path, arguments: list[str], reason: str
) -> None:
    (here / "bad.jsonl").write_text('{"trajectory_id": "t", "decision": "accept"}\n{"trajectory_id": "t"}\n')
    ran = cli("data", *[str(corpus) if word == "CORPUS" else word for word in arguments])
    assert ran.code == 2 and ran.out == "" and ran.err.count("\n") == 1 and reason in ran.err
    assert not (here / "page.html").exists() and not (here / "x").exists()


def test_convert(cli: Callable[..., Ran], corpus: Path, here: Path) -> None:
    ran = cli("data", "convert", corpus, "--to", "trl", "--out", "trl")
    assert ran.code == 0 and "trl: 4 examples from 4 rows of sft" in ran.err
    files = ran.out.splitlines()
    assert files and all((here / file).is_file() for file in files)
    ran = cli("data", "convert", corpus, "--to", "mini", "--out", "cases", "--table", "rl", "--split", "train")
    assert ran.code == 0 and "3 rows of rl" in ran.err


def test_card_takes_what_the_run_reported(cli: Callable[..., Ran], here: Path) -> None:
    write_sample_corpus(here / "own")
    (here / "own" / "report.json").write_text(json.dumps({"name": "Own discs", "faults": {"empty_mask": 3}}))
    ran = cli("data", "card", "own")
    assert ran.code == 0 and ran.out == "own/README.md\n"
    card = (here / "own" / "README.md").read_text("utf-8")
    assert "# Own discs" in card and "empty mask" in card and (here / "own" / "statistics.json").is_file()
    (here / "own" / "report.json").write_text("{")
    ran = cli("data", "card", "own")
    assert ran.code == 2 and "report.json" in ran.err and ran.err.count("\n") == 1


def write_cases(folder: Path, splits: dict[str, tuple[str, int]]) -> Path:
    """A mini case list: name -> (split, seed of the picture), every picture of the patient named like its seed."""
    rows = []
    for name, (split, seed) in splits.items():
        pixels = np.random.default_rng(seed).integers(0, 255, (8, 8), np.uint8).repeat(8, 0).repeat(8, 1)
        save(folder / f"{name}.png", pixels)
        save(folder / f"{name}_mask.png", np.uint8(pixels > 128) * np.uint8(255))
        row = {"case_id": name, "image": f"{name}.png", "mask": f"{name}_mask.png", "target": "cell", "modality": "CT"}
        rows.append({**row, "group": f"patient{seed}", "split": split, "source": "toy", "license": "CC0"})
    (folder / "cases.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "cases.jsonl"


def test_audit(cli: Callable[..., Ran], here: Path) -> None:
    clean = write_cases(here, {"a": ("train", 1), "b": ("train", 1), "c": ("val", 2)})
    ran = cli("data", "audit", f"mini:{clean}")
    assert ran.code == 0 and "no leak in 3 images" in ran.out
    leaking = write_cases(here, {"a": ("train", 1), "b": ("val", 1), "c": ("val", 2)})
    ran = cli("data", "audit", f"mini:{leaking}")
    assert ran.code == 1 and ran.out.startswith("LEAK: ") and "patient1" in ran.out
    assert json.loads(cli("data", "audit", f"mini:{leaking}", "--json").out)["leaks"] is True
    assert cli("data", "audit", f"mini:{leaking}", "--allow-groups").code == 0
    name = json.loads(cli("data", "audit", f"mini:{leaking}", "--json").out)["groups"][0]["source"]
    assert cli("data", "audit", f"mini:{leaking}", "--allow-group", f"{name}/patient1").code == 0
    assert cli("data", "audit", f"mini:{leaking}", "--allow-group", f"{name}/patient2").code == 1
    (here / "c.png").write_bytes(b"no picture")
    assert "1 item(s) could not be read" in cli("data", "audit", f"mini:{leaking}").err
    ran = cli("data", "audit", "mini:nowhere.jsonl")
    assert ran.code == 2 and ran.err.count("\n") == 1


def test_serve_until_stopped(corpus: Path, here: Path) -> None:
    command = [sys.executable, "-m", "ibisagent", "data", "show", str(corpus), "--serve", "--decisions", "d.jsonl"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?key=[\w-]{32}", address)
        page = urllib.request.urlopen(address, timeout=10).read().decode()
        assert "toy-0-liver" in page
        place, key = address.split("/?key=")
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(place, timeout=10)
        body = json.dumps({"trajectory_id": "toy-0-liver", "decision": "accept", "note": ""}).encode()
        headers = {"Content-Type": "application/json", "Origin": place, "X-Ibisagent-Token": key}
        request = urllib.request.Request(f"{place}/decide", body, headers)
        assert urllib.request.urlopen(request, timeout=10).read() == b"saved"
        assert Decisions.read(here / "d.jsonl").accepted_ids == {"toy-0-liver"}
    finally:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=10)
    assert process.returncode == 0 and "ended" in said and "Traceback" not in said
    assert not list(here.glob("*.html"))
