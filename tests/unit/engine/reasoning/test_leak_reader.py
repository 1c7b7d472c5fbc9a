"""Words as the nets read them."""

from __future__ import annotations

import numpy as np

from ibisagent.engine.reasoning.leak_reader import EDGE, SPECIAL, WINDOWS, net_score, table, tokens, word_ids


def test_short_forms_structures_and_digits() -> None:
    assert tokens("I can't see the left lung; it's 3 mm wide.") == (
        "i", "can", "n't", "see", "the", "anatomyx", ";", "it", "'s", "0", "mm", "wide", ".",
    )  # fmt: skip
    assert tokens("") == ()


def test_words_have_rows_and_blanks_stand_at_both_ends() -> None:
    vectors, rows = table()
    assert vectors.shape == (len(rows), 50) and len(rows) == 12_000
    blank = len(rows) + SPECIAL.index("<pad>")
    found = word_ids(("the", "zzzz", "i"))
    unknown, own = len(rows) + SPECIAL.index("<unk>"), len(rows) + SPECIAL.index("i")
    assert found == [blank, blank, rows["the"], unknown, own, *[blank] * EDGE]


def test_words_that_mean_alike_lie_close() -> None:
    vectors, rows = table()

    def cosine(a: str, b: str) -> float:
        x, y = vectors[rows[a]], vectors[rows[b]]
        return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))

    assert cosine("red", "blue") > 0.5 > cosine("red", "instruction")


def test_a_net_hears_the_loudest_window() -> None:
    # A net that fires on "red" anywhere, by the first of its detectors.
    vectors, rows = table()
    size = vectors.shape[1]
    weights = {
        "special": np.zeros((len(SPECIAL), size), np.float32),
        "proj_w": np.stack([vectors[rows["red"]]]),
        "proj_b": np.zeros(1, np.float32),
        "out_w": np.zeros(len(WINDOWS), np.float32),
        "out_b": np.array([-1.0], np.float32),
    }
    for window in WINDOWS:
        weights |= {f"conv{window}_w": np.ones((window, 1), np.float32), f"conv{window}_b": np.zeros(1, np.float32)}
    weights["out_w"][0] = 1.0
    loud = float(vectors[rows["red"]] @ vectors[rows["red"]]) - 1
    assert np.isclose(net_score("A red one.", weights), loud, rtol=1e-5)
    assert net_score("red", weights) == net_score("red and red", weights)
    assert net_score("", weights) == -1
