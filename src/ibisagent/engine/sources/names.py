"""Names of structures as sentences want them: "Kidney_Left" of a label table is the "left kidney" of an instruction."""

from __future__ import annotations

import re
from functools import lru_cache

from ibisagent.engine.language import ontology

__all__ = ["clean_name", "named_phrase"]

_SIDES = {"l": "left", "r": "right", "left": "left", "right": "right"}
_LEADING = re.compile(r"(?P<side>left|right|l|r)[\s,]+(?P<rest>.+)", re.IGNORECASE)
_TRAILING = re.compile(
    r"(?P<rest>.+?)(?:[\s,-]*\((?P<a>left|right|l|r)\)|[\s,-]+(?P<b>left|right)|[\s,]+(?P<c>l|r))", re.IGNORECASE
)
_LONGEST_ABBREVIATION = 5
"""Letters of a word in capitals that no phrase of the ontology has in lower case."""


def clean_name(text: str) -> str:
    """A structure's name for use in sentences.

    Underscores and repeated spaces become single spaces, a side (*left*, *right*, *l*, *r*) that leads or trails comes
    first and in full, and everything is lower case but for abbreviations, words with digits and words with capitals
    inside.

    Parameters
    ----------
    text
        As a label table, a file's name or a person has it; may be blank, then so is the result.

    Examples
    --------
    >>> clean_name("Kidney_Left"), clean_name("lung  upper lobe R"), clean_name("LIVER"), clean_name("GTV_primary")
    ('left kidney', 'right lung upper lobe', 'liver', 'GTV primary')
    """
    name = " ".join(text.replace("_", " ").split())
    leading = _LEADING.fullmatch(name)
    trailing = _TRAILING.fullmatch(name)
    if leading is not None:
        name = f"{_SIDES[leading['side'].lower()]} {leading['rest']}"
    elif trailing is not None:
        side = trailing["a"] or trailing["b"] or trailing["c"]
        name = f"{_SIDES[side.lower()]} {trailing['rest']}"
    return " ".join(_lowered(word) for word in name.split())


def named_phrase(text: str) -> str | None:
    """The structure that a sentence names, as it says it; None if it names none, or several.

    Saying the same structure several times is naming one; the first phrase counts. A sentence that speaks of a side
    elsewhere ("the kidney on the left") means less than the phrase, so it names none.

    Examples
    --------
    >>> named_phrase("Where is the liver in this CT image?"), named_phrase("Segment the liver and the spleen.")
    ('liver', None)
    """
    found = ontology.mentions(text)
    if len({mention.name for mention in found}) != 1:
        return None
    first = found[0]
    around = f"{text[: first.start]} {text[first.end :]}"
    if len(found) == 1 and re.search(r"\b(?:left|right)\b", around, re.IGNORECASE):
        return None
    return clean_name(text[first.start : first.end])


def _lowered(word: str) -> str:
    letters = re.sub(r"[^A-Za-z]", "", word)
    if len(letters) == 1 and letters.isupper():
        return word
    if len(letters) > 1 and letters.isupper() and not re.search(r"\d", word):
        is_word = len(letters) > _LONGEST_ABBREVIATION or letters.lower() in _ordinary_words()
        return word.lower() if is_word else word
    return word if re.search(r"\d|.[A-Z]", word) else word.lower()


@lru_cache(maxsize=1)
def _ordinary_words() -> frozenset[str]:
    """Words that the ontology writes in lower case."""
    phrases = (p for one in ontology.concepts().values() for p in (one.name, *one.synonyms, *one.lay, *one.narrower))
    words = {word for phrase in phrases for word in re.findall(r"[A-Za-z]+", phrase)}
    return frozenset(word for word in words if word.islower())
