"""RL as a program: killed at a random moment, in two processes, ended by Ctrl-C below a launcher."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

from ibisagent.train.guards import last_checkpoint
from killed_runs import kill_at_random
from sample_corpus import write_sample_corpus
from sample_rl import make_small_nano

pytestmark = pytest.mark.slow

ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "120",
}
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


@pytest.fixture(scope="module")
def head(vocabulary: Any, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What every run here shares: a small nano, the sample corpus, the rules."""
    folder = tmp_path_factory.mktemp("rl")
    write_sample_corpus(folder / "corpus")
    make_small_nano(vocabulary, seed=4).save_pretrained(folder / "nano")
    vocabulary.save_pretrained(folder / "nano")
    (folder / "nano" / "system_prompt.txt").write_text("Segment.\n")
    return [
        "-m", "ibisagent", "train", "rl", "--preset", "tiny", "--device", "cpu", "--segmenter", "rules",
        "--prompts", f"corpus:{folder / 'corpus'}", "--model", str(folder / "nano"), "--learning-rate", "1e-3",
    ]  # fmt: skip


def updates(out: Path) -> list[dict[str, Any]]:
    """What the updates were, without what a clock says."""
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    timed = ("seconds", "step_time", "train_")
    return [{k: v for k, v in row.items() if not k.startswith(timed)} for row in rows if "loss" in row]


def test_a_run_that_is_killed_at_a_random_moment_goes_on_with_the_same_updates(head: list[str], tmp_path: Path) -> None:
    words = ["--num-updates", "20", "--save-updates", "2", "--beta", "0.05"]
    whole = [sys.executable, *head, *words, "--out", str(tmp_path / "whole")]
    subprocess.run(whole, env=ENVIRONMENT, check=True, capture_output=True)
    cut = [sys.executable, *head, *words, "--out", str(tmp_path / "cut")]
    kill_at_random(cut, tmp_path / "cut" / "checkpoints" / "checkpoint-2", ENVIRONMENT)
    subprocess.run([*cut, "--resume"], env=ENVIRONMENT, check=True, capture_output=True)
    assert updates(tmp_path / "cut") == updates(tmp_path / "whole")
    assert len(updates(tmp_path / "whole")) == 20
    models = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("cut", "whole")]
    assert models[0] == models[1]


def test_two_processes_share_the_prompts_and_save_after_ctrl_c(head: list[str], tmp_path: Path) -> None:
    """As runs/speedrun.sh starts it. The launcher hears Ctrl-C too, and must leave its processes the time to save."""
    words = ["--prompts-per-update", "2", "--num-updates", "60", "--save-updates", "50"]
    command = [*LAUNCH, *head, *words, "--out", str(tmp_path)]
    run = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        while not (tmp_path / "log.jsonl").is_file() or len(updates(tmp_path)) < 3:
            assert run.poll() is None, "the run ended early"
            time.sleep(0.05)
        os.killpg(run.pid, signal.SIGINT)
        assert run.wait(timeout=120) != 0
    finally:
        if run.poll() is None:
            run.terminate()  # the launcher ends its processes, which are in sessions of their own
            run.wait(timeout=180)
    saved = last_checkpoint(tmp_path / "checkpoints")
    assert saved is not None and saved.name != "checkpoint-50", "saved between two due checkpoints"
    before = updates(tmp_path)
    assert saved.name == f"checkpoint-{len(before)}" and not (tmp_path / "model").exists()
    few = [word if word != "60" else str(len(before) + 2) for word in command]
    subprocess.run([*few, "--resume"], env=ENVIRONMENT, check=True, capture_output=True)
    after = updates(tmp_path)
    assert after[: len(before)] == before and [row["step"] for row in after] == list(range(1, len(before) + 3))
    assert (tmp_path / "model" / "model.safetensors").is_file()
