"""Memory of one GPU: what training holds between steps, what a step adds, what rollouts hold.

Bytes per parameter follow the ZeRO paper (Rajbhandari et al. 2020, arXiv 1910.02054, section 3): a trained weight
with fp32 master copy has 2 (compute copy) + 4 (master) + 4 (gradient) + 8 (AdamW's moments); ZeRO-1 splits master
copy and moments over the GPUs, ZeRO-2 the gradients too, ZeRO-3 / FSDP full shard the weights too. FSDP keeps the
fp32 shards only and gathers a compute copy of the layer at work and of the next: two of the largest units. The fresh
gradient of one unit lies beside the accumulated ones, whatever is split. A frozen weight has its compute copy and
nothing else.

Keys and values: ``2 x layers x kv heads x head size x c`` bytes a token.
"""

from __future__ import annotations

from dataclasses import dataclass

from ibisagent.train.plan.activations import Activations, Kept, activations
from ibisagent.train.plan.config import Method, PlanConfig
from ibisagent.train.plan.episode import EpisodeTokens
from ibisagent.train.plan.images import ImageSize
from ibisagent.train.plan.models import ModelSizes

__all__ = [
    "GIB",
    "Room",
    "State",
    "kept_for",
    "kv_bytes",
    "largest_micro_batch",
    "rollout_room",
    "step_activations",
    "train_state",
    "usable_bytes",
]

GIB = 2**30
MOST = 4096
"""Micro batches are not sought beyond this."""


@dataclass(frozen=True)
class State:
    """Bytes on one GPU between steps, and the layers gathered during one."""

    trained: int
    """Parameters with gradients, of the whole model."""
    weights: float
    gradients: float
    optimizer: float
    gathered: float
    """Units of a sharded model in use, the fresh gradient of one, autocast's copies of adapters."""
    host: float
    """Bytes of the host's memory, per GPU, where the optimizer is offloaded."""

    @property
    def total(self) -> float:
        """Bytes that stay while training."""
        return self.weights + self.gradients + self.optimizer + self.gathered


def usable_bytes(config: PlanConfig) -> float:
    """What of a GPU's memory tensors may fill."""
    machine, training = config.machine, config.training
    return (machine.memory_gib * (1 - training.fragmentation) - training.reserve_gib) * GIB


def train_state(sizes: ModelSizes, config: PlanConfig, method: Method, gpus: int) -> State:
    """Weights, gradients and optimizer of one GPU of `gpus`."""
    training = config.training
    c = training.compute_bytes
    if method == "full":
        frozen = sizes.num_vision if training.freeze_vision else 0
        trained = sizes.num_parameters - frozen
        copy = 4 if training.master == "fp32" else c
    else:
        frozen, trained = sizes.num_parameters, sizes.num_lora(training.lora_rank)
        copy = 4 if training.adapter_dtype == "fp32" else 2
    sharding = training.sharding[method] if gpus > 1 else "none"
    split = {"none": (1, 1, 1), "zero1": (1, 1, gpus), "zero2": (1, gpus, gpus), "zero3": (gpus, gpus, gpus)}
    by_weights, by_gradients, by_optimizer = split[sharding]
    apart = method == "full" and copy != c and sharding != "zero3"  # a compute copy beside the master copy
    weights = frozen * c / by_weights + trained * (c if apart else copy) / by_weights
    master = trained * copy / by_optimizer if apart else 0.0
    moments = 2.0 * trained * training.moment_bytes / by_optimizer
    # A fresh gradient, before it is added; or autocast's copies of adapters.
    gathered = float(c * sizes.num_largest_unit) if method == "full" else float(c * trained if copy != c else 0)
    if sharding == "zero3":
        gathered += 2.0 * c * sizes.num_largest_unit
    optimizer = master + moments
    host = optimizer if training.offload_optimizer else 0.0
    return State(trained, weights, trained * copy / by_gradients, optimizer - host, gathered, host)


def kept_for(sizes: ModelSizes, config: PlanConfig, method: Method) -> Kept:
    """What the configuration means for activations."""
    training = config.training
    lora = method == "lora"
    adapter_bytes = 4 if training.adapter_dtype == "fp32" else 2
    return Kept(
        compute_bytes=training.compute_bytes,
        weights=not lora,
        adapter_rank=training.lora_rank if lora else 0,
        adapter_copies=lora and adapter_bytes != training.compute_bytes,
        vision=not lora and not training.freeze_vision,
        checkpointing=training.gradient_checkpointing,
        tower_graph=training.tower_graph and sizes.vision_hooked,
    )


def step_activations(
    sizes: ModelSizes,
    config: PlanConfig,
    method: Method,
    image: ImageSize,
    episode: EpisodeTokens,
    micro_batch: int = 1,
) -> Activations:
    """Activations of a training step on `micro_batch` equal episodes."""
    scored = episode.own if config.training.scored == "own" else episode.context
    return activations(
        sizes,
        kept_for(sizes, config, method),
        episode.context * micro_batch,
        image.patches * episode.images * micro_batch,
        scored * micro_batch,
    )


def largest_micro_batch(
    sizes: ModelSizes,
    config: PlanConfig,
    method: Method,
    gpus: int,
    image: ImageSize,
    episode: EpisodeTokens,
    extra: float,
) -> int:
    """Most episodes in one forward and backward pass; 0 if not even one fits.

    `extra` is what else lies on the GPU, in bytes (a segmenter, a reference model).
    """
    room = usable_bytes(config) - train_state(sizes, config, method, gpus).total - extra
    one = step_activations(sizes, config, method, image, episode).peak  # every part grows in proportion
    return max(0, min(MOST, int(room / one)))


def kv_bytes(sizes: ModelSizes, compute_bytes: int = 2) -> int:
    """Bytes of keys and values, per token."""
    return 2 * sizes.layers * sizes.kv_width * compute_bytes


@dataclass(frozen=True)
class Room:
    """Rollouts on one GPU."""

    trainer: float
    """Bytes of the trainer that stay."""
    engine: float
    """Bytes of the rollout engine's weights."""
    work: float
    """Bytes for the segmenter, for reading prompts and images, and for logits."""
    free: float
    """Bytes left for keys and values."""
    per_episode: float
    """Bytes of one longest episode's keys and values."""
    live: int
    """Longest episodes that fit at once."""


def rollout_room(
    sizes: ModelSizes, config: PlanConfig, method: Method, gpus: int, image: ImageSize, longest: EpisodeTokens
) -> Room:
    """Keys and values of how many episodes fit beside everything else during rollouts."""
    rl, c = config.rl, config.training.compute_bytes
    state = train_state(sizes, config, method, gpus)
    trainer = state.total - state.gathered
    engine = float(c * sizes.num_parameters) if rl.rollout_copy else 0.0
    if rl.rollout_copy and rl.sleep:
        trainer = 0.0
    if not rl.rollout_copy:
        trainer, engine = state.total - state.gathered, state.gathered
    budget = 16_384  # tokens read at once, in chunks: inputs and outputs of the widest matrices, one layer at a time
    reading = budget * c * (2 * sizes.hidden + 3 * sizes.intermediate)
    seeing = 8 * image.patches * c * (7 * sizes.vision_hidden + 3 * sizes.vision_intermediate)
    work = config.speeds.segmenter_gib * GIB + reading + seeing
    free = usable_bytes(config) - trainer - engine - work
    per_episode = kv_bytes(sizes, c) * longest.context
    return Room(trainer, engine, work, max(0.0, free), per_episode, max(0, int(free / per_episode)))
