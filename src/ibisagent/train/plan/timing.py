"""Time of an update: training by operations, reading prompts by operations, writing by memory bandwidth.

- Training: ``operations / (GPUs x peak x utilisation)``, or the time that sharded weights need to travel if longer.
  Per micro step FSDP's ring carries ``(N - 1) / N`` of all weights twice (forward and backward) and of all gradients
  once into every GPU; DDP's all-reduce carries the gradients twice, once an update. A ring over several nodes is as
  fast as the slower of a GPU's links and its node's network cards together.
- Reading (prefill): ``operations / (peak x utilisation)`` on every GPU for itself.
- Writing (decode): each step of a batch reads the language model's weights once and each live episode's keys and
  values: ``bytes / (bandwidth x utilisation)``, or its operations if those take longer (Pope et al. 2022, arXiv
  2211.05102). The steps of an episode follow one another; live episodes share each step. What does not fit waits for
  the next wave.
- An update of RL: rollouts, segmenter, old and reference log-probabilities (forward passes), training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ibisagent.train.plan.config import Method, PlanConfig
from ibisagent.train.plan.episode import EpisodeTokens
from ibisagent.train.plan.flops import (
    Passes,
    attention_flops,
    decode_flops,
    head_flops,
    linear_flops,
    train_flops,
    vision_flops,
)
from ibisagent.train.plan.images import ImageSize
from ibisagent.train.plan.memory import kv_bytes
from ibisagent.train.plan.models import ModelSizes

__all__ = ["Rollout", "Step", "episode_passes", "read_flops", "rollout_time", "score_seconds", "train_step"]


@dataclass(frozen=True)
class Step:
    """One optimizer step over a batch."""

    flops: float
    """Operations carried out, all GPUs."""
    compute_seconds: float
    travel_seconds: float
    """Weights and gradients between GPUs."""
    seconds: float
    mfu: float
    """Operations that the mathematics needs, over what the GPUs could do in `seconds`."""
    micro_steps: int
    """Forward and backward passes of each GPU."""


@dataclass(frozen=True)
class Rollout:
    """The rollouts of one update, seconds of the GPU that they take."""

    read_seconds: float
    """Prompts and observations."""
    see_seconds: float
    """Images through the vision tower."""
    write_seconds: float
    segment_seconds: float
    live: int
    """Episodes at once on a GPU."""
    waves: int
    flops: float
    """Operations of reading and seeing, all GPUs."""

    @property
    def seconds(self) -> float:
        return self.read_seconds + self.see_seconds + self.write_seconds + self.segment_seconds


def episode_passes(
    sizes: ModelSizes, config: PlanConfig, method: Method, image: ImageSize, episode: EpisodeTokens
) -> Passes:
    """Operations of training on one episode."""
    training = config.training
    return train_flops(
        sizes,
        tokens=episode.context,
        scored=episode.own if training.scored == "own" else episode.context,
        images=episode.images,
        image=image,
        weights=method == "full",
        vision=method == "full" and not training.freeze_vision,
        checkpointing=training.gradient_checkpointing,
        tower_graph=training.tower_graph and sizes.vision_hooked,
        num_adapter=sizes.num_lora(training.lora_rank) if method == "lora" else 0,
        skips=training.causal_attention_skips,
    )


def train_step(
    sizes: ModelSizes,
    config: PlanConfig,
    method: Method,
    gpus: int,
    image: ImageSize,
    episode: EpisodeTokens,
    batch: float,
    micro_batch: int,
) -> Step:
    """One optimizer step on `batch` episodes, `micro_batch` at once on each GPU."""
    machine, speeds, training = config.machine, config.speeds, config.training
    passes = episode_passes(sizes, config, method, image, episode)
    peak = gpus * machine.peak_tflops * 1e12
    compute = batch * passes.total / (peak * speeds.train_utilisation)
    micro_steps = max(1, math.ceil(batch / (gpus * max(1, micro_batch))))
    ring = machine.link_gbytes
    if gpus > machine.gpus_per_node:
        ring = min(ring, machine.gpus_per_node * machine.network_gbytes)
    share = (gpus - 1) / gpus
    frozen = sizes.num_vision if training.freeze_vision else 0
    trained = sizes.num_parameters - frozen if method == "full" else sizes.num_lora(training.lora_rank)
    gradients = trained * (training.compute_bytes if method == "full" else 4)
    sharding = training.sharding[method]
    if sharding == "zero3":
        carried = micro_steps * (2.0 * sizes.num_parameters * training.compute_bytes + gradients) * share
    elif sharding == "zero2":
        carried = (micro_steps * gradients + trained * training.compute_bytes) * share
    else:
        carried = 2.0 * gradients * share
    travel = carried / (ring * 1e9 * speeds.link_utilisation)
    seconds = max(compute, travel) if speeds.overlap else compute + travel
    return Step(batch * passes.total, compute, travel, seconds, batch * passes.model / (peak * seconds), micro_steps)


def read_flops(sizes: ModelSizes, config: PlanConfig, episode: EpisodeTokens) -> tuple[float, float]:
    """Operations of reading an episode's prompts and of seeing its images during rollouts, per episode."""
    rl, skips = config.rl, config.training.causal_attention_skips
    image_count = episode.images if rl.reuse else episode.images_again
    replies = episode.actions + 1
    if rl.reuse:
        tokens = episode.read
        # Every token, read or written, attends to all before it; what writing costs is counted there.
        attention = attention_flops(sizes, episode.context, skips=skips) * episode.read / episode.context
        if rl.share_prompt:
            saved = (rl.group - 1) / rl.group
            tokens -= episode.prompt * saved
            image_count -= saved
            attention -= attention_flops(sizes, episode.prompt, skips=skips) * saved
    else:
        tokens = episode.read_again
        # Sum of squares over the turns' contexts, from the prompt to the last: the mean of s^2 on a straight line.
        first, last = episode.prompt, episode.context - episode.own / replies
        attention = replies * attention_flops(sizes, 1, skips=skips) * (first**2 + first * last + last**2) / 3
    read = tokens * linear_flops(sizes) + attention + replies * head_flops(sizes)
    return read, image_count


def rollout_time(
    sizes: ModelSizes,
    config: PlanConfig,
    gpus: int,
    image: ImageSize,
    episode: EpisodeTokens,
    episodes: float,
    room: int,
) -> Rollout:
    """Time of `episodes` episodes on `gpus` GPUs, of which `room` fit on one at a time."""
    machine, speeds, c = config.machine, config.speeds, config.training.compute_bytes
    per_gpu = math.ceil(episodes / gpus)
    live = max(1, min(room, per_gpu))
    waves = math.ceil(per_gpu / live)
    live = math.ceil(per_gpu / waves)  # even waves
    read, images = read_flops(sizes, config, episode)
    see = images * vision_flops(sizes, image)
    rate = machine.peak_tflops * 1e12 * speeds.prefill_utilisation
    # A step reads every weight of the language model but the embedding table (unless that is the head as well).
    weights = c * (sizes.num_text - (sizes.num_embedding if sizes.num_head else 0))
    moved = weights + live * kv_bytes(sizes, c) * episode.decode_context
    by_bytes = moved / (machine.bandwidth_tbytes * 1e12 * speeds.bandwidth_utilisation)
    by_flops = live * decode_flops(sizes, episode.decode_context) / rate
    write = waves * episode.own * max(by_bytes, by_flops) * speeds.straggler
    return Rollout(
        read_seconds=per_gpu * read / rate,
        see_seconds=per_gpu * see / rate,
        write_seconds=write,
        segment_seconds=per_gpu * episode.actions * speeds.segmenter_seconds,
        live=live,
        waves=waves,
        flops=episodes * (read + see),
    )


def score_seconds(
    sizes: ModelSizes, config: PlanConfig, gpus: int, image: ImageSize, episode: EpisodeTokens, episodes: float
) -> float:
    """Time of one forward pass over all episodes that gives log-probabilities."""
    scored = episode.own if config.training.scored == "own" else episode.context
    one = (
        linear_flops(sizes) * episode.context
        + attention_flops(sizes, episode.context, skips=config.training.causal_attention_skips)
        + head_flops(sizes) * scored
        + vision_flops(sizes, image) * episode.images
    )
    return episodes * one / (gpus * config.machine.peak_tflops * 1e12 * config.speeds.prefill_utilisation)
