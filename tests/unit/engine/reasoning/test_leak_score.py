"""The second look at a text: its features and its asset."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibisagent.engine.reasoning.leak_score import ASSET, BUCKETS, features, leak_score


@given(st.text(max_size=200))
def test_features_are_sorted_places_and_the_score_is_finite(text: str) -> None:
    places = features(text)
    assert places.dtype == np.int64
    assert np.array_equal(places, np.unique(places)) and (places >= 0).all() and (places < BUCKETS).all()
    assert np.isfinite(leak_score(text)) and leak_score(text) == leak_score(text)


def test_organs_and_digits_tell_nothing() -> None:
    assert np.array_equal(features("The liver has 3 parts."), features("The spleen has 17 parts."))
    assert not np.array_equal(features("The liver is green."), features("The liver is bare."))


def test_places_do_not_depend_on_the_process() -> None:
    # Python's own hash of a string changes from run to run; this one must not.
    import zlib

    words = ("a", "^ a", "a $", "#<a>")
    assert features("a").tolist() == sorted(zlib.crc32(word.encode()) % BUCKETS for word in words)
    assert leak_score("The mask misses a part.") == pytest.approx(leak_score("The  mask misses a\npart."))


def test_empty_text_is_no_leak() -> None:
    assert leak_score("") < 0


def test_the_asset_is_small() -> None:
    with files("ibisagent.engine.reasoning").joinpath(ASSET).open("rb") as file:
        assert len(file.read()) < 300_000


def test_leaks_score_higher_than_thoughts() -> None:
    leak = "I write this as though I did not have the second picture, which shows what is missing."
    assert leak_score(leak) > leak_score("The mask misses the lower end, which is as bright as the rest.")
