"""MeCoVQA's grounding part, on small files of its layout."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from ibisagent.engine.sources.registry import open_source
from ibisagent.engine.sources.sample import Fault, Question, Sample
from ibisagent.errors import InputError

CT = "ct_00--AMOS2022--amos_0001--x_0020"
MR = "mr_t1--ACDC--patient001--x_0003"


def save(path: Path, mask: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(mask.astype(np.uint8) * 255).save(path)


def box(x0: int, x1: int) -> np.ndarray:
    mask = np.zeros((20, 30), bool)
    mask[5:15, x0:x1] = True
    return mask


def row(image: str, *turns: tuple[str, str]) -> dict[str, Any]:
    said = [{"from": who, "value": text} for turn in turns for who, text in zip(("human", "gpt"), turn, strict=True)]
    return {"id": image, "image": f"images/{image}.png", "conversations": said}


def asks(text: str, mask: str) -> tuple[str, str]:
    return f"<image>\n{text}", f"<SEG><mask>masks/{mask}.png</mask>"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    images = tmp_path / "SAMed2Dv1"
    for name in (CT, MR):
        save(images / "images" / f"{name}.png", box(2, 20))
    save(images / "masks" / f"{CT}--0003_000.png", box(2, 8))
    save(images / "masks" / f"{CT}--0003_001.png", box(20, 25))
    save(images / "masks" / f"{CT}--0006_000.png", box(10, 14))
    save(images / "masks" / f"{MR}--0001_000.png", box(3, 9))
    rows = [
        row(CT, asks("Where is the filter organ?", f"{CT}--0003_000")),
        row(CT, asks("Can you segment the left kidney in this image?", f"{CT}--0003_001")),
        row(CT, asks("Please segment the liver.", f"{CT}--0006_000")),
        row(MR, asks("Outline the myocardium, please.", f"{MR}--0001_000"), ("Is it thick?", "No.")),
    ]
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "MeCoVQA_Grounding_test.json").write_text(json.dumps(rows))
    mapping = {"AMOS2022": {"kidney_left": "0003", "liver": 6}, "ACDC": {"1": "myocardium"}}
    (images / "SAMed2D_v1_class_mapping_id.json").write_text(json.dumps(mapping))
    return tmp_path


def read(root: Path, options: str = "") -> tuple[list[Sample], list[Fault]]:
    found = list(open_source(f"mecovqa:{root / 'test' / 'MeCoVQA_Grounding_test.json'}{options}").samples())
    return [s for s in found if isinstance(s, Sample)], [f for f in found if isinstance(f, Fault)]


def rewrite(root: Path, rows: list[Any]) -> None:
    (root / "test" / "MeCoVQA_Grounding_test.json").write_text(json.dumps(rows))


def test_names_sentences_groups_and_masks(root: Path) -> None:
    (first, second), faults = read(root)
    assert not faults
    assert first.names == ("left kidney", "liver") and first.modality == "CT" and first.split == "test"
    assert first.group == "AMOS2022--amos_0001" and second.group == "ACDC--patient001" and second.modality == "MRI"
    assert first.instructions["left kidney"] == (
        "Where is the filter organ?",
        "Can you segment the left kidney in this image?",
    )
    assert first.licence.startswith("CC BY-NC-SA") and first.source == "MeCoVQA_Grounding_test"
    assert second.questions == (Question("Is it thick?", "No.", closed=True),)
    made = pickle.loads(pickle.dumps(first.reader))()
    assert not made.faults and made.image.modality == "CT"
    assert np.array_equal(made.masks["left kidney"], box(2, 8) | box(20, 25))  # two instances of one name
    assert np.array_equal(made.masks["liver"], box(10, 14))


def test_without_the_mapping_names_come_from_the_sentences(root: Path) -> None:
    (root / "SAMed2Dv1" / "SAMed2D_v1_class_mapping_id.json").unlink()
    (first, second), faults = read(root, "?split=val&name=meco")
    assert first.names == ("left kidney", "liver") and second.names == ("myocardium",)
    assert [f.code for f in faults] == ["bad_row"] and "filter organ" in faults[0].message  # which organ is that?
    assert first.split == "test" and first.source == "meco"  # the published split stays
    rewrite(root, [row(CT, asks("Could you do something for me?", "odd"))])
    with pytest.raises(InputError, match="no turn with <mask>"):
        read(root)


def test_what_is_wrong_is_named(root: Path) -> None:
    rows = json.loads((root / "test" / "MeCoVQA_Grounding_test.json").read_text())
    rows += [
        "text",
        row("ct_00--X--gone--z_1", asks("Segment the liver.", "gone")),
        row("ct_00--X--gone--z_1", ("<image>What is in <region>masks/a.png</region>?", "The liver.")),
        row(MR, asks("Segment the ventricle.", "../../secret")),
        row("../../etc/image", asks("Segment the ventricle.", "m")),
    ]
    rewrite(root, rows)
    (root / "SAMed2Dv1" / "masks" / f"{CT}--0006_000.png").unlink()
    samples, faults = read(root)
    assert [f.code for f in faults] == ["bad_row", "bad_row", "missing_image", "missing_image"]
    assert "leads out of the folder" in faults[1].message
    made = samples[0].reader()
    assert set(made.masks) == {"left kidney"} and [f.code for f in made.faults] == ["missing_mask"]


def test_other_folders_and_no_data_set(root: Path, tmp_path: Path) -> None:
    (root / "SAMed2Dv1").rename(root / "elsewhere")
    with pytest.raises(InputError, match="give images=FOLDER"):
        read(root)
    assert len(read(root, f"?images={root / 'elsewhere'}")[0]) == 2
    for spec, message in (
        (f"mecovqa:{tmp_path / 'no.json'}", "no such file"),
        (f"mecovqa:{root / 'test' / 'MeCoVQA_Grounding_test.json'}?images={tmp_path / 'no'}", "no images there"),
    ):
        with pytest.raises(InputError, match=message):
            open_source(spec)
    rewrite(root, {"not": "a list"})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="not a list"):
        read(root, f"?images={root / 'elsewhere'}")
