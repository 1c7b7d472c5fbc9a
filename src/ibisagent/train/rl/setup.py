"""From settings to the parts of a run: player, samplers, trl's arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ibisagent.actions import dialect_for
from ibisagent.config import RolloutConfig
from ibisagent.errors import InputError
from ibisagent.rewards import load_rubric
from ibisagent.train.rl.play import Player
from ibisagent.train.tokens import Renderer

if TYPE_CHECKING:
    from trl import GRPOConfig

    from ibisagent.train.rl.config import RlConfig
    from ibisagent.train.rl.sampler import Sampler
    from ibisagent.train.rl.vllm_server import VllmServer
    from ibisagent.train.rl.vllm_weights import ServedWeights

__all__ = ["NO_PLACES", "grpo_arguments", "make_player", "make_sampler", "sampler_maker", "serve"]


def make_player(config: RlConfig, renderer: Renderer, system_prompt: str | None, learnt: str | None = None) -> Player:
    """Who plays the groups, told by a fixed system prompt; None writes the dialect's.

    `learnt` is the dialect that the model's folder names, if it does.

    Raises
    ------
    InputError
        If there is no such dialect, segmenter, device or reward, or prompt or model are of another dialect.
    """
    from accelerate import PartialState

    from ibisagent.registry import make_segmenter

    # "auto": beside a model on a GPU, a segmenter on CPU cores would be most of an update.
    device = str(PartialState().device) if config.segmenter_device == "auto" else config.segmenter_device
    return Player(
        make_segmenter(config.segmenter, device),
        renderer,
        load_rubric(config.reward),
        RolloutConfig(max_steps=config.max_steps, seed=config.seed),
        dialect_for(config.dialect, system_prompt, learnt),
        system_prompt,
        max_context=config.max_context,
        name=config.model,
    )


def serve(config: RlConfig, nano: bool) -> ServedWeights | None:
    """The server that writes the replies, waited for, checked, and compared before the first update; None for none.

    Raises
    ------
    InputError
        If it does not answer, or does not serve as the run needs it.
    """
    if config.rollouts == "local":
        return None
    if nano:
        raise InputError("vLLM does not know NanoVLM, which has a sampler of its own: leave --rollouts local")
    if not 0.01 <= config.temperature <= 2:
        raise InputError(f"vLLM draws at temperatures from 0.01 to 2, not at {config.temperature:g}")
    from ibisagent.train.rl.parity_gate import ParityGate
    from ibisagent.train.rl.vllm_server import VllmServer
    from ibisagent.train.rl.vllm_weights import ServedWeights, check_installed

    check_installed()
    server = VllmServer(
        config.vllm_url,
        timeout_s=config.vllm_timeout_s,
        retries=config.vllm_retries,
        at_once=config.sampler_batch,
    )
    server.wait(config.vllm_wait_s)
    told = server.check(config.max_context + config.max_new_tokens)
    return ServedWeights(server, config, ParityGate(config, told))


def sampler_maker(config: RlConfig, renderer: Renderer, server: VllmServer | None = None) -> Callable[[Any], Sampler]:
    """From a model to who samples from it: this process, or a server that is given its weights."""
    if server is not None:
        from ibisagent.train.rl.vllm_sampler import VllmSampler

        there = VllmSampler(server, renderer, temperature=config.temperature, max_new_tokens=config.max_new_tokens)
        return lambda model: there
    return lambda model: make_sampler(
        model,
        renderer,
        temperature=config.temperature,
        max_new_tokens=config.max_new_tokens,
        batch_size=config.sampler_batch,
        bf16=config.low_precision,
        num_places=config.num_places,
    )


NO_PLACES = "num_places is for NanoVLM alone: other models write a place as several tokens"


def make_sampler(model: Any, renderer: Renderer, *, bf16: bool = False, num_places: int = 0, **options: Any) -> Sampler:
    """Who samples from a model: NanoVLM has a sampler of its own, which can compute in bfloat16 and draw more places.

    Options are those of :class:`~ibisagent.train.rl.sampler.GenerateSampler`.
    """
    from ibisagent.train.models import is_nano
    from ibisagent.train.rl.nano_sampler import NanoSampler
    from ibisagent.train.rl.sampler import GenerateSampler

    if is_nano(model):
        return NanoSampler(model, renderer, bf16=bf16, num_places=num_places, **options)
    if num_places:
        raise InputError(NO_PLACES)
    return GenerateSampler(model, renderer, **options)


def grpo_arguments(config: RlConfig, num_processes: int = 1) -> GRPOConfig:
    """trl's arguments; raises as :meth:`~ibisagent.train.rl.config.RlConfig.accumulation`."""
    import torch
    from trl import GRPOConfig

    from ibisagent.train.watch.trackers import tracker_arguments

    accumulation = config.accumulation(num_processes)
    return GRPOConfig(
        output_dir=str(config.out / "checkpoints"),
        max_steps=config.num_updates,
        per_device_train_batch_size=config.micro_batch,
        gradient_accumulation_steps=accumulation,
        steps_per_generation=accumulation * config.updates_per_batch,
        num_generations=config.group_size,
        max_completion_length=config.max_context,
        temperature=config.temperature,
        top_p=1.0,
        top_k=0,
        loss_type=config.loss,
        scale_rewards=config.scale_rewards,
        beta=config.beta,
        epsilon=config.epsilon,
        epsilon_high=config.epsilon_high,
        entropy_coef=config.entropy_coef,
        learning_rate=config.learning_rate,
        lr_scheduler_type="constant_with_warmup" if config.schedule == "constant" else config.schedule,
        warmup_steps=config.warmup_updates,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        bf16=config.low_precision,
        gradient_checkpointing=config.gradient_checkpointing,
        seed=config.seed,
        use_cpu=config.device == "cpu" or not torch.cuda.is_available(),
        remove_unused_columns=False,
        save_strategy="steps",
        save_steps=config.save_updates,
        save_total_limit=config.keep_checkpoints,
        logging_steps=1,
        logging_nan_inf_filter=False,
        **tracker_arguments(config.report_to, config.out),
        disable_tqdm=True,
        shuffle_dataset=True,
        dataloader_num_workers=0,
    )
