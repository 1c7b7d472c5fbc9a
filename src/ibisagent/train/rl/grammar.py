"""The grammar of the replies of a run, which must be the one that the model is told.

A model that learnt ``plain`` may well take back a click or discard a mask; a run that reads its replies as
``ibis-paper``, which has neither, would reject both and teach it that they are worth nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ibisagent.actions import DIALECTS
from ibisagent.errors import InputError

if TYPE_CHECKING:
    from ibisagent.actions import Dialect

__all__ = ["dialect_for"]


def dialect_for(name: str, system_prompt: str | None) -> Dialect:
    """The dialect of a name, if it fits what the model is told.

    Parameters
    ----------
    name
        Of the dialect.
    system_prompt
        The fixed system prompt; None, where the dialect's own is told. Prompts that quote no dialect fit any.

    Raises
    ------
    InputError
        If there is no such dialect, or the prompt quotes what only others have.
    """
    if name not in DIALECTS:
        raise InputError(f"no dialect is called '{name}'; there are {', '.join(DIALECTS)}")
    told = set((system_prompt or "").splitlines())
    lines = {other: set(dialect.describe().splitlines()) for other, dialect in DIALECTS.items()}
    foreign = told & set().union(*lines.values()) - lines[name]
    if foreign:
        fitting = [other for other in DIALECTS if foreign <= lines[other]]
        raise InputError(
            f"replies would be read as dialect '{name}', but the model's system prompt offers '{min(foreign)}'"
            + (f"; set dialect to {fitting[0]}" if fitting else "; give it a prompt of one dialect")
        )
    return DIALECTS[name]
