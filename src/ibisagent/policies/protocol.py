"""What every policy promises: given episodes in progress, write the next reply of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ibisagent.actions import Dialect
from ibisagent.episode import Episode
from ibisagent.types import Case

__all__ = ["Policy", "Reply", "View"]


@dataclass(frozen=True, eq=False)
class View:
    """What a policy may look at: the case and the episode so far. Never the target.

    Parameters
    ----------
    case
        Image, instruction, initial mask.
    episode
        The record so far (steps with thoughts, actions, masks as RLE).
    mask
        ``bool`` (H, W), the current mask, or None while there is none.
    """

    case: Case
    episode: Episode
    mask: NDArray[np.bool_] | None


@dataclass(frozen=True)
class Reply:
    """The raw text a policy wrote, and facts about how it was made."""

    text: str
    num_prompt_tokens: int | None = None
    num_tokens: int | None = None
    messages: list[dict[str, Any]] = field(default_factory=list)
    """The chat messages that were new in this request, images by hash."""


@runtime_checkable
class Policy(Protocol):
    """A policy: any way to write the next reply.

    Attributes
    ----------
    name
        How ``--policy`` names it, for example ``"nano"`` or ``"api:qwen"``.
    dialect
        The grammar dialect it writes, which also says which actions it may use.
    weights_sha256
        Hash of its weights, or None.

    A policy may have more: ``system_prompt``; ``act_each``; ``can_skip_thoughts``, True where its replies can be begun
    for it with an empty thought (:attr:`ibisagent.config.RolloutConfig.thoughts`); ``windows``, the ``--window`` option
    that CT is shown in to it where the user names none, for example ``"lung+soft-tissue+bone"`` as red, green and blue.
    """

    name: str
    dialect: Dialect
    weights_sha256: str | None

    def act(self, views: Sequence[View], seed: int) -> list[Reply]:
        """Write the next reply of every view, in order.

        Raises
        ------
        ibisagent.errors.PolicyError
            If the model or its server fails.
        """
        ...
