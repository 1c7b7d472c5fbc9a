"""Case lists out of files and data sets."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from ibisagent.config import RolloutConfig
from ibisagent.errors import InputError
from ibisagent.evaluate import evaluate
from ibisagent.evaluate.case_list import is_source, open_case_list
from ibisagent.evaluate.statistics import cluster_unit
from ibisagent.hashing import file_hash
from ibisagent.io import CaseRow, RowError, read_cases
from ibisagent.policies.oracle import OraclePolicy
from ibisagent.segmenters.rules import RulesSegmenter


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(array).save(path)


@pytest.fixture
def biomedparse(tmp_path: Path) -> Path:
    """Two images of BiomedParseData's layout: one mask is empty, one of another size."""
    root = tmp_path / "amos"
    mask = np.zeros((24, 32), np.uint8)
    mask[4:16, 6:20] = 255
    for name in ("a_CT_abdomen", "b_MRI_abdomen"):
        save(root / "test" / f"{name}.png", np.where(mask, 200, 30).astype(np.uint8))
    save(root / "test_mask" / "a_CT_abdomen_left+kidney.png", mask)
    save(root / "test_mask" / "a_CT_abdomen_liver.png", mask * 0)
    save(root / "test_mask" / "b_MRI_abdomen_liver.png", mask[:-1])
    save(root / "test_mask" / "b_MRI_abdomen_spleen.png", mask)
    sentences = [{"raw": "left kidney in abdominal CT"}, {"raw": "kidney on the left"}]
    described = {
        "images": [{"id": 1, "file_name": "a_CT_abdomen.png"}],
        "annotations": [{"image_id": 1, "mask_file": "a_CT_abdomen_left+kidney.png", "sentences": sentences}],
    }
    (root / "test.json").write_text(json.dumps(described))
    return root


def test_a_file_is_read_as_ever(toy_cases: Path) -> None:
    cases = open_case_list(toy_cases, split="train", limit=3)
    assert list(cases.rows) == [row for row in read_cases(toy_cases) if row.split == "train"][:3]
    assert cases.sha256 == file_hash(toy_cases) and cases.name == toy_cases.name
    image, target, initial = cases.load(cases.rows[0])
    assert target is not None and target.shape == (image.height, image.width) and initial is None


def test_a_data_set_is_rows_of_its_targets(biomedparse: Path) -> None:
    spec = f"biomedparse:{biomedparse}"
    assert is_source(spec) and not is_source(str(biomedparse)) and not is_source("nothing:here")
    cases = open_case_list(spec)
    assert [row.case_id for row in cases.rows] == [
        "test/a_CT_abdomen.png__left kidney",
        "test/a_CT_abdomen.png__liver",
        "test/b_MRI_abdomen.png__liver",
        "test/b_MRI_abdomen.png__spleen",
    ]
    kidney, empty, misfit, spleen = cases.rows
    assert isinstance(kidney, CaseRow) and isinstance(empty, CaseRow) and isinstance(misfit, CaseRow)
    assert kidney.instruction == "left kidney in abdominal CT" and spleen.instruction is None
    assert (kidney.modality, kidney.split, kidney.group) == ("CT", "test", None)
    assert kidney.model_extra == {"source": "amos"}
    image, target, _ = pickle.loads(pickle.dumps(cases)).load(kidney)
    assert image.modality == "CT" and target is not None and target[4:16, 6:20].all() and target.sum() == 12 * 14
    for row, told in ((empty, "liver"), (misfit, "b_MRI_abdomen_liver.png")):
        with pytest.raises(InputError, match=told):
            cases.load(row)


def test_patients_that_nobody_knows_are_no_clusters(tmp_path: Path) -> None:
    for number in range(12):
        name = f"{number}_CT_abdomen"
        mask = np.zeros((24, 32), np.uint8)
        mask[4:16, 6:20] = 255
        save(tmp_path / "amos" / "test" / f"{name}.png", mask)
        save(tmp_path / "amos" / "test_mask" / f"{name}_liver.png", mask)
    for spec, unit in ((f"biomedparse:{tmp_path / 'amos'}", "image"), ("phantoms:12?size=64&kinds=oct", "patient")):
        cases = open_case_list(spec)
        targets: dict = {}
        results = evaluate(
            cases.rows, "", OraclePolicy(targets), RulesSegmenter(), RolloutConfig(max_steps=1), targets=targets,
            load=cases.load,
        )  # fmt: skip
        clusters = cluster_unit(results)
        told = "no patients known" in (clusters.warning or "")
        assert clusters.unit == unit and told == (unit == "image")


def test_sentences(biomedparse: Path) -> None:
    spec = f"biomedparse:{biomedparse}"
    everything = open_case_list(spec, sentences="all").rows
    assert [row.instruction for row in everything[:2]] == ["left kidney in abdominal CT", "kidney on the left"]
    assert everything[1].case_id == "test/a_CT_abdomen.png__left kidney__2" and len(everything) == 5
    assert all(row.instruction is None for row in open_case_list(spec, sentences="none").rows)


def test_faults_are_rows_by_item_and_play_goes_on(biomedparse: Path) -> None:
    save(biomedparse / "test_mask" / "gone_CT_abdomen_liver.png", np.full((24, 32), 255, np.uint8))
    (biomedparse / "test" / "b_MRI_abdomen.png").write_bytes(b"no picture")
    cases = open_case_list(f"biomedparse:{biomedparse}")
    (fault,) = [row for row in cases.rows if isinstance(row, RowError)]
    assert fault.code == "missing_image" and "gone_CT_abdomen_liver.png" in fault.message
    targets: dict = {}
    results = evaluate(
        cases.rows, Path(), OraclePolicy(targets), RulesSegmenter(), RolloutConfig(), targets=targets, load=cases.load
    )
    assert len(results) == len(cases.rows) and sum(bool(r.error) for r in results) == len(cases.rows) - 1
    (played,) = [r for r in results if r.episode is not None]
    assert played.target == "left kidney" and played.iou is not None and played.iou > 0.5
    assert played.source == "amos" and played.instruction == "left kidney in abdominal CT"


def test_phantoms_tell_their_names_when_read_and_absent_targets() -> None:
    cases = open_case_list("phantoms:3?seed=5&size=64&kinds=brain_mri")
    rows = [row for row in cases.rows if isinstance(row, CaseRow)]
    assert {row.target for row in rows if row.mask is None} >= {"breast lesion"}
    present = next(row for row in rows if row.mask is not None)
    assert cases.load(present)[1].any() and cases.load(next(r for r in rows if r.mask is None))[1] is None
    again = open_case_list("phantoms:3?seed=5&size=64&kinds=brain_mri")
    assert again.sha256 == cases.sha256 != open_case_list("phantoms:2?seed=5&size=64&kinds=brain_mri").sha256
    assert len(open_case_list("phantoms:1000000?size=64", limit=4)) == 4  # draws no more than it must


def test_several_lists(toy_cases: Path, biomedparse: Path) -> None:
    lists = [str(toy_cases), f"biomedparse:{biomedparse}"]
    cases = open_case_list(lists, split="test")
    assert [row.model_extra["source"] for row in cases.rows] == ["amos"] * 4
    both = open_case_list(lists)
    rows = [row for row in both.rows if isinstance(row, CaseRow)]
    assert len({row.case_id for row in rows}) == len(rows) and rows[-1].case_id.startswith("amos/test/")
    toys = [row for row in read_cases(toy_cases) if isinstance(row, CaseRow)]
    name = toy_cases.parent.name
    assert [row.case_id for row in rows[: len(toys)]] == [f"{name}/{row.case_id}" for row in toys]
    assert rows[0].image == f"{name}/{toys[0].image}" and rows[0].model_extra["patient"] == f"{name}/{toys[0].group}"
    assert rows[0].group == toys[0].group  # what rules of domains ask for
    again = pickle.loads(pickle.dumps(both))
    for row in (rows[0], rows[-1]):
        assert again.load(row)[1].any()
    twice = open_case_list([f"biomedparse:{biomedparse}"] * 2)
    assert sum(isinstance(row, RowError) and row.code == "duplicate_id" for row in twice.rows) == 4


def test_what_cannot_be_used(toy_cases: Path, biomedparse: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no row of the split 'val'; there is test"):
        open_case_list(f"biomedparse:{biomedparse}", split="val")
    with pytest.raises(InputError, match="no row of the split 'blue'"):
        open_case_list(toy_cases, split="blue")
    with pytest.raises(InputError, match="no such file, and no data set"):
        open_case_list([str(toy_cases), "nothing.jsonl"])
    with pytest.raises(InputError, match="no cases are given"):
        open_case_list([])
    with pytest.raises(InputError, match=r"nothing\.jsonl"):
        open_case_list(str(tmp_path / "nothing.jsonl"))
