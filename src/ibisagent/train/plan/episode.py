"""An episode as tokens: which the model reads, which it writes, and how the context grows from turn to turn.

A conversation is: system prompt; instruction with the image; then for every action a reply and an observation with a
new overlay; at last the reply that terminates. So an episode of T actions has T + 1 images and T + 1 replies.
"""

from __future__ import annotations

from dataclasses import dataclass

from ibisagent.train.plan.config import PlanConfig
from ibisagent.train.plan.images import ImageSize

__all__ = ["EpisodeTokens", "episode_tokens"]


@dataclass(frozen=True)
class EpisodeTokens:
    """Tokens of one episode (or, with a fraction in `actions`, of the mean of many).

    Parameters
    ----------
    actions
        Actions before the reply that terminates.
    images
        Images in the context at the end.
    prompt
        Tokens before the first reply.
    context
        All tokens at the end.
    own
        Tokens that the model wrote.
    read_again
        Tokens prefilled if every turn reads its whole context anew (no reuse of keys and values).
    images_again
        Images encoded if every turn encodes all of its images anew.
    decode_context
        Mean length of the context while a token is written.
    """

    actions: float
    images: float
    prompt: float
    context: float
    own: float
    read_again: float
    images_again: float
    decode_context: float

    @property
    def read(self) -> float:
        """Tokens prefilled if keys and values are kept between turns: each once."""
        return self.context - self.own


def episode_tokens(config: PlanConfig, image: ImageSize, actions: float) -> EpisodeTokens:
    """Count an episode of `actions` actions."""
    text = config.tokens
    shown = image.tokens + 2  # <|vision_start|> and <|vision_end|>
    message = text.message_overhead
    prompt = text.system + text.instruction + shown + 2 * message
    reply = text.reply + message
    turn = reply + text.observation + shown + message
    replies = actions + 1
    # Turn t (from 0) reads prompt + t * turn; sums over t = 0..actions of an arithmetic series.
    read_again = replies * prompt + turn * actions * replies / 2
    return EpisodeTokens(
        actions=actions,
        images=replies,
        prompt=prompt,
        context=prompt + actions * turn + reply,
        own=replies * text.reply,
        read_again=read_again,
        images_again=replies * (replies + 1) / 2,
        decode_context=read_again / replies + text.reply / 2,
    )
