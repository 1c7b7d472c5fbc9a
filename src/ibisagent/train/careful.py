"""Where transformers' ``Trainer`` would go wrong without a word; for our trainers of both stages."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ibisagent.train.guards import not_finite
from ibisagent.train.models import same_parameters_learn, without_input_gradients

__all__ = ["CarefulTrainer"]


class CarefulTrainer:
    """To stand before a class of transformers or trl among the bases of a trainer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        trainer: Any = self
        without_input_gradients(trainer.model, trainer.args)  # trl's hooks: later ones replace, not remove them

    def _wrap_model(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        trainer: Any = self
        without_input_gradients(model, trainer.args)
        return super()._wrap_model(model, *args, **kwargs)  # type: ignore[misc]

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load all adapters of a checkpoint.

        Beside an adapter that is trained there may be a frozen copy, which trl holds it to (the KL term). It is saved
        in a folder of its own, and where there are such folders transformers loads these alone: the trained one would
        stay as it was at the start.
        """
        trainer: Any = self
        target = trainer.model if model is None else model
        with same_parameters_learn(target):
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]
            # FSDP has checkpoints of its own kind, and loads the trained adapter out of them.
            if not trainer.is_fsdp_enabled and len(getattr(target, "peft_config", {})) > 1:
                active = target.active_adapters[0]
                target.load_adapter(resume_from_checkpoint, active, is_trainable=True)
                target.set_adapter(active)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """The norm before a step; raises TrainingError if it is not finite.

        A loss may be finite and its gradients not. Clipping would make all of them NaN, and a checkpoint of that very
        step would look whole.
        """
        found = super()._get_grad_norm(model, grad_norm=grad_norm)  # type: ignore[misc]
        if found is not None and not math.isfinite(float(found)):
            trainer: Any = self
            raise not_finite(trainer.state.global_step + 1, Path(trainer.args.output_dir), "gradient")
        return found
