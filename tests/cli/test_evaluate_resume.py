"""An evaluation that is killed at any moment, and the same command again: the folder of one that was not."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_samples import Ran
from run_folders import contents, write_list

from ibisagent.evaluate.records import read_run

Cli = Callable[..., Ran]
pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
MINI = Path(__file__).resolve().parents[2] / "data/mini"


def begin(folder: Path, *words: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ibisagent", "evaluate", *map(str, words)]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill(process: subprocess.Popen[bytes], journal: Path, lines: int, delay: float) -> None:
    """SIGKILL `delay` seconds after the journal has that many lines, unless the run has ended by then."""
    stop = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < stop:
        if journal.is_file() and journal.read_bytes().count(b"\n") >= lines:
            break
        time.sleep(0.002)
    time.sleep(delay)
    process.kill()
    process.wait()


def test_killed_once_and_gone_on_with(cli: Cli, folder: Path) -> None:
    words = (write_list(folder, 30), "--policy", "oracle", "--segmenter", "rules", "--processes", 1)
    kill(begin(folder, *words, "--out", "killed"), folder / "killed/results.jsonl", 3, random.random() * 0.05)
    assert not (folder / "killed/summary.json").exists(), "it was killed in the middle"
    stored = read_run(folder / "killed")
    assert 3 <= len(stored.results) < 30 and not stored.is_complete
    assert cli("evaluate", *words, "--out", "killed").code == 5
    assert cli("evaluate", *words, "--out", "whole").code == 5
    assert contents(folder / "killed") == contents(folder / "whole")
    summary = (folder / "killed/summary.json").read_bytes()
    assert cli("evaluate", "--rescore", folder / "killed").code == 5
    assert (folder / "killed/summary.json").read_bytes() == summary
    assert [s["begun_with"] for s in read_run(folder / "killed").facts["sessions"]] == [0, len(stored.results)]


@pytest.mark.slow
@pytest.mark.parametrize("players", [("oracle", "rules"), ("nano", "litemedsam")], ids=["oracle", "nano"])
def test_killed_again_and_again(cli: Cli, folder: Path, players: tuple[str, str]) -> None:
    """Whole process groups and parents alone, at any moment from the start on, with two workers."""
    policy, segmenter = players
    if policy == "nano":
        rows = [json.loads(line) for line in (MINI / "cases.jsonl").read_text().splitlines()]
        rows = [row for row in rows if row["split"] == "train"][::40]
        for row in rows:
            row |= {name: str(MINI / row[name]) for name in ("image", "mask")}
        cases = folder / "cases.jsonl"
        cases.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        cases = write_list(folder, 400)
    words = (cases, "--policy", policy, "--segmenter", segmenter, "--processes", 2)
    rng = random.Random()
    journal = folder / "killed/results.jsonl"
    for _ in range(6):
        done = journal.read_bytes().count(b"\n") if journal.is_file() else 0
        process = begin(folder, *words, "--out", "killed")
        kill(process, journal, rng.choice([0, done, done + 2]), rng.random() * 5)
    code = 5 if policy == "oracle" else 0
    assert cli("evaluate", *words, "--out", "killed").code == code
    assert cli("evaluate", *words[:-1], 1, "--out", "whole").code == code
    assert contents(folder / "killed") == contents(folder / "whole")


@pytest.mark.slow
def test_workers_end_with_their_parent(folder: Path) -> None:
    psutil = pytest.importorskip("psutil")
    words = (write_list(folder, 3000), "--policy", "oracle", "--segmenter", "rules", "--processes", 2, "--out", "e")
    process = begin(folder, *words)
    stop = time.monotonic() + 60
    while not (folder / "e/results.jsonl").is_file() and time.monotonic() < stop:
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive


@pytest.mark.slow
def test_ctrl_c_keeps_what_had_ended(folder: Path) -> None:
    words = (write_list(folder, 3000), "--policy", "oracle", "--segmenter", "rules", "--processes", 2, "--out", "e")
    command = [sys.executable, "-m", "ibisagent", "evaluate", *map(str, words)]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    journal = folder / "e/results.jsonl"
    stop = time.monotonic() + 60
    while time.monotonic() < stop and not (journal.is_file() and journal.stat().st_size):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130 and "are kept in e; the same command goes on" in told
    assert "Traceback" not in told
    assert 0 < len(read_run(folder / "e").results) < 3000
