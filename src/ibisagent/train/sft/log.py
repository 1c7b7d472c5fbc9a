"""The run's figures as lines: on standard error for people, in ``log.jsonl`` for programs."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

__all__ = ["LogFile"]


class LogFile(TrainerCallback):
    """Appends every set of figures to a file; after a resume, lines of steps that are done again are dropped.

    Parameters
    ----------
    path
        Of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
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
        self.path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Write a line."""
        if not state.is_world_process_zero or not logs:
            return
        now, steps = time.perf_counter(), state.global_step - self._step
        record: dict[str, Any] = {"step": state.global_step, **logs}
        if "loss" in logs and steps > 0:
            record["seconds_per_step"] = round((now - self._clock) / steps, 4)
            self._clock, self._step = now, state.global_step
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if args.disable_tqdm:
            print(_line(record, state.max_steps), file=sys.stderr, flush=True)


def _line(record: dict[str, Any], max_steps: int) -> str:
    names = {
        "loss": "loss", "eval_loss": "eval loss", "mean_token_accuracy": "token accuracy", "images": "images a batch",
        "learning_rate": "learning rate", "seconds_per_step": "s a step", "train_runtime": "seconds in all",
    }  # fmt: skip
    shown = [f"{text} {float(record[name]):.4g}" for name, text in names.items() if name in record]
    return f"step {record['step']}/{max_steps}: " + ", ".join(shown)
