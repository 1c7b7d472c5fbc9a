"""Settings of a run of reinforcement learning."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_serializer, field_validator, model_validator

from ibisagent.errors import InputError
from ibisagent.train.config import Settings

__all__ = ["RlConfig"]


class RlConfig(Settings):
    """Everything that decides what a run does. ``paper``: group of 4, batch of 256 runs, learning rate 1e-6, no KL, 20
    actions, 32 K tokens (arXiv 2601.03054, training section)."""

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {
            "reward": "paper",
            "dialect": "ibis-paper",
            "group_size": 4,
            "prompts_per_update": 64,
            "max_steps": 20,
            "max_context": 32_768,
            "max_new_tokens": 512,
            "loss": "grpo",
            "beta": 0.0,
            "learning_rate": 1e-6,
            "bf16": True,
            "gradient_checkpointing": True,
            "micro_batch": 4,
        },
        "ibis": {
            "reward": "ibis",
            "loss": "dapo",
            "epsilon_high": 0.28,
            "group_size": 8,
            "prompts_per_update": 32,
            "max_steps": 12,
            "max_new_tokens": 256,
            "learning_rate": 1e-6,
            "bf16": True,
            "gradient_checkpointing": True,
            "micro_batch": 4,
        },
        "nano": {
            "model": "nano",
            "reward": "ibis:step_cost=0.005,refusal=1",
            "loss": "dapo",
            "epsilon_high": 0.28,
            "group_size": 8,
            "prompts_per_update": 8,
            "max_steps": 6,
            "max_new_tokens": 96,
            "max_context": 2048,
            # Most of what an update does to the weights is chance (docs/course.md): small steps, many of them.
            "learning_rate": 3.5e-5,
            "schedule": "linear",
            # Where all siblings refuse, no advantage keeps them at it; without this term refusals get lost.
            "beta": 0.03,
            # At 1, places are drawn so widely that further clicks do not pay, and it learns to stop too soon.
            "temperature": 0.5,
            "freeze_vision": True,
            "max_pixels": None,
            "micro_batch": 8,
            "num_updates": 90,
            "bf16": None,
        },
        "tiny": {
            "group_size": 2,
            "prompts_per_update": 1,
            "micro_batch": 2,
            "max_steps": 2,
            "max_new_tokens": 24,
            "max_context": 4096,
            "num_updates": 2,
            "save_updates": 1,
            "page_updates": 0,
            "report_to": (),
            "freeze_vision": False,
        },
    }

    model: str = "nano"
    """Start: "nano" (the embedded policy), a folder of a model or of a LoRA adapter, or a hub id."""
    out: Path
    """Folder of the run: ``model`` is the result, ``checkpoints`` serves ``--resume``, ``pages`` show episodes."""
    resume: bool = False
    """Go on from the newest whole checkpoint in ``out``."""
    prompts: tuple[str, ...] = Field(default=("scenes:data/mini/cases.jsonl",), min_length=1)
    """What is asked: corpus:FOLDER[?table=rl&split=train] or scenes:CASES.jsonl[?number=20000&real_share=0.6]; visual
    questions beside them: corpus:FOLDER?table=vqa, vqa-rad:DIR, slake:DIR, pathvqa:DIR."""
    vqa_share: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Share of visual questions among the prompts; none: every prompt once."""
    vqa_probe: str | None = None
    """Visual questions that are answered before the first and after the last update, to see what is forgotten:
    corpus:FOLDER, vqa-rad:DIR …, with ?split=test&number=500."""
    segmenter: str = "litemedsam"
    """The tool that the model steers; the one that the corpus was made with, and that will be evaluated with."""
    segmenter_device: str = "auto"
    """Where it computes: cpu, cuda, cuda:1; auto is the device that the process trains on."""
    reward: str = "ibis"
    """Rubric: ibis, paper, paper:click+progress, ibis:step_cost=0.02 …"""
    dialect: str = "plain"
    """Grammar of the replies: plain, json or ibis-paper; the one that the model was taught."""
    system_prompt: Path | None = None
    """File with the fixed system prompt; none: the model folder's system_prompt.txt, else the dialect's."""

    num_updates: int = Field(default=200, ge=1)
    """Updates of the weights."""
    prompts_per_update: int = Field(default=8, ge=1)
    """Cases that are played for one update, over all processes."""
    group_size: int = Field(default=4, ge=2)
    """Siblings of a case (the paper: 4)."""
    updates_per_batch: int = Field(default=1, ge=1)
    """Updates that one batch of runs is cut into; above 1 the later ones are slightly off-policy, and are clipped."""
    micro_batch: int = Field(default=8, ge=1)
    """Runs in one forward and backward pass of one process."""
    max_steps: int = Field(default=6, ge=1)
    """Most actions of a run (the paper: 20)."""
    max_new_tokens: int = Field(default=96, ge=1)
    """Most tokens of a reply."""
    max_context: int = Field(default=32_768, ge=64)
    """Most tokens of a run, observations included; a run ends there, out of steps (the paper: 32 K)."""
    max_pixels: int | None = Field(default=512 * 512, ge=28 * 28)
    """Images with more pixels are shown smaller; null leaves the size to the model's processor."""
    temperature: float = Field(default=1.0, gt=0)
    """Of sampling, and of the probabilities that the update compares."""
    sampler_batch: int = Field(default=32, ge=1)
    """Most runs in one call of the sampler; of a server, most requests of a process under way."""

    rollouts: Literal["local", "vllm"] = "local"
    """Who writes the replies: the training processes themselves, or a vLLM server that is given their weights."""
    vllm_url: str = "http://127.0.0.1:8000"
    """Its address."""
    vllm_group_port: int = Field(default=51216, ge=1, le=65_535)
    """Port over which trainer and server meet to pass weights on."""
    vllm_wait_s: float = Field(default=600.0, gt=0)
    """Seconds to wait for it at the start."""
    vllm_timeout_s: float = Field(default=600.0, gt=0)
    """Seconds that one reply may take."""
    vllm_retries: int = Field(default=3, ge=0)
    """How often a request is sent again that got no answer."""
    vllm_correction: Literal["none", "token_truncate"] = "token_truncate"
    """Whether each token is weighed by its probability here over that at the server (truncated importance sampling);
    costs a forward pass a batch."""
    vllm_cap: float = Field(default=2.0, ge=1)
    """Most that a token is weighed."""
    parity_runs: int = Field(default=8, ge=1)
    """Runs that are played and compared before anything is learnt from the server's replies."""
    parity_mean: float = Field(default=0.05, gt=0)
    """Limit of the mean difference of log-probabilities: bfloat16 keeps 8 bits of a logit, 0.06 of one between 16 and
    32."""
    parity_max: float = Field(default=3.0, gt=0)
    """Limit of the largest difference; in bfloat16 single unlikely tokens are far off in sound set-ups, too."""
    parity_ratio: float = Field(default=0.05, gt=0)
    """Limit of the mean ratio's distance from 1, which is what it is if both are one distribution."""
    parity_kl: float = Field(default=0.02, gt=0)
    """Limit of the KL divergence; about half the mean square of the differences."""
    parity_weights: bool = True
    """Whether moved weights are sent, to see that they take effect at the server."""

    loss: Literal["grpo", "dapo", "dr_grpo", "bnpo", "cispo", "sapo"] = "dapo"
    """How tokens are averaged: by run and then by batch (grpo), over all tokens (dapo) … as trl names them."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """What advantages are divided by: the group's deviation, the batch's, nothing."""
    credit: Literal["episode", "turn", "return"] = "episode"
    """Whose advantage a reply gets: its run's (episode), that and one of its own by the parts of the reward that name
    it (turn), or what came after it, held against what its state is worth (return)."""
    turn_weight: float = Field(default=0.5, ge=0)
    """With credit "turn": what a reply's own advantage counts beside the run's."""
    return_decay: float = Field(default=0.9, ge=0, le=1)
    """With credit "return": lambda; 1 trusts what happened alone, 0 the fitted values of states."""
    num_places: int = Field(default=0, ge=0)
    """Further places drawn for every click of nano and tried in the same state; a click then learns from how much
    better it does than these, and not from how its run ends (but for absent targets and replies that are no legal
    click)."""
    place_weight: float = Field(default=1.0, ge=0)
    """What that counts beside the rest of the loss."""
    beta: float = Field(default=0.0, ge=0)
    """Weight of the KL term towards the start (the paper: none). Needs a second copy of a model that is not LoRA."""
    epsilon: float = Field(default=0.2, gt=0)
    """Clipping of the probability ratio, below 1."""
    epsilon_high: float | None = Field(default=None, gt=0)
    """Clipping above 1; null is the same as below (DAPO: 0.28)."""
    entropy_coef: float = Field(default=0.0, ge=0)
    """Weight of an entropy bonus."""

    learning_rate: float = Field(default=1e-6, gt=0)
    """Highest learning rate."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How it falls after the warm-up."""
    warmup_updates: int = Field(default=0, ge=0)
    """Updates over which it rises."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Of AdamW."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this norm."""
    lora_rank: int = Field(default=0, ge=0)
    """Rank of a LoRA adapter; 0 tunes all weights."""
    lora_alpha: int = Field(default=16, ge=1)
    """LoRA's scale times its rank."""
    lora_targets: tuple[str, ...] = ("all-linear",)
    """Names of the layers with an adapter; all-linear are all but the output layer."""
    freeze_vision: bool = True
    """Leave the vision tower and its projector as they are; nano's then looks at every picture once."""
    random_weights: bool = False
    """Start from random weights in the model's shape: for plans and tests."""
    bf16: bool | None = False
    """Whether the update computes in bfloat16 where that is safe; None: where this machine does so faster
    (a run that is resumed on another kind of processor goes on in what is faster there)."""
    gradient_checkpointing: bool = False
    """Whether activations are computed twice to save memory."""

    seed: int = Field(default=0, ge=0)
    """Of prompts, order and sampling."""
    device: Literal["auto", "cpu"] = "auto"
    """auto takes GPUs where there are some."""
    save_updates: int = Field(default=25, ge=1)
    """A checkpoint every so many updates."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Checkpoints that stay; older ones are deleted."""
    page_updates: int = Field(default=25, ge=0)
    """Episode pages of some runs every so many updates; 0 writes none."""
    num_pages: int = Field(default=4, ge=1)
    """Runs that get a page then."""
    report_to: tuple[str, ...] = ("tensorboard",)
    """Where figures go beside OUT/log.jsonl: tensorboard, wandb, trackio."""

    @field_validator("report_to")
    @classmethod
    def _report(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return () if value == ("none",) else value

    @field_validator("prompts", mode="before")
    @classmethod
    def _one_prompt(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_serializer("prompts")
    def _said_prompts(self, value: tuple[str, ...]) -> str | list[str]:
        return value[0] if len(value) == 1 else list(value)

    @model_validator(mode="after")
    def _whole(self) -> RlConfig:
        runs = self.prompts_per_update * self.group_size
        if runs % self.micro_batch:
            raise ValueError(
                f"prompts_per_update x group_size = {runs} runs cannot be cut into micro batches of {self.micro_batch}"
            )
        if self.num_places and (self.updates_per_batch > 1 or self.rollouts != "local"):
            raise ValueError("num_places needs updates_per_batch 1 and local rollouts: it knows no ratio to clip")
        if self.num_places and self.loss not in ("dapo", "cispo"):
            raise ValueError(f"num_places needs the loss dapo or cispo, which average over all tokens, not {self.loss}")
        for name in ("num_updates", "save_updates"):
            if getattr(self, name) % self.updates_per_batch:
                raise ValueError(
                    f"{name} ({getattr(self, name)}) must be a multiple of updates_per_batch "
                    f"({self.updates_per_batch}): a checkpoint in the middle of a batch could not be resumed exactly"
                )
        return self

    @property
    def low_precision(self) -> bool:
        """Whether this machine computes in bfloat16."""
        if self.bf16 is not None:
            return self.bf16
        import torch

        from ibisagent.segmenters.precision import fast_dtype

        return fast_dtype("cuda" if self.device == "auto" and torch.cuda.is_available() else "cpu") is torch.bfloat16

    def accumulation(self, num_processes: int) -> int:
        """Micro batches of one process that make an update.

        Raises
        ------
        InputError
            If whole groups cannot be shared out.
        """
        runs = self.prompts_per_update * self.group_size // num_processes
        if self.prompts_per_update % num_processes or runs % self.micro_batch:
            raise InputError(
                f"{self.prompts_per_update} prompts of {self.group_size} runs cannot be shared by {num_processes} "
                f"processes in micro batches of {self.micro_batch}"
            )
        return runs // self.micro_batch

    @property
    def what_is_learnt(self) -> dict[str, Any]:
        """The settings that a resumed run must share with its beginning."""
        free = {
            "out", "resume", "num_updates", "report_to", "save_updates", "keep_checkpoints", "page_updates",
            "num_pages", "device", "segmenter_device", "gradient_checkpointing", "sampler_batch", "vqa_probe",
            "vllm_url", "vllm_group_port", "vllm_wait_s", "vllm_timeout_s", "vllm_retries", "parity_runs",
            "parity_mean", "parity_max", "parity_ratio", "parity_kl", "parity_weights",
        }  # fmt: skip
        if self.schedule != "constant":  # it falls over all updates
            free -= {"num_updates"}
        return {k: v for k, v in self.model_dump(mode="json").items() if k not in free}
