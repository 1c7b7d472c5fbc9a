"""Text as rules read it: plain letters, sentences, and the readings that a disguised word needs."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["plain", "readings", "sentences"]

# Letters of other alphabets that look like Latin ones, and what typesetting makes of quotes and dashes.
_LOOKALIKES = str.maketrans(
    "аеорсхуіјѕԁһԛԝвкмнтαεορτυνικ‘’‚‛“”„«»‐‑‒–—―−­·•…×",
    'aeopcxyijsdhqwbkmhtaeoptuvik\'\'\'\'"""""-------' + "-" + "..." + "x",
)
_INVISIBLE = re.compile("[\u200b-\u200f\u2060-\u2064\ufeff\u00ad]")
_LEET = str.maketrans("013457$@!|", "oleastsail")
_LEET_I = str.maketrans("013457$@!|", "oieastsaii")


def plain(text: str) -> str:
    """Lower case, one kind of quote and dash, no accents, no invisible characters, single spaces."""
    text = _INVISIBLE.sub("", unicodedata.normalize("NFKD", text))
    text = "".join(c for c in text if not unicodedata.combining(c)).casefold().translate(_LOOKALIKES)
    return " ".join(text.split())


def sentences(text: str) -> list[str]:
    """Split at full stops, question and exclamation marks, colons and semicolons; decimals stay whole."""
    return [part for part in re.split(r"(?<=[.!?;:])\s+", text) if part]


_SPACED = re.compile(r"(?<![\w'])[a-z](?:[\s.\-_*/]{1,3}[a-z](?![\w'])){1,}")
_JOINS = re.compile(r"(?<=[a-z0-9])[\-_*/~^+\\](?=[a-z0-9])")
_DOTS = re.compile(r"(?<=[a-z])[.·*_~](?=[a-z])")
_MIXED = re.compile(r"(?=[a-z0-9$@!|]*[a-z])(?=[a-z0-9$@!|]*[0-9$@!|])[a-z0-9$@!|]{2,}")


def readings(text: str) -> list[str]:
    """The ways in which a reader could take a text that may hide a word; the plain one first.

    Hyphens as spaces and as nothing (``ground-truth``, ``anno-tation``), letters set apart (``G. T.``,
    ``o r a c l e``), digits for letters (``gr0und``).
    """
    base = plain(text)
    spaced = _JOINS.sub(" ", base)
    found = [spaced]
    joined = _DOTS.sub("", _JOINS.sub("", base))
    found.append(joined)
    if _SPACED.search(base):
        found.append(_SPACED.sub(lambda m: re.sub(r"[^a-z]", "", m.group()), base))
    if _MIXED.search(spaced):
        found += [_unleet(reading, table) for table in (_LEET, _LEET_I) for reading in (spaced, joined)]
    return list(dict.fromkeys(found))


def _unleet(text: str, table: dict[int, int]) -> str:
    def letters_for_digits(match: re.Match[str]) -> str:
        # "t2", "l4", "3d", "12mm" are what they are: a disguise keeps more letters than it changes.
        word = match.group()
        letters = sum(c.isalpha() for c in word)
        return word.translate(table) if letters >= 2 and letters >= len(word) - letters else word

    return _MIXED.sub(letters_for_digits, text)
