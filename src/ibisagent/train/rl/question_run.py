"""A visual question as a run of one reply: image and question in, answer out, no tool and no environment.

It goes the way of every other run: the same tokens in and out, the same sampler, the same batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ibisagent.messages import question_messages
from ibisagent.rewards.vqa import score_answer
from ibisagent.train.rl.contexts import Context

if TYPE_CHECKING:
    from ibisagent.engine.questions import VisualQuestion
    from ibisagent.rewards import Breakdown, Rubric
    from ibisagent.train.rl.sampler import Sample
    from ibisagent.train.tokens import Renderer

__all__ = ["Answered", "QuestionRun"]


@dataclass(eq=False)
class Answered:
    """One answered question with what training needs of it; beside :class:`~ibisagent.train.rl.run_state.Rollout`.

    Parameters
    ----------
    prompt
        The question.
    sibling
        Its number within the group.
    context
        All tokens.
    reply
        What the model wrote.
    breakdown
        Its reward.
    """

    prompt: VisualQuestion
    sibling: int
    context: Context
    reply: str
    breakdown: Breakdown


@dataclass(eq=False)
class QuestionRun:
    """One question under way; played as :class:`~ibisagent.train.rl.run_state.Run` is.

    Parameters
    ----------
    renderer
        Of the model's processor.
    prompt
        The question.
    sibling
        Its number within the group.
    context
        The tokens so far.
    reply
        The answer, once there is one.
    """

    renderer: Renderer
    prompt: VisualQuestion
    sibling: int
    context: Context
    reply: str | None = None

    @classmethod
    def begin(
        cls, renderer: Renderer, prompt: VisualQuestion, sibling: int, key: str, like: QuestionRun | None = None
    ) -> QuestionRun:
        """A run before its reply; `key` names its context, `like` is another one of the same question."""
        if like is not None:
            return cls(renderer, prompt, sibling, like.context.twin(key))
        messages = question_messages(prompt.pixels, prompt.question.text)
        return cls(renderer, prompt, sibling, Context.begin(key, messages, renderer))

    @property
    def done(self) -> bool:
        """Whether it was answered."""
        return self.reply is not None

    def step(self, sample: Sample, text: str) -> None:
        """Take the answer: `text` is what the ids of `sample` say."""
        self.context.reply(sample.ids, sample.ended, self.renderer.end_id, sample.log_probs)
        self.reply = text

    def finish(self, rubric: Rubric) -> Answered:
        """The run with its reward, which is that of :func:`~ibisagent.rewards.vqa.score_answer` in every rubric."""
        assert self.reply is not None
        question = self.prompt.question
        breakdown = score_answer(self.reply, question.answer, question.closed)
        return Answered(self.prompt, self.sibling, self.context, self.reply, breakdown)
