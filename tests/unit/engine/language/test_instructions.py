from __future__ import annotations

import json
import re
import string
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibisagent.engine.language.instructions import CATEGORIES, all_templates, draw_instruction, fill
from ibisagent.engine.language.naming import SYNONYMS, Phrase, is_plural, modality_phrase, target_phrases

MINI = Path(__file__).parents[4] / "data/mini/cases.jsonl"
FIELDS = {"the", "name", "Name", "image", "is", "it", "does"}


def test_the_papers_thirteen_categories() -> None:
    assert len(CATEGORIES["start"]) == 7 and len(CATEGORIES["refine"]) == 6
    assert len(set(CATEGORIES["start"] + CATEGORIES["refine"])) == 13


def test_templates_are_enough_distinct_and_name_the_target() -> None:
    seen: set[str] = set()
    for category, templates in all_templates().items():
        assert 6 <= len(templates) <= 10, category
        for template in templates:
            fields = {name for _, name, _, _ in string.Formatter().parse(template) if name}
            assert fields <= FIELDS, template
            assert fields & {"the", "name", "Name"}, template
            assert template not in seen
            seen.add(template)


@pytest.mark.parametrize("stage", ["start", "refine"])
def test_splits_share_no_template(stage: str) -> None:
    both, train, test = (all_templates(stage, split) for split in (None, "train", "test"))  # type: ignore[arg-type]
    for category, templates in both.items():
        assert len(train[category]) >= 5 and len(test[category]) >= 2
        assert train[category] + test[category] == templates


def test_a_test_sentence_is_never_a_train_sentence() -> None:
    phrases = [p for target in SYNONYMS for p in target_phrases(target)]
    made = {
        split: {fill(t, p, "CT") for ts in all_templates(None, split).values() for t in ts for p in phrases}  # type: ignore[arg-type]
        for split in ("train", "test")
    }
    assert made["train"].isdisjoint(made["test"])


@given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(SYNONYMS)), st.sampled_from(["CT", "MRI", None, "Histology"]))
def test_draws_are_sentences_and_repeat(seed: int, target: str, modality: str | None) -> None:
    for stage in ("start", "refine"):
        one = draw_instruction(target, modality, seed, stage=stage)  # type: ignore[arg-type]
        assert one == draw_instruction(target, modality, seed, stage=stage)  # type: ignore[arg-type]
        assert one.category in CATEGORIES[stage]
        assert one.text[0].isupper() and one.text[-1] in ".?!"
        assert not re.search(r"[{}]|\s\s|the (both|the|all) ", one.text)


def test_every_template_is_drawn() -> None:
    texts = {draw_instruction("spleen", None, seed).text for seed in range(3000)}
    expected = {fill(t, Phrase("spleen", False), None) for ts in all_templates("start", "train").values() for t in ts}
    assert texts == expected


def test_a_generator_advances_by_the_same_amount_for_every_target() -> None:
    one, other = np.random.default_rng(3), np.random.default_rng(3)
    draw_instruction("lungs", "CT", one, category="polite")
    draw_instruction("an unknown thing", None, other, split="test")
    assert one.random() == other.random()


def test_number_and_articles() -> None:
    where = all_templates("start")["question"][0]
    assert fill(where, Phrase("cell nuclei", True), None) == "Where are the cell nuclei?"
    assert fill(where, Phrase("left lung", False), None) == "Where is the left lung?"
    assert fill("Find {the} and mark {it}.", target_phrases("both lungs")[0], None) == "Find both lungs and mark them."
    assert fill("{Name}, in this {image}.", Phrase("CSF", False), "MRI") == "CSF, in this MRI scan."
    assert target_phrases("the left kidney")[0] == Phrase("left kidney", False)


@pytest.mark.parametrize(
    "name",
    ["lungs", "cell nuclei", "nuclei of the cell", "left and right lungs", "vertebrae", "lymph nodes in the neck"],
)
def test_plural(name: str) -> None:
    assert is_plural(name)


@pytest.mark.parametrize(
    "name",
    [
        *("left lung", "pancreas", "largest nucleus", "uterus", "tumor in the lungs", "breast mass", "gray matter"),
        *("pelvis", "CSF", "white and gray matter", ""),
    ],
)
def test_singular(name: str) -> None:
    assert not is_plural(name)


def test_every_target_and_modality_of_mini_is_known() -> None:
    rows = [json.loads(line) for line in MINI.read_text().splitlines()]
    for target in {row["target"] for row in rows}:
        assert len(target_phrases(target)) >= 3, target
    for modality in {row["modality"] for row in rows}:
        assert modality_phrase(modality) != "image"
    assert modality_phrase("Thermography") == "Thermography image"
    assert modality_phrase("  ") == "image"


@pytest.mark.parametrize(
    "kwargs",
    [{"target": "  "}, {"stage": "middle"}, {"split": "val"}, {"category": "nonsense"}, {"category": "whats_next"}],
)
def test_unknown_words_are_refused(kwargs: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        draw_instruction(**{"target": "lung", "modality": None, "rng_or_seed": 0, **kwargs})  # type: ignore[arg-type]
