"""Shards: rows to Parquet, checked, whole or not at all, and the same bytes every time."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibisagent.engine.corpus.schema import NO_MASK, schema
from ibisagent.errors import InputError
from ibisagent.io.files import display_name, one_line

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ROW_GROUP", "check_row", "shard_path", "write_table"]

ROW_GROUP = 100
"""Rows of a row group: few enough that a reader who wants one image does not decode thousands."""

_ZSTD_LEVEL = 7

_MAY_BE_NULL = frozenset(
    {"modality", "view", "group", "licence", "spacing_mm", "target_mask", "expert", "answer", "outcome"}
    | {"final_iou", "final_dice", "changed_pixels", "segmenter_score", "iou", "dice", "thought", "action"}
    | {"segmenter", "segmenter_sha256", "teacher", "config_sha256", "seed", "path", "instruction_category"}
)
"""Columns that a row may leave open with None; it must name them even so."""


def shard_path(folder: str | os.PathLike[str], table: str, split: str, index: int, count: int) -> Path:
    """Where shard number `index` of `count` lies: ``FOLDER/data/sft/train-00000-of-00010.parquet``."""
    return Path(folder) / "data" / table / f"{split}-{index:05d}-of-{count:05d}.parquet"


def write_table(path: str | os.PathLike[str], table: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write one shard.

    Equal rows give equal bytes (with one version of pyarrow). The file appears whole or not at all: it is written
    beside its place as ``.NAME.part``, brought to disk, and renamed. That name is fixed, so that what a killed run
    left behind is overwritten by the run that follows; two processes must not write one shard at a time.

    Parameters
    ----------
    path
        File to write; its folder is made if it is missing.
    table
        One of :data:`ibisagent.engine.corpus.schema.TABLES`.
    rows
        Rows as plain dicts with every column of the table; may be empty.

    Raises
    ------
    ValueError
        If a row does not fit the table: a column is missing or unknown, a value has another type, a mask number,
        loss span or image points nowhere, or an id stands twice. The message names the row and the column.
    InputError
        If the file cannot be written.
    """
    import pyarrow.parquet as pq

    data = _table(table, rows)
    target = Path(path)
    part = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(part, "wb") as file:
                with pq.ParquetWriter(
                    file,
                    data.schema,
                    compression="zstd",
                    compression_level=_ZSTD_LEVEL,
                    version="2.6",
                    data_page_version="1.0",
                    # Pictures are unlike each other: statistics over their bytes would double the footer for nothing.
                    write_statistics=[name for name in data.column_names if name != "image"],
                ) as writer:
                    if data.num_rows:  # `datasets` cannot read a row group without rows
                        writer.write_table(data, row_group_size=ROW_GROUP)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        _sync_folder(target.parent)
    except OSError as error:
        what = one_line(error.strerror or error)
        raise InputError(f"{display_name(path)}: cannot be written ({what}); choose a writable folder") from error


def check_row(table: str, row: Mapping[str, Any]) -> None:
    """Check one row as :func:`write_table` does, where it is made rather than where it is written.

    Raises
    ------
    ValueError
        If the row does not fit; the message names the column.
    """
    _table(table, [row])


def _table(table: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    import pyarrow as pa

    try:
        columns = schema(table)
    except KeyError:
        raise ValueError(f"there is no table '{table}'") from None
    key = columns.names[0]
    seen: dict[Any, int] = {}
    for number, row in enumerate(rows):
        name = row.get(key) if isinstance(row, Mapping) else None
        where = f"{table} row {number}" + (f" ({one_line(name, 60)})" if isinstance(name, str) else "")
        _check_fields(columns, row, where, "")
        _check_numbers(row, where)
        if seen.setdefault(name, number) != number:
            raise ValueError(f"{where}: its {key} already stands in row {seen[name]}")
    try:
        return pa.Table.from_pylist(list(rows), schema=columns)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:  # what the checks above let through
        raise ValueError(f"{table}: a value does not fit its column: {one_line(error)}") from error


def _check_fields(fields: Any, value: Any, where: str, prefix: str) -> None:
    """`fields`: a schema or a struct's type; iterating it gives the fields."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: {prefix.rstrip('.') or 'the row'} must be a dict, not {type(value).__name__}")
    unknown = set(value) - {field.name for field in fields}
    if unknown:
        raise ValueError(f"{where}: there is no column '{prefix}{min(map(str, unknown))}'")
    for field in fields:
        if field.name not in value:
            raise ValueError(f"{where}: the column '{prefix}{field.name}' is missing")
        inner = value[field.name]
        if inner is not None:
            _check_value(field.type, inner, where, prefix + field.name)
        elif field.name not in _MAY_BE_NULL and prefix + field.name != "messages.content.text":
            raise ValueError(f"{where}: the column '{prefix}{field.name}' may not be None")


def _check_value(kind: Any, value: Any, where: str, name: str) -> None:
    import numbers

    import pyarrow.types as pt

    if pt.is_struct(kind):
        _check_fields(kind, value, where, name + ".")
    elif pt.is_list(kind):
        if isinstance(value, str | bytes) or not isinstance(value, Sequence):
            raise ValueError(f"{where}: '{name}' must be a list, not {type(value).__name__}")
        for item in value:
            _check_value(kind.value_type, item, where, name)
    else:
        if pt.is_string(kind):
            fits = isinstance(value, str)
        elif pt.is_binary(kind):
            fits = isinstance(value, bytes)
        elif pt.is_boolean(kind):
            fits = isinstance(value, bool)
        elif pt.is_integer(kind):
            fits = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        else:
            fits = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if not fits:
            raise ValueError(f"{where}: '{name}' must be {kind}, not {type(value).__name__}")


def _check_numbers(row: Mapping[str, Any], where: str) -> None:
    """Whatever points into another column must find something there."""
    if "masks" not in row:
        return
    count = len(row["masks"])
    pointers = [("initial_mask", row["initial_mask"])]
    pointers += [("steps.mask", step["mask"]) for step in row.get("steps", ())]
    messages = row["messages"]
    for message in messages:
        for part in message["content"]:
            if part["type"] not in ("text", "image"):
                raise ValueError(f"{where}: a message's part is 'text' or 'image', not '{one_line(part['type'], 30)}'")
            if (part["type"] == "text") != (part["text"] is not None):
                raise ValueError(f"{where}: 'messages.content.text' stands in text parts and in no others")
            pointers.append(("messages.content.mask", part["mask"]))
    for name, number in pointers:
        if not NO_MASK <= number < count:
            raise ValueError(f"{where}: '{name}' is {number}, but there are {count} masks")
    for span in row.get("loss_spans", ()):
        _check_span(span, messages, where)


def _check_span(span: Mapping[str, Any], messages: Sequence[Mapping[str, Any]], where: str) -> None:
    number, start, end = span["message"], span["start"], span["end"]
    if not 0 <= number < len(messages) or messages[number]["role"] != "assistant":
        raise ValueError(f"{where}: a loss span names message {number}, which is none of the assistant's")
    length = sum(len(part["text"] or "") for part in messages[number]["content"])
    if not 0 <= start < end <= length:
        raise ValueError(f"{where}: a loss span is [{start}, {end}) in a message of {length} characters")


def _sync_folder(folder: Path) -> None:
    """Bring the rename itself to disk, where the system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
