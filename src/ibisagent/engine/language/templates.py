"""The library of instruction templates: the paper's 13 categories, starting (group A) and refining (group B).

The sentences are in ``assets/templates.json``, each category with a ``train`` and a ``test`` list: what is measured
should be the understanding of a sentence, not the memory of it. Placeholders
(:mod:`ibisagent.engine.language.instructions` fills them, with the right article and number):

``{the}`` "the left lung" · ``{name}`` "left lung" · ``{Name}`` "Left lung" · ``{image}`` "CT scan" ·
``{an_image}`` "a CT scan" · ``{is}`` is/are · ``{has}`` has/have · ``{does}`` does/do · ``{it}`` it/them ·
``{its}`` its/their · ``{s}`` the ending of a verb, as in "end{s}" · in refining ones ``{mask}`` "mask after two clicks"
and ``{Done}`` "Two clicks have been made so far" · in those of a wrong place ``{place}`` "upper left of the image".
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib import resources
from typing import Literal

__all__ = [
    "CORE_TEST",
    "CORE_TRAIN",
    "DECEPTIVE",
    "HISTORY_PLACEHOLDERS",
    "IMPLICIT",
    "PLACEHOLDERS",
    "REFINE",
    "START",
    "Library",
    "Lists",
    "near_duplicate",
    "placeholders",
]

Library = Literal["core", "full"]
Lists = Mapping[Literal["train", "test"], tuple[str, ...]]

CORE_TRAIN, CORE_TEST = 6, 2
"""How many of a category's ``train`` and ``test`` lists, from their beginnings, make the core library.

Models were trained and evaluated with these: they keep their order and their words.
"""

PLACEHOLDERS = frozenset("the name Name image an_image is has does it its s".split())
HISTORY_PLACEHOLDERS = frozenset(("mask", "Done"))

_ALIKE = 0.2  # share of words that must differ, so that two sentences count as two


def _lists(rows: Mapping[str, list[str]]) -> Lists:
    return {"train": tuple(rows["train"]), "test": tuple(rows["test"])}


_FILE = json.loads(
    resources.files("ibisagent.engine.language").joinpath("assets/templates.json").read_text(encoding="utf-8")
)

START: Mapping[str, Lists] = {name: _lists(rows) for name, rows in _FILE["start"].items()}
REFINE: Mapping[str, Lists] = {name: _lists(rows) for name, rows in _FILE["refine"].items()}
IMPLICIT: Lists = _lists(_FILE["implicit"])
"""Frames around a description of the target."""
DECEPTIVE: Mapping[str, Lists] = {hint: _lists(rows) for hint, rows in _FILE["deceptive"].items()}
"""By hint: what they claim is false where they are used."""


def placeholders(template: str) -> set[str]:
    """Names of the placeholders in a template.

    Raises
    ------
    ValueError
        If its braces are not paired, or a placeholder carries a conversion or a format.
    """
    found = set()
    for _, name, form, conversion in string.Formatter().parse(template):
        if name is None:
            continue
        if form or conversion or not name.isidentifier():
            raise ValueError(f"a placeholder is a plain name, not {{{name}}}")
        found.add(name)
    return found


_TARGET = re.compile(r"\{(the|name|Name)\}")
_IMAGE = re.compile(r"(?:\b(?:this|the) )?\{(image|an_image)\}")
_WORD = re.compile(r"[a-zA-Z']+")


@lru_cache(maxsize=8192)
def _skeleton(template: str) -> tuple[str, ...]:
    """Words in lower case; the target is one word, the image another, and punctuation does not count."""
    return tuple(_WORD.findall(_IMAGE.sub(" anyimage ", _TARGET.sub(" anytarget ", template)).lower()))


def _distance(a: tuple[str, ...], b: tuple[str, ...]) -> int:
    """Edit distance in words."""
    row = list(range(len(b) + 1))
    for i, word in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != other))
    return row[-1]


def near_duplicate(template: str, others: Iterable[str]) -> str | None:
    """The first of `others` that says the same in nearly the same words, or None.

    Two templates are near-duplicates if at most one word, or at most a fifth of the words, must be added, removed or
    exchanged to make one of the other. Case, punctuation, and the way in which target and image are inserted do not
    count.
    """
    mine = _skeleton(template)
    for other in others:
        words = _skeleton(other)
        longest = max(len(mine), len(words))
        limit = max(1, int(_ALIKE * longest))
        if abs(len(mine) - len(words)) <= limit and _distance(mine, words) <= limit:
            return other
    return None
