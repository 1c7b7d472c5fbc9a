"""Shards: the same bytes for the same rows, whole or not at all, and rows that do not fit are named."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sample_corpus
from ibisagent.engine.corpus.schema import TABLES, schema
from ibisagent.engine.corpus.writer import ROW_GROUP, check_row, shard_path, write_table
from ibisagent.errors import InputError


@pytest.fixture(scope="module")
def sft_row() -> dict[str, Any]:
    return sample_corpus.sft_runs()[1].row


def changed(row: dict[str, Any], **values: Any) -> dict[str, Any]:
    return {**copy.deepcopy(row), **values}


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    rows = [run.row for run in sample_corpus.sft_runs()]
    write_table(tmp_path / "a.parquet", "sft", rows)
    assert pq.read_table(tmp_path / "a.parquet").to_pylist() == rows
    assert pq.read_schema(tmp_path / "a.parquet").equals(schema("sft"))


def test_equal_rows_give_equal_bytes(tmp_path: Path, sft_row: dict[str, Any]) -> None:
    write_table(tmp_path / "a.parquet", "sft", [sft_row])
    shuffled = dict(reversed(list(copy.deepcopy(sft_row).items())))
    write_table(tmp_path / "elsewhere" / "b.parquet", "sft", [shuffled])
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "elsewhere" / "b.parquet").read_bytes()
    assert sorted(p.name for p in tmp_path.rglob("*.p*")) == ["a.parquet", "b.parquet"]  # nothing temporary is left


@pytest.mark.parametrize("table", TABLES)
def test_no_rows_make_a_shard_with_all_columns(tmp_path: Path, table: str) -> None:
    path = shard_path(tmp_path, table, "train", 0, 1)
    write_table(path, table, [])
    assert path.relative_to(tmp_path).as_posix() == f"data/{table}/train-00000-of-00001.parquet"
    assert pq.read_table(path).num_rows == 0 and pq.ParquetFile(path).num_row_groups == 0
    assert pq.read_schema(path).names == schema(table).names


def test_row_groups_are_small_and_pictures_say_what_they_are(tmp_path: Path) -> None:
    first = sample_corpus.image_row(sample_corpus.ct_image())
    rows = [{**first, "image_id": f"{n:064d}"} for n in range(ROW_GROUP + 1)]
    write_table(tmp_path / "i.parquet", "images", rows)
    file = pq.ParquetFile(tmp_path / "i.parquet")
    assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [ROW_GROUP, 1]
    feature = json.loads(file.schema_arrow.metadata[b"huggingface"])["info"]["features"]
    assert feature["image"] == {"_type": "Image"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"colour": "red"}, "no column 'colour'"),
        ({"target": None}, "'target' may not be None"),
        ({"target": 3}, "'target' must be string, not int"),
        ({"num_steps": 1.5}, "'num_steps' must be int32, not float"),
        ({"num_steps": True}, "'num_steps' must be int32, not bool"),
        ({"num_steps": 2**40}, "does not fit its column"),
        ({"final_iou": "0.9"}, "'final_iou' must be double, not str"),
        ({"initial_mask": 9}, "'initial_mask' is 9, but there are"),
        ({"target_mask": {"size": [4, 4]}}, "'target_mask.counts' is missing"),
        ({"messages": "hello"}, "'messages' must be a list"),
        ({"loss_spans": [{"message": 1, "start": 0, "end": 2}]}, "none of the assistant's"),
        ({"loss_spans": [{"message": 2, "start": 0, "end": 9999}]}, "in a message of"),
        ({"loss_spans": [{"message": 2, "start": 5, "end": 5}]}, r"is \[5, 5\)"),
    ],
)
def test_a_row_that_does_not_fit_is_named(
    tmp_path: Path, sft_row: dict[str, Any], change: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        write_table(tmp_path / "a.parquet", "sft", [changed(sft_row, **change)])
    assert list(tmp_path.iterdir()) == []


def test_a_missing_column_and_a_row_in_the_middle_are_named(sft_row: dict[str, Any], tmp_path: Path) -> None:
    short = changed(sft_row, trajectory_id="short")
    del short["steps"][0]["learn"]
    with pytest.raises(ValueError, match=r"sft row 1 \(short\): the column 'steps.learn' is missing"):
        write_table(tmp_path / "a.parquet", "sft", [sft_row, short])
    with pytest.raises(ValueError, match="its trajectory_id already stands in row 0"):
        write_table(tmp_path / "a.parquet", "sft", [sft_row, sft_row])
    with pytest.raises(ValueError, match="no table 'sff'"):
        check_row("sff", sft_row)


def test_an_old_shard_survives_rows_that_do_not_fit_and_a_killed_run(tmp_path: Path, sft_row: dict[str, Any]) -> None:
    path = tmp_path / "a.parquet"
    write_table(path, "sft", [sft_row])
    before = path.read_bytes()
    (tmp_path / ".a.parquet.part").write_bytes(b"half a shard")  # what kill -9 leaves
    with pytest.raises(ValueError, match="must be"):
        write_table(path, "sft", [changed(sft_row, answer=7)])
    assert path.read_bytes() == before
    write_table(path, "sft", [])
    assert [p.name for p in tmp_path.iterdir()] == ["a.parquet"]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, sft_row: dict[str, Any]) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match="choose a writable folder") as caught:
        write_table(tmp_path / "file" / "a.parquet", "sft", [sft_row])
    assert "\n" not in str(caught.value)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(st.characters(codec="utf-8"), min_size=1, max_size=40),
    score=st.none() | st.floats(0, 1),
    seed=st.integers(-(2**63), 2**63 - 1),
)
def test_any_text_and_number_survive(
    tmp_path: Path, sft_row: dict[str, Any], text: str, score: float | None, seed: int
) -> None:
    row = changed(sft_row, instruction=text, answer=text, final_iou=score)
    row["provenance"]["seed"] = seed
    write_table(tmp_path / "a.parquet", "sft", [row])
    assert pq.read_table(tmp_path / "a.parquet").to_pylist() == [row]
