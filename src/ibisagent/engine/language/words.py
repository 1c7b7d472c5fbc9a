"""Words of a phrase, so that spelling, number and punctuation do not decide whether two phrases are the same."""

from __future__ import annotations

import re

__all__ = ["GAP", "TOKEN", "other_numbers", "spell", "words_of"]

TOKEN = re.compile(r"[A-Za-z0-9]+")
"""A word of a text."""

GAP = re.compile(r"[\s\-'’_]*")
"""What may stand between two words of one phrase."""

# British beginnings, so that one entry serves all spellings.
_SPELT = dict(
    pair.split(":")
    for pair in (
        "oesoph:esoph oedem:edem haem:hem foet:fet naev:nev ischaem:ischem leukaem:leukem "
        "tumour:tumor grey:gray disk:disc fibre:fiber colour:color"
    ).split()
)
_SPELLING = re.compile(f"^(?:{'|'.join(_SPELT)})")

_PLURALS = dict(
    pair.split(":")
    for pair in (
        "nucleus:nuclei vertebra:vertebrae hippocampus:hippocampi thalamus:thalami meniscus:menisci tooth:teeth "
        "testis:testes femur:femora metastasis:metastases embolus:emboli calculus:calculi fetus:fetuses "
        "corpus:corpora fovea:foveae nevus:nevi mitochondrion:mitochondria atrium:atria pancreas:pancreases"
    ).split()
)
_SINGULARS = {many: one for one, many in _PLURALS.items()}
# The noun that carries the number stands before these words.
_LINKS = frozenset("of in on from around between with under for at".split())


def spell(word: str) -> str:
    """A word in lower case and American spelling."""
    return _SPELLING.sub(lambda m: _SPELT[m.group()], word.lower())


def words_of(text: str) -> tuple[str, ...]:
    """Words of a phrase, spelt alike, without a leading article.

    Examples
    --------
    >>> words_of("the patient's Oesophagus")
    ('patient', 's', 'esophagus')
    """
    words = tuple(spell(t) for t in TOKEN.findall(text))
    return words[1:] if len(words) > 1 and words[0] in ("the", "a", "an") else words


def other_numbers(words: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The phrase with its head noun in the other number, where that can be told.

    Examples
    --------
    >>> other_numbers(("tumor", "in", "the", "lung")), other_numbers(("lungs",)), other_numbers(("pus",))
    ([('tumors', 'in', 'the', 'lung')], [('lung',)], [])
    """
    at = next((i for i, word in enumerate(words) if i and word in _LINKS), len(words)) - 1
    head = words[at]
    if head in _PLURALS or head in _SINGULARS:
        other = _PLURALS.get(head) or _SINGULARS[head]
    elif head.endswith("ies"):
        other = head[:-3] + "y"
    elif head.endswith("s") and not head.endswith(("ss", "us", "is")):
        other = head[:-1]
    elif head.endswith("y") and head[-2:-1] not in "aeou":
        other = head[:-1] + "ies"
    elif head.endswith(("x", "ch", "sh", "ss")):
        other = head + "es"
    elif not head.endswith("s"):
        other = head + "s"
    else:
        return []
    return [(*words[:at], other, *words[at + 1 :])]
