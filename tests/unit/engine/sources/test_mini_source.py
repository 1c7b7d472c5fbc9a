"""The mini format as a source: the real data, and every fault that a list can have."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ibisagent.engine.sources.registry import open_source
from ibisagent.errors import InputError
from ibisagent.io.datasets import CaseRow, load_case, read_cases

MINI = Path(__file__).resolve().parents[4] / "data" / "mini" / "cases.jsonl"


def test_the_real_data_is_all_there(listed: Any) -> None:
    samples, faults = listed(f"mini:{MINI}")
    assert not faults
    assert Counter((s.key, name) for s in samples for name in s.names) == Counter(
        (row.image, row.target) for row in read_cases(MINI) if isinstance(row, CaseRow)
    )
    assert len(samples) == 126 and sum(len(s.names) for s in samples) == 429
    assert {s.source for s in samples} == {"mini"}
    assert {s.split for s in samples} == {"train", "val"}
    assert {s.licence for s in samples} > {"BSD-3-Clause"}


def test_a_real_sample_reads_as_its_rows_do(listed: Any, read: Any) -> None:
    samples, _ = listed(f"mini:{MINI.parent}")
    rows = [row for row in read_cases(MINI) if isinstance(row, CaseRow) and row.split == "train"]
    for key in ("images/lung1_axial_014.png", rows[0].image, rows[-1].image):
        sample = next((s for s in samples if s.key == key), None)
        if sample is None:
            continue
        found = read(sample)
        for row in rows:
            if row.image == key:
                image, target, _ = load_case(row, MINI.parent)
                assert image.sha256 == found.image.sha256
                assert (
                    found.image.geometry == image.geometry and found.image.modality == row.modality == sample.modality
                )
                assert target is not None and np.array_equal(found.masks[row.target], target)
                assert (sample.group, sample.view, sample.split) == (row.group, row.view, row.split)


@pytest.fixture
def write(tmp_path: Path, png: Any) -> Any:
    square = np.zeros((20, 30), np.uint8)
    square[5:10, 6:12] = 255
    png(tmp_path / "a.png", np.full((20, 30), 90, np.uint8))
    png(tmp_path / "b.png", np.full((20, 30), 91, np.uint8))
    png(tmp_path / "square.png", square)
    png(tmp_path / "square2.png", square.T)
    png(tmp_path / "empty.png", square * 0)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")

    def run(*rows: dict[str, Any] | str) -> str:
        path = tmp_path / "cases.jsonl"
        lines = [
            row
            if isinstance(row, str)
            else json.dumps({"image": "a.png", "mask": "square.png", "target": "square", **row})
            for row in rows
        ]
        path.write_text("\n".join(lines))
        return f"mini:{path}"

    return run


def test_rows_of_one_image_are_one_sample(write: Any, listed: Any, read: Any) -> None:
    spec = write(
        {"case_id": "1", "instruction": "Find it.", "group": "p", "licence": "CC0"},
        {"case_id": "2", "image": "b.png", "target": "other"},
        {"case_id": "3", "mask": None, "target": "circle", "group": "p"},
        {"case_id": "4", "instruction": "Show the square.", "group": "p"},
        {"case_id": "5", "instruction": "Find it.", "group": "p"},
        {"case_id": "6", "instruction": "Correct the given mask.", "initial_mask": "square.png", "group": "p"},
    )
    (a, b), faults = listed(spec)
    assert not faults
    assert (a.key, a.names, a.absent, a.group, a.licence, a.split) == (
        "a.png",
        ("square",),
        ("circle",),
        "p",
        "CC0",
        None,
    )
    assert a.instructions == {"square": ("Find it.", "Show the square.")}
    assert (b.key, b.names, b.instructions) == ("b.png", ("other",), {})
    assert read(a).masks["square"].sum() == 30


def test_every_fault_is_named_and_stops_nothing(write: Any, listed: Any, read: Any) -> None:
    spec = write(
        {"case_id": "good"},
        "{not json",
        {"case_id": "good", "target": "x"},
        {"case_id": "gone", "mask": "gone.png", "target": "x"},
        {"case_id": "noimage", "image": "gone.png"},
        {"case_id": "other", "mask": "empty.png"},
        {"case_id": "both", "mask": None},
        {"case_id": "split", "split": "test", "target": "x"},
        {"case_id": "small", "mask": "square2.png", "target": "turned"},
        {"case_id": "empty", "mask": "empty.png", "target": "nothing"},
        {"case_id": "broken", "mask": "broken.png", "target": "noise"},
    )
    (sample,), faults = listed(spec)
    assert [(f.item, f.code) for f in faults] == [
        ("cases.jsonl line 2", "bad_row"),
        ("good", "duplicate_id"),
        ("gone", "missing_mask"),
        ("noimage", "missing_image"),
        ("other", "duplicate_id"),
        ("both", "duplicate_id"),
        ("split", "bad_row"),
    ]
    found = read(sample)
    assert list(found.masks) == ["square"]
    assert [f.code for f in found.faults] == ["size_mismatch", "unreadable", "empty_mask"]
    assert "20 x 30 pixels, but the image is 30 x 20" in found.faults[0].message


def test_a_file_that_goes_after_listing(write: Any, listed: Any, tmp_path: Path) -> None:
    (sample,), _ = listed(write({"case_id": "1"}))
    (tmp_path / "square.png").unlink()
    found = sample.reader()
    assert not found.masks and [f.code for f in found.faults] == ["missing_mask"]
    (tmp_path / "a.png").unlink()
    with pytest.raises(InputError, match="no such file"):
        sample.reader()


def test_spacing_groups_and_relative_paths(write: Any, listed: Any, monkeypatch: Any, tmp_path: Path) -> None:
    spec = write({"case_id": "1", "spacing_mm": [2.0, 3.0], "group": "row"}) + "?group=(.)&modality=CT&split=train"
    monkeypatch.chdir(tmp_path)
    (sample,), _ = listed(spec.replace(str(tmp_path) + "/", ""))
    assert (sample.group, sample.modality, sample.split, sample.source) == ("a", "CT", "train", tmp_path.name)
    monkeypatch.chdir("/")
    image = sample.reader().image
    assert image.geometry.spacing_mm == (2.0, 3.0) and image.modality == "CT"
    _, faults = listed(spec.replace("group=(.)", "group=(z)"))
    assert [f.code for f in faults] == ["bad_row"]


def test_no_list_at_all(tmp_path: Path) -> None:
    (tmp_path / "cases.jsonl").write_text("nothing\n")
    with pytest.raises(InputError, match="no case in it"):
        list(open_source(f"mini:{tmp_path}").samples())
    with pytest.raises(InputError, match="no option 'target'"):
        open_source(f"mini:{tmp_path}?target=x")
