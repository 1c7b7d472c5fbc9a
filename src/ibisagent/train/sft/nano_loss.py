"""NanoVLM's loss, computed at learnt tokens only: its scores of all coordinates at all tokens would fill the memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ibisagent.policies.nano_parts import CHOICE_WEIGHT, choice_loss
from ibisagent.train.sft.collator import IGNORED

__all__ = ["NanoLoss", "maps_loss", "nano_loss"]


@dataclass(frozen=True, eq=False)
class NanoLoss:
    """What a batch says.

    Parameters
    ----------
    likelihood
        Negative log-likelihood of the learnt tokens, a sum. A coordinate's probability is that of the word
        "coordinate" times that of the cell.
    right
        How many of them were the likeliest.
    entropy
        Sum of the words' entropies.
    places
        Sum over learnt clicks of the divergence between all right places and where the model would click; None
        where the batch does not tell them.
    maps
        How far the model's maps of target and shown mask are off, a mean, and what it chooses among many; likewise.
    """

    likelihood: Tensor
    right: Tensor
    entropy: Tensor
    places: Tensor | None = None
    maps: Tensor | None = None


def nano_loss(model: Any, inputs: dict[str, Any]) -> NanoLoss:
    """The parts of NanoVLM's loss.

    Parameters
    ----------
    model
        NanoVLM, with or without wrappers (DDP, peft).
    inputs
        A batch with images; of :class:`~ibisagent.train.sft.nano_batch.NanoCollator` for `places` and `maps`. Then
        `likelihood` holds the words alone: the places stand in for the cells.
    """
    core = getattr(model, "module", model)
    core = core.get_base_model() if hasattr(core, "get_base_model") else core
    labels = inputs["labels"]
    out = model(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        pixel_values=inputs["pixel_values"],
        return_states=True,
        use_cache=False,
    )
    with torch.autocast(labels.device.type, enabled=False):  # small products that decide what a word was worth
        return _scored(core, out, inputs)


def _scored(core: Any, out: Any, inputs: dict[str, Any]) -> NanoLoss:
    config, labels = core.config, inputs["labels"]
    row, column = (labels[:, 1:] != IGNORED).nonzero(as_tuple=True)
    goal, hidden, image = labels[:, 1:][row, column], out.hidden[row, column].float(), out.image_of[row, column]
    words = core.base_logits(hidden, out.pooled[image].float()).log_softmax(-1)
    is_cell = goal >= config.vocab_size
    word = torch.where(is_cell, config.coordinate_token_id, goal)
    loss = F.nll_loss(words, word, reduction="sum")
    hit = words.argmax(-1) == word
    with torch.no_grad():
        entropy = -(words.exp() * words).sum()
    told = "cell_weights" in inputs
    places = maps = None
    at = is_cell.nonzero()[:, 0]
    if len(at):
        keys, belief = out.pointer_keys[image[at]].float(), out.belief[image[at]].float()
        cells = core.pointer.score(hidden[at], keys, belief).log_softmax(-1)
        cell = goal[at] - config.vocab_size
        if not told:
            loss = loss + F.nll_loss(cells, cell, reduction="sum")
        hit = hit.index_put((at,), hit[at] & (cells.argmax(-1) == cell))
        if told:
            weights = inputs["cell_weights"]  # in the order of rows and positions, as `at` is
            places = (weights * (weights.clamp_min(1e-9).log() - cells)).sum()
    elif told:
        places = loss * 0
    if told:
        truth = torch.stack([inputs["target_maps"], inputs["shown_maps"]], 1)
        maps, _ = maps_loss(out.belief[:, :2].float(), truth, inputs["target_known"])
        if core.pointer.choice is not None:
            meant = inputs["target_maps"] * inputs["ones"][:, None]
            maps = maps + CHOICE_WEIGHT * choice_loss(out.belief[:, 2], meant)
    return NanoLoss(loss, hit.sum(), entropy, places, maps)


def maps_loss(logits: Tensor, truth: Tensor, known: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Cross-entropy and Dice of the maps of target and shown mask, and the mean Dice of the targets that are there.

    The target's map is what has to be learnt, and counts more; the shown mask is painted on the image.

    Parameters
    ----------
    logits, truth
        ``float`` (N, 2, cells): scores, and shares of each cell that are covered; the target first.
    known
        ``bool`` (N,): whether an image's target is told; None: all are.

    Returns
    -------
    loss, dice
        Scalars.
    """
    counted = torch.ones(truth.shape[:2], device=truth.device)
    if known is not None:
        counted[:, 0] = known.float()
    cross = (F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(-1) * counted).sum(0)
    cross = cross / counted.sum(0).clamp_min(1)
    p = logits.sigmoid()
    dice = (2 * (p * truth).sum(-1) + 1) / (p.sum(-1) + truth.sum(-1) + 1)
    there = (truth.sum(-1) > 0).float()
    missing = ((1 - dice) * there).sum(0) / there.sum(0).clamp_min(1)
    return 4 * cross[0] + missing[0] + cross[1] + 0.3 * missing[1], 1 - missing[0]
