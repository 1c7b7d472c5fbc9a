from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibisagent.engine.language.implicit import descriptions, draw_implicit, gives_away
from ibisagent.engine.language.naming import is_plural
from ibisagent.engine.language.ontology import MODALITIES, concepts
from ibisagent.engine.language.templates import IMPLICIT, near_duplicate, placeholders

DESCRIBED = [one for one in concepts().values() if one.implicit]
EVERY = [(one, d) for one in DESCRIBED for aspect in one.implicit.values() for d in aspect]


def test_there_are_enough(shown_in: dict[str, set[str]]) -> None:
    for name, homes in shown_in.items():
        for modality in homes:
            assert len(concepts()[name].descriptions(modality)) >= 3, (name, modality)
    assert len(DESCRIBED) > 0.9 * len(concepts())
    assert all(set(one.implicit) <= {"place", "function", "disease"} for one in DESCRIBED)


def test_none_names_its_target() -> None:
    assert [(one.name, d.text) for one, d in EVERY if gives_away(d.text, one.name)] == []


def test_no_two_structures_share_a_description() -> None:
    texts = [d.text for _, d in EVERY]
    assert len(set(texts)) == len(texts)


def test_descriptions_are_noun_phrases_of_the_right_number() -> None:
    stop = r"[,;]| (?:that|which|whose|where|who|beneath|below|under|behind|between|inside|deep|left|through|without) "
    for one, d in EVERY:
        assert not d.text.startswith(("the ", "a ", "an ")) and d.text == d.text.strip() and d.text[-1] not in ".?!"
        assert set(d.modalities) <= set(one.modalities) | set(one.unsure), d
        plural = is_plural(one.name) if one.plural is None else one.plural
        assert is_plural(re.split(stop, d.text)[0]) is plural, d.text
        if one.laterality is not None and d.text.startswith(("organ", "air", "large", "bean", "small")):
            assert f"on the patient's {one.laterality}" in d.text


@pytest.mark.parametrize(
    ("text", "target", "given"),
    [
        ("the organ that pumps blood", "heart", False),
        ("the cardiac muscle that pumps", "heart", True),
        ("the hearts", "heart", True),
        ("the voice box", "larynx", True),
        ("one of both lungs", "left lung", True),
        ("the right lung", "left lung", True),
        ("the abnormal growth in the lungs", "lung tumor", False),
        ("the tumour of the chest", "lung tumor", True),
        ("the renal organ", "left kidney", True),
        ("biggest of the nuclei", "largest nucleus", True),
        ("the gizmo", "gizmo", True),
        ("the thing", "gizmo", False),
    ],
)
def test_what_gives_a_name_away(text: str, target: str, given: bool) -> None:
    assert gives_away(text, target) is given


def test_descriptions_keep_to_the_pictures_they_are_right_for() -> None:
    assert concepts()["ventricles"].descriptions("Ultrasound") == (), "those of the heart have the same name"
    assert not any("pale" in d.text for d in concepts()["optic disc"].descriptions("OCT"))


def test_frames() -> None:
    assert len(IMPLICIT["train"]) >= 12 and len(IMPLICIT["test"]) >= 4
    seen: list[str] = []
    for frame in (*IMPLICIT["train"], *IMPLICIT["test"]):
        assert "the" in placeholders(frame) and placeholders(frame) <= {"the", "it", "is", "image"}
        assert near_duplicate(frame, seen) is None
        seen.append(frame)


def test_splits_of_the_common_names_share_no_description(shown_in: dict[str, set[str]]) -> None:
    for name, homes in shown_in.items():
        for modality in homes:
            train, test = (set(descriptions(name, modality, split)) for split in ("train", "test"))  # type: ignore[arg-type]
            assert train and test and not train & test, (name, modality)


@given(st.integers(0, 2**32 - 1), st.sampled_from(DESCRIBED), st.sampled_from([*MODALITIES, None]), st.booleans())
def test_draws_are_sentences_and_repeat(seed: int, one: object, modality: str | None, test: bool) -> None:
    name, split = one.name, "test" if test else "train"  # type: ignore[attr-defined]
    drawn = draw_implicit(name, modality, seed, split)  # type: ignore[arg-type]
    assert drawn == draw_implicit(name, modality, seed, split)  # type: ignore[arg-type]
    if drawn is not None:
        assert drawn.category == "implicit" and not gives_away(drawn.text, name)
        assert drawn.text[0].isupper() and drawn.text[-1] in ".?!"
        assert not re.search(r"[{}]|\s\s|\\bthe (?:both|all|the) ", drawn.text)


def test_what_cannot_be_described_gives_none_and_keeps_the_generator_in_step() -> None:
    one, other = np.random.default_rng(3), np.random.default_rng(3)
    assert draw_implicit("gizmo", "CT", one) is None
    assert draw_implicit("kidney", "CT", 0) is None, "one kidney is not the two organs"
    assert draw_implicit("left kidney", "CT", other) is not None
    assert one.random() == other.random()
    with pytest.raises(ValueError):
        draw_implicit("heart", "CT", 0, "val")  # type: ignore[arg-type]
