"""Settings of supervised fine-tuning, and its presets."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from ibisagent.engine.scenarios import Scenario
from ibisagent.errors import InputError
from ibisagent.train.config import Settings

__all__ = ["REFLECTION", "SftConfig"]

REFLECTION: tuple[Scenario, ...] = ("self_correction", "mismatched_mask", "corrupted_mask")
"""Scenarios that show a mistake or a wrong mask and its repair."""


class SftConfig(Settings):
    """Everything that decides what a run does."""

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        # arXiv 2601.03054 and its public code: LoRA on all linear layers, the vision tower frozen.
        "paper": {
            "learning_rate": 1e-5,
            "global_batch": 256,
            "epochs": 10.0,
            "lora_rank": 8,
            "lora_alpha": 16,
            "freeze_vision": True,
            "max_pixels": 512 * 512,
            "max_length": 32768,
            "schedule": "cosine",
            "warmup": 0.1,
            "bf16": True,
            "gradient_checkpointing": True,
        },
        "nano": {
            "model": "nano",
            "learning_rate": 3e-4,
            "global_batch": 16,
            "per_device_batch": 16,
            "epochs": 1.0,
            "lora_rank": 0,
            "freeze_vision": False,
            "max_length": 2048,
            "schedule": "cosine",
            "warmup": 0.05,
            "bf16": True,
            "gradient_checkpointing": False,
            "workers": 1,
        },
        "tiny": {
            "learning_rate": 1e-3,
            "global_batch": 2,
            "per_device_batch": 2,
            "max_steps": 4,
            "max_length": 8192,
            "bf16": False,
            "gradient_checkpointing": False,
            "report_to": (),
            "save_steps": 2,
            "log_steps": 1,
        },
    }

    model: str
    """Where to start: folder, hub id or LoRA adapter of a chat model with images, or ``nano`` for the embedded one."""
    corpus: tuple[str, ...] = Field(min_length=1)
    """Folders that ``ibisagent synthesize`` wrote."""
    out: Path
    """Folder of the run: ``model`` is the result, ``checkpoints`` serves ``--resume``."""
    resume: bool = False
    """Go on from the newest whole checkpoint in ``out``."""

    splits: tuple[str, ...] = ("train",)
    """Splits of the corpus to learn."""
    eval_splits: tuple[str, ...] = ()
    """Splits of the corpus that the loss is measured on."""
    eval_share: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the patients that are kept out and that the loss is measured on instead."""
    reflection: bool = True
    """Learn from self_correction, mismatched_mask and corrupted_mask, too."""
    scenarios: tuple[Scenario, ...] | None = None
    """Learn from these scenarios only."""
    learn_wrong: bool = False
    """Put a loss on wrong actions, too (to see what the mask is worth; never otherwise)."""
    vqa_share: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of visual questions (tables vqa of the corpora) among the rows of an epoch."""
    vqa_probe: str | None = None
    """Visual questions that are answered before the first and after the last step, to see what is forgotten:
    corpus:FOLDER, vqa-rad:DIR, slake:DIR, pathvqa:DIR, with ?split=test&number=500."""
    max_rows: int | None = Field(default=None, ge=1)
    """Most trajectories, drawn by seed."""
    system_prompt: Path | None = None
    """File with the system prompt to learn; none: the one of the model to start from, else the corpus's own."""

    random_weights: bool = False
    """Start from random weights in the model's shape: for plans and tests."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the weights; auto: bfloat16 for the frozen ones under LoRA with bf16, else float32."""
    lora_rank: int = Field(default=0, ge=0)
    """Rank of a LoRA adapter; 0 tunes all weights."""
    lora_alpha: int = Field(default=16, ge=1)
    """LoRA's scale times its rank."""
    lora_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Dropout in front of the adapter."""
    lora_targets: tuple[str, ...] = ("all-linear",)
    """Names of the layers with an adapter; all-linear are all but the output layer."""
    freeze_vision: bool = True
    """Leave the vision tower and its projector as they are, without adapters."""
    max_pixels: int | None = Field(default=512 * 512, ge=28 * 28)
    """Larger images are shown smaller; the saved processor does the same."""
    max_length: int = Field(default=8192, ge=64)
    """Most tokens of a conversation; a longer one loses whole turns at its end."""
    nano_places: bool = True
    """NanoVLM alone: learn all places where a click would have been right, and maps of target and mask, too."""

    learning_rate: float = Field(default=1e-5, gt=0.0)
    """Highest learning rate."""
    schedule: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    """How it falls."""
    warmup: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Share of the steps in which it rises."""
    weight_decay: float = Field(default=0.0, ge=0.0)
    """Weight decay of AdamW."""
    max_grad_norm: float = Field(default=1.0, ge=0.0)
    """Gradients are clipped to this norm; 0: never."""
    epochs: float = Field(default=1.0, gt=0.0)
    """Passes over the corpus."""
    max_steps: int | None = Field(default=None, ge=1)
    """Steps in all, in place of epochs."""
    per_device_batch: int = Field(default=1, ge=1)
    """Conversations at a time on a device."""
    global_batch: int = Field(default=16, ge=1)
    """Conversations of a step; gradients are accumulated to it."""
    group_by_length: bool = True
    """Batches of conversations of like length, so that little of them is padding."""
    length_group: int | None = Field(default=None, ge=1)
    """How many of them stand side by side; none: as many as go through all devices at a time. A run that goes on, on
    fewer devices or with less at a time, keeps what it began with: the order of the rows hangs on it."""
    bf16: bool | None = None
    """Compute in bfloat16; none: where a GPU can."""
    gradient_checkpointing: bool = False
    """Compute activations twice to save memory."""
    workers: int = Field(default=0, ge=0)
    """Processes that draw and tokenise ahead."""
    seed: int = Field(default=0, ge=0)
    """Seed of order, adapters and dropout."""
    device: Literal["auto", "cpu"] = "auto"
    """auto takes GPUs where there are some."""

    report_to: tuple[str, ...] = ("tensorboard",)
    """Where figures go: tensorboard, wandb, trackio."""
    log_steps: int = Field(default=10, ge=1)
    """Steps between figures."""
    save_steps: int = Field(default=200, ge=1)
    """Steps between checkpoints."""
    eval_steps: int | None = Field(default=None, ge=1)
    """Steps between evaluations; none: as often as checkpoints."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Checkpoints that are kept."""

    @field_validator("report_to")
    @classmethod
    def _report(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return () if value == ("none",) else value

    @model_validator(mode="after")
    def _fits(self) -> SftConfig:
        if self.global_batch % self.per_device_batch:
            raise ValueError(
                f"global_batch {self.global_batch} is no multiple of per_device_batch {self.per_device_batch}"
            )
        if self.eval_share and self.eval_splits:
            raise ValueError("give eval_share or eval_splits, not both")
        if set(self.eval_splits) & set(self.splits):
            raise ValueError("a split cannot be both learnt and measured on")
        return self

    def accumulation(self, num_processes: int) -> int:
        """Batches of one device that make a step.

        Raises
        ------
        InputError
            If `global_batch` cannot be shared out.
        """
        at_once = self.per_device_batch * num_processes
        if self.global_batch % at_once:
            raise InputError(
                f"global_batch {self.global_batch} is no multiple of {num_processes} devices x {self.per_device_batch}"
            )
        return self.global_batch // at_once

    @property
    def what_is_learnt(self) -> dict[str, Any]:
        """The settings that a resumed run must share with its beginning."""
        free = {
            "out", "resume", "workers", "report_to", "log_steps", "save_steps", "eval_steps", "keep_checkpoints",
            "device", "per_device_batch", "gradient_checkpointing", "vqa_probe",
        }  # fmt: skip
        return {k: v for k, v in self.model_dump(mode="json").items() if k not in free}
