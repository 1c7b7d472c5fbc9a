"""A 3-D array as a file holds it: raw bytes that are mapped, or a compressed stream that is unpacked in one go."""

from __future__ import annotations

import bz2
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from ibisagent.errors import InputError
from ibisagent.io.files import MAX_VOLUME_BYTES, check_pixels, display_name, one_line, open_binary, reading

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CODINGS", "StoredArray", "check_volume_size"]

CODINGS = ("raw", "deflate", "bzip2")
"""How the bytes are packed: not at all, as gzip or zlib streams, or as bzip2."""

_CHUNK = 2**20
_PACKED_CHUNK = 2**18  # what is not unpacked yet is copied by every call: less of it than of the result
_MAX_DEFLATE_RATIO = 1100  # no deflate stream expands more than 1032 times


def check_volume_size(path: str | os.PathLike[str], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Refuse a volume by what its header says, before anything of that size is allocated.

    Parameters
    ----------
    path
        The file, for the message.
    shape
        Three sizes.
    dtype
        Of one voxel.

    Raises
    ------
    InputError
        If a size is below 1, a slice has more than :data:`ibisagent.io.files.MAX_PIXELS` pixels, the whole takes more
        than :data:`ibisagent.io.files.MAX_VOLUME_BYTES`, or the voxels are no real numbers.
    """
    name = display_name(path)
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(f"{name}: the header says shape {shape}; check or re-export the file")
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise InputError(f"{name}: voxels of type {one_line(dtype, 60)}; export it as gray integers or floats")
    if shape[0] * shape[1] * shape[2] * dtype.itemsize > MAX_VOLUME_BYTES:
        raise InputError(
            f"{name}: the header says shape {shape}, over the limit of {MAX_VOLUME_BYTES / 2**30:g} GiB; "
            "crop or downsample it"
        )
    for other, first in ((1, 0), (2, 0), (2, 1)):
        check_pixels(path, shape[first], shape[other])


@dataclass(frozen=True)
class StoredArray:
    """Where a volume's values lie in a file, and how.

    Parameters
    ----------
    path
        The file.
    what
        What it is taken for in messages, for example ``"a NIfTI volume"``.
    shape
        (ni, nj, nk), checked by :func:`check_volume_size`; the first index runs fastest.
    dtype
        Of the stored values, byte order included.
    start
        Byte of the file where the values, or their compressed stream, begin.
    skip
        Unpacked bytes before the first value.
    coding
        One of :data:`CODINGS`.
    """

    path: str
    what: str
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    start: int = 0
    skip: int = 0
    coding: str = "raw"

    @property
    def num_bytes(self) -> int:
        """Size of the unpacked values."""
        return self.shape[0] * self.shape[1] * self.shape[2] * self.dtype.itemsize

    @property
    def is_mapped(self) -> bool:
        """Whether :meth:`load` maps the file instead of reading it."""
        return self.coding == "raw"

    def check_file(self) -> None:
        """Compare the header's claim with the file's size.

        Raises
        ------
        InputError
            If the file cannot be opened or is too short for the values.
        """
        with open_binary(self.path) as f:
            size = os.fstat(f.fileno()).st_size
        needed = self.skip + self.num_bytes
        room = max(0, size - self.start) * (_MAX_DEFLATE_RATIO if self.coding == "deflate" else 1)
        # how far bzip2 expands has no useful bound; the limit on volumes is all there is
        if self.coding != "bzip2" and needed > room:
            raise InputError(
                f"{display_name(self.path)}: truncated: the header claims {self.num_bytes} bytes of voxels; "
                "copy it again"
            )

    def load(self) -> NDArray[Any]:
        """The values, (ni, nj, nk) in Fortran order, the stored type: a read-only map of a raw file, else a new array.

        Raises
        ------
        InputError
            If the file is gone, too short or damaged.
        """
        if self.coding == "raw":
            self.check_file()  # it may have changed since
            with reading(self.path, self.what):
                mapped = np.memmap(
                    self.path, self.dtype, mode="r", offset=self.start + self.skip, shape=self.shape, order="F"
                )
                return np.asarray(mapped)
        with open_binary(self.path) as f, reading(self.path, self.what):
            f.seek(self.start)
            out = np.empty(self.shape, self.dtype, order="F")
            flat = out.reshape(-1, order="F").view(np.uint8)
            skip, filled = self.skip, 0
            for piece in self._unpacked(f):
                kept = piece[skip:]
                skip -= len(piece) - len(kept)
                kept = kept[: flat.size - filled]
                flat[filled : filled + len(kept)] = np.frombuffer(kept, np.uint8)
                filled += len(kept)
                if filled == flat.size and len(kept) < len(piece):
                    break  # the stream goes on after the voxels: nothing of it is wanted
            if filled < flat.size:
                raise EOFError("it ends before its voxels do")
            return out

    def _unpacked(self, f: IO[bytes]) -> Iterator[bytes]:
        """Pieces of at most a MiB, so that a stream that swells costs no more than that at a time."""
        if self.coding == "bzip2":
            stream = bz2.BZ2File(f)
            while piece := stream.read(_CHUNK):
                yield piece
            return
        member: Any = None
        pending = b""
        while pending := pending or f.read(_PACKED_CHUNK):
            if member is None:
                member = zlib.decompressobj(wbits=47)  # gzip or zlib, checksums verified
            yield member.decompress(pending, _CHUNK)
            pending = member.unconsumed_tail
            if member.eof:  # a gzip file may have several members; zeros behind the last one are padding
                pending = member.unused_data.lstrip(b"\0")
                member = None
        if member is not None and not member.eof:
            raise EOFError("its compressed stream is cut off")
