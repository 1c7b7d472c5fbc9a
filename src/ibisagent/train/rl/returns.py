"""Credit by state: what a reply led to, held against what such a state is worth.

An advantage of a whole run praises a stop for the luck of the first click. Here a reply answers only for what came
after it, and is held against the value of the state that it was drawn in: a least-squares fit, made anew for every
batch, over facts that training knows and the policy does not (the IoU of the mask that it is shown).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ibisagent.train.rl.question_run import Answered

if TYPE_CHECKING:
    from ibisagent.rewards import Rubric
    from ibisagent.train.rl.play import Played

__all__ = ["Turns", "return_advantages", "rewarded_turns"]

_RIDGE = 1e-2
_SHRINK = 4.0
"""Turns of siblings at which a group's own offset counts half."""

Turns = Sequence[tuple[float, float | None]]
"""Of a run's replies: (reward, IoU before the reply; None for an absent target)."""


def rewarded_turns(run: Played, rubric: Rubric) -> Turns | None:
    """What a run's replies earned, and in which states; None if nothing may be learnt from it.

    Parameters
    ----------
    run
        Ended. The answer to a visual question is one turn.
    rubric
        What it was scored with. Parts of the reward that name no reply are earned by the last one.
    """
    breakdown = run.breakdown
    if breakdown.excluded is not None or breakdown.total is None:
        return None
    if isinstance(run, Answered):
        return ((breakdown.total, None),)
    replies = run.trace.replies
    earned = list(rubric.turn_rewards(breakdown) or (0.0,) * len(replies))
    if earned:
        earned[-1] += rubric.episode_reward(breakdown)
    return tuple((reward, reply.iou_before) for reward, reply in zip(earned, replies, strict=True))


def return_advantages(runs: Sequence[Turns | None], num_siblings: int, decay: float = 0.9) -> list[NDArray[np.float32]]:
    """Generalised advantage estimates (Schulman et al. 2016) with a critic that is fitted to the batch.

    The value of a state is linear in 1, u, u^2 (u: IoU of the mask), the number of the turn, and whether the target is
    absent, plus an offset of the group: the mean of what its *other* runs got beyond the fit, shrunk towards 0. Rewards
    are not discounted.

    Parameters
    ----------
    runs
        Rewards and states of the replies of each run, siblings one after another; None for a run that is not to be
        learnt from.
    num_siblings
        Runs in a group.
    decay
        Lambda: 1 trusts what happened, 0 the values of the states alone.

    Returns
    -------
    list of NDArray
        ``float32`` (turns,) for each run, divided by the deviation of the batch; empty where the run is None.

    Raises
    ------
    ValueError
        If there are no whole groups.
    """
    if num_siblings < 1 or len(runs) % num_siblings:
        raise ValueError(f"{len(runs)} runs are no groups of {num_siblings}")
    owner = np.array([i for i, run in enumerate(runs) if run is not None for _ in run], np.int64)
    if not len(owner):
        return [np.zeros(0, np.float32) for _ in runs]
    facts = np.array([_facts(t, u) for run in runs if run is not None for t, (_, u) in enumerate(run)])
    rewards = np.array([reward for run in runs if run is not None for reward, _ in run], np.float64)
    last = np.append(owner[1:] != owner[:-1], True)
    returns = _backwards(rewards, last, 1.0)
    values = _values(facts, returns, owner, owner // num_siblings)
    following = np.where(last, 0.0, np.append(values[1:], 0.0))
    advantages = _backwards(rewards + following - values, last, decay)
    advantages /= advantages.std() + 1e-4
    return [advantages[owner == i].astype(np.float32) for i in range(len(runs))]


def _facts(turn: int, overlap: float | None) -> tuple[float, ...]:
    known = 0.0 if overlap is None else overlap
    return (1.0, known, known * known, float(turn), float(overlap is None))


def _backwards(values: NDArray[np.float64], last: NDArray[np.bool_], decay: float) -> NDArray[np.float64]:
    """Sums from each turn to the end of its run, later ones decayed."""
    sums = np.empty_like(values)
    total = 0.0
    for place in range(len(values) - 1, -1, -1):
        total = values[place] + (0.0 if last[place] else decay * total)
        sums[place] = total
    return sums


def _values(
    facts: NDArray[np.float64], returns: NDArray[np.float64], owner: NDArray[np.int64], group: NDArray[np.int64]
) -> NDArray[np.float64]:
    ridge = _RIDGE * np.eye(facts.shape[1])
    ridge[0, 0] = 0.0  # the mean itself is not shrunk
    fitted = facts @ np.linalg.solve(facts.T @ facts + ridge, facts.T @ returns)
    beyond = returns - fitted
    by_group, by_run = np.bincount(group, beyond), np.bincount(owner, beyond)
    size_group, size_run = np.bincount(group), np.bincount(owner)
    # Its own run would draw the value towards what it is to be held against.
    others = (by_group[group] - by_run[owner]) / (size_group[group] - size_run[owner] + _SHRINK)
    return np.asarray(fitted + others)
