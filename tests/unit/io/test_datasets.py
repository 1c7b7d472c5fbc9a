"""Case lists: good rows, bad rows with their line, unusable files."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from io_samples import MINI, gray_ramp, save_png

from ibisagent.errors import InputError
from ibisagent.io import CaseRow, RowError, load_case, read_cases


def write_list(folder: Path, *lines: str | dict[str, Any]) -> Path:
    save_png(folder / "a.png", gray_ramp())
    save_png(folder / "m.png", gray_ramp() > 99)
    path = folder / "cases.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return path


def row(**fields: Any) -> dict[str, Any]:
    return {"case_id": "c1", "image": "a.png", "mask": "m.png", "target": "ramp", **fields}


def test_mini_is_read_whole() -> None:
    rows = read_cases(MINI / "cases.jsonl")
    assert len(rows) == 429 and all(isinstance(r, CaseRow) for r in rows)
    first = rows[0]
    assert isinstance(first, CaseRow) and first.spacing_mm == (1.0, 1.0)
    assert first.model_extra is not None and first.model_extra["label_source"] == "derived"
    image, target, initial = load_case(first, MINI)
    assert image.geometry.spacing_mm == (1.0, 1.0) and image.modality == "MRI"
    assert target is not None and target.any() and initial is None


def test_optional_fields_and_absent_targets(tmp_path: Path) -> None:
    path = write_list(
        tmp_path, row(mask=None, instruction="Find it.", initial_mask="m.png", spacing_mm=[2, 3.5], mine=[1])
    )
    (case,) = read_cases(path)
    assert isinstance(case, CaseRow) and case.instruction == "Find it."
    image, target, initial = load_case(case, tmp_path)
    assert target is None and initial is not None and np.array_equal(initial, gray_ramp() > 99)
    assert image.geometry.spacing_mm == (2.0, 3.5)


@pytest.mark.parametrize(
    "bad, words",
    [
        ("{not json", "not JSON"),
        ("[1, 2]", "not a JSON object"),
        ("[" * 100_000, "not JSON"),
        ('{"a":' * 2000 + "1" + "}" * 2000, "line 3"),
        (row(case_id=""), "case_id"),
        (row(case_id=7), "case_id"),
        ({"case_id": "x", "image": "a.png", "target": "t"}, "mask"),
        (row(target=None), "target"),
        (row(target=" \n"), "target"),
        (row(spacing_mm=[1]), "spacing_mm"),
        (row(spacing_mm=[1, -1]), "spacing_mm"),
        (row(spacing_mm=[1, float("nan")]), "spacing_mm"),
        (row(image="gone.png"), "image 'gone.png' does not exist"),
        (row(mask="."), "mask '.' does not exist"),
        (row(initial_mask="a\x00b"), "initial_mask"),
        (row(image="x" * 5000), "does not exist"),
        ('{"case_id": "\\ud800", "image": "a.png", "mask": null, "target": "t"}', "case_id"),
    ],
)
def test_a_bad_row_is_one_error_with_its_line(tmp_path: Path, bad: str | dict[str, Any], words: str) -> None:
    rows = read_cases(write_list(tmp_path, row(case_id="first"), "", bad, row(case_id="last")))
    assert [type(r) for r in rows] == [CaseRow, RowError, CaseRow]
    error = rows[1]
    assert isinstance(error, RowError) and error.line == 3 and words in error.message
    assert "\n" not in error.message and "cases.jsonl line 3" in error.message


def test_a_bad_row_still_says_whose_it_is(tmp_path: Path) -> None:
    known = {"group": "g", "modality": "CT", "split": "val"}
    path = write_list(
        tmp_path, row(image="gone.png", mask=None, **known), {"target": 7, "split": None, "mask": "x"}, "{"
    )
    errors = [r for r in read_cases(path) if isinstance(r, RowError)]
    said = [(e.group, e.target, e.modality, e.split, e.absent) for e in errors]
    assert said == [("g", "ramp", "CT", "val", True), (None,) * 5, (None,) * 5]


def test_duplicates(tmp_path: Path) -> None:
    rows = read_cases(write_list(tmp_path, row(), row(), row(case_id="c2")))
    assert isinstance(rows[1], RowError) and rows[1].case_id == "c1" and "line 1" in rows[1].message
    assert isinstance(rows[2], CaseRow)


def test_wrong_sizes_come_out_when_loaded(tmp_path: Path) -> None:
    path = write_list(tmp_path, row(mask="small.png"))
    save_png(tmp_path / "small.png", gray_ramp(5, 5))
    (case,) = read_cases(path)
    assert isinstance(case, CaseRow)
    with pytest.raises(InputError, match="5 x 5 pixels"):
        load_case(case, tmp_path)


def test_a_mask_without_a_pixel_is_a_fault(tmp_path: Path) -> None:
    path = write_list(tmp_path, "", row(case_id="a", mask=None), row(mask="blank.png"))
    save_png(tmp_path / "blank.png", gray_ramp() * 0)
    absent, blank = read_cases(path)
    assert isinstance(absent, CaseRow) and load_case(absent, tmp_path)[1] is None
    assert isinstance(blank, CaseRow)
    with pytest.raises(InputError, match=r"blank.png' has no pixel; write null"):
        load_case(blank, tmp_path)


def test_rows_know_their_line_and_keep_a_field_of_that_name(tmp_path: Path) -> None:
    path = write_list(tmp_path, row(case_id="a", line="theirs", place=3), "", row())
    first, second = read_cases(path)
    assert isinstance(first, CaseRow) and isinstance(second, CaseRow)
    assert (first.line, second.line) == (1, 3) and second.place == f"{path} line 3"
    assert first.model_extra == {"line": "theirs", "place": 3}
    assert pickle.loads(pickle.dumps(second)).line == second.model_copy(update={"target": "x"}).line == 3
    made = CaseRow(case_id="c", image="i", mask=None, target="t")
    assert made.line is None and made.place == ""


@pytest.mark.parametrize("content", [b"", b"\n \n", b"hello\nworld", b"\xff\xfe\x00", b"[]", b"null"])
def test_unusable_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.jsonl").write_bytes(content)
    with pytest.raises(InputError):
        read_cases(tmp_path / "c.jsonl")


def test_unusable_paths(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "gone.jsonl", MINI / "images" / "brain1_axial_011.png"):
        with pytest.raises(InputError):
            read_cases(path)


def test_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    path = write_list(tmp_path, row())
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes() + b"\r\n")
    assert [type(r) for r in read_cases(path)] == [CaseRow]


def test_importing_the_readers_loads_no_decoder() -> None:
    import subprocess
    import sys

    code = "import sys, ibisagent.io; print(sorted({'PIL', 'nibabel', 'pydicom', 'cv2', 'torch'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
