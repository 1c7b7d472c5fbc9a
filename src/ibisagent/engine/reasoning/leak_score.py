"""A second look at a text that no rule refused: how much it reads like the planted leaks, by its words and letters.

A linear model on hashed n-grams, trained by ``benchmarks/train_leak_classifier.py``. It only ever adds a leak; the
rules say which words gave one away, this says no more than that the whole sounds like one.
"""

from __future__ import annotations

import re
import zlib
from functools import cache, lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from ibisagent.engine.reasoning.leak_words import innocent
from ibisagent.engine.reasoning.wording import plain

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BUCKETS", "FEWEST", "features", "leak_score"]

BUCKETS = 1 << 15
"""Places of the hash table; n-grams that share one share a weight."""

FEWEST = 100
"""A text of fewer n-grams is weighed as if it had so many: a few words tell little."""

ASSET = "assets/leak_score.npz"


def features(text: str) -> NDArray[np.int64]:
    """Sorted places of a text's n-grams: words, pairs of words, and four and five letters of a word.

    Structures that the ontology knows count as one word, so that organs tell nothing; digits likewise. Innocent phrases
    (``assets/innocent.txt``) are left out.

    Parameters
    ----------
    text
        A thought or an answer.

    Returns
    -------
    numpy.ndarray
        int64, shape (n,), each in [0, BUCKETS), without repeats.
    """
    from ibisagent.engine.language.ontology import mentions

    letters = innocent().sub(" ", plain(text))
    pieces, last = [], 0
    for mention in mentions(letters):
        pieces += [letters[last : mention.start], " anatomyx "]
        last = mention.end
    words = re.findall(r"[a-z0']+", re.sub(r"\d+", "0", "".join(pieces) + letters[last:]))
    found = {_place(f"{a} {b}") for a, b in zip(["^", *words], [*words, "$"], strict=True)}
    for word in set(words):
        found.update(_places_of_word(word))
    return np.array(sorted(found), np.int64)


def _place(gram: str) -> int:
    return zlib.crc32(gram.encode()) % BUCKETS


@lru_cache(maxsize=8192)  # few words make up most texts
def _places_of_word(word: str) -> tuple[int, ...]:
    edged = f"<{word}>"
    parts = {edged[at : at + size] for size in (4, 5) for at in range(max(1, len(edged) - size + 1))}
    return _place(word), *(_place("#" + part) for part in parts)


@cache
def _model() -> tuple[NDArray[np.float32], float]:
    with files("ibisagent.engine.reasoning").joinpath(ASSET).open("rb") as file, np.load(file) as stored:
        weights = stored["weights"].astype(np.float32) * np.float32(stored["scale"])
        return weights, float(stored["threshold"])


def leak_score(text: str) -> float:
    """How far a text lies beyond the threshold: above 0 it sounds like a leak.

    Parameters
    ----------
    text
        A thought or an answer.
    """
    weights, threshold = _model()
    places = features(text)
    return float(weights[places].sum(dtype=np.float64)) / float(np.sqrt(max(places.size, FEWEST))) - threshold
