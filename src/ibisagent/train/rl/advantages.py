"""Group-relative advantages: how much better a run did than its siblings, as a whole and turn by turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Scale", "episode_advantages", "turn_advantages"]

Scale = Literal["group", "batch", "none"]

_EPSILON = 1e-4


def episode_advantages(
    totals: Sequence[float | None], num_siblings: int, scale: Scale = "group"
) -> NDArray[np.float32]:
    """Reward minus the mean of the group (GRPO, Shao et al. 2024).

    Parameters
    ----------
    totals
        Rewards, siblings one after another; None for a run that is not to be learnt from (its tool failed). It gets
        0 and counts in no mean.
    num_siblings
        Runs in a group.
    scale
        What the difference is divided by: the standard deviation of the group, that of the whole batch (Reinforce++,
        Hu 2025), or nothing (Dr. GRPO, Liu et al. 2025: dividing favours groups that hardly differ).

    Returns
    -------
    NDArray
        ``float32``, one for each run. A group whose runs all got the same has zeros.

    Raises
    ------
    ValueError
        If there are no whole groups.
    """
    if num_siblings < 1 or len(totals) % num_siblings:
        raise ValueError(f"{len(totals)} runs are no groups of {num_siblings}")
    rewards = np.array([np.nan if t is None else t for t in totals], np.float64).reshape(-1, num_siblings)
    return _normalise(rewards, scale).ravel().astype(np.float32)


def turn_advantages(
    by_turn: Sequence[Sequence[float] | None], num_siblings: int, scale: Scale = "group"
) -> list[NDArray[np.float32]]:
    """Reward of a turn minus the mean over the siblings that took that turn.

    It says which reply earned, where :func:`episode_advantages` says which run did. A turn that no sibling took has
    nothing to be held against, and gets 0.

    Parameters
    ----------
    by_turn
        Rewards of the replies of each run, siblings one after another; None for a run that is not to be learnt from.
    num_siblings, scale
        As in :func:`episode_advantages`; deviations are those of the turn.

    Returns
    -------
    list of NDArray
        ``float32`` (turns,) for each run; empty where the run is None.
    """
    if num_siblings < 1 or len(by_turn) % num_siblings:
        raise ValueError(f"{len(by_turn)} runs are no groups of {num_siblings}")
    longest = max((len(turns) for turns in by_turn if turns is not None), default=0)
    if not longest:  # all were excluded, or no part of the reward names a reply
        return [np.zeros(0, np.float32) for _ in by_turn]
    rewards = np.full((len(by_turn), longest), np.nan)
    for run, turns in enumerate(by_turn):
        if turns is not None:
            rewards[run, : len(turns)] = turns
    grouped = rewards.reshape(-1, num_siblings, longest).transpose(0, 2, 1).reshape(-1, num_siblings)
    flat = _normalise(grouped, scale).reshape(-1, longest, num_siblings).transpose(0, 2, 1).reshape(-1, longest)
    return [
        flat[run, : len(turns)].astype(np.float32) if turns is not None else np.zeros(0, np.float32)
        for run, turns in enumerate(by_turn)
    ]


def _normalise(rewards: NDArray[np.float64], scale: Scale) -> NDArray[np.float64]:
    """Rows minus their means, divided as told; NaN counts nowhere and becomes 0."""
    known = ~np.isnan(rewards)
    count = known.sum(1, keepdims=True).clip(1)
    filled = np.where(known, rewards, 0.0)
    centred = np.where(known, filled - filled.sum(1, keepdims=True) / count, 0.0)
    if scale == "group":
        # Unbiased, as torch's and trl's.
        deviation = np.sqrt((centred**2).sum(1, keepdims=True) / (count - 1).clip(1))
        return centred / (deviation + _EPSILON)
    if scale == "batch":
        total = int(known.sum())
        mean = filled.sum() / max(total, 1)
        deviation = np.sqrt((np.where(known, filled - mean, 0.0) ** 2).sum() / max(total - 1, 1))
        return centred / (deviation + _EPSILON)
    return centred
