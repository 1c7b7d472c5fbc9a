"""Rollouts as tensors, in the form that trl's ``GRPOTrainer`` computes its losses from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ibisagent.train.rl.images import check_images

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ibisagent.train.rl.play import Played
    from ibisagent.train.tokens import Renderer

__all__ = ["to_tensors", "token_advantages", "trimmed"]

_OF_COMPLETION = (
    "completion_ids",
    "completion_mask",
    "tool_mask",
    "advantages",
    "sampling_per_token_logps",
    "old_per_token_logps",
    "ref_per_token_logps",
    "importance_sampling_ratio",
    "place_ids",
    "place_advantages",
)
"""What has a column for every token after the prompt."""


def token_advantages(
    rollouts: Sequence[Played],
    whole: NDArray[np.float32],
    turns: Sequence[NDArray[np.float32]] | None,
    turn_weight: float,
) -> list[NDArray[np.float32]]:
    """An advantage for every token after the prompt.

    Parameters
    ----------
    rollouts
        The runs.
    whole
        ``float32``, of each run.
    turns
        Of each run's replies, or None for credit by run alone.
    turn_weight
        What a turn's own advantage counts beside the run's.

    Returns
    -------
    list of NDArray
        ``float32`` (tokens after the prompt,); 0 for what the model did not draw.
    """
    out = []
    for i, rollout in enumerate(rollouts):
        context = rollout.context
        turn = np.array(context.turn[context.num_prompt :], np.int64)
        own = np.array(context.own[context.num_prompt :], bool)
        value = np.full(len(turn), whole[i], np.float32)
        if turns is not None and len(turns[i]):
            # A last reply that came when all steps were taken is no step, and has no reward of its own.
            extra = np.concatenate([turns[i], np.zeros(max(0, context.num_turns - len(turns[i])), np.float32)])
            value += turn_weight * np.where(own, extra[np.clip(turn, 0, None)], 0)
        out.append(np.where(own, value, 0).astype(np.float32))
    return out


def to_tensors(
    rollouts: Sequence[Played],
    advantages: Sequence[NDArray[np.float32]],
    renderer: Renderer,
    device: Any = "cpu",
) -> dict[str, Any]:
    """Prompts padded on the left, what follows padded on the right, images one after another.

    Parameters
    ----------
    rollouts
        Runs; a failed one stays, with nothing of it in the loss.
    advantages
        From :func:`token_advantages`.
    renderer
        Makes pixel values, and knows how many placeholders an image has.
    device
        Where the tensors go.

    Returns
    -------
    dict
        ``prompt_ids``, ``prompt_mask`` (B, P); ``completion_ids``, ``completion_mask``, ``tool_mask`` (B, C), the last
        1 on the model's own tokens; ``advantages`` (B, C); ``sampling_per_token_logps`` (B, C), what the sampler said
        of these tokens, NaN where it said nothing; ``num_images`` a list; ``pixel_values`` and whatever else the
        model's image processor gives; ``mm_token_type_ids`` (B, P + C) where the model knows it.

    Raises
    ------
    PolicyError
        If images and placeholders do not agree.
    """
    contexts = [rollout.context for rollout in rollouts]
    prompts = [c.ids[: c.num_prompt] for c in contexts]
    rest = [c.ids[c.num_prompt :] for c in contexts]
    width, length = max(map(len, prompts)), max(1, max(map(len, rest)))
    count = len(contexts)
    prompt_ids = torch.full((count, width), renderer.pad_id)
    prompt_mask = torch.zeros(count, width, dtype=torch.long)
    ids = torch.full((count, length), renderer.pad_id)
    mask, own = torch.zeros(count, length, dtype=torch.long), torch.zeros(count, length, dtype=torch.long)
    value = torch.zeros(count, length)
    drawn = torch.full((count, length), float("nan"))
    for i, (context, rollout) in enumerate(zip(contexts, rollouts, strict=True)):
        prompt_ids[i, width - len(prompts[i]) :] = torch.tensor(prompts[i])
        prompt_mask[i, width - len(prompts[i]) :] = 1
        n = len(rest[i])
        ids[i, :n] = torch.tensor(rest[i], dtype=torch.long)
        mask[i, :n] = 1
        if rollout.breakdown.excluded is None:
            own[i, :n] = torch.tensor(context.own[context.num_prompt :], dtype=torch.long)
            value[i, :n] = torch.from_numpy(advantages[i])
            drawn[i, :n][own[i, :n].bool()] = torch.tensor(context.log_probs)
    images = [picture for context in contexts for picture in context.images]
    batch: dict[str, Any] = {
        "prompt_ids": prompt_ids,
        "prompt_mask": prompt_mask,
        "completion_ids": ids,
        "completion_mask": mask,
        "tool_mask": own,
        "advantages": value,
        "sampling_per_token_logps": drawn,
    }
    if images:
        batch.update(renderer.image_inputs(images))
        whole = torch.cat([prompt_ids, ids], 1)
        if "image_grid_thw" in batch:
            batch["mm_token_type_ids"] = (whole == renderer.image_id).long()
    placeholders = int((prompt_ids == renderer.image_id).sum() + (ids == renderer.image_id).sum())
    check_images(placeholders, sum(renderer.image_lengths(images)), len(images), "pixel_values" in batch)
    batch = {k: v.to(device) for k, v in batch.items()}
    batch["num_images"] = [len(context.images) for context in contexts]
    return batch


def trimmed(batch: dict[str, Any]) -> dict[str, Any]:
    """A batch without the columns that are padding in all of its rows; see :func:`to_tensors` for what it holds."""
    prompt, rest = (int(batch[name].sum(1).max()) for name in ("prompt_mask", "completion_mask"))
    width, rest = batch["prompt_ids"].shape[1], max(1, rest)
    cut = dict(batch)
    for name in ("prompt_ids", "prompt_mask"):
        cut[name] = batch[name][:, width - prompt :]
    for name in _OF_COMPLETION:
        if name in batch:
            cut[name] = batch[name][:, :rest]
    if "mm_token_type_ids" in batch:
        cut["mm_token_type_ids"] = batch["mm_token_type_ids"][:, width - prompt : width + rest]
    return cut
