"""Where trl's ``GRPOTrainer`` asks a function of its module, and ours answers for as long as a block lasts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["in_order", "reference_like"]


@contextmanager
def reference_like(model: Any) -> Iterator[None]:
    """Where the KL term needs a reference, it is a copy of the start.

    trl loads it again by the name in the model's configuration. That is the base where an adapter was merged, the
    published weights where the start is random, and nothing that it could load for NanoVLM.
    """
    import copy

    from trl.trainer import grpo_trainer

    def copied(*_: Any, **__: Any) -> Any:
        """What trl would load from its name: a frozen copy of the model that is trained."""
        return copy.deepcopy(model).requires_grad_(False).eval()

    before = grpo_trainer.create_model_from_path
    grpo_trainer.create_model_from_path = copied
    try:
        yield
    finally:
        grpo_trainer.create_model_from_path = before


@contextmanager
def in_order(wanted: bool) -> Iterator[None]:
    """trl leaves the rows of a batch in the order in which it got them, where that is wanted."""
    from trl.trainer import grpo_trainer

    before = grpo_trainer.shuffle_sequence_dict
    if wanted:
        grpo_trainer.shuffle_sequence_dict = lambda seq_dict: seq_dict
    try:
        yield
    finally:
        grpo_trainer.shuffle_sequence_dict = before
