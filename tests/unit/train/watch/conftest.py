"""Logs of runs that were never trained, and runs played by nobody."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Write = Callable[..., Path]


@pytest.fixture
def rl_run(tmp_path: Path) -> Write:
    """``rl_run(name, updates, …)`` writes a folder with the log of reinforcement learning."""

    def write(name: str = "run", updates: int = 60, shift: float = 0.0) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        lines = []
        for step in range(1, updates + 1):
            wave = math.sin(step) * 0.1
            record: dict[str, Any] = {
                "step": step, "loss": wave, "grad_norm": 0.1, "learning_rate": 3e-5, "entropy": 0.2, "kl": 0.0,
                "reward": 0.3 + shift + wave, "reward_std": 0.2, "reward/gain": 0.4, "reward/step_cost": -4.0,
                "iou": 0.5 + wave, "steps": 4.0, "validity": 0.99, "refusal/false": 0.0, "images_per_batch": 80.0,
                "seconds/policy": 5.0, "seconds/segmenter": 2.0, "seconds/optimizer": 9.0, "seconds/update": 17.0,
                "tokens/own": 2000.0, "clip_ratio/region_mean": 0.0,
                "refusal/right": None if step % 3 else 1.0,
            }  # fmt: skip
            lines.append(json.dumps(record))
        (folder / "log.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return folder

    return write


@pytest.fixture
def sft_run(tmp_path: Path) -> Path:
    """A folder with the log of fine-tuning, with a held-out loss now and then."""
    folder = tmp_path / "sft"
    folder.mkdir()
    with (folder / "log.jsonl").open("w", encoding="utf-8") as file:
        for step in range(1, 21):
            record = {
                "step": step,
                "loss": 6.0 / step,
                "mean_token_accuracy": 0.9,
                "images": 8.0,
                "learnt_tokens": 300.0,
            }
            file.write(json.dumps({**record, "seconds_per_step": 1.5, "learning_rate": 1e-3}) + "\n")
            if step % 10 == 0:
                file.write(json.dumps({"step": step, "eval_loss": 5.0 / step}) + "\n")
        file.write(json.dumps({"step": 20, "train_runtime": 30.0}) + "\n")
    return folder
