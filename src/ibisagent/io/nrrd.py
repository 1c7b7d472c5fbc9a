"""NRRD volumes (``.nrrd``, ``.nhdr``): a text header, and voxels that are raw, gzip or bzip2.

World coordinates are the header's ``space``: RAS, LAS or LPS, in millimetres. Other spaces do not say where the patient
is; their axes are taken as LPS, as ITK does, and the volume's `has_world` is False.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.errors import InputError
from ibisagent.grid import LPS_FROM_RAS, Grid
from ibisagent.io.files import display_name, one_line, reading
from ibisagent.io.lazy_voxels import LazyVoxels
from ibisagent.io.stored_array import StoredArray, check_volume_size
from ibisagent.io.text_header import data_file, floats, header_lines, whole
from ibisagent.io.volume import Volume
from ibisagent.io.windows import canonical_modality

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["read_nrrd_volume"]

_WHAT = "an NRRD volume"

_TYPES = {
    "int8": ("signed char", "int8_t"),
    "uint8": ("uchar", "unsigned char", "uint8_t"),
    "int16": ("short", "short int", "signed short", "signed short int", "int16_t"),
    "uint16": ("ushort", "unsigned short", "unsigned short int", "uint16_t"),
    "int32": ("int", "signed int", "int32_t"),
    "uint32": ("uint", "unsigned int", "uint32_t"),
    "int64": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64_t"),
    "uint64": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64_t"),
    "float32": ("float",),
    "float64": ("double",),
}
_DTYPES = {name: kind for kind, names in _TYPES.items() for name in (kind, *names)}
_CODINGS = {"raw": "raw", "gzip": "deflate", "gz": "deflate", "bzip2": "bzip2", "bz2": "bzip2"}
# signs that turn the space's millimetres into RAS
_SPACES = {
    "right-anterior-superior": (1, 1, 1),
    "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "las": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1),
    "lps": (-1, -1, 1),
}
_EXTENT = "Segmentation_ReferenceImageExtentOffset"  # a segmentation that may be cropped to a part of its image
_UNITS = {"nm", "um", "µm", "micron", "microns", "mm", "cm", "m", "in", "inch"}
_LINE = re.compile(r"([^:]*[^:\s])\s*:\s(.*)")


@dataclass(frozen=True)
class _Axes:
    """The axes of the file that are the volume's, and what they say of the world."""

    sizes: tuple[int, int, int]
    affine: NDArray[np.float64]
    has_world: bool


def read_nrrd_volume(path: str | os.PathLike[str], *, modality: str | None = None) -> Volume:
    """Read an NRRD header; its voxels follow on demand (a raw file is mapped).

    Parameters
    ----------
    path
        ``.nrrd``, or ``.nhdr`` with its data file in the same folder.
    modality
        What the user says it is; NRRD does not say.

    Returns
    -------
    Volume
        `header` is the header's fields (lower case) as a ``dict`` of ``str``; of its free key-value pairs, which may
        hold anything, only Slicer's ``Segmentation_ReferenceImageExtentOffset`` is kept (its name in lower case).

    Raises
    ------
    InputError
        If the file is damaged or truncated, has more than three axes that count, holds no gray values, is stored in a
        way that is not read (text, several files), or its directions cannot be inverted.
    """
    name = display_name(path)
    lines, end = header_lines(path, lambda line: line == "")
    with reading(path, _WHAT):
        fields = _fields(lines)
        kind = _DTYPES.get(fields["type"].lower())
        if kind is None:
            raise InputError(
                f"{name}: voxels of type {one_line(fields['type'], 60)}; export it as gray integers or floats"
            )
        axes = _axes(fields, name)
        dtype = np.dtype(kind)
        if dtype.itemsize > 1 and fields.get("encoding", "").lower() in _CODINGS:
            dtype = np.dtype({"little": "<", "big": ">"}[fields["endian"].lower()] + dtype.str[1:])
        check_volume_size(path, axes.sizes, dtype)
        stored = _stored(path, fields, axes.sizes, dtype, end)
    stored.check_file()
    try:
        grid = Grid(axes.sizes, tuple(tuple(row) for row in axes.affine.tolist()))
    except ValueError:
        raise InputError(f"{name}: its space directions cannot be inverted; repair the header") from None
    return Volume(
        grid=grid,
        voxels=LazyVoxels(stored.load, 0 if stored.is_mapped else stored.num_bytes),
        source=os.fspath(path),
        kind="NRRD",
        modality=canonical_modality(modality),
        hounsfield=True,
        has_world=axes.has_world,
        notes=_notes(fields, axes.has_world),
        header=fields,
    )


def _fields(lines: list[str]) -> dict[str, str]:
    """``field: value`` lines by lower-case name, and the one ``key:=value`` pair that is of use."""
    if not lines or not re.fullmatch(r"NRRD000[1-6]", lines[0].strip()):
        raise ValueError("its first line names no known version")
    fields: dict[str, str] = {}
    for line in lines[1:]:
        found = None if line.startswith("#") else _LINE.fullmatch(line)
        if line.startswith(f"{_EXTENT}:="):
            fields[_EXTENT.lower()] = line.partition(":=")[2].strip()
            continue
        if found is not None:
            fields[found[1].lower()] = found[2].strip()
    for name in ("type", "dimension", "sizes", "encoding"):
        if name not in fields:
            raise ValueError(f"its header lacks '{name}'")
    return fields


def _axes(fields: dict[str, str], name: str) -> _Axes:
    """Drop axes of one sample that lie in no direction of space, add those that a 2-D file lacks."""
    dimension = whole(fields["dimension"])
    if not 1 <= dimension <= 16:
        raise ValueError(f"a dimension of {dimension}")
    sizes = [whole(part) for part in fields["sizes"].split()]
    if len(sizes) != dimension:
        raise ValueError(f"{len(sizes)} sizes for {dimension} axes")
    signs = _SPACES.get(fields.get("space", "").lower().removesuffix("-time").removesuffix("t"))
    if fields.get("space", "").lower() in _SPACES:
        signs = _SPACES[fields["space"].lower()]
    directions = _directions(fields, dimension)
    spatial = [a for a in range(dimension) if directions is None or directions[a] is not None]
    extra = [a for a in range(dimension) if a not in spatial]
    while len(spatial) > 3 and sizes[spatial[-1]] == 1:
        extra.append(spatial.pop())
    if len(spatial) > 3 or any(sizes[a] != 1 for a in extra):
        kinds = fields.get("kinds", "")
        why = f" ({one_line(kinds, 80)})" if extra and kinds else ""
        raise InputError(f"{name}: {dimension}-D data {tuple(sizes)}{why}; extract one 3-D gray volume first")
    if len(spatial) < 2:
        raise ValueError("it has fewer than two axes in space")
    affine = np.eye(4)
    if directions is None:
        spacings = fields.get("spacings", "").split()
        for i, a in enumerate(spatial):
            mm = float(spacings[a]) if len(spacings) == dimension else 1.0
            affine[i, i] = mm if np.isfinite(mm) and mm != 0 else 1.0
    else:
        columns = [directions[a] for a in spatial]
        if len(columns) == 2:
            normal = np.cross(np.asarray(columns[0]), np.asarray(columns[1]))
            length = float(np.linalg.norm(normal))
            columns.append(list(normal / (length or 1.0)))  # a slice without a thickness: 1 mm
        affine[:3, :3] = np.asarray(columns).T
    if "space origin" in fields:
        affine[:3, 3] = _vector(fields["space origin"])
    to_ras = LPS_FROM_RAS if signs is None else np.diag([*signs, 1])
    shape = (*(sizes[a] for a in spatial), 1)[:3]
    return _Axes((shape[0], shape[1], shape[2]), to_ras @ affine, signs is not None and directions is not None)


def _directions(fields: dict[str, str], dimension: int) -> list[list[float] | None] | None:
    """The space direction of every axis, None for those that have none; None if the header gives no directions."""
    text = fields.get("space directions")
    if text is None:
        return None
    parts = re.findall(r"none|\([^()]*\)", text)
    if len(parts) != dimension:
        raise ValueError(f"{len(parts)} space directions for {dimension} axes")
    return [None if part == "none" else _vector(part) for part in parts]


def _vector(text: str) -> list[float]:
    inner = text.strip()
    if not (inner.startswith("(") and inner.endswith(")")):
        raise ValueError(f"'{one_line(inner, 60)}' is no vector")
    return floats(inner[1:-1].replace(",", " "), 3)


def _stored(
    path: str | os.PathLike[str],
    fields: dict[str, str],
    sizes: tuple[int, int, int],
    dtype: np.dtype[Any],
    end: int,
) -> StoredArray:
    name = display_name(path)
    encoding = fields["encoding"].lower()
    if encoding not in _CODINGS:
        raise InputError(f"{name}: voxels stored as '{one_line(encoding, 40)}'; save it as raw or gzip")
    if whole(fields.get("line skip", fields.get("lineskip", "0"))) != 0:
        raise InputError(f"{name}: a header with 'line skip'; save it again as one .nrrd file")
    detached = fields.get("data file", fields.get("datafile"))
    source, start = os.fspath(path), end
    if detached is not None:
        if detached.upper().startswith("LIST") or "%" in detached:
            raise InputError(f"{name}: its voxels are spread over several files; save it again as one .nrrd file")
        source, start = data_file(path, detached), 0
    skip = whole(fields.get("byte skip", fields.get("byteskip", "0")))
    coding = _CODINGS[encoding]
    if skip == -1 and coding == "raw":  # the voxels are the end of the file
        needed = sizes[0] * sizes[1] * sizes[2] * dtype.itemsize
        start, skip = max(start, os.stat(source).st_size - needed), 0
    if skip < 0:
        raise ValueError(f"a byte skip of {skip}")
    return StoredArray(source, _WHAT, sizes, dtype, start=start, skip=skip, coding=coding)


def _notes(fields: dict[str, str], has_world: bool) -> tuple[str, ...]:
    notes = []
    units = {unit.lower() for unit in re.findall(r'"([^"]*)"', fields.get("space units", "")) if unit}
    if units - {"mm"}:
        # only units are quoted: the field is free text
        named = ", ".join(sorted(units & _UNITS)) or "another than mm"
        notes.append(f"the header gives its unit as {named}; lengths were taken as mm")
    if not has_world:
        notes.append("the header does not say how the patient lies in it: left and right are a guess")
    return tuple(notes)
