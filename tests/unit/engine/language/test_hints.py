from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibisagent.engine.language.hints import HINTS, Hint, draw_deceptive
from ibisagent.engine.language.naming import target_phrases
from ibisagent.engine.language.templates import DECEPTIVE, PLACEHOLDERS, near_duplicate, placeholders

PLACES = [f"{side} of the image" for side in ("left half", "upper right quarter", "centre")]


def test_templates_are_enough_and_distinct() -> None:
    assert tuple(DECEPTIVE) == HINTS
    seen: list[str] = []
    for hint, lists in DECEPTIVE.items():
        assert len(lists["train"]) >= 10 and len(lists["test"]) >= 4
        for template in (*lists["train"], *lists["test"]):
            fields = placeholders(template)
            assert fields <= PLACEHOLDERS | {"place"} and fields & {"the", "name", "Name"}, template
            assert ("place" in fields) == (hint == "wrong_place"), "every template can be drawn"
            assert near_duplicate(template, seen) is None, template
            seen.append(template)


@pytest.mark.parametrize("target", ["left lung", "cell nuclei", "lungs"])
@pytest.mark.parametrize("hint", HINTS)
def test_every_template_makes_a_sentence_that_names_the_target(target: str, hint: Hint) -> None:
    ways = [p.text.lower() for p in target_phrases(target)]
    for split in ("train", "test"):
        texts = {
            draw_deceptive(target, "CT", seed, hint, "the upper left of the image", split=split).text  # type: ignore[arg-type]
            for seed in range(300)
        }
        assert len(texts) >= len(DECEPTIVE[hint][split])  # type: ignore[index]
        for text in texts:
            assert any(way in text.lower() for way in ways)
            assert text[0].isupper() and text[-1] in ".?!" and not re.search(r"[{}]|\s\s|the the", text)
            assert not re.search(
                r"(?<!of )(?<!on )(?:the cell nuclei|both lungs) (?:is|has|lies)\b|lung (?:are|have|lie)\b", text
            ), text
            if hint == "wrong_place":
                assert "upper left of the image" in text


@given(st.integers(0, 2**32 - 1), st.sampled_from(HINTS), st.sampled_from(PLACES))
def test_draws_repeat_and_keep_the_generator_in_step(seed: int, hint: Hint, place: str) -> None:
    one, other = np.random.default_rng(seed), np.random.default_rng(seed)
    drawn = draw_deceptive("spleen", None, one, hint, place)
    assert drawn.category == hint and drawn == draw_deceptive("spleen", None, seed, hint, place)
    draw_deceptive("an unknown thing", "CT", other, "false_mask", split="test", extended=True)
    assert one.random() == other.random()


def test_only_a_wrong_place_is_named() -> None:
    place = "upper left of the image"
    assert not any("upper" in draw_deceptive("spleen", None, s, "false_error", place).text for s in range(200))
    for place in (None, "  "):
        with pytest.raises(ValueError):
            draw_deceptive("spleen", None, 0, "wrong_place", place)


def test_unknown_words_are_refused() -> None:
    with pytest.raises(ValueError):
        draw_deceptive("spleen", None, 0, "lie")  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        draw_deceptive("spleen", None, 0, "false_mask", split="val")  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        draw_deceptive(" ", None, 0, "false_mask")
