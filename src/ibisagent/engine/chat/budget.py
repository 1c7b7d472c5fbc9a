"""How much may be asked of a chat server, and what asking costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from ibisagent.errors import IbisError, InputError

__all__ = ["Budget", "BudgetError", "Use", "estimate"]

_BYTES_PER_TOKEN = 3
_PIXELS_PER_TOKEN = 28 * 28
_TOKENS_PER_IMAGE = 256
_TOKENS_PER_MESSAGE = 8


class BudgetError(IbisError):
    """The budget does not cover another request. What was answered so far is kept."""


@dataclass(frozen=True)
class Use:
    """What requests used up.

    Parameters
    ----------
    requests
        Number of requests.
    prompt_tokens, completion_tokens
        Tokens sent and received.
    cost
        In the currency of the budget's prices; 0 where there are none.
    """

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0

    def __add__(self, other: Use) -> Use:
        return Use(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def tokens(self) -> int:
        """Tokens sent and received together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class Budget:
    """Limits over all that a cache folder ever paid for, and prices. None means no limit.

    Parameters
    ----------
    max_requests
        Most requests that a server worked for. Refused tries (429, 5xx …) and answers from the cache do not count.
    max_tokens
        Most tokens, sent and received together.
    max_cost
        Most money, in the currency of the prices.
    price_prompt, price_completion
        Price of a million tokens sent and received.

    Raises
    ------
    InputError
        If a number is negative or not finite, or a limit on the cost has no price to count with.
    """

    max_requests: int | None = None
    max_tokens: int | None = None
    max_cost: float | None = None
    price_prompt: float | None = None
    price_completion: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise InputError(f"{field.name} must be a number from 0 on, not {value}")
        if self.max_cost is not None and self.price_prompt is None and self.price_completion is None:
            raise InputError("max_cost needs price_prompt and price_completion, the prices of a million tokens")

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """What so many tokens cost."""
        return (prompt_tokens * (self.price_prompt or 0.0) + completion_tokens * (self.price_completion or 0.0)) / 1e6

    def use(self, prompt_tokens: int, completion_tokens: int) -> Use:
        """One request of so many tokens."""
        return Use(1, prompt_tokens, completion_tokens, self.cost(prompt_tokens, completion_tokens))

    def check(self, used: Use, further: Use) -> None:
        """Let another request pass, or not.

        Parameters
        ----------
        used
            All that was used or is set aside for requests under way.
        further
            The most that the request in question may use.

        Raises
        ------
        BudgetError
            If a limit does not cover it.
        """
        both = used + further
        for name, limit, spent, needed, unit in (
            ("max_requests", self.max_requests, used.requests, both.requests, "requests"),
            ("max_tokens", self.max_tokens, used.tokens, both.tokens, "tokens"),
            ("max_cost", self.max_cost, used.cost, both.cost, "money"),
        ):
            # The sum of many small costs is not exact: a billionth more is not more.
            if limit is not None and needed > limit * (1 + 1e-9):
                raise BudgetError(
                    f"the budget of the chat server is used up: {spent:.6g} of {limit:.6g} {unit}, and the next "
                    f"request may need {needed - spent:.6g}; what was answered is kept: give a larger {name} and run "
                    "again"
                )


def estimate(messages: Sequence[dict[str, Any]], max_pixels: int | None = None) -> int:
    """Tokens that a conversation will take at most, about: servers tell the true number only afterwards.

    Parameters
    ----------
    messages
        In the form of :mod:`ibisagent.messages`.
    max_pixels
        Size that larger images are shrunk to.
    """
    tokens = 0
    for message in messages:
        tokens += _TOKENS_PER_MESSAGE
        for part in message["content"]:
            if part["type"] == "text":
                tokens += -(-len(part["text"].encode("utf-8", "surrogatepass")) // _BYTES_PER_TOKEN)
            else:
                height, width = part["image"].shape[:2]
                pixels = height * width if max_pixels is None else min(height * width, max_pixels)
                tokens += max(_TOKENS_PER_IMAGE, -(-pixels // _PIXELS_PER_TOKEN))
    return tokens
