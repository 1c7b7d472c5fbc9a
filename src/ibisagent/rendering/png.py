"""PNG files, written whole or not at all."""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import PIL.Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["png_bytes", "save_png", "write_atomic"]


def png_bytes(array: NDArray[np.uint8]) -> bytes:
    """Encode ``uint8`` (H, W) or (H, W, 3) as PNG; three equal planes become one, which loses nothing."""
    if array.dtype != np.uint8 or array.ndim not in (2, 3):
        raise ValueError(f"a picture must be uint8 (H, W) or (H, W, 3), not {array.dtype} {array.shape}")
    if (
        array.ndim == 3
        and np.array_equal(array[..., 0], array[..., 1])
        and np.array_equal(array[..., 0], array[..., 2])
    ):
        array = array[..., 0]
    buffer = io.BytesIO()
    PIL.Image.fromarray(np.ascontiguousarray(array)).save(buffer, format="PNG", optimize=array.size <= 4_000_000)
    return buffer.getvalue()


def write_atomic(data: bytes, path: str | Path) -> None:
    """Write a file so that a reader sees the old one or the whole new one."""
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp is private; a picture is like any other file
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def save_png(array: NDArray[np.uint8], path: str | Path) -> None:
    """Write a picture as PNG, atomically.

    Parameters
    ----------
    array
        ``uint8`` (H, W) or (H, W, 3).
    path
        File to write; its folder must exist.

    Raises
    ------
    ValueError
        If the array is no picture.
    OSError
        If the file cannot be written.
    """
    write_atomic(png_bytes(array), path)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
