"""Codes of segments: right ones for what is understood, vague ones for the rest, and none that DICOM does not know."""

from __future__ import annotations

import json
from importlib.resources import files

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibisagent.io.terminology import Concept, find_concept

LESION, ANATOMY, TISSUE = "Morphologically Abnormal Structure", "Anatomical Structure", "Tissue"


def said(concept: Concept) -> tuple[str | None, ...]:
    parts = (concept.category, concept.type, concept.side, concept.region, concept.region_side)
    return tuple(part and part.meaning for part in parts)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("liver", (ANATOMY, "Liver", None, None, None)),
        ("left lung", (ANATOMY, "Lung", "Left", None, None)),
        ("lungs", (ANATOMY, "Lung", None, None, None)),
        ("segment the patient's right kidney", (ANATOMY, "Kidney", "Right", None, None)),
        ("lung on the patient's left", (ANATOMY, "Lung", "Left", None, None)),
        ("upper lobe of the left lung", (ANATOMY, "Upper lobe of lung", "Left", None, None)),
        ("left ventricle", (ANATOMY, "Left ventricle", None, None, None)),
        ("bone", (TISSUE, "Bone", None, None, None)),
        ("the tumour in the left lung", (LESION, "Neoplasm", None, "Lung", "Left")),
        ("left lung tumor", (LESION, "Neoplasm", None, "Lung", "Left")),
        ("renal cyst", (LESION, "Cyst", None, "Kidney", None)),
        ("brain tumor", (LESION, "Neoplasm", None, "Brain", None)),
        ("breast lesion", (LESION, "Lesion", None, "Breast", None)),
        ("largest nodule", (LESION, "Nodule", None, None, None)),
        ("kidney stone", (LESION, LESION, None, "Kidney", None)),
        ("pulmonary embolism", (LESION, "Embolus", None, "Pulmonary artery", None)),
        ("ascites", ("Body Substance", "Ascitic fluid", None, None, None)),
        ("catheter", ("Physical object", "Catheter", None, None, None)),
    ],
)
def test_understood(name, expected):
    concept = find_concept(name)
    assert said(concept) == expected
    assert concept.is_known


@pytest.mark.parametrize(
    "name",
    ["", "left liver", "tumor margin", "left lung without tumor", "no tumor", "stratum corneum",
     "tissue around the liver", "kidney transplant", "bed of the pancreas",
     "liver in the lung", "ventricles", "пухлина"],
)  # fmt: skip
def test_anything_else_is_tissue(name):
    concept = find_concept(name)
    assert said(concept) == (TISSUE, TISSUE, None, None, None)
    assert not concept.is_known


def test_a_lesion_whose_place_is_not_understood_keeps_its_kind_and_names_no_organ():
    for name in ("odd mass beside the liver", "mass in the liver and spleen", "strange breast mass"):
        concept = find_concept(name)
        assert said(concept) == (LESION, "Mass", None, None, None)
        assert not concept.is_known
    assert find_concept("brain tumor in the liver").region is None


def test_ventricles_are_those_of_the_part_that_was_examined():
    assert said(find_concept("ventricles", "head"))[1] == "Brain ventricle"
    assert said(find_concept("left ventricle", "heart"))[1] == "Left ventricle"
    assert not find_concept("left ventricle", "head").is_known


def test_every_target_of_mini_is_coded_or_tissue(mini_rows):
    unknown = {row["target"] for row in mini_rows if not find_concept(row["target"]).is_known}
    assert unknown == {"stratum corneum"}


@pytest.fixture(scope="module")
def mini_rows():
    from pathlib import Path

    lines = (Path(__file__).parents[3] / "data/mini/cases.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_every_code_is_in_a_value_set_of_the_standard_with_that_meaning():
    from pydicom.sr._concepts_dict import concepts

    meanings: dict[str, set[str]] = {}
    for codes in concepts["SCT"].values():
        for code, (meaning, _) in codes.items():
            meanings.setdefault(code, set()).add(meaning)
    data = json.loads((files("ibisagent.io") / "assets" / "terminology.json").read_text("utf-8"))
    used = [*data["categories"].values(), *data["sides"].values()]
    for row in data["terms"]:
        used += [row["code"], *([row["region"]] if "region" in row else [])]
    assert len(used) > 200
    assert [pair for pair in used if pair[1] not in meanings.get(pair[0], ())] == []


def test_anatomy_is_anatomy_for_dicom_too():
    """DICOM's value set of the category holds the type (cells, and what only another value set has, are set aside)."""
    from pydicom.sr._concepts_dict import concepts

    sets: dict[str, set[int]] = {}
    for codes in concepts["SCT"].values():
        for code, (_, cids) in codes.items():
            sets.setdefault(code, set()).update(cids)
    data = json.loads((files("ibisagent.io") / "assets" / "terminology.json").read_text("utf-8"))
    wanted = {"anatomy": {7192, 4, 4031, 6300, 8134, 8135, 4211, 6115}, "tissue": {7191}, "object": {7193, 7157}}
    strays = {
        row["names"][0]
        for row in data["terms"]
        if row["category"] in wanted and not sets[row["code"][0]] & wanted[row["category"]]
    }
    assert strays <= {"cell nucleus", "surgical instrument", "spinal canal", "placenta"}


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60), st.sampled_from([None, "head", "chest"]))
def test_no_text_breaks_it(text, part):
    concept = find_concept(text, part)
    assert concept.category.scheme == concept.type.scheme == "SCT"
