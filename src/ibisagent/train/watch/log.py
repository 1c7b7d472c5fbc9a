"""The run's figures as lines: on standard error for people, in ``log.jsonl`` for programs."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, ProgressCallback, TrainerCallback
from transformers.utils.logging import disable_progress_bar

from ibisagent.rendering.png import write_atomic

__all__ = ["RL_NAMES", "SFT_NAMES", "LogFile", "own_lines_only"]

SFT_NAMES = {
    "loss": "loss",
    "eval_loss": "eval loss",
    "mean_token_accuracy": "token accuracy",
    "images": "images a batch",
    "learning_rate": "learning rate",
    "seconds_per_step": "s a step",
    "train_runtime": "seconds in all",
}
"""Metric -> what people read, in the order of a line."""

RL_NAMES = {
    "reward": "reward",
    "reward/vqa": "right answers",
    "iou": "IoU",
    "steps": "steps",
    "validity": "valid",
    "refusal/right": "right refusals",
    "refusal/false": "false refusals",
    "failed": "tool failed",
    "entropy": "entropy",
    "seconds_per_step": "s an update",
    "train_runtime": "seconds in all",
}

_IF_NOT_NIL = ("failed",)
"""Worth a word only where it happens."""


class LogFile(TrainerCallback):
    """Appends every set of figures to a file; after a resume, lines of steps that are done again are dropped.

    Parameters
    ----------
    path
        Of the file.
    names
        What a line on standard error says; there is one where the progress bar is off.
    unit
        What the steps of this job are called.
    """

    def __init__(self, path: Path, names: Mapping[str, str] = SFT_NAMES, unit: str = "step") -> None:
        self.path, self.names, self.unit = path, names, unit
        self._clock = time.perf_counter()
        self._step = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep the lines up to the step that the run begins at."""
        self._clock, self._step = time.perf_counter(), state.global_step
        if not state.is_world_process_zero:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = []
        if state.global_step and self.path.is_file():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    if json.loads(line)["step"] <= state.global_step:
                        kept.append(line)
                except (ValueError, KeyError):
                    continue  # the last line of a killed run
        write_atomic("".join(line + "\n" for line in kept).encode(), self.path)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Write a line."""
        if not state.is_world_process_zero or not logs:
            return
        now, steps = time.perf_counter(), state.global_step - self._step
        if not state.global_step:  # what was measured before the first step is no part of it
            self._clock = now
        record: dict[str, Any] = {"step": state.global_step, **logs}
        if "loss" in logs and steps > 0:
            record["seconds_per_step"] = round((now - self._clock) / steps, 4)
            self._clock, self._step = now, state.global_step
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if args.disable_tqdm and any(name in record for name in self.names):
            print(self.line(record, state.max_steps), file=sys.stderr, flush=True)

    def line(self, record: Mapping[str, Any], max_steps: int) -> str:
        """What people read of a set of figures; what was not measured is left out."""
        shown = []
        for name, text in self.names.items():
            value = record.get(name)
            if not isinstance(value, (int, float)) or not math.isfinite(value) or (name in _IF_NOT_NIL and not value):
                continue
            shown.append(f"{text} {float(value):.{3 if name.startswith('seconds') else 4}g}")
        return f"{self.unit} {record['step']}/{max_steps}: " + ", ".join(shown)


def own_lines_only(trainer: Any) -> None:
    """Where no progress bar is wanted, take transformers' off, and its printing of whole dictionaries."""
    if trainer.args.disable_tqdm:
        disable_progress_bar()  # of writing checkpoints
        for printer in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(printer)
