"""Log-probabilities and entropies of NanoVLM's own tokens, under the weights of now (for reinforcement learning)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ibisagent.policies.nano_model import NanoConfig, NanoForConditionalGeneration, NanoOutput

__all__ = ["TokenScores", "nano_token_scores", "unwritten"]


def unwritten(config: NanoConfig, forbidden: Iterable[int] = ()) -> list[int]:
    """Entries of the plain vocabulary that no reply holds: places of images, and what is forbidden beside them.

    The entry that stands for all coordinates stays, though its own word is never written.
    """
    ids = {config.image_token_id, *forbidden} - {config.coordinate_token_id}
    return sorted(i for i in ids if 0 <= i < config.vocab_size)


class TokenScores(NamedTuple):
    """Of wanted tokens.

    Attributes
    ----------
    log_probs, entropy
        ``float32`` (B, T); 0 where not wanted. A coordinate's entropy is that of word and cell together.
    places
        ``float32`` (B, T, K) log-probabilities of the asked coordinates, given that one is written there; 0 where none
        was asked for. None without the question.
    """

    log_probs: Tensor
    entropy: Tensor
    places: Tensor | None


def nano_token_scores(
    model: NanoForConditionalGeneration,
    states: NanoOutput,
    input_ids: Tensor,
    wanted: Tensor,
    temperature: float = 1.0,
    forbidden: Iterable[int] = (),
    places: Tensor | None = None,
) -> TokenScores:
    """Score the wanted tokens of whole conversations, and no others.

    Parameters
    ----------
    model
        Whose states they are.
    states
        What the model gives with ``return_states``.
    input_ids
        (B, T), padded on either side.
    wanted
        ``bool`` (B, T), tokens to score: what the model wrote, after an image.
    temperature
        The words' scores and the cells' scores are divided by it, each before their own softmax.
    forbidden
        Ids that could not be drawn, see :func:`unwritten`.
    places
        ``int64`` (B, T, K), ids of coordinates to score where a wanted token is one; -1 for none.

    Returns
    -------
    TokenScores
        In ``float32``, with gradients.
    """
    config = model.config
    assert states.hidden is not None
    assert states.image_of is not None
    assert states.pooled is not None
    assert states.pointer_keys is not None
    assert states.belief is not None
    row, column = wanted[:, 1:].nonzero(as_tuple=True)  # positions before the tokens
    goal = input_ids[:, 1:][row, column]
    hidden, image = states.hidden[row, column].float(), states.image_of[row, column]
    words = model.base_logits(hidden, states.pooled[image])
    blocked = torch.zeros_like(words[:1])
    blocked[:, unwritten(config, forbidden)] = float("-inf")
    log_words = (words / temperature + blocked).log_softmax(-1)
    is_cell = goal >= config.vocab_size
    word = torch.where(is_cell, config.coordinate_token_id, goal)
    scores = log_words.gather(1, word[:, None])[:, 0]
    probability = log_words.exp()
    entropy = -(probability * log_words.masked_fill(probability == 0, 0.0)).sum(-1)
    if bool(is_cell.any()):
        at = is_cell.nonzero()[:, 0]
        cells = model.pointer.score(hidden[at], states.pointer_keys[image[at]].float(), states.belief[image[at]])
        cells = (cells / temperature).log_softmax(-1)
        scores = scores.index_add(0, at, cells.gather(1, (goal[at] - config.vocab_size)[:, None])[:, 0])
        gate = probability[at, config.coordinate_token_id]
        entropy = entropy.index_add(0, at, gate * -(cells.exp() * cells).sum(-1))
    empty = torch.zeros(input_ids.shape, dtype=torch.float32, device=input_ids.device)
    place = (row, column + 1)
    of_places = None
    if places is not None:
        of_places = torch.zeros(places.shape, dtype=torch.float32, device=input_ids.device)
        if bool(is_cell.any()):
            asked = places[row[at], column[at] + 1]
            known = cells.gather(1, (asked - config.vocab_size).clamp_min(0)).masked_fill(asked < 0, 0.0)
            of_places = of_places.index_put((row[at], column[at] + 1), known)
    return TokenScores(empty.index_put(place, scores), empty.index_put(place, entropy), of_places)
