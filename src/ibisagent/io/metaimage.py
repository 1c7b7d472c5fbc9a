"""MetaImage volumes (``.mha``, ``.mhd``): lines ``Key = Value``, and voxels that are raw or one zlib stream.

World coordinates are LPS millimetres, as ITK reads them; ``AnatomicalOrientation`` and ``CenterOfRotation`` are not
used, there as here.
"""

from __future__ import annotations

import os
import re

import numpy as np

from ibisagent.errors import InputError
from ibisagent.grid import LPS_FROM_RAS, Grid
from ibisagent.io.files import display_name, one_line, reading
from ibisagent.io.lazy_voxels import LazyVoxels
from ibisagent.io.stored_array import StoredArray, check_volume_size
from ibisagent.io.text_header import data_file, floats, header_lines, whole
from ibisagent.io.volume import Volume
from ibisagent.io.windows import canonical_modality

__all__ = ["read_metaimage_volume"]

_WHAT = "a MetaImage volume"

_DTYPES = {
    "MET_CHAR": "int8",
    "MET_UCHAR": "uint8",
    "MET_SHORT": "int16",
    "MET_USHORT": "uint16",
    "MET_INT": "int32",
    "MET_UINT": "uint32",
    "MET_LONG": "int32",  # 4 bytes in this format, whatever the machine
    "MET_ULONG": "uint32",
    "MET_LONG_LONG": "int64",
    "MET_ULONG_LONG": "uint64",
    "MET_FLOAT": "float32",
    "MET_DOUBLE": "float64",
}
# names for the same thing, the one that ITK looks for first in front
_ORIGIN = ("Position", "Offset", "Origin")
_MATRIX = ("Orientation", "TransformMatrix", "Rotation")
_SPACING = ("ElementSpacing", "ElementSize")


def read_metaimage_volume(path: str | os.PathLike[str], *, modality: str | None = None) -> Volume:
    """Read a MetaImage header; its voxels follow on demand (a raw file is mapped).

    Parameters
    ----------
    path
        ``.mha``, or ``.mhd`` with its data file in the same folder.
    modality
        Overrides the header's ``Modality``.

    Returns
    -------
    Volume
        `header` is the header's fields as a ``dict`` of ``str``.

    Raises
    ------
    InputError
        If the file is damaged or truncated, has more than three axes that count, holds no gray values, is stored in a
        way that is not read (text, several files), or its directions cannot be inverted.
    """
    name = display_name(path)
    lines, end = header_lines(path, lambda line: line.partition("=")[0].strip() == "ElementDataFile")
    with reading(path, _WHAT):
        fields = _fields(lines)
        num_dims = whole(fields["NDims"])
        if not 2 <= num_dims <= 10:
            raise ValueError(f"it has {num_dims} axes")
        sizes = [whole(part) for part in fields["DimSize"].split()]
        if len(sizes) != num_dims:
            raise ValueError(f"{len(sizes)} sizes for {num_dims} axes")
        if any(n != 1 for n in sizes[3:]) or whole(fields.get("ElementNumberOfChannels", "1")) != 1:
            raise InputError(f"{name}: 4-D data or several channels; extract one 3-D gray volume first")
        kind = _DTYPES.get(fields["ElementType"].upper())
        if kind is None:
            raise InputError(
                f"{name}: voxels of type {one_line(fields['ElementType'], 60)}; export it as gray integers or floats"
            )
        big = _is_true(fields.get("BinaryDataByteOrderMSB", fields.get("ElementByteOrderMSB", "False")))
        dtype = np.dtype(kind).newbyteorder(">" if big else "<")
        shape = (*sizes, 1)[:3]
        check_volume_size(path, shape, dtype)
        stored = _stored(path, fields, (shape[0], shape[1], shape[2]), dtype, end)
        affine = _affine(fields, num_dims)
    stored.check_file()
    try:
        grid = Grid(stored.shape, tuple(tuple(row) for row in affine.tolist()))
    except ValueError:
        raise InputError(f"{name}: its directions cannot be inverted; repair the header") from None
    return Volume(
        grid=grid,
        voxels=LazyVoxels(stored.load, 0 if stored.is_mapped else stored.num_bytes),
        source=os.fspath(path),
        kind="MetaImage",
        modality=canonical_modality(modality) or _modality(fields),
        hounsfield=True,
        header=fields,
    )


def _fields(lines: list[str]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in lines:
        key, equals, value = line.partition("=")
        if equals:
            fields[key.strip()] = value.strip()
    for name in ("NDims", "DimSize", "ElementType", "ElementDataFile"):
        if name not in fields:
            raise ValueError(f"its header lacks {name}")
    if fields.get("ObjectType", "Image") != "Image":
        raise ValueError(f"it holds {one_line(fields['ObjectType'], 40)}, not an image")
    return fields


def _is_true(text: str) -> bool:
    return text[:1] in ("T", "t", "1")


def _modality(fields: dict[str, str]) -> str | None:
    """``MET_MOD_CT`` and the like; ``MET_MOD_OTHER`` and unknown ones say nothing."""
    found = re.fullmatch(r"MET_MOD_(CT|MR|US)", fields.get("Modality", ""))
    return canonical_modality(found[1]) if found else None


def _affine(fields: dict[str, str], num_dims: int) -> np.ndarray:
    """Index to RAS millimetres; axes beyond three are cut off, a third one is added to 2-D files."""
    n = min(num_dims, 3)
    affine = np.eye(4)
    spacing = [abs(v) or 1.0 for v in floats(_first(fields, _SPACING) or " ".join(["1"] * num_dims), num_dims)]
    matrix = _first(fields, _MATRIX)
    if matrix is not None:  # the directions of the axes, one after the other
        affine[:n, :n] = np.reshape(floats(matrix, num_dims**2), (num_dims, num_dims))[:n, :n].T
    affine[:n, :n] *= spacing[:n]
    origin = _first(fields, _ORIGIN)
    if origin is not None:
        affine[:n, 3] = floats(origin, num_dims)[:n]
    ras: np.ndarray = LPS_FROM_RAS @ affine
    return ras


def _first(fields: dict[str, str], names: tuple[str, ...]) -> str | None:
    return next((fields[name] for name in names if name in fields), None)


def _stored(
    path: str | os.PathLike[str],
    fields: dict[str, str],
    shape: tuple[int, int, int],
    dtype: np.dtype[np.generic],
    end: int,
) -> StoredArray:
    name = display_name(path)
    if not _is_true(fields.get("BinaryData", "True")):
        raise InputError(f"{name}: voxels stored as text; save it as binary")
    data = fields["ElementDataFile"]
    source, start = os.fspath(path), end
    if data.upper() != "LOCAL":
        if data.upper().startswith("LIST") or "%" in data:
            raise InputError(f"{name}: its voxels are spread over several files; save it again as one .mha file")
        source, start = data_file(path, data), 0
    compressed = _is_true(fields.get("CompressedData", "False"))
    header_size = whole(fields.get("HeaderSize", "0"))
    if header_size > 0:
        start = header_size
    elif header_size == -1 and not compressed:  # the voxels are the end of the file
        needed = shape[0] * shape[1] * shape[2] * dtype.itemsize
        start = max(start, os.stat(source).st_size - needed)
    return StoredArray(source, _WHAT, shape, dtype, start=start, coding="deflate" if compressed else "raw")
