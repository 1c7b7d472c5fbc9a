"""Settings of a rollout: the budgets, the seed, what a policy is shown and may write."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["RolloutConfig"]


class RolloutConfig(BaseModel):
    """Budgets and switches of one episode."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_steps: int = Field(default=8, ge=1)
    """Most actions, invalid replies included. Terminate does not count: it may follow the last of them."""
    seed: int = Field(default=0, ge=0)
    """Seed of the policy's sampling; equal seeds give equal episodes where the policy is deterministic."""
    max_repeated_actions: int = Field(default=3, ge=2)
    """A run ends after this many identical actions in a row (undo apart, which is never the same twice)."""
    max_seconds: float | None = Field(default=None, gt=0)
    """Wall-clock budget in seconds, checked after every step; None is no limit."""
    history: bool = True
    """Whether a policy is shown all earlier turns or only the newest observation."""
    thoughts: bool = True
    """Whether a policy thinks: without, it is shown no thought of an earlier turn, and every reply begins with an empty
    one that it did not write."""
    overlay: bool = True
    """Whether a policy is shown the mask on the image; without, it sees the bare image every time."""
