"""A mask as the bytes that array formats store: ``uint8`` 0 and 1, first axis fastest, a piece at a time."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator
from typing import IO, TYPE_CHECKING

import numpy as np

from ibisagent.io.nifti import CHUNK_BYTES

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["block_length", "mask_blocks", "write_gzip"]

_LEVEL = 6


def block_length(shape: tuple[int, ...]) -> int:
    """How many slices along the third axis of (ni, nj, nk) make up one piece."""
    return max(1, CHUNK_BYTES // (shape[0] * shape[1]))


def mask_blocks(mask: NDArray[np.bool_]) -> Iterator[bytes]:
    """Pieces of a ``bool`` (ni, nj, nk) mask in order; a second copy of the whole never exists."""
    step = block_length(mask.shape)
    for k in range(0, mask.shape[2], step):
        yield mask[:, :, k : k + step].astype(np.uint8).tobytes(order="F")


def write_gzip(f: IO[bytes], blocks: Iterable[bytes]) -> None:
    """Append one gzip stream without name and time, so that equal masks are equal files."""
    with gzip.GzipFile(fileobj=f, mode="wb", filename="", mtime=0, compresslevel=_LEVEL) as stream:
        for block in blocks:
            stream.write(block)
