"""Names for sentences: underscores, sides, capitals; and the one structure that a sentence names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibisagent.engine.sources.label_map import read_label_map
from ibisagent.engine.sources.names import clean_name, named_phrase


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("kidney_left", "left kidney"),
        ("Left_Kidney", "left kidney"),
        ("kidney R", "right kidney"),
        ("L_kidney", "left kidney"),
        ("Optic_Nerve_(L)", "left optic nerve"),
        ("atrium, left", "left atrium"),
        ("femur-right", "right femur"),
        ("lung_upper_lobe_left", "left lung upper lobe"),
        ("  adrenal   gland ", "adrenal gland"),
        ("LIVER", "liver"),
        ("LUNG", "lung"),
        ("IVC", "IVC"),
        ("GTV_primary", "GTV primary"),
        ("L5 Vertebra", "L5 vertebra"),
        ("vertebrae_L5", "vertebrae L5"),
        ("left", "left"),
        ("segment A", "segment A"),
        ("upright bone", "upright bone"),
        ("cell", "cell"),
        (" _ ", ""),
    ],
)
def test_names_are_made_for_sentences(text: str, name: str) -> None:
    assert clean_name(text) == name


@given(st.text(alphabet="abLlRrEF_ -1()", max_size=20))
def test_a_clean_name_has_no_underscores_and_single_spaces(text: str) -> None:
    name = clean_name(text)
    assert "_" not in name and name == " ".join(name.split()) and bool(name) == bool(text.replace("_", " ").strip())


@pytest.mark.parametrize(
    ("sentence", "name"),
    [
        ("Can you segment the left_kidney in this image?", "left kidney"),
        ("Please mark the polyps shown", "polyps"),
        ("Look at the picture and segment the liver", "liver"),
        ("Show the location of the spleen.", "spleen"),
        ("Where is the Liver? Segment the liver.", "liver"),
        ("Segment the kidney on the left.", None),
        ("Segment the liver and the spleen.", None),
        ("Show me something nice", None),
        ("Segment it.", None),
    ],
)
def test_the_one_structure_that_a_sentence_names(sentence: str, name: str | None) -> None:
    assert named_phrase(sentence) == name


def test_label_maps_and_options_give_names_for_sentences(tmp_path: Path, png: Any, listed: Any) -> None:
    (tmp_path / "labels.json").write_text(json.dumps({"1": "kidney_left", "2": "Left  Kidney", "3": "SPLEEN"}))
    assert read_label_map(tmp_path / "labels.json").structures == {"left kidney": (1, 2), "spleen": (3,)}
    png(tmp_path / "images" / "a.png", np.full((8, 9), 50, np.uint8))
    png(tmp_path / "masks" / "a.png", np.full((8, 9), 255, np.uint8))
    (sample,), _ = listed(f"folders:{tmp_path}?target=Kidney_R&split=train")
    assert sample.names == ("right kidney",)
    (sample,), _ = listed(f"instances:{tmp_path}?noun=Cell_nucleus&plural=Cell_nuclei&split=train")
    assert (sample.reader.every, sample.reader.noun) == ("cell nuclei", "cell nucleus")
