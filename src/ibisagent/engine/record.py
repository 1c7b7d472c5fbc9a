"""From a walk to an episode: thoughts are found, and the environment carries the actions out as at inference.

The same grammar, environment, messages and overlay serve here and when a model acts (faults 1, 8, 9 of the public
code), so that what a trajectory teaches is what a model meets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.actions import Dialect, TerminateAction, Turn
from ibisagent.config import RolloutConfig
from ibisagent.engine.moments import Moment
from ibisagent.engine.reasoning.teacher import TeacherError, TeacherUnavailableError
from ibisagent.engine.reasoning.verifier import verify
from ibisagent.engine.scenarios import Dropped
from ibisagent.environment import SegmentationEnv
from ibisagent.errors import ToolError
from ibisagent.policies.protocol import Reply

if TYPE_CHECKING:
    from ibisagent.engine.reasoning.teacher import Teacher
    from ibisagent.engine.walk import Subject, Walk
    from ibisagent.episode import Episode
    from ibisagent.segmenters.protocol import Segmenter
    from ibisagent.types import Case

__all__ = ["Reasoner", "record_walk"]


class Reasoner:
    """Asks a teacher for thoughts and lets none pass that the verifier rejects.

    Parameters
    ----------
    teacher
        Who writes.
    attempts
        How often it is asked for one thought.
    """

    def __init__(self, teacher: Teacher, attempts: int = 4) -> None:
        self.teacher, self.attempts = teacher, attempts
        self._counts: Counter[str] = Counter()
        self._reported: Counter[str] = Counter()

    def think(self, moment: Moment, rng: np.random.Generator) -> str:
        """A thought for this moment.

        Raises
        ------
        Dropped
            If none of the texts passed.
        TeacherUnavailableError
            If the teacher's server fails or its budget is spent.
        """
        self._counts["asked"] += 1
        for _ in range(self.attempts):
            try:
                text = self.teacher.think(moment, rng)
            except TeacherUnavailableError:
                raise
            except TeacherError:
                break  # it tried as often as it may
            self._counts["written"] += 1
            violations = verify(text, moment)
            if not violations:
                return text
            self._counts["rejected"] += 1
            self._counts.update({f"rejected: {violation.code}" for violation in violations})
        self._counts["given_up"] += 1
        raise Dropped("reasoning_rejected")

    def take_counts(self) -> dict[str, int]:
        """What happened since the last call.

        ``asked`` (thoughts wanted), ``written`` (texts that the teacher gave), ``rejected`` (of those), ``rejected:
        CODE`` (a text may break several rules), ``given_up`` (thoughts that never passed). A chat teacher, which
        checks its own replies before it gives one, adds ``teacher: …``.
        """
        counts = Counter(self._counts)
        self._counts.clear()
        report = getattr(self.teacher, "report", None)
        if report is not None:
            now = _numbers(report())
            counts.update(now - self._reported)
            self._reported = now
        return {name: number for name, number in sorted(counts.items()) if number}


def _numbers(report: Mapping[str, Any]) -> Counter[str]:
    """The counts of a chat teacher's report; what it cost is not one of them: a rerun from the cache costs nothing."""
    found = {f"teacher: {name}": value for name, value in report.items() if isinstance(value, int)}
    found.update({f"teacher: rejected: {code}": value for code, value in report.get("rejected", {}).items()})
    return Counter(found)


def record_walk(
    walk: Walk,
    subject: Subject,
    case: Case,
    segmenter: Segmenter,
    reasoner: Reasoner,
    rng: np.random.Generator,
    dialect: Dialect,
    system_prompt: str | None = None,
) -> Episode:
    """Play a finished walk in the environment, with a thought for every move.

    Parameters
    ----------
    walk
        Ends with a Terminate.
    subject
        What it is about; its target serves the teacher's Oracle view alone.
    case
        What the environment is reset with: the same image and given mask, and the instruction.
    segmenter
        The one that the walk was made with.
    reasoner, rng
        Who finds the words.
    dialect
        Grammar of the raw texts.
    system_prompt
        None takes the dialect's own.

    Returns
    -------
    Episode
        With an outcome. Seconds are zero: the same walk gives the same record.

    Raises
    ------
    Dropped
        If a thought never passed the verifier.
    ToolError
        If the segmenter fails, or gives another mask than in the walk.
    """
    config = RolloutConfig(max_steps=max(1, len(walk.moves)))
    policy: Any = None if system_prompt is None else _Author(dialect, system_prompt)
    env = SegmentationEnv(segmenter, config, dialect=dialect, policy=policy)
    view = env.reset(case)
    thoughts: list[str] = []
    for index, move in enumerate(walk.moves):
        if env.done:
            raise ToolError(env.episode.error or f"the run ended before its move {index}: {env.episode.end_reason}")
        before = walk.moves[index - 1] if index else None
        moment = Moment(
            pixels=case.image.pixels,
            mask=view.mask,
            target=subject.target,
            name=subject.name,
            modality=case.image.modality,
            instruction=case.instruction,
            action=move.action,
            intent=move.intent,
            index=index,
            previous_mask=None if index == 0 else walk.masks[index - 2] if index > 1 else walk.initial_mask,
            previous_action=None if before is None else before.action,
            previous_intent=None if before is None else before.intent,
            given=walk.initial_mask is not None,
            hint=walk.hint,
            thoughts=tuple(thoughts),
        )
        thought = reasoner.think(moment, rng)
        thoughts.append(thought)
        action = move.action
        if isinstance(action, TerminateAction):
            action = action.model_copy(update={"answer": reasoner.teacher.answer(moment, rng)})
        # The corpus keeps the messages itself: pictures need not be drawn and hashed for the record.
        view = env.step(Reply(env.dialect.format(Turn(thought=thought, action=action)), messages=[{"role": "user"}]))
        step = env.episode.steps[-1]
        if step.invalid is not None:
            raise ToolError(f"the environment refused a move of the walk: {step.invalid.reason}")
        _check_mask(view.mask, walk.masks[index], segmenter.name)
    if not env.done or env.episode.outcome is None or env.episode.error:
        raise ToolError(env.episode.error or "the run did not end with the walk")
    return _without_times(env.episode)


class _Author:
    """Stands for a policy in the environment's record: the system prompt is all that is read."""

    name = ""
    weights_sha256 = None

    def __init__(self, dialect: Dialect, system_prompt: str) -> None:
        self.dialect, self.system_prompt = dialect, system_prompt


def _check_mask(seen: Any, expected: Any, name: str) -> None:
    same = seen is None if expected is None else seen is not None and np.array_equal(seen, expected)
    if not same:
        raise ToolError(f"the segmenter {name} gave another mask for the same clicks: it is not deterministic")


def _without_times(episode: Episode) -> Episode:
    for step in episode.steps:
        step.messages = []
        step.seconds.policy = step.seconds.segmenter = 0.0
    episode.seconds_total = 0.0
    return episode
