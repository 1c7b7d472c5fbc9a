"""Where figures go beside ``log.jsonl``: tensorboard, wandb, trackio."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ibisagent.errors import InputError

__all__ = ["TRACKERS", "check_trackers", "tensorboard_callback", "tracker_arguments"]

TRACKERS = ("tensorboard", "wandb", "trackio")


def check_trackers(names: Sequence[str]) -> None:
    """Make sure that the trackers are there, before a model is loaded for them.

    Raises
    ------
    InputError
        If there is no tracker of a name, or its package is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise InputError(f"--report-to {name}: there are {', '.join(TRACKERS)} and none")
        if find_spec(name) is None:
            raise InputError(
                f"--report-to {name} needs the package {name}: pip install {name}; OUT/log.jsonl is written in any case"
            )


def tracker_arguments(names: Sequence[str], out: Path) -> dict[str, Any]:
    """What transformers' arguments have to say of trackers; tensorboard is ours (:func:`tensorboard_callback`).

    Runs are named after their folder, in the project ``ibisagent`` unless ``WANDB_PROJECT`` says another.
    """
    hosted = [name for name in names if name != "tensorboard"]
    if not hosted:
        return {"report_to": "none"}
    os.environ.setdefault("WANDB_PROJECT", "ibisagent")
    return {"report_to": hosted, "run_name": out.resolve().name, "project": os.environ["WANDB_PROJECT"]}


def tensorboard_callback(names: Sequence[str], folder: Path) -> list[Any]:
    """The callback that writes event files to a folder, in a list; none if tensorboard is not asked for."""
    if "tensorboard" not in names:
        return []
    from transformers.integrations import TensorBoardCallback

    class Events(TensorBoardCallback):
        """Writes to the run's own folder; a resumed run takes the place of what was logged after its checkpoint."""

        def __init__(self) -> None:
            super().__init__()
            self.logging_dir = str(folder)  # also of what is measured after the training has ended

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.is_world_process_zero:
                first = state.global_step + 1 if state.global_step else None
                self.tb_writer = self._SummaryWriter(log_dir=str(folder), purge_step=first)
            super().on_train_begin(args, state, control, **kwargs)

    return [Events()]
