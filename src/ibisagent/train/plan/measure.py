"""Measuring what the plan predicts: kept bytes, peak bytes, one training step, one batch of rollouts.

Used by the tests (tiny models, CPU) and by ``benchmarks/plan_check.py`` (random 7B weights, CUDA).
"""

from __future__ import annotations

import time
import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ibisagent.train.plan.config import PlanConfig
from ibisagent.train.plan.episode import episode_tokens
from ibisagent.train.plan.images import ImageSize
from ibisagent.train.plan.models import ModelSizes

__all__ = ["Episode", "PeakBytes", "SavedBytes", "measure_rollout", "training_loss", "write_episode"]

_TEXT_ID = 10
"""The word that stands for all text; which words they are changes neither memory nor time."""


class SavedBytes:
    """Bytes of the storages that autograd keeps within this context, parameters and buffers of `model` apart."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._own = {part.untyped_storage()._cdata for part in (*model.parameters(), *model.buffers())}
        self._found: dict[int, torch.Tensor] = {}
        self._hooks: Any = None

    def _pack(self, tensor: torch.Tensor) -> torch.Tensor:
        key = tensor.untyped_storage()._cdata
        if key not in self._own:
            self._found.setdefault(key, tensor)
        return tensor

    def __enter__(self) -> SavedBytes:
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.__exit__(*error)

    @property
    def total(self) -> int:
        """Bytes kept so far; each storage once, however many views of it are kept."""
        return sum(tensor.untyped_storage().nbytes() for tensor in self._found.values())


class PeakBytes(TorchDispatchMode):
    """Most bytes alive at once of all storages made within this context: the CPU's ``max_memory_allocated``."""

    def __init__(self) -> None:
        super().__init__()
        self._live: dict[int, int] = {}
        self.now = 0
        self.peak = 0

    def _free(self, key: int) -> None:
        self.now -= self._live.pop(key, 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {
            part.untyped_storage()._cdata for part in tree_leaves((args, kwargs)) if isinstance(part, torch.Tensor)
        }
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if not isinstance(tensor, torch.Tensor):
                continue
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key not in self._live and key not in given:  # a view of what was there before is not new
                self._live[key] = storage.nbytes()
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._free, key)
        return out


@dataclass(frozen=True, eq=False)
class Episode:
    """Input of one synthetic episode: token ids, images, and which tokens the model wrote."""

    ids: torch.Tensor
    """(1, tokens) int64."""
    own: torch.Tensor
    """(own tokens,) int64: positions of the tokens that the model wrote."""
    pixels: torch.Tensor
    """(patches, numbers of a patch), all images."""
    grid: torch.Tensor
    """(images, 3) int64: frames, rows and columns of patches."""
    parts: tuple[tuple[int, int], ...]
    """Of each turn: tokens read, tokens written."""

    def inputs(self) -> dict[str, torch.Tensor]:
        """Keyword arguments of the model's forward pass, but for the ids."""
        return {"pixel_values": self.pixels, "image_grid_thw": self.grid}


def write_episode(
    model: Any, sizes: ModelSizes, config: PlanConfig, image: ImageSize, actions: int, device: str, dtype: torch.dtype
) -> Episode:
    """An episode of `actions` actions as the plan counts it, with noise for images."""
    text = config.tokens
    special = model.config
    shown = [special.vision_start_token_id, *[special.image_token_id] * image.tokens, special.vision_end_token_id]
    reply = [_TEXT_ID] * text.reply
    marks = [_TEXT_ID] * text.message_overhead
    prompt = [_TEXT_ID] * (text.system + text.instruction + 2 * text.message_overhead) + shown
    observed = [_TEXT_ID] * (text.observation + text.message_overhead) + shown
    ids = list(prompt)
    own: list[int] = []
    parts = []
    read = len(prompt)
    for turn in range(actions + 1):
        own += range(len(ids), len(ids) + len(reply))
        ids += reply + marks
        parts.append((read, len(reply)))
        if turn < actions:
            ids += observed
        read = len(marks) + len(observed)
    assert len(ids) == episode_tokens(config, image, actions).context
    rows, columns = image.height // sizes.patch, image.width // sizes.patch
    return Episode(
        ids=torch.tensor([ids], device=device),
        own=torch.tensor(own, device=device),
        pixels=torch.randn((actions + 1) * image.patches, sizes.patch_inputs, device=device, dtype=dtype),
        grid=torch.tensor([[1, rows, columns]] * (actions + 1), device=device),
        parts=tuple(parts),
    )


def training_loss(model: Any, episode: Episode, *, own_only: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy over the episode's own tokens, and the logits that it came from.

    With `own_only` the head is given the own tokens alone; otherwise all, as transformers' default loss does.
    """
    types = (episode.ids == model.config.image_token_id).int()
    keep = episode.own - 1 if own_only else 0
    out = model(
        input_ids=episode.ids, mm_token_type_ids=types, use_cache=False, logits_to_keep=keep, **episode.inputs()
    )
    goal = episode.ids[0, episode.own]
    if not own_only:
        goal = torch.full_like(episode.ids[0], -100)
        goal[episode.own - 1] = episode.ids[0, episode.own]
    return torch.nn.functional.cross_entropy(out.logits[0].float(), goal, ignore_index=-100), out.logits


@dataclass(frozen=True)
class RolloutSeconds:
    """What a batch of rollouts took: seconds reading (images included) and writing, and bytes of the cache."""

    read: float
    write: float
    cache_bytes: int
    tokens: int


def measure_rollout(model: Any, episode: Episode, live: int) -> RolloutSeconds:
    """Run `live` equal episodes in lock step, keys and values kept between turns; written words are not fed by choice.

    Positions are counted plainly (no three-axis positions for images), which costs the same.
    """
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    device = episode.ids.device
    patches = episode.pixels.shape[0] // len(episode.grid)
    read_seconds = write_seconds = 0.0
    at = 0

    def forward(ids: torch.Tensor, **images: torch.Tensor) -> None:
        nonlocal at
        positions = torch.arange(at, at + ids.shape[1], device=device).expand(3, live, -1)
        model(input_ids=ids, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1, **images)
        at += ids.shape[1]

    with torch.inference_mode():
        for turn, (read, written) in enumerate(episode.parts):
            started = _clock(device)
            pixels = episode.pixels[turn * patches : (turn + 1) * patches].repeat(live, 1)
            grid = episode.grid[turn : turn + 1].repeat(live, 1)
            forward(episode.ids[:, at : at + read].expand(live, -1), pixel_values=pixels, image_grid_thw=grid)
            read_seconds += _clock(device) - started
            started = _clock(device)
            for _ in range(written):
                forward(episode.ids[:, at : at + 1].expand(live, -1))
            write_seconds += _clock(device) - started
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    return RolloutSeconds(read_seconds, write_seconds, held, at)


def _clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
