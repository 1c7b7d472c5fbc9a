"""Groups of siblings, played side by side: every live run gets its next reply in one call of the sampler.

The siblings of a case share its embedding, and a prompt that two of them come to is answered once
(:class:`~ibisagent.segmenters.memo.MemoSegmenter`). Before the environments act, the prompts that their replies ask
for are put to the segmenter together, so that a backend that batches may.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ibisagent.actions import Dialect
from ibisagent.config import RolloutConfig
from ibisagent.environment import SegmentationEnv
from ibisagent.episode import Episode
from ibisagent.messages import new_messages
from ibisagent.policies.protocol import Reply
from ibisagent.segmenters.memo import MemoSegmenter
from ibisagent.train.rl.contexts import Context

if TYPE_CHECKING:
    from ibisagent.rewards import Breakdown, Rubric
    from ibisagent.segmenters.protocol import Segmenter
    from ibisagent.train.rl.prompts import RlPrompt
    from ibisagent.train.rl.sampler import Sample, Sampler
    from ibisagent.train.tokens import Renderer

__all__ = ["Player", "Rollout", "Seconds"]


@dataclass(eq=False)
class Rollout:
    """One finished run with what training needs of it.

    Parameters
    ----------
    prompt
        What was asked.
    sibling
        Its number within the group.
    context
        All tokens.
    episode
        The record.
    breakdown
        Its rewards.
    """

    prompt: RlPrompt
    sibling: int
    context: Context
    episode: Episode
    breakdown: Breakdown


@dataclass
class Seconds:
    """Where the wall time of rollouts went; what is left is bookkeeping."""

    total: float = 0.0
    policy: float = 0.0
    segmenter: float = 0.0

    @property
    def rest(self) -> float:
        """Environment, rendering, tokens, rewards."""
        return max(0.0, self.total - self.policy - self.segmenter)


@dataclass(eq=False)
class _Run:
    env: SegmentationEnv
    context: Context
    prompt: RlPrompt
    sibling: int
    segmenter: _Timed


class _Timed:
    """A segmenter that adds up the seconds it takes."""

    def __init__(self, segmenter: Segmenter, seconds: Seconds) -> None:
        self._inner, self._seconds = segmenter, seconds
        self.name, self.capabilities = segmenter.name, segmenter.capabilities
        self.weights_sha256 = segmenter.weights_sha256

    def encode(self, image: Any) -> Any:
        started = time.perf_counter()
        try:
            return self._inner.encode(image)
        finally:
            self._seconds.segmenter += time.perf_counter() - started

    def predict(self, embedding: Any, prompts: Sequence[Any]) -> list[Any]:
        started = time.perf_counter()
        try:
            return self._inner.predict(embedding, prompts)
        finally:
            self._seconds.segmenter += time.perf_counter() - started


class _Speaker:
    """The policy's side of the record: its dialect, prompt and name. It never acts by itself."""

    def __init__(self, name: str, dialect: Dialect, system_prompt: str | None, weights_sha256: str | None) -> None:
        self.name, self.dialect, self.weights_sha256 = name, dialect, weights_sha256
        if system_prompt is not None:
            self.system_prompt = system_prompt

    def act(self, views: Sequence[Any], seed: int) -> list[Reply]:
        raise NotImplementedError


@dataclass(eq=False)
class Player:
    """Plays prompts with a sampler.

    Parameters
    ----------
    segmenter
        The tool; deterministic, or siblings would not share its answers.
    renderer
        Of the model's processor.
    rubric
        Rewards.
    config
        Budgets of an episode. `history` must be on: a context is one growing conversation.
    dialect
        Grammar of the replies.
    system_prompt
        The fixed prompt; None writes the dialect's.
    max_context
        Most tokens of a context; a run that a further observation would lead beyond it ends there, out of steps.
    name
        Of the policy, in records.
    batched
        Whether siblings share embeddings and answers; False is the plain way, for comparison.

    Attributes
    ----------
    seconds
        Added up over all calls.
    """

    segmenter: Segmenter
    renderer: Renderer
    rubric: Rubric
    config: RolloutConfig
    dialect: Dialect
    system_prompt: str | None = None
    max_context: int = 32_768
    name: str = "rl"
    batched: bool = True
    seconds: Seconds = field(default_factory=Seconds)

    def play(self, prompts: Sequence[RlPrompt], num_siblings: int, sampler: Sampler, seed: int) -> list[Rollout]:
        """Play every prompt `num_siblings` times.

        Returns
        -------
        list of Rollout
            Siblings one after another, groups in the order of the prompts.
        """
        started = time.perf_counter()
        runs = [self._begin(prompt, g, num_siblings) for g, prompt in enumerate(prompts)]
        flat = [run for group in runs for run in group]
        session = sampler.session(seed)
        live = [run for run in flat if not run.env.done]
        while live:
            asked = time.perf_counter()
            samples = session.sample([run.context for run in live])
            self.seconds.policy += time.perf_counter() - asked
            texts = [self.renderer.text(sample.ids) for sample in samples]
            if self.batched:
                self._foresee(live, texts)
            for run, sample, text in zip(live, samples, texts, strict=True):
                self._step(run, sample, text)
            live = [run for run in live if not run.env.done]
        rollouts = [
            Rollout(
                run.prompt,
                run.sibling,
                run.context,
                run.env.episode,
                self.rubric.score(run.env.episode, run.prompt.target),
            )
            for run in flat
        ]
        self.seconds.total += time.perf_counter() - started
        return rollouts

    def _begin(self, prompt: RlPrompt, group: int, num_siblings: int) -> list[_Run]:
        speaker = _Speaker(self.name, self.dialect, self.system_prompt, None)
        timed = _Timed(self.segmenter, self.seconds)
        shared: Any = MemoSegmenter(timed) if self.batched else timed
        runs: list[_Run] = []
        for sibling in range(num_siblings):
            config = self.config.model_copy(update={"seed": self.config.seed + sibling})
            env = SegmentationEnv(shared, config, dialect=self.dialect, policy=speaker)
            env.reset(prompt.case)
            if runs and self.batched:  # the same words and picture: tokenised once
                context = runs[0].context.twin(f"{group}/{sibling}")
            else:
                messages = new_messages(env.view, env.system_prompt)
                context = Context.begin(f"{group}/{sibling}", messages, self.renderer)
            runs.append(_Run(env, context, prompt, sibling, shared))
        return runs

    def _foresee(self, live: Sequence[_Run], texts: Sequence[str]) -> None:
        """Ask the segmenter for what the replies are about to ask for, one call a case."""
        by_case: dict[int, tuple[Any, list[Any]]] = {}
        for run, text in zip(live, texts, strict=True):
            wanted = run.env.foresee(text)
            if wanted is not None:
                by_case.setdefault(id(run.segmenter), (run, []))[1].append(wanted)
        for run, together in by_case.values():
            try:
                run.segmenter.predict(together[0][0], [prompt for _, prompt in together])
            except Exception:
                # Whoever caused it will be asked alone in a moment, and the failure recorded as that run's.
                continue

    def _step(self, run: _Run, sample: Sample, text: str) -> None:
        env, context = run.env, run.context
        context.reply(sample.ids, sample.ended, self.renderer.end_id)
        reply = Reply(text, num_prompt_tokens=len(context.ids) - len(sample.ids), num_tokens=len(sample.ids))
        env.step(reply)
        if env.done:
            return
        if not context.observe(new_messages(env.view, env.system_prompt), self.renderer, self.max_context):
            env.exhaust()
