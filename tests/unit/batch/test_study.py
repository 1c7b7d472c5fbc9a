from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_maker import write_series
from ibisagent.batch.naming import segment_name
from ibisagent.batch.study import Study, find_studies, list_studies, open_studies
from ibisagent.errors import InputError


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(np.zeros((4, 5), np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "in"
    for name in ("b.png", "a/c.png", "a/c.tif", ".hidden/d.png", "a/.e.png"):
        picture(place / name)
    write_series(place / "DOE^JANE" / "ct", np.zeros((4, 4, 2)))
    (place / "notes.txt").write_text("no image")
    (place / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    return place


def test_images_and_folders_of_dicom_files_are_found(folder: Path) -> None:
    found = find_studies(folder, "x")
    assert [study.name for study in found] == ["b.png", "DOE^JANE/ct", "a/c.png", "a/c.tif"]
    assert found[0] == Study("b", "b.png", str(folder / "b.png"), "x")
    assert found[1].path == str(folder / "DOE^JANE/ct")
    assert len({study.id for study in found}) == 4
    assert found[1].id.startswith("study-") and "DOE" not in found[1].id  # a folder's name may be a patient's
    assert found[2].id.startswith("a__c-") and found[3].id.startswith("a__c-")


def test_no_image_is_lost_because_it_is_damaged(folder: Path) -> None:
    (folder / "empty.nii.gz").touch()
    (folder / "junk.tif").write_bytes(b"junk" * 9)
    (folder / "z").mkdir()
    (folder / "z" / "1.dcm").touch()
    added = {study.name for study in find_studies(folder, "x", exclude=["a/*", "b.png", "DOE*"])}
    assert added == {"empty.nii.gz", "junk.tif", "z"}


def test_ids_do_not_depend_on_what_else_is_there(folder: Path) -> None:
    before = {study.name: study.id for study in find_studies(folder, "x")}
    picture(folder / "0.png")
    after = {study.name: study.id for study in find_studies(folder, "x")}
    assert {name: after[name] for name in before} == before


def test_results_and_patterns(folder: Path) -> None:
    picture(folder / "out/b/mask.png")
    assert len(find_studies(folder, "x")) == 5 and len(find_studies(folder, "x", out=folder / "out")) == 4
    assert [s.name for s in find_studies(folder, "x", include=["*.tif", "b.*"])] == ["b.png", "a/c.tif"]
    assert [s.name for s in find_studies(folder, "x", exclude=["*/*"])] == ["b.png"]
    with pytest.raises(InputError, match="let through"):
        find_studies(folder, "x", include=["*.nii.gz"])


def test_a_folder_without_images_or_instruction(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no images"):
        open_studies(tmp_path, "x")
    with pytest.raises(InputError, match="INSTRUCTION"):
        open_studies(tmp_path, None)
    with pytest.raises(InputError, match="--include"):
        open_studies(tmp_path / "a.csv", "x", include=["*"])


def test_lists(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(
        "study,instruction,id,other\nct/1,,first,7\n../x.nii,the liver,p:2/b,\n", encoding="utf-8-sig"
    )
    (tmp_path / "list.jsonl").write_text(
        '{"study": "ct/1", "id": "first"}\n\n{"study": "../x.nii", "instruction": "the liver", "id": "p:2/b"}\n'
    )
    for name in ("list.csv", "list.jsonl"):
        found = list_studies(tmp_path / name, "the lung")
        assert found == [
            Study("first", "ct/1", str(tmp_path / "ct/1"), "the lung"),
            Study("p_2_b", "../x.nii", str(tmp_path / "../x.nii"), "the liver"),
        ]
    (tmp_path / "plain.jsonl").write_text('{"study": "a.png", "series": 2, "mask": "m.png"}')
    (row,) = list_studies(tmp_path / "plain.jsonl", "x")
    assert (row.id, row.series, row.mask) == ("00001", "2", str(tmp_path / "m.png"))


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("l.jsonl", '{"study": "a"}', "'instruction' is missing"),
        ("l.jsonl", '{"instruction": "x"}', "line 1: 'study'"),
        ("l.jsonl", '{"study": "a", "instruction": "x"}\n{"study', "line 2"),
        ("l.jsonl", '{"study": ["a"], "instruction": "x"}', "'study' must be text"),
        ("l.csv", "study,instruction,id\na,x,A\nb,x,a\n", "line 3.*twice"),
        ("l.jsonl", '{"study": "a", "instruction": "x", "id": ".."}', "no letter"),
        ("l.jsonl", "", "empty"),
        ("l.csv", "path\na", "'study'"),
        ("l.csv", "id,instruction\n1,x", "first line"),
        ("l.txt", "a", ".jsonl or .csv"),
    ],
)  # fmt: skip
def test_damaged_lists_are_one_line(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        list_studies(tmp_path / name, None)
    assert "\n" not in str(caught.value)


def test_names_of_masks() -> None:
    assert segment_name("Segment the left lung.") == "left lung"
    assert segment_name("Please outline  the tumour in the left lung!") == "tumour in the left lung"
    assert segment_name("the all-white area") == "all-white area" and segment_name("find the") == "the"
    assert segment_name("Segment " + "long " * 40) == "long " * 12 + "long"


@given(st.text(max_size=200))
def test_a_name_is_never_empty_or_long(text: str) -> None:
    name = segment_name(text)
    assert 0 < len(name) <= 64 and name == name.strip() and name.isprintable() and "\\" not in name
