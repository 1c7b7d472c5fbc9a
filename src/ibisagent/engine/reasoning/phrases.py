"""Sentences of the template teacher, by the part that they play in a thought; read from ``assets/phrases.json``.

Each entry is (conditions, sentence). Conditions are flags of :mod:`.slots`, all of which must hold (``!flag``: must
not); a sentence whose slots cannot all be filled is left out. So a sentence is only said where it is true of the
picture: what is *seen* comes from measured facts, what is *judged* from the intent of the step.

Parts are named after the intent: ``missed_see``, ``missed_judge``, ``missed_do`` … A sentence that points back
("there", "this") has the condition ``seen``: something was shown before it. The parts ``wrong_*`` are hedged, since a
wrong click is written with a mistaken reason, and never say that it is wrong.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import NamedTuple

__all__ = ["Library", "Sentence", "library"]


class Sentence(NamedTuple):
    """A sentence with slots in braces, and the flags that it needs."""

    conditions: str
    text: str


class Library(NamedTuple):
    """All that the template teacher says.

    Parameters
    ----------
    phrases
        Sentences by part.
    plans
        For every kind of thought, the parts that it may be made of, in order.
    answers
        By verdict: the text after the verdict word.
    """

    phrases: dict[str, tuple[Sentence, ...]]
    plans: dict[str, tuple[tuple[str, ...], ...]]
    answers: dict[str, tuple[Sentence, ...]]


@cache
def library() -> Library:
    """The sentences, read once."""
    text = files("ibisagent.engine.reasoning").joinpath("assets/phrases.json").read_text(encoding="utf-8")
    data = json.loads(text)
    phrases, answers = (
        {part: tuple(Sentence(*pair) for pair in pairs) for part, pairs in data[name].items()}
        for name in ("phrases", "answers")
    )
    return Library(phrases, {kind: tuple(map(tuple, plans)) for kind, plans in data["plans"].items()}, answers)
