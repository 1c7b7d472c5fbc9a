"""The action grammar: what a policy may do, and how each dialect writes it.

Parsing and formatting are inverse: ``dialect.parse(dialect.format(turn)) == turn``. Prompts quote
:meth:`Dialect.describe`, rewards and scores read parsed actions, never text.
"""

from __future__ import annotations

from ibisagent.actions.dialects import DIALECTS, WITHOUT_THOUGHT, Dialect
from ibisagent.actions.model import (
    KINDS,
    Action,
    BoxAction,
    Click,
    ClickAction,
    DiscardAction,
    TerminateAction,
    Turn,
    UndoAction,
    Verdict,
)
from ibisagent.actions.quoted import dialect_for

__all__ = [
    "DIALECTS",
    "KINDS",
    "WITHOUT_THOUGHT",
    "Action",
    "BoxAction",
    "Click",
    "ClickAction",
    "Dialect",
    "DiscardAction",
    "TerminateAction",
    "Turn",
    "UndoAction",
    "Verdict",
    "dialect_for",
]
