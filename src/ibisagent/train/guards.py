"""How a training ends before its time: Ctrl-C, losses that are no numbers, memory that does not suffice."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback

from ibisagent.errors import IbisError

__all__ = [
    "FailureWatch",
    "StopOnSignal",
    "TrainingError",
    "last_checkpoint",
    "not_finite",
    "one_line_errors",
    "step_of",
]


class TrainingError(IbisError):
    """A training cannot go on; the message says why and what to do."""


class StopOnSignal(TrainerCallback):
    """At Ctrl-C or SIGTERM, the step in work is finished, a checkpoint is saved, and training stops.

    A second Ctrl-C stops at once. With several processes, they agree on the step.

    Parameters
    ----------
    every
        Stop after a multiple of so many steps only: within a batch that several steps share, a checkpoint could not
        be resumed exactly.

    Attributes
    ----------
    stopped
        Whether training was stopped.
    """

    def __init__(self, every: int = 1) -> None:
        self.every = every
        self.stopped = False
        self._asked = False
        self._before: dict[signal.Signals, Any] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Listen."""
        try:
            self._before = {s: signal.signal(s, self._hear) for s in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not the main thread: whoever runs us there listens himself
            self._before = {}

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Listen no more."""
        self.close()

    def close(self) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Save and stop, if asked to."""
        if state.global_step % self.every == 0 and self._agreed():
            self.stopped = True
            control.should_save = control.should_training_stop = True

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        print("ibisagent: stopping after this step (once more: at once)", file=sys.stderr, flush=True)

    def _agreed(self) -> bool:
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return self._asked
        device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
        flag = torch.tensor(int(self._asked), device=device)
        torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
        return bool(flag)


class FailureWatch:
    """Ends a training whose tool is broken for good: batches without a single whole run teach nothing.

    Parameters
    ----------
    checkpoints
        Folder of the run's checkpoints, for the message.
    most
        So many such batches in a row are one too many.
    """

    def __init__(self, checkpoints: Path, most: int = 3) -> None:
        self.checkpoints, self.most = checkpoints, most
        self._row = 0

    def note(self, share_failed: float, reasons: Iterable[str | None]) -> None:
        """Count a batch.

        Parameters
        ----------
        share_failed
            Of its runs, over all processes; NaN where nothing was acted on.
        reasons
            Errors of this process's runs.

        Raises
        ------
        TrainingError
            If it was the last that is allowed.
        """
        self._row = self._row + 1 if share_failed == 1.0 else 0
        if self._row >= self.most:
            told = next((f" ({' '.join(reason.split())})" for reason in reasons if reason), "")
            raise TrainingError(
                f"in {self._row} batches in a row every run failed{told}; mend that first{_where(self.checkpoints)}"
            )


@contextmanager
def one_line_errors(checkpoints: Path, smaller: str, checkpointing: bool = False) -> Iterator[None]:
    """Turn "out of memory" into a :class:`TrainingError` that says what helps and where to go on.

    Parameters
    ----------
    checkpoints
        Folder of the run's checkpoints.
    smaller
        Settings that save memory when they are smaller, for the message.
    checkpointing
        Whether gradient checkpointing is on already.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _no_memory(error):
            raise
        device = "the GPU" if "cuda" in str(error).lower() else "this machine"
        other = "" if checkpointing else "--gradient-checkpointing (NanoVLM has none) or "
        raise TrainingError(
            f"out of memory on {device}; try {other}a smaller {smaller}{_where(checkpoints)}"
        ) from error


def not_finite(step: int, checkpoints: Path, what: str = "loss") -> TrainingError:
    """The error of a loss or a gradient that is NaN or infinite."""
    lower = "try a lower --learning-rate in another --out"
    return TrainingError(f"the {what} of step {step} is not finite; {lower}{_where(checkpoints)}")


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint; one that a killed run left half written is passed over."""
    for path in sorted(folder.glob("checkpoint-*"), key=step_of, reverse=True):
        # The trainer writes this file last.
        try:
            state = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if state.get("global_step") == step_of(path):
            return path
    return None


def step_of(checkpoint: Path) -> int:
    """Step of a checkpoint, -1 if its name has none."""
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def _where(checkpoints: Path) -> str:
    last = last_checkpoint(checkpoints)
    return f"; {last} is whole, --resume goes on from it" if last else "; there is no checkpoint yet"


def _no_memory(error: BaseException) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return "out of memory" in text or "can't allocate memory" in text or "cannot allocate memory" in text
