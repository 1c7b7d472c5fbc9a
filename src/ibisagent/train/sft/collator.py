"""From numbers of conversations to a batch: read, drawn, tokenised, padded, and images checked against their places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.errors import InputError
from ibisagent.train.tokens import Rendered, Renderer

if TYPE_CHECKING:
    from torch import Tensor

    from ibisagent.train.sft.conversations import Conversation, Conversations

__all__ = ["IGNORED", "SftCollator", "cut"]

IGNORED = -100
"""Label of a token that is not learnt."""


class SftCollator:
    """Makes batches; it may be sent to a worker process.

    Parameters
    ----------
    parts
        The conversations, of the training set first.
    renderer
        Of the model's processor.
    max_length
        Most tokens of a row; whole turns at the end are left out.
    pixel_dtype
        Type of ``pixel_values``; None leaves it at ``float32``.
    """

    def __init__(
        self,
        parts: Sequence[Conversations],
        renderer: Renderer,
        max_length: int,
        pixel_dtype: Any = None,
    ) -> None:
        self.parts, self.renderer, self.max_length, self.pixel_dtype = list(parts), renderer, max_length, pixel_dtype

    def __call__(self, examples: Sequence[Mapping[str, int]]) -> dict[str, Tensor]:
        """A batch.

        Parameters
        ----------
        examples
            ``part`` and ``row`` of every conversation.

        Returns
        -------
        dict
            What :meth:`~ibisagent.train.tokens.Renderer.tensors` gives, padded on the right, and ``labels`` (B, T),
            -100 where nothing is learnt.

        Raises
        ------
        InputError
            If a row is damaged, or too long for a single learnt reply.
        ValueError
            If images and placeholders do not match.
        """
        return self.padded([self.render(example) for example in examples])

    def render(self, example: Mapping[str, int]) -> Rendered:
        """One conversation as tokens, cut to ``max_length``; errors as in :meth:`__call__`."""
        return self.shortened(self.parts[int(example["part"])][int(example["row"])])

    def shortened(self, found: Conversation) -> Rendered:
        """A conversation as tokens, cut to ``max_length``; errors as in :meth:`__call__`."""
        rendered = cut(self.renderer.conversation(found.messages, found.learn), self.renderer, self.max_length)
        if not rendered.loss_mask.any():
            raise InputError(
                f"{found.name}: no reply that is learnt lies within {self.max_length} tokens; raise --max-length or "
                "lower --max-pixels"
            )
        return rendered

    def padded(self, rows: Sequence[Rendered]) -> dict[str, Tensor]:
        """Rows as a batch; errors as in :meth:`__call__`."""
        import torch

        batch = self.renderer.tensors([row.ids for row in rows], [row.images for row in rows])
        labels = torch.full_like(batch["input_ids"], IGNORED)
        for number, row in enumerate(rows):
            labels[number, : len(row.ids)] = torch.from_numpy(np.where(row.loss_mask, row.ids, IGNORED))
        if self.pixel_dtype is not None and "pixel_values" in batch:
            batch["pixel_values"] = batch["pixel_values"].to(self.pixel_dtype)
        return {**batch, "labels": labels}


def cut(rendered: Rendered, renderer: Renderer, max_length: int) -> Rendered:
    """The conversation without the turns that do not fit, and without the images of those.

    Parameters
    ----------
    rendered
        A whole conversation.
    renderer
        That made it.
    max_length
        Most tokens.
    """
    if len(rendered.ids) <= max_length:
        return rendered
    last = np.flatnonzero((rendered.turn[:-1] >= 0) & (rendered.turn[1:] < 0)) + 1  # one past the end of each turn
    fitting = last[last <= max_length]
    stop = int(fitting[-1]) if len(fitting) else 0
    places, kept = int((rendered.ids[:stop] == renderer.image_id).sum()), 0
    for length in renderer.image_lengths(rendered.images):
        if places < length:
            break
        places, kept = places - length, kept + 1
    return Rendered(rendered.ids[:stop], rendered.loss_mask[:stop], rendered.turn[:stop], rendered.images[:kept])
