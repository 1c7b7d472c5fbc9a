"""Disguises are undone before rules read a text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibisagent.engine.reasoning.wording import plain, readings, sentences


def test_plain_letters() -> None:
    assert plain("  The  GROUND‑Truth\u200b “mask” — é  ") == 'the ground-truth "mask" - e'
    assert plain("аnnоtаtiоn") == "annotation"  # Cyrillic letters


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("G.T.", "gt"), ("g r o u n d", "ground"), ("gr0und tru7h", "ground truth"), ("anno-tation", "annotation"),
        ("an_no_tation", "annotation"), ("J@ccard", "jaccard"), ("f.n.", "fn"), ("ground-truth", "ground truth"),
    ],
)  # fmt: skip
def test_disguises(text: str, word: str) -> None:
    assert any(word in reading for reading in readings(text))


@pytest.mark.parametrize("text", ["t2", "l4", "3d", "12 mm", "at 3 o'clock"])
def test_what_is_no_disguise_stays(text: str) -> None:
    assert readings(text)[0] == text


def test_sentences_keep_decimals() -> None:
    assert sentences("It grew by 1.5 times. Then: no more!") == ["It grew by 1.5 times.", "Then:", "no more!"]
    assert sentences("") == []


@given(st.text(max_size=80))
def test_any_text_can_be_read(text: str) -> None:
    letters = plain(text)
    assert plain(letters) == letters or len(plain(letters)) <= len(letters) + 8
    found = readings(text)
    assert len(found) == len(set(found)) and all("\n" not in reading for reading in found)
