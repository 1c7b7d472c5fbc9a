"""What every kind of training does with its folder, its prompt and its model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibisagent.errors import InputError
from ibisagent.train.config import read_yaml

if TYPE_CHECKING:
    from ibisagent.train.rl.config import RlConfig
    from ibisagent.train.sft.config import SftConfig

__all__ = ["CONFIG", "check_out", "read_prompt", "say", "without_patches"]

CONFIG = "config.yaml"
"""Name of the settings in a run's folder."""


def check_out(config: SftConfig | RlConfig, newest: Path | None) -> None:
    """Refuse to mix two runs in a folder.

    Parameters
    ----------
    config
        Settings of the run that is to begin or to go on.
    newest
        The folder's newest checkpoint.

    Raises
    ------
    InputError
        If the folder holds a run and this one does not go on with it, or goes on with other settings.
    """
    known = config.out / CONFIG
    if not config.resume:
        if newest is not None:
            raise InputError(f"{config.out} holds a run already; --resume goes on with it, or choose another --out")
        return
    if newest is None:
        return
    if not known.is_file():
        raise InputError(f"{known} is missing, so that nobody knows what {newest} was trained with")
    now, before = config.what_is_learnt, read_yaml(known)
    for name, value in now.items():
        if name in before and before[name] != value:
            raise InputError(f"{config.out} was begun with {name} {before[name]}, not {value}; choose another --out")


def read_prompt(path: Path) -> str:
    """A file with a system prompt.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the system prompt {path}: {error}") from None


def say(text: str) -> None:
    """A line for people, on standard error."""
    print(text, file=sys.stderr, flush=True)


def without_patches(model: Any) -> None:
    """Take trl's way of computing the loss off the model again."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    base.__dict__.pop("forward", None)
