"""How much a text reads like the planted leaks: what decides, with the rules' findings as evidence among other.

Three readers are weighed together: a linear model on hashed n-grams (words and letters), two small nets over word
vectors (:mod:`.leak_reader`), and which families of rules found something. Most families decide alone (``SURE``);
of the others a finding is evidence, not a verdict: "twin", "record" or "admit" give leaks away and are innocent,
too. All is trained by
``benchmarks/train_leak_classifier.py``.
"""

from __future__ import annotations

import re
import zlib
from functools import cache, lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from ibisagent.engine.reasoning.leak_reader import net_score
from ibisagent.engine.reasoning.leak_words import innocent, leak_families
from ibisagent.engine.reasoning.wording import plain

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

__all__ = ["BUCKETS", "FEWEST", "NETS", "SURE", "evidence", "families", "features", "leak_score", "linear_score"]

BUCKETS = 1 << 15
"""Places of the hash table; n-grams that share one share a weight."""

FEWEST = 100
"""A text of fewer n-grams is weighed as if it had so many: a few words tell little."""

NETS = 2
"""Nets that read a text; they differ by their start."""

SURE: tuple[str, ...] = (
    "owns_up", "disguise", "errors", "metric", "number", "second", "knowledge", "position", "legend", "absence",
    "target", "planted", "policy", "prescribed", "role",
)  # fmt: skip
"""Families whose finding alone decides: of texts new to them, nineteen in twenty that they found were leaks."""

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
def families() -> tuple[str, ...]:
    """Families of rules that are weighed, sorted."""
    return tuple(sorted({"colour", "errors", "number", "source", "unseen_hue", *(name for name, _ in leak_families())}))


def evidence(linear: float, net: float, found: Collection[str]) -> NDArray[np.float64]:
    """What is weighed, shape (5 + families,): both models, the rules' families, whether any, whether many, and one.

    Parameters
    ----------
    linear, net
        Scores of the two kinds of models.
    found
        Families of the rules' findings.
    """
    hits = [float(name in found) for name in families()]
    return np.array([linear, net / 4, *hits, float(bool(found)), float(len(found) > 1), 1.0])


@cache
def _model() -> dict[str, NDArray[np.float32]]:
    with files("ibisagent.engine.reasoning").joinpath(ASSET).open("rb") as file, np.load(file) as stored:
        model = {name: stored[name].astype(np.float32) for name in stored.files}
    model["linear"] *= model["linear_scale"]
    return model


@cache
def _net(at: int) -> dict[str, NDArray[np.float32]]:
    begin = f"net{at}_"
    return {name.removeprefix(begin): value for name, value in _model().items() if name.startswith(begin)}


def linear_score(text: str, weights: NDArray[np.float32]) -> float:
    """The linear model's output for a text; ``weights`` has shape (BUCKETS,)."""
    places = features(text)
    return float(weights[places].sum(dtype=np.float64)) / float(np.sqrt(max(places.size, FEWEST)))


def leak_score(text: str, found: Collection[str] = ()) -> float:
    """How far a text lies beyond the threshold: above 0 it is a leak.

    Parameters
    ----------
    text
        A thought or an answer.
    found
        Families of what the rules found in it (:func:`.leaks.find_leaks`).
    """
    model = _model()
    net = sum(net_score(text, _net(at)) for at in range(NETS)) / NETS
    threshold = model["threshold_found" if found else "threshold"]
    return float(evidence(linear_score(text, model["linear"]), net, found) @ model["weights"] - threshold)
