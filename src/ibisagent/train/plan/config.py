"""Every assumption of the plan, a field each: what a figure rests on is printed beside it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["MACHINES", "Machine", "Method", "PlanConfig", "RlRecipe", "SftRecipe", "Speeds", "TokenCounts", "Training"]

Method = Literal["full", "lora"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Machine(_Strict):
    """One GPU and what joins it to the others; vendors' data sheets."""

    name: str
    """Short name."""
    memory_gib: float = Field(gt=0)
    """Memory of a GPU in GiB."""
    peak_tflops: float = Field(gt=0)
    """Dense bf16 peak in 10^12 operations a second."""
    bandwidth_tbytes: float = Field(gt=0)
    """Memory bandwidth in 10^12 bytes a second."""
    link_gbytes: float = Field(gt=0)
    """GPU to GPU within a node, one direction, in 10^9 bytes a second."""
    network_gbytes: float = Field(default=25.0, gt=0)
    """Node to node, per GPU, one direction, in 10^9 bytes a second (200 Gb/s a GPU)."""
    gpus_per_node: int = Field(default=8, ge=1)
    """GPUs of a node."""


MACHINES: dict[str, Machine] = {
    "a100-80g": Machine(name="a100-80g", memory_gib=80, peak_tflops=312, bandwidth_tbytes=2.039, link_gbytes=300),
    "h100-80g": Machine(name="h100-80g", memory_gib=80, peak_tflops=989, bandwidth_tbytes=3.35, link_gbytes=450),
    "h200": Machine(name="h200", memory_gib=139, peak_tflops=989, bandwidth_tbytes=4.8, link_gbytes=450),
}
"""SXM modules. The H200's 141 GB are given as the GiB that its driver shows."""


class TokenCounts(_Strict):
    """Lengths of the parts of a conversation, in tokens."""

    system: int = Field(default=300, ge=0)
    """System prompt: ours is about 1,050 characters, at 3.5 to 4 characters a token."""
    instruction: int = Field(default=30, ge=0)
    """The sentence that says what to segment."""
    observation: int = Field(default=16, ge=0)
    """The words beside a new overlay."""
    reply: int = Field(default=128, ge=1)
    """A thought of some 80 words, one action, the tags."""
    message_overhead: int = Field(default=5, ge=0)
    """Role and turn markers of the chat template, a message."""
    image_height: int = Field(default=512, ge=1)
    """Height of an image in pixels, before the model's own resizing."""
    image_width: int = Field(default=512, ge=1)
    """Width of an image in pixels."""
    max_pixels: int = Field(default=512 * 512, ge=3136)
    """Limit that the image processor is given (the paper's code: 512^2)."""


class Training(_Strict):
    """How a model is trained and what is kept in memory."""

    compute_bytes: Literal[2, 4] = 2
    """Bytes of a weight and of an activation in computation: bf16, as FSDP's mixed precision has it."""
    master: Literal["fp32", "bf16"] = "fp32"
    """Precision of the trained weights and their gradients between steps."""
    moment_bytes: Literal[1, 2, 4] = 4
    """Bytes of each of AdamW's two moments; 1 for an 8-bit optimizer."""
    offload_optimizer: bool = False
    """Keep moments (and master copies beside a compute copy) in the host's memory."""
    lora_rank: int = Field(default=8, ge=1)
    """Rank of the adapters, on all linear layers of the language model (paper's code: 8)."""
    adapter_dtype: Literal["fp32", "bf16"] = "fp32"
    """Precision of the adapters; peft keeps fp32 unless told otherwise."""
    freeze_vision: bool = True
    """Whether the vision tower is frozen (the paper froze it)."""
    gradient_checkpointing: bool = True
    """Keep only each layer's input and compute the rest again in the backward pass."""
    tower_graph: bool = False
    """Whether checkpointing goes back through a frozen vision tower, as transformers' ``gradient_checkpointing_enable``
    leaves it (Qwen2.5-VL) until ``disable_input_require_grads()`` is called."""
    scored: Literal["own", "all"] = "own"
    """Which tokens get logits: the model's own, or all of the context (transformers' default loss)."""
    sharding: dict[Method, Literal["none", "zero1", "zero2", "zero3"]] = {"full": "zero3", "lora": "none"}
    """What is split over the GPUs: nothing (DDP); optimizer; and gradients; and weights (FSDP full shard)."""
    causal_attention_skips: bool = True
    """Whether the attention kernel skips what the causal mask hides, halving its work (flash attention does)."""
    reserve_gib: float = Field(default=3.0, ge=0)
    """CUDA context, communication buffers and libraries' work space, per GPU."""
    fragmentation: float = Field(default=0.05, ge=0, lt=1)
    """Share of the memory lost to the allocator."""


class Speeds(_Strict):
    """Shares of the data sheets' peaks that are reached, and times that no formula gives."""

    train_utilisation: float = Field(default=0.40, gt=0, le=1)
    """Share of the peak that training reaches, of all operations that it carries out (recomputation included)."""
    prefill_utilisation: float = Field(default=0.45, gt=0, le=1)
    """Share of the peak when prompts and images are read, and when log-probabilities are computed."""
    bandwidth_utilisation: float = Field(default=0.60, gt=0, le=1)
    """Share of the memory bandwidth that decoding reaches."""
    link_utilisation: float = Field(default=0.70, gt=0, le=1)
    """Share of the links' bandwidth."""
    overlap: bool = True
    """Whether weights travel while the GPU computes: a step then takes the longer of the two."""
    segmenter_seconds: float = Field(default=0.03, ge=0)
    """One segmenter call for one episode on the same GPU, its share of a batch."""
    segmenter_gib: float = Field(default=2.0, ge=0)
    """The segmenter, its embeddings and masks, per GPU."""
    straggler: float = Field(default=1.5, ge=1)
    """Rollout time over that of equally long episodes: the longest episode of a wave keeps the others waiting."""
    other_seconds: float = Field(default=10.0, ge=0)
    """Per RL update: rewards, loading weights into the rollout engine, logging."""


class SftRecipe(_Strict):
    """Cold start. Paper: learning rate 1e-5, batch 256, 10 epochs on 47,146 images / 456,795 question-answer pairs.

    456,795 / 47,146 = 9.69 = 8.69 actions (the paper's mean trajectory) + 1 terminate, so a pair is one reply.
    """

    conversations: int = Field(default=47_146, ge=1)
    """Episodes of the corpus, one an image."""
    actions: float = Field(default=8.69, ge=0)
    """Mean actions of an episode before it terminates."""
    batch: int = Field(default=256, ge=1)
    """Conversations of an update."""
    epochs: float = Field(default=10, gt=0)
    """Passes over the corpus."""
    unit: Literal["episode", "reply"] = "episode"
    """What a sample is: a whole episode, or (the paper's public code) one reply with one image and no history."""


class RlRecipe(_Strict):
    """Agentic RL. Paper: GRPO, group 4, batch 256, no KL, 12 epochs, at most 20 actions, 32 K context, 16 A100."""

    prompts: int = Field(default=60_826, ge=1)
    """Images of the RL set; one prompt each."""
    batch: int = Field(default=256, ge=1)
    """Prompts of an update; times `group` is the number of episodes."""
    group: int = Field(default=4, ge=1)
    """Episodes of a prompt."""
    vqa_pairs: int = Field(default=324_000, ge=0)
    """Question-answer pairs mixed in (paper: 324 K): one image, one reply, no segmenter; told apart in the hours."""
    epochs: float = Field(default=12, gt=0)
    """Passes over the prompts."""
    actions: float = Field(default=8.69, ge=0)
    """Mean actions of a rollout (paper: 13.44 before the rewards shorten them, 4.89 after)."""
    max_actions: int = Field(default=20, ge=1)
    """Longest episode: memory is planned for it."""
    context: int = Field(default=32_768, ge=1)
    """Token budget of an episode."""
    passes: int = Field(default=1, ge=1)
    """Times that each rollout is trained on."""
    old_log_probs: bool = True
    """Whether old log-probabilities are computed by the trainer before the update (verl does)."""
    reference: bool = False
    """Whether a reference model is kept and run (a KL term; the paper has none)."""
    reuse: bool = True
    """Whether keys and values are kept between turns (prefix caching), or each turn reads its whole context again."""
    share_prompt: bool = True
    """Whether the episodes of a group share the first prompt's keys, values and image (prefix caching)."""
    rollout_copy: bool = True
    """Whether the rollout engine holds weights of its own, whole on every GPU, while the trainer's stay."""
    sleep: bool = True
    """Whether the trainer's weights, moments and gradients leave the GPU during rollouts (verl's offloading)."""


class PlanConfig(_Strict):
    """A whole plan: the model, the machine, and every assumption."""

    model: str = "qwen2.5-vl-7b"
    """A published model's short name, or a folder with a config.json."""
    machine: Machine = MACHINES["a100-80g"]
    """The GPU."""
    gpus: tuple[int, ...] = (1, 8, 16)
    """Numbers of GPUs to plan for."""
    methods: tuple[Method, ...] = ("lora", "full")
    """LoRA, or all weights (the vision tower apart, if frozen)."""
    tokens: TokenCounts = TokenCounts()
    training: Training = Training()
    speeds: Speeds = Speeds()
    sft: SftRecipe = SftRecipe()
    rl: RlRecipe = RlRecipe()
