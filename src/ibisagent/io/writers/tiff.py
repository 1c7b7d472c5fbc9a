"""TIFF stacks: one page a slice, for sources that are such stacks themselves."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

import numpy as np

from ibisagent.io.files import atomic_write
from ibisagent.io.volume import Volume
from ibisagent.io.writers.label import SegmentLabel
from ibisagent.io.writers.views import shown_slices

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["write_volume"]


def write_volume(mask: NDArray[np.bool_], volume: Volume, path: str | os.PathLike[str], label: SegmentLabel) -> None:
    """Write a volume's mask as 8-bit gray pages, 0 and 255: the axial slices by index, as they are shown.

    For a TIFF source these are its own pages in their order.

    Parameters
    ----------
    mask
        ``bool`` (ni, nj, nk) on ``volume.grid``.
    volume
        The source.
    path
        File to write.
    label
        Not stored.

    Raises
    ------
    InputError
        If writing fails.
    """
    import tifffile

    content = io.BytesIO()  # compressed; the library wants a file with a name or one in memory
    with tifffile.TiffWriter(content) as stack:
        for _, page in shown_slices(mask, volume):
            stack.write(
                page.astype(np.uint8) * 255,
                photometric="minisblack",
                compression="zlib",
                metadata=None,
                software="ibisagent",
                contiguous=False,
            )
    with atomic_write(path) as f:
        f.write(content.getbuffer())
