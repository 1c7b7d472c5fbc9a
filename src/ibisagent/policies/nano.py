"""The embedded default policy: NanoVLM, loaded and run by the same code as any other local model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ibisagent.errors import InputError
from ibisagent.policies.vlm import VlmPolicy, with_what_is_told
from ibisagent.policies.vlm import windows as windows_of_folder

__all__ = ["WEIGHTS_DIR", "make", "windows"]

WEIGHTS_DIR = Path(__file__).parents[1] / "weights" / "nano"
"""Folder of the embedded weights, their processor, system prompt and model card."""

_MAX_NEW_TOKENS = 96


def windows(arg: str | None = None) -> str | None:
    """As :func:`ibisagent.policies.vlm.windows`, of the embedded weights if no folder is named."""
    return windows_of_folder(arg or str(WEIGHTS_DIR))


def make(arg: str | None = None, **options: Any) -> VlmPolicy:
    """The policy ``nano``; ``arg`` may name another folder that ``ibisagent train nano`` wrote.

    Options are those of :class:`~ibisagent.policies.vlm.VlmPolicy`; what the weights were trained with comes from the
    folder's files unless it is given (:func:`~ibisagent.policies.vlm.make`).

    Raises
    ------
    InputError
        If the folder holds no such model.
    """
    folder = Path(arg) if arg else WEIGHTS_DIR
    options = with_what_is_told(options, folder)
    if options["system_prompt"] is None:
        raise InputError(f"{folder} holds no nano model: system_prompt.txt is missing")
    options = {k: v for k, v in options.items() if v is not None}
    options.setdefault("max_new_tokens", _MAX_NEW_TOKENS)
    options.setdefault("name", f"nano:{arg}" if arg else "nano")
    options.setdefault("local_files_only", True)
    return VlmPolicy(folder, **options)
