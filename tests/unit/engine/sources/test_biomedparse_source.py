"""BiomedParseData's layout, made small: names, JSON, sentences, and what is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ibisagent.engine.sources.biomedparse import modality_of
from ibisagent.engine.sources.registry import open_source
from ibisagent.errors import InputError

IMAGE = np.full((16, 24), 100, np.uint8)
MASK = np.zeros((16, 24), np.uint8)
MASK[4:9, 3:11] = 255


@pytest.fixture
def root(tmp_path: Path, png: Any) -> Path:
    """Two images in train (one of them described in JSON), one in test (not described)."""
    base = tmp_path / "amos"
    png(base / "train" / "p1_s3_CT_abdomen.png", IMAGE)
    png(base / "train" / "p2_s1_MRI-T1-Gd_brain.png", np.stack([IMAGE] * 3, axis=2))
    for target in ("left+kidney", "liver", "spleen"):
        png(base / "train_mask" / f"p1_s3_CT_abdomen_{target}.png", MASK)
    png(base / "train_mask" / "p2_s1_MRI-T1-Gd_brain_tumor+core.png", np.stack([MASK, MASK * 0, MASK * 0], axis=2))
    png(base / "test" / "p3_s1_pathology_colon.png", IMAGE)
    png(base / "test_mask" / "p3_s1_pathology_colon_glandular+structure.png", MASK)
    return base


def describe(root: Path, *annotations: dict[str, Any], folder: str = "train") -> None:
    images = [{"id": 0, "file_name": "p1_s3_CT_abdomen.png", "height": 1024, "width": 1024}]
    rows = [{"image_id": 0, "id": number, "category_id": 1, **row} for number, row in enumerate(annotations)]
    document = {"info": {}, "images": images, "annotations": rows, "categories": [{"id": 1, "name": "organ"}]}
    (root / f"{folder}.json").write_text(json.dumps(document))


def say(*texts: str) -> list[dict[str, Any]]:
    return [{"raw": text, "sent": text.lower(), "sent_id": number} for number, text in enumerate(texts)]


def test_names_say_target_modality_and_split(root: Path, listed: Any, read: Any) -> None:
    samples, faults = listed(f"biomedparse:{root}")
    assert not faults
    assert [(s.key, s.names, s.modality, s.split) for s in samples] == [
        ("test/p3_s1_pathology_colon.png", ("glandular structure",), "Histology", "test"),
        ("train/p1_s3_CT_abdomen.png", ("left kidney", "liver", "spleen"), "CT", "train"),
        ("train/p2_s1_MRI-T1-Gd_brain.png", ("tumor core",), "MRI", "train"),
    ]
    for sample in samples:
        found = read(sample)
        assert not found.faults and found.image.modality == sample.modality
        assert all(np.array_equal(mask, MASK > 0) for mask in found.masks.values())


def test_sentences_ask_and_masks_without_json_count_too(root: Path, listed: Any) -> None:
    describe(
        root,
        {
            "mask_file": "p1_s3_CT_abdomen_left+kidney.png",
            "sentences": say("Left kidney in  abdominal CT", "the kidney"),
        },
        {"mask_file": "p1_s3_CT_abdomen_left+kidney.png", "sentences": say("the kidney", "left renal organ")},
        {"mask_file": "p1_s3_CT_abdomen_liver.png", "sentences": []},
    )
    samples, faults = listed(f"biomedparse:{root}?group=(p[0-9]%2B)&name=bmp&licence=CC-BY-4.0&split=test")
    assert not faults
    abdomen = samples[1]
    assert abdomen.names == ("left kidney", "liver", "spleen")
    assert abdomen.instructions == {"left kidney": ("Left kidney in abdominal CT", "the kidney", "left renal organ")}
    assert (abdomen.group, abdomen.source, abdomen.licence, abdomen.split) == ("p1", "bmp", "CC-BY-4.0", "train")


def test_the_json_says_whose_mask_it_is(root: Path, listed: Any, read: Any, png: Any) -> None:
    png(root / "train_mask" / "elsewhere_CT_abdomen_aorta.png", MASK)
    describe(root, {"mask_file": "elsewhere_CT_abdomen_aorta.png", "sentences": say("the aorta")})
    samples, faults = listed(f"biomedparse:{root}")
    assert not faults and samples[1].names == ("aorta", "left kidney", "liver", "spleen")
    assert set(read(samples[1]).masks) == set(samples[1].names)


def test_every_fault_is_named(root: Path, listed: Any, png: Any) -> None:
    png(root / "train" / "alone_CT_chest.png", IMAGE)
    png(root / "train" / "p1_s3_CT_abdomen.jpg", IMAGE)
    png(root / "train_mask" / "orphan_CT_chest_heart.png", MASK)
    png(root / "train_mask" / "odd_aorta.png", MASK)
    png(root / "train_mask" / "odd2_aorta.png", MASK)
    describe(
        root,
        {"mask_file": "p1_s3_CT_abdomen_gone.png"},
        {"mask_file": "../secret_CT_x.png"},
        {"mask_file": "odd_aorta.png", "image_id": 7},
        {"mask_file": "odd2_aorta.png"},
        {"mask_file": "p1_s3_CT_abdomen_liver.png", "image_id": [1]},
    )
    samples, faults = listed(f"biomedparse:{root}")
    assert [s.key for s in samples if s.key.startswith("train")] == [
        "train/p1_s3_CT_abdomen.jpg",
        "train/p2_s1_MRI-T1-Gd_brain.png",
    ]
    found = {(f.item, f.code) for f in faults}
    assert found == {
        ("train/p1_s3_CT_abdomen.png", "duplicate_id"),
        ("train/p1_s3_CT_abdomen_gone.png", "missing_mask"),
        ("train/annotation 1", "bad_row"),
        ("train/odd_aorta.png", "missing_image"),
        ("train/p1_s3_CT_abdomen_liver.png", "missing_image"),
        ("train/orphan_CT_chest_heart.png", "missing_image"),
        ("train/alone_CT_chest.png", "missing_mask"),
    }


def test_a_broken_json_does_not_stop_the_folder(root: Path, listed: Any) -> None:
    (root / "train.json").write_text("{]")
    samples, faults = listed(f"biomedparse:{root}")
    assert len(samples) == 3 and [(f.item, f.code) for f in faults] == [("train/train.json", "unreadable")]


def test_masks_that_do_not_fit_are_faults_when_read(root: Path, listed: Any, png: Any) -> None:
    png(root / "train_mask" / "p1_s3_CT_abdomen_liver.png", MASK.T)
    png(root / "train_mask" / "p1_s3_CT_abdomen_spleen.png", MASK * 0)
    found = listed(f"biomedparse:{root}")[0][1].reader()
    assert list(found.masks) == ["left kidney"]
    assert [f.code for f in found.faults] == ["size_mismatch", "empty_mask"]


def test_a_folder_of_data_sets(root: Path, listed: Any, png: Any) -> None:
    png(root.parent / "MSD" / "liver" / "train" / "a_CT_liver.png", IMAGE)
    png(root.parent / "MSD" / "liver" / "train_mask" / "a_CT_liver_tumor.png", MASK)
    samples, faults = listed(f"biomedparse:{root.parent}")
    assert not faults and [s.key for s in samples] == [
        "MSD/liver/train/a_CT_liver.png",
        "amos/test/p3_s1_pathology_colon.png",
        "amos/train/p1_s3_CT_abdomen.png",
        "amos/train/p2_s1_MRI-T1-Gd_brain.png",
    ]


def test_folders_that_are_no_split_need_patients(root: Path, listed: Any, png: Any) -> None:
    png(root / "all" / "p1_s1_CT_liver.png", IMAGE)
    png(root / "all_mask" / "p1_s1_CT_liver_tumor.png", MASK)
    with pytest.raises(InputError, match="no patients and no splits"):
        open_source(f"biomedparse:{root}")
    samples, faults = listed(f"biomedparse:{root}?split=val")
    assert not faults and [s.split for s in samples] == ["val", "test", "train", "train"]
    assert listed(f"biomedparse:{root}?group=(p.)_")[0][0].group == "p1"


def test_no_layout_at_all(tmp_path: Path, png: Any) -> None:
    png(tmp_path / "train" / "a_CT_b.png", IMAGE)
    with pytest.raises(InputError, match="no folder train/ with train_mask/"):
        open_source(f"biomedparse:{tmp_path}")


def test_modalities_are_spelt_as_elsewhere() -> None:
    words = ["CT", "X-Ray", "MRI-FLAIR", "T2", "MRI-T1-Gd", "endoscope", "fundus", "OCT", "cryo+EM"]
    assert [modality_of(word) for word in words] == [
        "CT", "X-ray", "MRI", "MRI", "MRI", "Endoscopy", "Fundus photography", "OCT", "cryo EM",
    ]  # fmt: skip
