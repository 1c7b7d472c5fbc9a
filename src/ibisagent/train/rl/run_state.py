"""One run as training sees it: its environment, its tokens, and one step of both.

Whoever plays runs (groups side by side, one at a time beside verl's servers) does so through :class:`Run`, so that
what is shown, what is learnt and what ends a run stand in one place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ibisagent.environment import SegmentationEnv
from ibisagent.messages import new_messages
from ibisagent.policies.protocol import Reply
from ibisagent.rewards.trace import trace_episode
from ibisagent.train.rl.contexts import Context

if TYPE_CHECKING:
    from ibisagent.actions import Dialect
    from ibisagent.config import RolloutConfig
    from ibisagent.episode import Episode
    from ibisagent.rewards import Breakdown, Rubric
    from ibisagent.rewards.trace import Trace
    from ibisagent.segmenters.cache import EmbeddingCache
    from ibisagent.segmenters.protocol import Segmenter
    from ibisagent.train.rl.prompts import RlPrompt
    from ibisagent.train.rl.sampler import Sample
    from ibisagent.train.tokens import Renderer

__all__ = ["Rollout", "Run", "RunRules"]


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
    trace
        The facts that they were made of.
    """

    prompt: RlPrompt
    sibling: int
    context: Context
    episode: Episode
    breakdown: Breakdown
    trace: Trace


@dataclass(frozen=True, eq=False)
class RunRules:
    """What all runs of a training have in common.

    Parameters
    ----------
    renderer
        Of the model's processor.
    config
        Budgets of an episode; a sibling's seed is its number above the one here. `history` must be on: a context is
        one growing conversation.
    dialect
        Grammar of the replies.
    system_prompt
        The fixed prompt; None writes the dialect's.
    max_context
        Most tokens of a context; a run that a further observation would lead beyond it ends there, out of steps.
    name
        Of the policy, in records.
    """

    renderer: Renderer
    config: RolloutConfig
    dialect: Dialect
    system_prompt: str | None = None
    max_context: int = 32_768
    name: str = "rl"


@dataclass(eq=False)
class Run:
    """One run under way. Begin one with :meth:`begin`, :meth:`step` until :attr:`done`, then :meth:`finish`.

    Parameters
    ----------
    rules
        What it shares with others.
    prompt
        What is asked.
    sibling
        Its number within the group.
    env
        The environment, reset; done already if the image could not be encoded.
    context
        The tokens so far.
    max_context
        Of this run; as in the rules, unless whoever plays it has less room.
    """

    rules: RunRules
    prompt: RlPrompt
    sibling: int
    env: SegmentationEnv
    context: Context
    max_context: int

    @classmethod
    def begin(
        cls,
        rules: RunRules,
        prompt: RlPrompt,
        sibling: int,
        key: str,
        segmenter: Segmenter,
        *,
        cache: EmbeddingCache | None = None,
        like: Run | None = None,
    ) -> Run:
        """A run before its first reply.

        Parameters
        ----------
        rules, prompt, sibling
            See the class.
        key
            Names its context.
        segmenter
            The tool.
        cache
            Embeddings shared with other runs.
        like
            Another run of the same prompt, before its first reply: what it tokenised is not tokenised again.

        Raises
        ------
        InputError
            If the segmenter and the dialect have no action in common.
        """
        config = rules.config.model_copy(update={"seed": rules.config.seed + sibling})
        speaker = _Speaker(rules.name, rules.dialect, rules.system_prompt)
        env = SegmentationEnv(segmenter, config, dialect=rules.dialect, policy=speaker, cache=cache)
        env.reset(prompt.case)
        if like is not None:
            context = like.context.twin(key)
        else:
            context = Context.begin(key, new_messages(env.view, env.system_prompt), rules.renderer)
        return cls(rules, prompt, sibling, env, context, rules.max_context)

    @property
    def done(self) -> bool:
        """Whether the run has ended."""
        return self.env.done

    def step(self, sample: Sample, text: str | None = None) -> None:
        """Take what the model drew: into the tokens, into the environment, and what that shows into the tokens.

        Parameters
        ----------
        sample
            The reply.
        text
            What it says, if the caller has decoded it already.
        """
        env, context, renderer = self.env, self.context, self.rules.renderer
        num_shown = len(context.ids)  # before the reply, and before the end that a cut-off one is given
        context.reply(sample.ids, sample.ended, renderer.end_id, sample.log_probs)
        said = renderer.text(sample.ids) if text is None else text
        env.step(Reply(said, num_prompt_tokens=num_shown, num_tokens=len(sample.ids)))
        if env.done:
            return
        if not context.observe(new_messages(env.view, env.system_prompt), renderer, self.max_context):
            env.exhaust()

    def finish(self, rubric: Rubric) -> Rollout:
        """The run with its rewards, once it has ended."""
        episode = self.env.episode
        trace = trace_episode(episode, self.prompt.target)
        return Rollout(self.prompt, self.sibling, self.context, episode, rubric.score_trace(trace), trace)


class _Speaker:
    """The policy's side of the record: its dialect, prompt and name. It never acts by itself."""

    weights_sha256: str | None = None

    def __init__(self, name: str, dialect: Dialect, system_prompt: str | None) -> None:
        self.name, self.dialect = name, dialect
        if system_prompt is not None:
            self.system_prompt = system_prompt

    def act(self, views: Sequence[Any], seed: int) -> list[Reply]:
        """Never called: replies come from a sampler."""
        raise NotImplementedError
