"""A model that is shared out over processes, whole on every one of them for as long as runs are played."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["whole", "whole_model"]


@contextmanager
def whole(model: Any) -> Iterator[None]:
    """Hold all weights of a model on every process; nothing happens where it is not shared out by FSDP 2.

    A layer that is shared out fetches its weights at every pass, and all processes have to take part. In playing they
    cannot: one's runs take more turns than another's, and both would wait for ever.

    Parameters
    ----------
    model
        On which ``fully_shard`` was called, as accelerate does; afterwards its layers are given up after every
        forward pass again.
    """
    from torch.distributed.fsdp import FSDPModule

    parts = [part for part in model.modules() if isinstance(part, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(True, recurse=False)
            part.reshard()


@contextmanager
def whole_model(trainer: Any) -> Iterator[Any]:
    """A trainer's model without wrappers; where it is shared out (FSDP 2, ZeRO-3), all of it.

    Parameters
    ----------
    trainer
        Of trl, from the beginning of its training on.
    """
    from trl.models.utils import unwrap_model_for_generation

    from ibisagent.train.models import without_input_gradients

    try:
        with (
            unwrap_model_for_generation(
                trainer.model_wrapped,
                trainer.accelerator,
                gather_deepspeed3_params=getattr(trainer.args, "ds3_gather_for_generation", True),
                gradient_checkpointing_kwargs=trainer.args.gradient_checkpointing_kwargs,
            ) as model,
            whole(trainer.model_wrapped),
        ):
            yield model
    finally:
        # Leaving the block has switched gradient checkpointing on again.
        without_input_gradients(trainer.accelerator.unwrap_model(trainer.model_wrapped), trainer.args)
