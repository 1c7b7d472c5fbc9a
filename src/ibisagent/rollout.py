"""Rollouts: a policy plays cases to their end, many at a time.

The policy is asked for all live cases at once, so that a model can batch; the segmenter works case
by case, on embeddings that cases of one image share. A case that fails never stops the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from ibisagent.config import RolloutConfig
from ibisagent.environment import SegmentationEnv
from ibisagent.episode import Episode
from ibisagent.errors import PolicyError
from ibisagent.policies.protocol import Policy, Reply, View
from ibisagent.segmenters.cache import EmbeddingCache
from ibisagent.segmenters.protocol import Segmenter
from ibisagent.types import Case

__all__ = ["MAX_LIVE", "OnStep", "iter_episodes", "run_episode", "run_episodes"]

MAX_LIVE = 8
"""Cases played at the same time: the policy's batch, and the embeddings held in memory."""

OnStep = Callable[[int, Episode], None]
"""Called with a case's position and its episode after every reply, and when it ends."""


def run_episode(
    case: Case,
    policy: Policy,
    segmenter: Segmenter,
    config: RolloutConfig | None = None,
    progress: OnStep | None = None,
) -> Episode:
    """Play one case to its end. Parameters and errors as in :func:`iter_episodes`."""
    return run_episodes([case], policy, segmenter, config, on_step=progress)[0]


def run_episodes(
    cases: Iterable[Case],
    policy: Policy,
    segmenter: Segmenter,
    config: RolloutConfig | None = None,
    *,
    on_step: OnStep | None = None,
    max_live: int = MAX_LIVE,
) -> list[Episode]:
    """Play cases to their ends; episodes in the order of the cases."""
    pairs = sorted(
        iter_episodes(cases, policy, segmenter, config, on_step=on_step, max_live=max_live), key=lambda pair: pair[0]
    )
    return [episode for _, episode in pairs]


def iter_episodes(
    cases: Iterable[Case],
    policy: Policy,
    segmenter: Segmenter,
    config: RolloutConfig | None = None,
    *,
    on_step: OnStep | None = None,
    max_live: int = MAX_LIVE,
) -> Iterator[tuple[int, Episode]]:
    """Play cases, reading them as places become free, and yield (position, episode) as each ends.

    Parameters
    ----------
    cases
        The cases; an iterator is read only as far as needed.
    policy, segmenter
        Who plays with what.
    config
        Budgets, seed, history. Every case gets this seed: a policy that samples mixes in the case and
        the step, so that its draws do not depend on an episode's neighbours. The rounding of a batched model
        may; with `max_live` 1 nothing does.
    on_step
        Called after every reply, for progress.
    max_live
        Most cases at the same time.

    Raises
    ------
    InputError
        If policy and segmenter have no action in common.
    """
    config = config if config is not None else RolloutConfig()
    cache = EmbeddingCache(segmenter, max_images=max(4, max_live))
    source = enumerate(cases)
    live: list[tuple[int, SegmentationEnv]] = []
    exhausted = False
    while True:
        while not exhausted and len(live) < max_live:
            item = next(source, None)
            if item is None:
                exhausted = True
                break
            env = SegmentationEnv(segmenter, config, dialect=policy.dialect, policy=policy, cache=cache)
            env.reset(item[1])
            live.append((item[0], env))
        if not live:
            return
        waiting = [(position, env) for position, env in live if not env.done]
        if waiting:
            _advance(waiting, policy, config.seed)
        for position, env in live:
            if on_step is not None:
                on_step(position, env.episode)
            if env.done:
                yield position, env.episode
        live = [(position, env) for position, env in live if not env.done]


def _advance(live: Sequence[tuple[int, SegmentationEnv]], policy: Policy, seed: int) -> None:
    started = time.perf_counter()
    replies = _ask(policy, [env.view for _, env in live], seed)
    seconds = (time.perf_counter() - started) / len(live)
    for (_, env), reply in zip(live, replies, strict=True):
        if isinstance(reply, Reply):
            env.step(reply, seconds)
        else:
            env.fail(reply)


def _ask(policy: Policy, views: Sequence[View], seed: int) -> list[Reply | PolicyError]:
    """A reply or an error for every view; where a batch fails, each view is asked alone to find which."""
    act_each = getattr(policy, "act_each", None)  # a policy that can tell itself which views failed
    try:
        replies = policy.act(views, seed) if act_each is None else act_each(views, seed)
        if len(replies) != len(views):
            raise PolicyError(f"the policy {policy.name} gave {len(replies)} replies for {len(views)} cases")
        return list(replies)
    except Exception as error:
        if len(views) > 1:
            return [_ask(policy, [view], seed)[0] for view in views]
        if isinstance(error, PolicyError):
            return [error]
        return [PolicyError(f"the policy {policy.name} failed: {type(error).__name__}: {error}")]
