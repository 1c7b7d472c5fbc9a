"""Parquet files for other trainers: streamed, whole or not at all, and with the picture columns named."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibisagent.errors import InputError
from ibisagent.io.files import display_name, one_line

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["picture_type", "rle_type", "write_rows"]

_GROUP = 16
"""Rows of a row group; a row holds some ten pictures."""


def picture_type() -> pa.DataType:
    """Type of a picture: ``{"bytes", "path"}``."""
    import pyarrow as pa

    return pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def rle_type() -> pa.DataType:
    """Type of a mask: ``{"size", "counts"}``."""
    import pyarrow as pa

    return pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.string())])


def write_rows(
    path: Path, columns: Mapping[str, pa.DataType], rows: Iterable[Mapping[str, Any]], pictures: Iterable[str]
) -> int:
    """Write a file as the rows come.

    Parameters
    ----------
    path
        File to write; its folder is made.
    columns
        Names and types.
    rows
        An iterator is read as it is written.
    pictures
        Columns that ``datasets`` is to decode as pictures (a picture, or a list of them).

    Returns
    -------
    int
        Number of rows.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    chosen = frozenset(pictures)
    features = {name: _feature(kind, name in chosen) for name, kind in columns.items()}
    schema = pa.schema(list(columns.items())).with_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )
    part, count, source = path.with_name(f".{path.name}.part"), 0, iter(rows)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with pq.ParquetWriter(part, schema, compression="zstd", write_statistics=False) as writer:
                while batch := list(islice(source, _GROUP)):
                    writer.write_table(pa.Table.from_pylist(batch, schema=schema))
                    count += len(batch)
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except OSError as error:
        what = one_line(error.strerror or error)
        raise InputError(f"{display_name(path)}: cannot be written ({what}); choose a writable folder") from error
    return count


def _feature(kind: pa.DataType, picture: bool) -> object:
    """The type as ``datasets`` spells it."""
    import pyarrow as pa

    if pa.types.is_list(kind):
        return {"_type": "List", "feature": _feature(kind.value_type, picture)}
    if picture:
        return {"_type": "Image"}
    if pa.types.is_struct(kind):
        return {field.name: _feature(field.type, False) for field in kind}
    return {"_type": "Value", "dtype": {"double": "float64"}.get(str(kind), str(kind))}
