"""PNG masks of 2-D images."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from ibisagent.io.files import atomic_write
from ibisagent.io.writers.label import SegmentLabel
from ibisagent.types import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["write_image", "write_png"]


def write_image(mask: NDArray[np.bool_], image: Image, path: str | os.PathLike[str], label: SegmentLabel) -> None:
    """Write an image's mask. See :func:`write_png`; the label is not stored."""
    write_png(mask, path)


def write_png(mask: NDArray[np.bool_], path: str | os.PathLike[str]) -> None:
    """Write a ``bool`` (H, W) mask as 8-bit gray, 0 and 255.

    Raises
    ------
    InputError
        If writing fails.
    """
    import PIL.Image

    with atomic_write(path) as f:
        PIL.Image.fromarray(mask.astype(np.uint8) * 255).save(f, format="PNG")
