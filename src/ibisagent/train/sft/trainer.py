"""A thin layer over trl's ``SFTTrainer``: images asserted, own order of rows, NanoVLM's loss, finite losses only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from trl import SFTConfig as TrlConfig
from trl import SFTTrainer

from ibisagent.train.careful import CarefulTrainer
from ibisagent.train.guards import TrainingError, not_finite
from ibisagent.train.models import is_nano
from ibisagent.train.sft.collator import IGNORED, SftCollator
from ibisagent.train.sft.nano_loss import nano_loss
from ibisagent.train.sft.order import SeededOrder

__all__ = ["SftTrainer"]

NANO_KEYS = ("cell_row", "cell_at", "cell_weights", "target_maps", "shown_maps", "target_known", "ones")
"""What :class:`~ibisagent.train.sft.nano_batch.NanoCollator` adds to a batch."""


class SftTrainer(CarefulTrainer, SFTTrainer):
    """Trains on rows that name conversations (``part``, ``row``, ``length``); the collator reads them.

    Parameters
    ----------
    model, args, processing_class, callbacks
        As trl's.
    train_dataset, eval_dataset
        Of the three columns above.
    collator
        Makes batches.
    length_group
        How many rows of like length stand side by side; None where like lengths need not meet.
    still_norms
        Keep the running statistics of batch norms as they are: a batch of conversations of one length says
        something about how they end.
    """

    def __init__(
        self,
        model: Any,
        args: TrlConfig,
        *,
        train_dataset: Any,
        eval_dataset: Any,
        processing_class: Any,
        collator: SftCollator,
        callbacks: list[Any],
        length_group: int | None,
        still_norms: bool,
    ) -> None:
        self._length_group, self._still_norms = length_group, still_norms
        self._image_id, self._end_id = collator.renderer.image_id, collator.renderer.end_id
        super().__init__(
            model=model,
            args=args,
            data_collator=collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            callbacks=callbacks,
        )
        # Qwen's classes say that they know no count of a step's tokens, and losses would be means of means: short
        # conversations would weigh more, and how much would hang on how many go through a device at a time. The loss
        # is computed outside the model, which is asked for log-probabilities alone.
        self.model_accepts_loss_kwargs: bool = True

    def _get_train_sampler(self, train_dataset: Any = None) -> SeededOrder:
        rows = self.train_dataset if train_dataset is None else train_dataset
        group = self._length_group
        return SeededOrder(None if group is None else list(rows["length"]), len(rows), group or 1, self.args.seed)

    def get_train_dataloader(self) -> Any:
        """The batches, which stay in main memory until their turn.

        All batches of a step are drawn before its first pass; on the device, 256 conversations would fill it.
        """
        loader = super().get_train_dataloader()
        if hasattr(loader, "device"):
            loader.device = None
        return loader

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The mean over all learnt tokens of a step (NanoVLM where it learns places: by turn, click and picture of a
        batch); raises TrainingError where images do not reach the model."""
        mode = "train" if self.model.training else "eval"
        self._metrics[mode]["images"].append(float(self._check_images(inputs)))
        self._metrics[mode]["learnt_tokens"].append(float((inputs["labels"] != IGNORED).sum()))
        if self._still_norms:
            for module in model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        if not is_nano(self.model):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss = self._nano_loss(model, inputs, mode, num_items_in_batch)
        return (loss, {}) if return_outputs else loss

    def _nano_loss(self, model: Any, inputs: dict[str, Any], mode: str, num_items_in_batch: Any) -> Tensor:
        """NanoVLM: likelihood of the learnt tokens; with places and maps, what ``ibisagent train nano`` learns from."""
        if "pixel_values" not in inputs:
            raise TrainingError("a batch without images: NanoVLM says nothing before it has seen one")
        if mode == "eval":  # likelihoods compare with those of other models
            inputs = {name: value for name, value in inputs.items() if name not in NANO_KEYS}
        labels = inputs["labels"]
        found = nano_loss(model, inputs)
        count = (labels != IGNORED).sum().clamp_min(1)
        if found.places is None or found.maps is None:
            loss = found.likelihood / count
        else:
            # The sum over a turn, not the mean over tokens: one or two words of a turn decide, the others follow.
            turns = (labels == self._end_id).sum().clamp_min(1)
            clicks = max(1, len(inputs["cell_row"]))
            loss = found.likelihood / turns + found.places / clicks + found.maps
            self._metrics[mode]["words"].append(float(found.likelihood.detach() / turns))
            self._metrics[mode]["places"].append(float(found.places.detach() / clicks))
            self._metrics[mode]["maps"].append(float(found.maps.detach()))
        if num_items_in_batch is not None:
            loss = loss * count / num_items_in_batch
            if self.args.average_tokens_across_devices:
                loss = loss * self.accelerator.num_processes
        total, right, entropy = (
            self.accelerator.gather_for_metrics(v.detach()).sum().float() for v in (count, found.right, found.entropy)
        )
        self._metrics[mode]["mean_token_accuracy"].append(float(right / total))
        self._metrics[mode]["entropy"].append(float(entropy / total))
        return loss

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """One pass forward and backward; raises TrainingError if the loss is not finite."""
        loss = super().training_step(*args, **kwargs)
        if not bool(torch.isfinite(loss).all()):
            raise not_finite(self.state.global_step + 1, Path(self.args.output_dir))
        return loss

    def _send_telemetry(self) -> None:
        """Nothing: what is trained here is nobody else's business."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None: our own stands beside the exported model."""

    def _check_images(self, inputs: dict[str, Any]) -> int:
        """Images of a batch.

        Raises
        ------
        TrainingError
            If the batch has image places and no pixels: it would be learnt blindly.
        """
        places = int((inputs["input_ids"] == self._image_id).sum())
        pixels = inputs.get("pixel_values")
        if (places > 0) != (pixels is not None and len(pixels) > 0):
            raise TrainingError(f"a batch with {places} image places has no pixel values: images were lost on the way")
        if pixels is None:
            return 0
        return len(inputs["image_grid_thw"]) if "image_grid_thw" in inputs else len(pixels)
