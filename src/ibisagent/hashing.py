"""Hashes that name pixels and files in records."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["file_hash", "pixel_hash", "text_hash"]


def pixel_hash(array: NDArray[Any]) -> str:
    """SHA-256 (hex) over the array's dtype, shape and C-ordered bytes.

    Byte order is part of the dtype string, so equal hashes mean equal arrays on any machine.
    """
    digest = hashlib.sha256(f"{array.dtype.str}{tuple(array.shape)}".encode())
    digest.update(array.tobytes(order="C"))
    return digest.hexdigest()


def file_hash(path: str | Path) -> str:
    """SHA-256 (hex) of a file's bytes.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def text_hash(text: str) -> str:
    """SHA-256 (hex) of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
