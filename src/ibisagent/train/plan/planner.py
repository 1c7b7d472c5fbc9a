"""The plan: every part's figure for every number of GPUs, and the hours of the whole recipe."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from ibisagent.train.plan.activations import Activations, logit_bytes
from ibisagent.train.plan.config import Method, PlanConfig
from ibisagent.train.plan.episode import EpisodeTokens, episode_tokens
from ibisagent.train.plan.images import ImageSize, image_size
from ibisagent.train.plan.memory import (
    GIB,
    Room,
    State,
    kv_bytes,
    largest_micro_batch,
    rollout_room,
    step_activations,
    train_state,
    usable_bytes,
)
from ibisagent.train.plan.models import ModelSizes, model_sizes
from ibisagent.train.plan.timing import Rollout, Step, rollout_time, score_seconds, train_step

__all__ = ["Case", "Plan", "budget_episode", "make_plan"]


@dataclass(frozen=True)
class Case:
    """One method on one number of GPUs. Micro batches of 0 do not fit; what then takes no time is None."""

    method: Method
    gpus: int
    state: State
    activations: Activations
    """Of one longest episode."""
    activations_unchecked: Activations
    """The same without gradient checkpointing."""
    short_bytes: float
    """How much memory is missing for one longest episode; 0 if it fits."""
    micro_batch_sft: int
    """Mean episodes of the SFT corpus."""
    micro_batch_longest: int
    """Episodes of the most actions."""
    micro_batch_budget: int
    """Episodes that fill the token budget."""
    sft: Step | None
    sft_updates: int
    sft_hours: float | None
    sft_hours_other: float | None
    """If a sample were the other unit: a single reply without history, or a whole episode."""
    room: Room
    rollout: Rollout | None
    old_seconds: float
    update: Step | None
    rl_seconds: float | None
    rl_updates: int
    rl_hours: float | None
    rl_hours_longest: float | None
    """If every episode took the most actions."""
    rl_hours_no_reuse: float | None
    """If every turn read its whole context again."""
    rl_hours_vqa: float | None
    """The question-answer pairs that the paper mixes in, on top."""
    logits_all: float
    """Bytes of logits and loss if every token of the longest episode were scored."""


@dataclass(frozen=True)
class Plan:
    """A configuration and what follows from it."""

    config: PlanConfig
    sizes: ModelSizes
    image: ImageSize
    mean: EpisodeTokens
    longest: EpisodeTokens
    budget: EpisodeTokens
    kv_per_token: int
    cases: tuple[Case, ...]

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON: bytes, seconds and operations in plain units."""
        cases = []
        for case in self.cases:
            row = asdict(case)
            row["state"]["total"] = case.state.total
            row["activations"]["peak"] = case.activations.peak
            row["activations_unchecked"]["peak"] = case.activations_unchecked.peak
            if case.rollout is not None:
                row["rollout"]["seconds"] = case.rollout.seconds
            cases.append(row)
        return {
            "config": self.config.model_dump(mode="json"),
            "sizes": self.sizes.to_json(),
            "image": asdict(self.image),
            "episodes": {
                "mean": asdict(self.mean),
                "longest": asdict(self.longest),
                "budget": asdict(self.budget),
            },
            "kv_bytes_per_token": self.kv_per_token,
            "usable_bytes": usable_bytes(self.config),
            "cases": cases,
        }


def budget_episode(config: PlanConfig, image: ImageSize) -> EpisodeTokens:
    """An episode of the most actions whose replies are so long that it fills the token budget."""
    longest = episode_tokens(config, image, config.rl.max_actions)
    spare = (config.rl.context - longest.context) / (config.rl.max_actions + 1)
    reply = max(1, math.floor(config.tokens.reply + spare))
    tokens = config.tokens.model_copy(update={"reply": reply})
    return episode_tokens(config.model_copy(update={"tokens": tokens}), image, config.rl.max_actions)


def make_plan(config: PlanConfig, sizes: ModelSizes | None = None) -> Plan:
    """Work out a plan; `sizes` saves building the model again."""
    sizes = sizes or model_sizes(config.model)
    text = config.tokens
    image = image_size(sizes, text.image_height, text.image_width, text.max_pixels)
    mean = episode_tokens(config, image, config.rl.actions)
    longest = episode_tokens(config, image, config.rl.max_actions)
    budget = budget_episode(config, image)
    cases = tuple(
        _case(sizes, config, method, gpus, image, mean, longest, budget)
        for gpus in config.gpus
        for method in config.methods
    )
    return Plan(config, sizes, image, mean, longest, budget, kv_bytes(sizes, config.training.compute_bytes), cases)


def _case(
    sizes: ModelSizes,
    config: PlanConfig,
    method: Method,
    gpus: int,
    image: ImageSize,
    mean: EpisodeTokens,
    longest: EpisodeTokens,
    budget: EpisodeTokens,
) -> Case:
    rl, sft, training = config.rl, config.sft, config.training
    state = train_state(sizes, config, method, gpus)
    extra = 0.0 if rl.sleep else config.speeds.segmenter_gib * GIB
    if rl.reference and method == "full":  # adapters can be switched off instead
        extra += sizes.num_parameters * training.compute_bytes / (gpus if training.sharding[method] == "zero3" else 1)

    def fits(episode: EpisodeTokens, more: float) -> int:
        return largest_micro_batch(sizes, config, method, gpus, image, episode, more)

    def cold_start(unit: str) -> tuple[int, Step | None, int]:
        corpus = episode_tokens(config, image, sft.actions if unit == "episode" else 0)
        samples = sft.conversations * (1 if unit == "episode" else sft.actions + 1)
        most = fits(corpus, 0.0)
        micro = min(most, max(1, sft.batch // gpus))
        step = train_step(sizes, config, method, gpus, image, corpus, sft.batch, micro) if most else None
        return most, step, math.ceil(samples * sft.epochs / sft.batch)

    by_longest, by_budget = fits(longest, extra), fits(budget, extra)
    by_sft, step, sft_updates = cold_start(sft.unit)
    _, other, other_updates = cold_start("reply" if sft.unit == "episode" else "episode")
    room = rollout_room(sizes, config, method, gpus, image, longest)
    updates = math.ceil(rl.prompts * rl.epochs / rl.batch)
    old = score_seconds(sizes, config, gpus, image, mean, rl.batch * rl.group) * (rl.old_log_probs + rl.reference)

    def update_parts(config: PlanConfig, episode: EpisodeTokens) -> tuple[Rollout, Step, float] | None:
        if not by_longest or not room.live:
            return None
        number = rl.batch * rl.group
        rollout = rollout_time(sizes, config, gpus, image, episode, number, room.live)
        trained = train_step(sizes, config, method, gpus, image, episode, number, by_longest)
        scored = score_seconds(sizes, config, gpus, image, episode, number) * (rl.old_log_probs + rl.reference)
        return rollout, trained, rollout.seconds + scored + rl.passes * trained.seconds + config.speeds.other_seconds

    def hours(config: PlanConfig, episode: EpisodeTokens, updates: int = updates) -> float | None:
        parts = update_parts(config, episode)
        return None if parts is None else parts[2] * updates / 3600

    again = config.model_copy(update={"rl": rl.model_copy(update={"reuse": False})})
    parts = update_parts(config, mean)
    unchecked = config.model_copy(
        update={"training": training.model_copy(update={"gradient_checkpointing": not training.gradient_checkpointing})}
    )
    pair = [step_activations(sizes, each, method, image, longest) for each in (config, unchecked)]
    with_checks, without = pair if training.gradient_checkpointing else pair[::-1]
    return Case(
        method=method,
        gpus=gpus,
        state=state,
        activations=with_checks,
        activations_unchecked=without,
        short_bytes=max(0.0, state.total + pair[0].peak + extra - usable_bytes(config)),
        micro_batch_sft=by_sft,
        micro_batch_longest=by_longest,
        micro_batch_budget=by_budget,
        sft=step,
        sft_updates=sft_updates,
        sft_hours=None if step is None else step.seconds * sft_updates / 3600,
        sft_hours_other=None if other is None else other.seconds * other_updates / 3600,
        room=room,
        rollout=None if parts is None else parts[0],
        old_seconds=old,
        update=None if parts is None else parts[1],
        rl_seconds=None if parts is None else parts[2],
        rl_updates=updates,
        rl_hours=hours(config, mean),
        rl_hours_longest=hours(config, longest),
        rl_hours_no_reuse=hours(again, mean),
        rl_hours_vqa=hours(config, episode_tokens(config, image, 0), math.ceil(rl.vqa_pairs * rl.epochs / rl.batch)),
        logits_all=logit_bytes(sizes, longest.context, training.compute_bytes),
    )
