"""Lexical families of leaks: the words by which a text shows that its writer saw more than the Agent view.

They are read from ``assets/leaks.txt`` (words) and ``assets/concepts.txt`` (turns of phrase). Patterns are
generous on purpose: a thought that is refused costs another draw, a leak that stays teaches a model to claim what it
cannot see.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

__all__ = ["HUES", "MISSPELT", "hue_pattern", "innocent", "leak_families", "macros"]


def _asset(name: str) -> list[str]:
    text = files("ibisagent.engine.reasoning").joinpath(f"assets/{name}").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@cache
def _lines() -> tuple[tuple[str, str], ...]:
    split = (line.split(" ", 1) for name in ("leaks.txt", "concepts.txt") for line in _asset(name))
    return tuple((first, rest) for first, rest in split)


@cache
def innocent() -> re.Pattern[str]:
    """Phrases that carry a suspicious word innocently (``assets/innocent.txt``), as one pattern."""
    return _compile([part for line in _asset("innocent.txt") for part in _alternatives(line)])


@cache
def macros() -> dict[str, str]:
    """Patterns that others are built from, by name: ``NUMBER`` …"""
    found: dict[str, str] = {}
    for first, rest in _lines():
        if first == "let":
            name, pattern = rest.split(" ", 1)
            found[name] = _expand(pattern, found)
    return found


@cache
def leak_families() -> tuple[tuple[str, re.Pattern[str]], ...]:
    """Name and pattern of every family, in the order of the asset; all lines of a family make one pattern."""
    joined: dict[str, list[str]] = {}
    for first, rest in _lines():
        if first != "let":
            joined.setdefault(first, []).extend(_alternatives(_expand(rest, macros())))
    return tuple((name, _compile(parts)) for name, parts in joined.items())


def _alternatives(pattern: str) -> list[str]:
    """Split at the bars that stand in no bracket."""
    parts, depth, in_set, start, at = [], 0, False, 0, 0
    while at < len(pattern):
        char = pattern[at]
        if char == "\\":
            at += 1
        elif in_set:
            in_set = char != "]"
        elif char == "[":
            in_set = True
        elif char in "()":
            depth += 1 if char == "(" else -1
        elif char == "|" and depth == 0:
            parts.append(pattern[start:at])
            start = at + 1
        at += 1
    return [*parts, pattern[start:]]


def _compile(parts: list[str]) -> re.Pattern[str]:
    """One pattern of many: those that begin with a word share its check, which most places of a text fail at once."""
    words = [part[2:] for part in parts if part.startswith(r"\b")]
    others = [part for part in parts if not part.startswith(r"\b")]
    return re.compile("|".join([r"\b(?:" + "|".join(words) + ")", *others] if words else others))


def _expand(pattern: str, known: dict[str, str]) -> str:
    for name, value in known.items():
        pattern = pattern.replace("{{" + name + "}}", value)
    return pattern


HUES: dict[str, str] = {
    "red": r"red|reddish|reds|crimson|scarlet|vermill?ion|ruby|carmine|cherry|maroon|burgundy|claret"
    r"|brick[- ]coloured|blood[- ]?colou?red|rouge",
    "yellow": r"yellow|yellowish|yellows|gold|golden|amber|lemon|mustard|canary|saffron|jaune",
    "blue": r"blue|bluish|blues|azure|navy|cobalt|sapphire|indigo|ultramarine",
    "orange": r"orange|tangerine",
    "magenta": r"magenta|fuchsia|purple|violet|lilac|pink|pinkish|mauve",
    "cyan": r"cyan|teal|turquoise|aqua",
}
"""Words for hues other than the mask's green, by family."""


def hue_pattern(family: str | None = None) -> str:
    """A pattern for the words of one family of hues, or of all."""
    words = HUES[family] if family else "|".join(HUES.values())
    return rf"\b(?:{words})\b"


MISSPELT: tuple[str, ...] = (
    "annotation", "annotations", "annotated", "annotator", "reference", "groundtruth", "jaccard", "intersection",
    "goldstandard", "answer", "solution", "labelled", "supervisor", "benchmark", "coordinate", "coordinates",
)  # fmt: skip
"""Long words of the families that stay readable with a letter wrong."""
