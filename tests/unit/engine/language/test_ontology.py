from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibisagent.engine.language.naming import SYNONYMS, modality_phrase, target_phrases
from ibisagent.engine.language.ontology import (
    MODALITIES,
    Concept,
    concept,
    concepts,
    contains,
    mentions,
    modality_name,
    possible_beside,
    possible_in,
    related,
)

GENERIC = {"tumor", "lesion"}  # core synonyms that are concepts of their own

# Object names of a large public collection of masks: what users' data will be labelled with.
PUBLIC = (
    "right heart ventricle|myocardium|left heart ventricle|kidney|liver|pancreas|spleen|uterus|brain tumor edema|"
    "whole brain tumor|non-enhancing tumor|enhancing tumor|brain tumor core|breast cancer cells|"
    "benign breast tumor|breast tumor|malignant breast tumor|left heart atrium|lesion|COVID-19 infection|lung|"
    "left lung|right lung|retinal vessel|public symphysis|fetal head|pulmonary embolism|optic disc|optic cup|"
    "colon glandular structure|lower-grade glioma|lung nodule|liver tumor|anterior hippocampus|"
    "posterior hippocampus|prostate transitional zone|prostate peripheral zone|lung tumor|pancreas tumor|"
    "hepatic vessel|colon tumor|neoplastic colon polyp|colon polyp|non-neoplastic colon polyp|"
    "cystoid macular edema|prostate|neoplastic cells|inflammatory cells|connective tissue cells|epithelial cells|"
    "lung opacity|viral pneumonia|left adrenal gland|right adrenal gland|aorta|bladder|colon|duodenum|postcava|"
    "left kidney|right kidney|stomach|adrenal gland|esophagus|gallbladder|left lower lung lobe|"
    "right middle lung lobe|lower lung lobe|heart|left upper lung lobe|upper lung lobe|melanoma|abdomen tumor|"
    "kidney tumor|kidney cyst|pneumothorax|pleural effusion|cerebellum|brain ventricles"
).split("|")


def phrases(one: Concept) -> tuple[str, ...]:
    return (one.name, *one.synonyms, *one.lay, *one.narrower)


def test_the_file_is_sound() -> None:
    everything = concepts()
    assert len(everything) >= 100
    owners: dict[str, str] = {}
    for name, one in everything.items():
        assert one.name == name
        assert {*one.part_of, *one.kind_of} <= everything.keys(), name
        assert name not in {*one.part_of, *one.kind_of}
        assert one.modalities and {*one.modalities, *one.unsure} <= set(MODALITIES), name
        assert not {*one.modalities} & {*one.unsure}, name
        assert one.laterality in (None, "left", "right")
        listed = phrases(one)
        assert len({p.lower() for p in listed}) == len(listed), name
        for phrase in listed:
            assert phrase == phrase.strip() and owners.setdefault(phrase.lower(), name) == name, phrase
            assert concept(phrase) is one, phrase


def test_sides_are_opposite_and_alike() -> None:
    for name, one in concepts().items():
        if name.startswith("left ") and "lobe" not in name:
            other = concepts()["right " + name[5:]]
            assert (one.laterality, other.laterality) == ("left", "right")
            assert one.modalities == other.modalities and one.part_of == other.part_of
            assert not related(name, other.name)


def test_every_name_of_mini_and_the_phantoms_is_known_where_it_is_shown(shown_in: dict[str, set[str]]) -> None:
    for name, homes in shown_in.items():
        one = concept(name)
        assert one is not None and one.name == name
        for modality in homes:
            assert possible_in(name, modality) is True, (name, modality)


def test_core_synonyms_are_the_same_structures() -> None:
    for name, others in SYNONYMS.items():
        for other in others:
            found = concept(other)
            assert found is not None and found.name == (other if other in GENERIC else name), other
            assert related(found.name, name)


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("calvaria", "skull"),
        ("mammary gland", "breast"),
        ("bony pelvis", "pelvic bone"),
        ("tumor stroma", "stroma"),
        ("skin cancer", "skin lesion"),
        ("macular edema", "cystoid macular edema"),
        ("ischemic lesion", "stroke lesion"),
        ("tumor core", "brain tumor core"),
        ("LV cavity", "left ventricle"),
        ("internal jugular vein", "jugular vein"),
    ],
)
def test_what_is_another_structure_is_understood_and_not_said(said: str, name: str) -> None:
    assert concept(said) is concepts()[name]
    assert said not in {p.text for p in target_phrases(name, extended=True)}


def test_names_of_public_sets_are_known() -> None:
    assert [name for name in PUBLIC if concept(name) is None] == []


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("windpipe", "trachea"),
        ("voice box", "larynx"),
        ("the kneecap", "patella"),
        ("Left_Kidney", "left kidney"),
        ("LUNG", "lungs"),
        ("liver tumours", "liver tumor"),
        ("oesophagus", "esophagus"),
        ("grey matter", "gray matter"),
        ("optic disk", "optic disc"),
        ("vertebra", "vertebrae"),
        ("patient's left lung", "left lung"),
        ("COVID 19 infection", "COVID-19 infection"),
    ],
)
def test_lookup(said: str, name: str) -> None:
    found = concept(said)
    assert found is not None and found.name == name


@pytest.mark.parametrize("said", ["", "mask", "left", "lung window", "upper half", "the", "lungfish"])
def test_what_is_no_structure(said: str) -> None:
    assert concept(said) is None


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("The left lung's border lies beside the heart.", ["left lung", "heart"]),
        ("Both kidneys, the oesophagus; LIVER tumours!", ["kidneys", "esophagus", "liver tumor"]),
        ("the lung on the patient's left", ["left lung"]),
        ("The mask covers the lower part of the nucleus.", ["cell nuclei"]),
        ("A tumor in the lung, not the brain tumor.", ["lung tumor", "brain tumor"]),
        ("The body of the mask and some round bodies, in a lung window.", []),
        ("Segment the body.", ["body"]),
        ("Body, refine.", ["body"]),
        ("The patient's body is missing.", ["body"]),
        ("A mass of pixels left of the middle; the heart of the matter.", []),
        ("left, lung", ["lungs"]),
        ("heartily unlivered spleenful", []),
        ("The left ventricle pumps; the ventricles are dark.", ["left ventricle", "ventricles"]),
    ],
)
def test_mentions(text: str, names: list[str]) -> None:
    assert [m.name for m in mentions(text)] == names


@given(
    st.lists(st.sampled_from(sorted({*concepts()} - {"body"})), max_size=5),
    st.sampled_from([" and the ", ", ", "; the "]),
)
def test_every_name_is_found_where_it_stands(names: list[str], between: str) -> None:
    text = "We see the " + between.join(names) + "."
    found = mentions(text)
    assert [(m.name, text[m.start : m.end]) for m in found] == [(name, name) for name in names]


@given(st.text(max_size=80))
def test_any_text_is_read(text: str) -> None:
    last = 0
    for m in mentions(text):
        assert last <= m.start < m.end <= len(text) and m.name in concepts()
        last = m.end


def test_reading_is_fast() -> None:
    text = "The mask covers the lower part of the left lung but misses the bright nodule near the heart. " * 4
    mentions(text)
    start = time.perf_counter()
    for _ in range(100):
        mentions(text)
    assert (time.perf_counter() - start) / 100 < 0.005


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("left lung", "lungs", True),
        ("left lung", "lung tumor", True),
        ("left lung", "right lung", False),
        ("lung tumor", "tumor", True),
        ("lung tumor", "brain tumor", False),
        ("optic cup", "optic disc", True),
        ("gray matter", "white matter", False),
        ("vessels", "aorta", True),
        ("left lung", "body", True),
        ("heart", "lungs", False),
        ("windpipe", "trachea", True),
        ("skin lesion", "breast lesion", False),
        ("largest nucleus", "cell nuclei", True),
        ("largest nucleus", "leftmost nucleus", False),
        ("upper pole of the left kidney", "kidneys", True),
        ("thing", "thing", True),
        ("thing", "other", False),
        ("thing", "liver", False),
    ],
)
def test_related(a: str, b: str, same: bool) -> None:
    assert related(a, b) is same and related(b, a) is same


@pytest.mark.parametrize(
    ("whole", "part", "inside"),
    [
        ("lungs", "left lung", True),
        ("left lung", "lungs", False),
        ("brain", "brain tumor", True),
        ("brain tumor", "brain", False),
        ("left lung", "right lung", False),
        ("trachea", "windpipe", True),
        ("tumor", "lung tumor", True),
        ("lungs", "lower tip of the left lung", True),
        ("thing", "thing", True),
        ("thing", "liver", False),
    ],
)
def test_contains(whole: str, part: str, inside: bool) -> None:
    assert contains(whole, part) is inside


def test_possible_agrees_with_what_nano_never_calls_absent() -> None:
    scenes = pytest.importorskip("ibisagent.train.nano_scenes")
    for modality, names in scenes.POSSIBLE.items():
        for name in names:
            assert possible_in(name, modality) is not False, (name, modality)
    # What a group of images lacks is known of the group: the modality may show it.
    for names in (*scenes.NEVER_SHOWN.values(), *scenes.OPTIONAL.values()):
        for name in names:
            assert possible_in(name, "MRI") is not False or possible_in(name, "CT") is not False


@pytest.mark.parametrize(
    ("name", "modality", "answer"),
    [
        ("cell nuclei", "CT", False),
        ("optic disc", "Dermoscopy", False),
        ("polyp", "Fundus photography", False),
        ("left lung", "Dermoscopy", False),
        ("brain", "CT", True),
        ("kidney", "mr", True),
        ("breast lesion", "X-ray", True),
        ("cyst", "Histology", None),
        ("cell nuclei", None, None),
        ("cell nuclei", "thermography", None),
        ("gizmo", "CT", None),
        ("largest gland", "Histology", True),
        ("leftmost nucleus", "MRI", False),
        ("muscle", "Mammography", True),
        ("skin", "Mammography", True),
        ("soft tissue", "Mammography", True),
        ("hematoma", "Mammography", None),
        ("necrosis", "Mammography", None),
        ("body", "Mammography", None),
        ("nevus", "Fundus photography", None),
        ("melanoma", "Fundus photography", None),
        ("melanoma", "PET", None),
        ("placenta", "Endoscopy", None),
        ("fetus", "Endoscopy", None),
        ("meniscus", "Endoscopy", None),
        ("cartilage", "Endoscopy", None),
        ("kidney tumor", "Endoscopy", None),
        ("glandular tissue", "CT", None),
        ("colon tumor", "X-ray", None),
        ("connective tissue", "MRI", None),
        ("lung tumor", "Fluorescence microscopy", None),
        ("brain tumor", "Fluorescence microscopy", None),
        ("breast lesion", "Fluorescence microscopy", None),
    ],
)
def test_possible_in(name: str, modality: str | None, answer: bool | None) -> None:
    assert possible_in(name, modality) is answer


def test_modality_spellings() -> None:
    for name in MODALITIES:
        assert modality_name(name) == modality_name(name.upper()) == name
        assert modality_phrase(name) != "image"
    assert modality_name("x_ray") == "X-ray" and modality_name("T1w") == "MRI" and modality_name(None) is None


@pytest.mark.parametrize(
    ("name", "shown", "modality", "view", "answer"),
    [
        ("left kidney", ["brain", "gray matter"], "MRI", "axial", False),
        ("left kidney", ["brain", "gray matter"], "MRI", "sagittal", True),
        ("brain", ["lungs", "body"], "CT", "axial", False),
        ("liver", ["lungs"], "CT", "axial", True),
        ("liver", ["body", "bone"], "CT", "axial", True),
        ("heart", ["gizmo"], "CT", "axial", True),
        ("cell nuclei", ["lungs"], "CT", "axial", False),
        ("bladder", ["heart"], "Ultrasound", None, False),
        ("gizmo", ["heart"], "CT", "axial", None),
        ("brain", ["fetal head"], "Ultrasound", None, True),
        ("cerebellum", ["fetus", "bladder"], "Ultrasound", None, True),
        ("heart", ["placenta"], "Ultrasound", None, True),
        ("fetal head", ["heart"], "Ultrasound", None, True),
        ("skull", ["lungs", "pelvic bone"], "X-ray", None, True),
        ("ventricles", ["heart"], "Ultrasound", None, True),
        ("heart", ["ventricles"], "Ultrasound", None, True),
        ("brain ventricles", ["heart"], "Ultrasound", None, False),
    ],
)
def test_possible_beside(name: str, shown: list[str], modality: str, view: str | None, answer: bool | None) -> None:
    assert possible_beside(name, shown, modality, view) is answer
