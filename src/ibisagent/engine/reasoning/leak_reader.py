"""Reads a text word by word, by what words mean: a small convolutional net over word vectors, in numpy.

Its words are 12,000 frequent ones with 50 numbers each (``assets/word_vectors.npz``; see ``docs/teachers.md`` for where
they come from); its weights lie with the linear model's in ``assets/leak_score.npz``. Words that mean alike have
vectors alike, so that a phrase is known by its neighbours where :mod:`.leak_score` has never met its letters.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from ibisagent.engine.reasoning.wording import plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["EDGE", "SPECIAL", "VECTORS", "WINDOWS", "net_score", "tokens", "word_ids"]

VECTORS = "assets/word_vectors.npz"

SPECIAL: tuple[str, ...] = ("anatomyx", "i", "a", "0", "'s", "x", "y", "<unk>", "<pad>", "n't")
"""Tokens whose vectors are learnt, after those of the table."""

EDGE = 5
"""Blank tokens after a text (two before): the longest window fits into them, so that more would change nothing."""

WINDOWS: tuple[int, ...] = (1, 2, 3, 5)
"""Words that the net's detectors look at together."""

_SHORT = re.compile(r"^(.+?)(n't|'s|'ll|'d|'m|'ve|'re)$")
_LONG = {"'ll": "will", "'d": "would", "'m": "am", "'ve": "have", "'re": "are"}
_STEMS = {"ca": "can", "wo": "will"}


@lru_cache(maxsize=1024)  # the linear model and the net read the same sentence, one after the other
def tokens(text: str) -> tuple[str, ...]:
    """Words and stops of a text; a structure that the ontology knows is ``anatomyx``, digits are ``0``.

    Parameters
    ----------
    text
        A thought or an answer.
    """
    from ibisagent.engine.language.ontology import mentions

    letters = plain(text)
    pieces, last = [], 0
    for mention in mentions(letters):
        pieces += [letters[last : mention.start], " anatomyx "]
        last = mention.end
    found: list[str] = []
    for word in re.findall(r"[a-z0']+|[.,;:!?]", re.sub(r"\d+", "0", "".join(pieces) + letters[last:])):
        match = _SHORT.match(word)
        if match:
            found += [_STEMS.get(match[1], match[1]), _LONG.get(match[2], match[2])]
        else:
            found.append(word)
    return tuple(found)


@cache
def table() -> tuple[NDArray[np.float32], dict[str, int]]:
    """Vectors, shape (words, 50), and the row of each word."""
    with files("ibisagent.engine.reasoning").joinpath(VECTORS).open("rb") as file, np.load(file) as stored:
        vectors = stored["vectors"].astype(np.float32) * np.float32(stored["scale"])
        words = bytes(stored["words"]).decode().split("\n")
    return vectors, {word: row for row, word in enumerate(words)}


def word_ids(words: tuple[str, ...]) -> list[int]:
    """Rows of the words, with blanks at both ends; rows from the table's size on are those of ``SPECIAL``."""
    rows = table()[1]
    special = {word: len(rows) + at for at, word in enumerate(SPECIAL)}
    unknown, blank = special["<unk>"], special["<pad>"]
    known = [special.get(word, rows.get(word, unknown)) for word in words]
    return [blank, blank, *known, *[blank] * EDGE]


def net_score(text: str, weights: Mapping[str, NDArray[np.float32]]) -> float:
    """The net's output (a logit) for a text.

    Parameters
    ----------
    text
        A thought or an answer.
    weights
        ``special`` (len(SPECIAL), 50), ``proj_w`` (hidden, 50), ``proj_b``, for each window w ``conv{w}_w``
        (w * hidden, channels) and ``conv{w}_b``, ``out_w`` (channels * windows,), ``out_b``.
    """
    vectors, _ = table()
    ids = np.array(word_ids(tokens(text)))
    own = ids >= len(vectors)
    read = vectors[np.where(own, 0, ids)]
    read[own] = weights["special"][ids[own] - len(vectors)]
    hidden = np.maximum(read @ weights["proj_w"].T + weights["proj_b"], 0)
    heard = []
    for window in WINDOWS:
        half = window // 2
        padded = np.pad(hidden, ((half, half), (0, 0)))
        places = len(padded) - window + 1
        seen = np.concatenate([padded[at : at + places] for at in range(window)], axis=1)
        heard.append(np.maximum((seen @ weights[f"conv{window}_w"]).max(axis=0) + weights[f"conv{window}_b"], 0))
    return float(np.concatenate(heard) @ weights["out_w"] + weights["out_b"][0])
