"""A conversation as tokens, in and out: what the model was shown, and what it wrote, exactly.

Text would have to be tokenised again for the next turn and for the update, and need not give the ids that were
sampled. So ids are kept: the update scores the very tokens that the model drew, after the very prefix it drew them
from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ibisagent.train.rl.places import Tried
    from ibisagent.train.tokens import Renderer

__all__ = ["Context"]


@dataclass(eq=False)
class Context:
    """One episode's tokens so far.

    Parameters
    ----------
    key
        Names the run, unique among those that are sampled together.
    ids
        Token ids, images as runs of placeholders.
    own
        For every id, whether the model drew it.
    turn
        For every id, the number of the reply that it belongs to, -1 outside.
    images
        ``uint8`` (H, W, 3) pictures in reading order.
    num_prompt
        Ids before the first reply.
    num_turns
        Replies so far.
    truncated
        Whether a reply was cut off by the budget of tokens.
    log_probs
        Of every id that the model drew, in order, what the sampler said; NaN where it said nothing.
    tried
        Places that were tried beside those that the model clicked, see :mod:`ibisagent.train.rl.places`.
    """

    key: str
    ids: list[int] = field(default_factory=list)
    own: list[bool] = field(default_factory=list)
    turn: list[int] = field(default_factory=list)
    images: list[NDArray[np.uint8]] = field(default_factory=list)
    num_prompt: int = 0
    num_turns: int = 0
    truncated: bool = False
    log_probs: list[float] = field(default_factory=list)
    tried: list[Tried] = field(default_factory=list)

    @classmethod
    def begin(cls, key: str, messages: Sequence[dict[str, Any]], renderer: Renderer) -> Context:
        """The context of a run before its first reply; `messages` end with the user's."""
        piece = renderer.prompt(messages)
        context = cls(key)
        context._shown(piece.ids, piece.images)
        context.num_prompt = len(context.ids)
        return context

    def twin(self, key: str) -> Context:
        """A context of another run of the same case, before its first reply."""
        return Context(key, list(self.ids), list(self.own), list(self.turn), list(self.images), self.num_prompt)

    def reply(self, ids: Sequence[int], ended: bool, end_id: int, log_probs: Sequence[float] | None = None) -> None:
        """Add what the model drew.

        Parameters
        ----------
        ids
            The reply with its end of turn, if it has one.
        ended
            Whether it has; else the end is put there, which the model did not draw.
        end_id
            Id of the end of a turn.
        log_probs
            Of `ids`, if the sampler says them.
        """
        self.log_probs += [float("nan")] * len(ids) if log_probs is None else log_probs
        self.ids += ids
        self.own += [True] * len(ids)
        self.turn += [self.num_turns] * len(ids)
        if not ended:
            self.ids.append(end_id)
            self.own.append(False)
            self.turn.append(-1)
            self.truncated = True
        self.num_turns += 1

    def observe(self, messages: Sequence[dict[str, Any]], renderer: Renderer, max_length: int | None = None) -> bool:
        """Add the user's messages that follow a reply, up to where the next reply begins.

        Returns
        -------
        bool
            False, and nothing is added, if the context would have more than `max_length` ids.
        """
        piece = renderer.observation(messages)
        if max_length is not None and len(self.ids) + len(piece.ids) > max_length:
            self.truncated = True
            return False
        self._shown(piece.ids, piece.images)
        return True

    def _shown(self, ids: Any, images: Sequence[NDArray[np.uint8]]) -> None:
        ids = [int(i) for i in ids]
        self.ids += ids
        self.own += [False] * len(ids)
        self.turn += [-1] * len(ids)
        self.images += images
