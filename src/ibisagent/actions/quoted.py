"""Which dialect a system prompt quotes: replies must be read by the grammar that the model was told.

A model that learnt ``plain`` may well take back a click or discard a mask; a run that reads its replies as
``ibis-paper``, which has neither, would reject both, and in training teach it that they are worth nothing.
"""

from __future__ import annotations

from ibisagent.actions.dialects import DIALECTS, Dialect
from ibisagent.errors import InputError

__all__ = ["dialect_for"]


def dialect_for(name: str | None, system_prompt: str | None, learnt: str | None = None) -> Dialect:
    """The dialect of a name, if it fits what the model is told; without a name, the one that it is told.

    Parameters
    ----------
    name
        Of the dialect; None takes the one whose grammar the prompt quotes, line by line, ``plain`` where several or
        none could be meant.
    system_prompt
        The fixed system prompt; None, where the dialect's own is told. Prompts that quote no dialect fit any.
    learnt
        The dialect that the model is known to have learnt; None, where nothing says it.

    Raises
    ------
    InputError
        If there is no such dialect, the model learnt another one, or the prompt quotes what only others have.
    """
    if name is not None and name not in DIALECTS:
        raise InputError(f"no dialect is called '{name}'; there are {', '.join(DIALECTS)}")
    if name is not None and learnt not in (None, name):
        raise InputError(
            f"replies would be read as dialect '{name}', but the model learnt '{learnt}'; set dialect to {learnt}"
        )
    lines = {other: _lines(dialect.describe()) for other, dialect in DIALECTS.items()}
    quoted = _lines(system_prompt or "") & set().union(*lines.values())
    fitting = [other for other in DIALECTS if quoted <= lines[other]]  # 'plain' is the first of them
    if name is None:
        if not fitting:
            raise InputError("the model's system prompt quotes several dialects; give it a prompt of one dialect")
        return DIALECTS[fitting[0]]
    if name not in fitting:
        raise InputError(
            f"replies would be read as dialect '{name}', but the model's system prompt offers "
            f"'{min(quoted - lines[name])}'"
            + (f"; set dialect to {fitting[0]}" if fitting else "; give it a prompt of one dialect")
        )
    return DIALECTS[name]


def _lines(text: str) -> set[str]:
    """Lines as they are compared: who copies a grammar may indent it, or make a list of it."""
    return {" ".join(line.lstrip(" \t-*•").split()) for line in text.splitlines()} - {""}
