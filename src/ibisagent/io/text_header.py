"""Headers of NRRD and MetaImage files: short lines of text before the voxels, or in a file beside them."""

from __future__ import annotations

import math
import os
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from ibisagent.errors import InputError
from ibisagent.io.files import display_name, one_line, open_binary

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MAX_HEADER_BYTES", "data_file", "floats", "header_lines", "whole"]

MAX_HEADER_BYTES = 2**22
"""Longest text header; segmentations of 3D Slicer carry a DICOM header's worth of lines."""

_MAX_LINES = 50_000


def header_lines(path: str | os.PathLike[str], is_last: Callable[[str], bool]) -> tuple[list[str], int]:
    """Read lines up to and including the one that ends a header, or to the end of a file that is all header.

    Parameters
    ----------
    path
        The file.
    is_last
        Whether a line (without its line end) is the last one.

    Returns
    -------
    tuple
        The lines, and the byte after them.

    Raises
    ------
    InputError
        If the file cannot be opened or its header is over the limit of :data:`MAX_HEADER_BYTES`.
    """
    lines: list[str] = []
    with open_binary(path) as f:
        for _ in range(_MAX_LINES):
            raw = f.readline(MAX_HEADER_BYTES)
            if not raw or f.tell() > MAX_HEADER_BYTES:
                break
            lines.append(raw.decode("utf-8", "replace").rstrip("\r\n"))
            if is_last(lines[-1]):
                return lines, f.tell()
        if f.tell() >= MAX_HEADER_BYTES or len(lines) == _MAX_LINES:
            raise InputError(f"{display_name(path)}: its header has no end; check or re-export the file")
        return lines, f.tell()


def floats(text: str, count: int) -> list[float]:
    """Finite numbers between spaces.

    Raises
    ------
    ValueError
        If there are not `count` of them.
    """
    values = [float(part) for part in text.split()]
    if len(values) != count or not all(math.isfinite(v) for v in values):
        raise ValueError(f"'{one_line(text, 60)}' is not {count} numbers")
    return values


def whole(text: str) -> int:
    """A whole number of at most 18 digits.

    Raises
    ------
    ValueError
        If it is something else.
    """
    number = text.strip()
    if len(number) > 18:
        raise ValueError(f"'{one_line(number, 60)}' is too large")
    return int(number)


def data_file(path: str | os.PathLike[str], name: str) -> str:
    """Path of the file with the voxels that a header names.

    Only files in the header's own folder, or below it: a header from elsewhere must not make us read other files.

    Raises
    ------
    InputError
        If it lies elsewhere.
    """
    pure = PurePath(name.strip())
    if not name.strip() or pure.is_absolute() or ".." in pure.parts or "\\" in name or "\0" in name:
        raise InputError(
            f"{display_name(path)}: its voxels are in '{one_line(name, 100)}'; "
            "put that file beside the header and name it without a folder"
        )
    return str(Path(path).parent / pure)
