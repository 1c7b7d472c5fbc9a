"""Who writes the thoughts: the protocol of a teacher, and the one place that makes each by its name.

- ``template``    offline sentences from measured facts of the Agent view (:mod:`.template_teacher`)
- ``terse``       one short sentence a step, as the first generator wrote (:mod:`.terse`)
- ``chat:MODEL``  a model behind an OpenAI-compatible server (:mod:`.chat_teacher`)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ibisagent.errors import IbisError, InputError
from ibisagent.registry import parse_spec

if TYPE_CHECKING:
    import numpy as np

    from ibisagent.engine.moments import Moment

__all__ = ["TEACHERS", "Teacher", "TeacherError", "TeacherUnavailableError", "make_teacher"]

TEACHERS: tuple[str, ...] = ("template", "terse", "chat:MODEL")
"""What :func:`make_teacher` makes, as a user writes it."""


class TeacherError(IbisError):
    """A teacher cannot write a thought: its server failed, its budget is spent, or no sentence passes the verifier."""


class TeacherUnavailableError(TeacherError):
    """The server failed or the budget is spent: the next thought would fare no better, so the run should stop.

    What was answered is in the cache. A later run gets it from there and ends with the same corpus.
    """


@runtime_checkable
class Teacher(Protocol):
    """Writes what stands in the tags of a turn."""

    name: str
    """As provenance records it, for example ``"template"``."""

    def think(self, moment: Moment, rng: np.random.Generator) -> str:
        """The thought of a step, one paragraph without tags.

        Parameters
        ----------
        moment
            The step. What the thought says must be visible in its Agent view.
        rng
            The only source of randomness.

        Raises
        ------
        TeacherError
            If none can be written.
        """
        ...

    def answer(self, moment: Moment, rng: np.random.Generator) -> str:
        """The text after the verdict word of a Terminate (``TerminateAction.answer``); empty for other actions.

        Raises
        ------
        TeacherError
            If none can be written.
        """
        ...


def make_teacher(spec: str, **options: Any) -> Teacher:
    """Make the teacher that a spec names. Options that are None count as not given; only ``chat`` takes any.

    Raises
    ------
    InputError
        If there is no such teacher, or it cannot use the argument or an option.
    """
    kind, argument = parse_spec(spec)
    given = {name: value for name, value in options.items() if value is not None}
    if kind == "chat":
        if argument is None:
            raise InputError("the teacher 'chat' needs an argument: chat:MODEL")
        from ibisagent.engine.reasoning.chat_teacher import ChatTeacher

        made: Teacher = ChatTeacher.from_spec(argument, **given)
        return made
    if kind not in ("template", "terse"):
        raise InputError(f"there is no teacher '{kind}'; there are {', '.join(TEACHERS)}")
    if argument is not None or given:
        extra = f"the argument '{argument}'" if argument is not None else f"the option '{min(given)}'"
        raise InputError(f"the teacher '{kind}' does not take {extra}")
    if kind == "terse":
        from ibisagent.engine.reasoning.terse import TerseTeacher

        return TerseTeacher()
    from ibisagent.engine.reasoning.template_teacher import TemplateTeacher

    return TemplateTeacher()
