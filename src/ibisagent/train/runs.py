"""What every kind of training does with its folder, its prompt and its model."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibisagent.errors import InputError
from ibisagent.train.config import read_yaml

if TYPE_CHECKING:
    from ibisagent.train.models import Start
    from ibisagent.train.rl.config import RlConfig
    from ibisagent.train.sft.config import SftConfig

__all__ = ["CONFIG", "check_out", "disband", "read_prompt", "restore_on_numbered_cpus", "say", "write_model"]

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


def write_model(trainer: Any, start: Start, folder: Path, system_prompt: str, dialect: str) -> None:
    """Write what was trained as :func:`~ibisagent.train.models.export_model` does. All processes call this.

    Parameters
    ----------
    trainer
        Of transformers, after its training.
    start
        What the training began with.
    folder
        Made if need be.
    system_prompt, dialect
        The prompt that was trained with, and the name of the grammar that was learnt.
    """
    from ibisagent.train.models import export_model, write_told

    model = trainer.accelerator.unwrap_model(trainer.model)
    if trainer.is_fsdp_enabled:
        if hasattr(model, "peft_config"):
            model.peft_config["default"].base_model_name_or_path = start.base
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
        trainer.save_model(str(folder))  # gathers the shards, for which every process is needed
        if trainer.accelerator.is_main_process:
            shutil.rmtree(folder / "ref", ignore_errors=True)  # the frozen copy that a KL term is held to
            start.processor.save_pretrained(folder)
            write_told(folder, system_prompt, dialect)
    elif trainer.accelerator.is_main_process:
        # trl's way of computing the loss comes off the model again.
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        base.__dict__.pop("forward", None)
        export_model(start, model, folder, system_prompt, dialect)


def disband() -> None:
    """End what joins this process to others, once a run is over; nothing where there are no others.

    A process that ends while it is still joined may be aborted by torch's threads (SIGABRT), after all its work.
    """
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def restore_on_numbered_cpus() -> None:
    """Let ``torch.load`` put tensors on ``cpu:0``, ``cpu:1`` …; safe to call twice.

    So accelerate calls the CPU of each of several processes, and transformers asks for it when a run is resumed.
    """
    import torch

    def to_numbered_cpu(storage: Any, location: str) -> Any:
        """The storage itself for ``cpu:0``, ``cpu:1`` …; None leaves other locations to other restorers."""
        return storage if location.startswith("cpu:") else None

    registry = torch.serialization._package_registry
    if not any(getattr(restorer, "__name__", "") == "to_numbered_cpu" for *_, restorer in registry):
        torch.serialization.register_package(5, lambda storage: None, to_numbered_cpu)
