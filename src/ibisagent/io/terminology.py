"""Codes for what was segmented: SNOMED CT concepts for names in plain words, or an honest "some tissue".

A name is coded only if every word of it is understood ("the tumour in the left lung", "renal cyst"): a wrong organ in a
patient's record is worse than a vague one. Words that are not understood give a generic concept, and the name itself is
kept as the label. All codes are of the value sets that the DICOM standard publishes.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

__all__ = ["Code", "Concept", "find_concept"]


@dataclass(frozen=True)
class Code:
    """One coded term.

    Parameters
    ----------
    value
        The code, for example ``"39607008"``.
    meaning
        Its meaning, for example ``"Lung"``.
    scheme
        Coding scheme designator; ``"SCT"`` is SNOMED CT.
    """

    value: str
    meaning: str
    scheme: str = "SCT"


@dataclass(frozen=True)
class Concept:
    """What a segment is, as DICOM segmentations say it.

    Parameters
    ----------
    category
        DICOM CID 7150: anatomical structure, tissue, morphologically abnormal structure ...
    type
        The structure or the kind of lesion.
    side
        Left or right of a paired `type`, or None.
    region
        For a lesion: the organ it is in, or None if it is not said. Anatomy is its own region.
    region_side
        Left or right of a paired `region`, or None.
    is_known
        Whether all of the name was understood; if not, `type` is generic.
    """

    category: Code
    type: Code
    side: Code | None = None
    region: Code | None = None
    region_side: Code | None = None
    is_known: bool = True


@dataclass(frozen=True)
class _Term:
    category: str
    code: Code
    is_sided: bool = False
    region: Code | None = None
    only_in: frozenset[str] = frozenset()
    not_in: frozenset[str] = frozenset()

    def suits(self, body_part: str | None) -> bool:
        """Whether the word means this in a picture of that part of the body."""
        return body_part not in self.not_in and (not self.only_in or body_part in self.only_in)


@dataclass(frozen=True)
class _Vocabulary:
    categories: dict[str, Code]
    sides: dict[str, Code]
    adjectives: dict[str, str]
    terms: dict[str, _Term]


_ARTICLES = frozenset(("the", "a", "an", "this", "that", "all", "whole", "entire", "patient's"))
_VERBS = frozenset(
    ("please", "segment", "outline", "delineate", "contour", "mark", "find", "show", "extract", "annotate")
)
_SPELLINGS = {"tumour": "tumor", "tumours": "tumors", "grey": "gray", "oesophageal": "esophageal"}
# adjectives that leave a lesion what it is; leaving them out makes its code less exact, not wrong
_QUALITIES = frozenset(
    ("large", "larger", "largest", "small", "smaller", "smallest", "solid", "enhancing", "focal", "malignant", "benign")
)
_PLACED = frozenset(("in", "of", "within", "inside"))
_PREPOSITIONS = _PLACED | frozenset(
    (
        "on",
        "near",
        "at",
        "around",
        "beside",
        "under",
        "over",
        "above",
        "below",
        "behind",
        "between",
        "with",
        "without",
        "from",
    )
)
_NEGATIONS = frozenset(("no", "not", "non", "without"))


def find_concept(name: str, body_part: str | None = None) -> Concept:
    """Codes for a segment's name.

    Parameters
    ----------
    name
        Plain words: a structure ("left kidney"), a lesion ("lung tumor"), or a whole instruction
        ("segment the tumour in the left lung"). "Left" and "right" are the patient's.
    body_part
        What was examined, lower case, where it is known; it settles "ventricle", which heart and brain both have.

    Returns
    -------
    Concept
        For names that are not understood: a morphologically abnormal structure of unnamed place if the name is of a
        lesion ("odd mass beside the liver"), else tissue.
    """
    words = _words(name)
    found = _read(words, body_part)
    return found if found is not None else _generic(words, body_part)


def _words(name: str) -> tuple[str, ...]:
    text = name.lower().replace("’", "'")
    words = [_SPELLINGS.get(word, word) for word in re.findall(r"[^\s,.;:!?()\[\]\"]+", text)]
    while words and words[0] in _VERBS | _ARTICLES:
        words.pop(0)
    return tuple(words)


def _read(words: tuple[str, ...], body_part: str | None) -> Concept | None:
    """The concept of words that are understood one and all, or None."""
    vocabulary = _vocabulary()
    place = _read_place(words, body_part)
    if place is not None:
        term, side = place
        return Concept(vocabulary.categories[term.category], term.code, side=side, region=term.region)
    # "tumor in the left lung"
    for at, word in enumerate(words):
        if word in _PLACED:
            return _join(_read_lesion(words[:at], body_part), _read_place(words[at + 1 :], body_part))
    # "left lung tumor": the longest name of a lesion at the end
    for at in range(len(words)):
        lesion = _read_lesion(words[at:], body_part)
        if lesion is not None and at == 0:
            return Concept(vocabulary.categories["lesion"], lesion.code, region=lesion.region)
        if lesion is not None:
            return _join(lesion, _read_place(words[:at], body_part))
    return None


def _join(lesion: _Term | None, place: tuple[_Term, Code | None] | None) -> Concept | None:
    if lesion is None or place is None or place[0].category in ("lesion", "object"):
        return None
    if lesion.region not in (None, place[0].code):
        return None  # "brain tumor in the liver"
    category = _vocabulary().categories["lesion"]
    return Concept(category, lesion.code, region=place[0].code, region_side=place[1])


def _read_lesion(words: tuple[str, ...], body_part: str | None) -> _Term | None:
    words = _without_articles(words)
    term = _term(words, body_part)
    while term is None and len(words) > 1 and words[0] in _QUALITIES:
        words = words[1:]
        term = _term(words, body_part)
    return term if term is not None and term.category == "lesion" else None


def _read_place(words: tuple[str, ...], body_part: str | None) -> tuple[_Term, Code | None] | None:
    """A structure and its side: "left kidney", "kidney left", "upper lobe of the left lung", "renal"."""
    vocabulary = _vocabulary()
    words = _without_articles(words)
    term = _term(words, body_part)
    if term is not None:
        return term, None
    sides = [word for word in words if word in vocabulary.sides]
    if len(sides) != 1:
        return None
    rest = _without_articles(tuple(word for word in words if word not in vocabulary.sides))
    if rest[-1:] == ("side",):
        rest = rest[:-1]
    if rest[-1:] == ("on",):  # "lung on the patient's left"
        rest = rest[:-1]
    term = _term(rest, body_part)
    return (term, vocabulary.sides[sides[0]]) if term is not None and term.is_sided else None


def _without_articles(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word for word in words if word not in _ARTICLES)


def _term(words: tuple[str, ...], body_part: str | None) -> _Term | None:
    vocabulary = _vocabulary()
    if len(words) == 1:
        words = (vocabulary.adjectives.get(words[0], words[0]),)
    term = vocabulary.terms.get(" ".join(words))
    return term if term is not None and term.suits(body_part) else None


def _generic(words: tuple[str, ...], body_part: str | None) -> Concept:
    vocabulary = _vocabulary()
    head = words[: next((at for at, word in enumerate(words) if word in _PREPOSITIONS), len(words))]
    if not _NEGATIONS & set(words):
        for at in range(len(head)):
            lesion = _read_lesion(head[at:], body_part)
            if lesion is not None:
                return Concept(vocabulary.categories["lesion"], lesion.code, is_known=False)
    tissue = vocabulary.categories["tissue"]
    return Concept(tissue, tissue, is_known=False)


@cache
def _vocabulary() -> _Vocabulary:
    data: dict[str, Any] = json.loads((files("ibisagent.io") / "assets" / "terminology.json").read_text("utf-8"))
    terms: dict[str, _Term] = {}
    for row in data["terms"]:
        term = _Term(
            row["category"],
            Code(*row["code"]),
            bool(row.get("sided")),
            Code(*row["region"]) if "region" in row else None,
            frozenset(row.get("only_in", ())),
            frozenset(row.get("not_in", ())),
        )
        # "lobe of the lung" is looked up as it is spoken, without its articles
        terms.update({" ".join(_without_articles(tuple(name.split()))): term for name in row["names"]})
    return _Vocabulary(
        {name: Code(*code) for name, code in data["categories"].items()},
        {name: Code(*code) for name, code in data["sides"].items()},
        data["adjectives"],
        terms,
    )
