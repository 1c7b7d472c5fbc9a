"""Groups of siblings, played side by side: every live run gets its next reply in one call of the sampler.

The siblings of a case share its embedding, and a prompt that two of them come to is answered once
(:class:`~ibisagent.segmenters.memo.MemoSegmenter`). Before the environments act, the prompts that their replies ask
for are put to the segmenter together, so that a backend that batches may.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

from ibisagent.actions import Dialect
from ibisagent.config import RolloutConfig
from ibisagent.engine.questions import VisualQuestion
from ibisagent.segmenters.memo import MemoSegmenter
from ibisagent.train.rl.places import try_places
from ibisagent.train.rl.question_run import Answered, QuestionRun
from ibisagent.train.rl.run_state import Rollout, Run, RunRules

if TYPE_CHECKING:
    from ibisagent.rewards import Rubric
    from ibisagent.segmenters.protocol import Segmenter
    from ibisagent.train.rl.prompts import Prompt, RlPrompt
    from ibisagent.train.rl.sampler import Sampler
    from ibisagent.train.tokens import Renderer

__all__ = ["Played", "Player", "Rollout", "Seconds"]

Played = Rollout | Answered
"""A run that has ended: a case that was acted on, or a question that was answered."""


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


class _Timed:
    """A segmenter that adds up the seconds it takes."""

    def __init__(self, segmenter: Segmenter, seconds: Seconds) -> None:
        self._inner, self._seconds = segmenter, seconds
        self.name, self.capabilities = segmenter.name, segmenter.capabilities
        self.weights_sha256 = segmenter.weights_sha256

    def encode(self, image: Any) -> Any:
        """As the segmenter does, and raises what it raises."""
        started = time.perf_counter()
        try:
            return self._inner.encode(image)
        finally:
            self._seconds.segmenter += time.perf_counter() - started

    def predict(self, embedding: Any, prompts: Sequence[Any]) -> list[Any]:
        """As the segmenter does, and raises what it raises."""
        started = time.perf_counter()
        try:
            return self._inner.predict(embedding, prompts)
        finally:
            self._seconds.segmenter += time.perf_counter() - started


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

    @overload
    def play(self, prompts: Sequence[RlPrompt], num_siblings: int, sampler: Sampler, seed: int) -> list[Rollout]: ...

    @overload
    def play(self, prompts: Sequence[Prompt], num_siblings: int, sampler: Sampler, seed: int) -> list[Played]: ...

    def play(self, prompts: Sequence[Prompt], num_siblings: int, sampler: Sampler, seed: int) -> Any:
        """Play every prompt `num_siblings` times.

        Returns
        -------
        list of Rollout or Answered
            Siblings one after another, groups in the order of the prompts.
        """
        started = time.perf_counter()
        flat: list[Run | QuestionRun] = []
        for group, prompt in enumerate(prompts):
            if isinstance(prompt, VisualQuestion):
                flat += self._ask(prompt, group, num_siblings)
            else:
                flat += self._begin(prompt, group, num_siblings)
        session = sampler.session(seed)
        live = [run for run in flat if not run.done]
        while live:
            asked = time.perf_counter()
            samples = session.sample([run.context for run in live])
            self.seconds.policy += time.perf_counter() - asked
            texts = [self.renderer.text(sample.ids) for sample in samples]
            if self.batched:
                self._foresee([(r, t) for r, t in zip(live, texts, strict=True) if isinstance(r, Run)])
            pairs = [(r, s) for r, s in zip(live, samples, strict=True) if isinstance(r, Run) and s.places]
            for context, tried in try_places(pairs, _Timed(self.segmenter, self.seconds), self.renderer):
                context.tried.append(tried)
            for run, sample, text in zip(live, samples, texts, strict=True):
                run.step(sample, text)
            live = [run for run in live if not run.done]
        rollouts = [run.finish(self.rubric) for run in flat]
        self.seconds.total += time.perf_counter() - started
        return rollouts

    def _begin(self, prompt: RlPrompt, group: int, num_siblings: int) -> list[Run]:
        rules = RunRules(self.renderer, self.config, self.dialect, self.system_prompt, self.max_context, self.name)
        timed = _Timed(self.segmenter, self.seconds)
        shared: Any = MemoSegmenter(timed) if self.batched else timed
        runs: list[Run] = []
        for sibling in range(num_siblings):
            like = runs[0] if runs and self.batched else None  # the same words and picture: tokenised once
            runs.append(Run.begin(rules, prompt, sibling, f"{group}/{sibling}", shared, like=like))
        return runs

    def _ask(self, prompt: VisualQuestion, group: int, num_siblings: int) -> list[QuestionRun]:
        runs: list[QuestionRun] = []
        for sibling in range(num_siblings):
            like = runs[0] if runs and self.batched else None
            runs.append(QuestionRun.begin(self.renderer, prompt, sibling, f"{group}/{sibling}", like))
        return runs

    def _foresee(self, replies: Sequence[tuple[Run, str]]) -> None:
        """Ask the segmenter for what the replies are about to ask for, one call a case."""
        by_case: dict[int, tuple[Any, list[Any]]] = {}
        for run, text in replies:
            wanted = run.env.foresee(text)
            if wanted is not None:
                by_case.setdefault(id(run.env.segmenter), (run, []))[1].append(wanted)
        for run, together in by_case.values():
            try:
                run.env.segmenter.predict(together[0][0], [prompt for _, prompt in together])
            except Exception:
                # Whoever caused it will be asked alone in a moment, and the failure recorded as that run's.
                continue
