"""One frame of a DICOM image: where its pixels lie in the file, and what its stored values are.

Pixels that are stored plainly (little endian) are read where they lie. Compressed ones are decoded frame by frame: only
the bytes of that frame are read, and the header is not parsed again.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from ibisagent.errors import InputError
from ibisagent.io.code_streams import check_code_stream
from ibisagent.io.files import muted_decoders, one_line, open_binary, reading

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["DicomFrame", "PixelFormat", "Truncated", "decoder_name", "find_pixels", "read_stored"]

_PLAIN = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")
_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_RLE = "1.2.840.10008.1.2.5"
_NO_LENGTH = 0xFFFFFFFF
_ITEM, _DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_STARTS = (b"\xff\xd8", b"\xff\x4f")  # of a JPEG and a JPEG 2000 code stream
_END = b"\xff\xd9"  # of both


class Truncated(ValueError):
    """Pixel data that ends early, or that does not fit what the header says; the words are safe to show."""


@dataclass(frozen=True)
class PixelFormat:
    """How the pixels of a frame are stored.

    Parameters
    ----------
    rows, columns
        Height and width.
    allocated, stored
        Bits a pixel takes, and those of them that count (the lowest).
    is_signed
        Two's complement.
    is_inverted
        ``MONOCHROME1``: low values are shown bright.
    syntax
        Transfer syntax UID.
    """

    rows: int
    columns: int
    allocated: int
    stored: int
    is_signed: bool
    is_inverted: bool
    syntax: str

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored values, native byte order."""
        return np.dtype(f"{'i' if self.is_signed else 'u'}{self.allocated // 8}")

    @property
    def limits(self) -> tuple[int, int]:
        """Lowest and highest stored value that the bits allow."""
        if self.is_signed:
            return -(2 ** (self.stored - 1)), 2 ** (self.stored - 1) - 1
        return 0, 2**self.stored - 1

    @property
    def num_bytes(self) -> int:
        """Size of one frame, not compressed."""
        return self.rows * self.columns * self.allocated // 8


@dataclass(frozen=True, repr=False)
class DicomFrame:
    """One frame, by its header. No ``repr``: it holds identifiers.

    Parameters
    ----------
    path, number
        The file, and the frame in it, from 1.
    instance, series, space
        SOP Instance UID, Series Instance UID, Frame of Reference UID.
    series_number
        Series Number, infinite if there is none.
    modality
        DICOM's code, upper case; may be empty.
    pixels
        How they are stored.
    pieces
        (offset, bytes) of its pixels in the file: one piece, or the fragments of a compressed frame.
    slope, intercept
        value = stored * slope + intercept.
    position
        Centre of the first pixel, LPS mm, or None.
    orientation
        Directions of growing column and row index (six cosines, LPS), or None.
    spacing
        (row, column) distances in mm, or None.
    thickness, between
        Slice Thickness and Spacing Between Slices in mm, or None.
    units
        Units of the values as far as the header says: ``"HU"``, ``"BQML"``, or empty.
    window
        (low, high) that the header proposes, or None.
    padding
        Stored value of pixels outside the picture, or None.
    body_part
        Lower case, may be empty.
    is_localizer
        Whether it is a scout view.
    parts
        (name, value) of what may tell several acquisitions of one series apart.
    """

    path: str
    number: int
    instance: str
    series: str
    space: str
    series_number: float
    modality: str
    pixels: PixelFormat
    pieces: tuple[tuple[int, int], ...]
    slope: float
    intercept: float
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, ...] | None
    thickness: float | None
    between: float | None
    units: str
    window: tuple[float, float] | None
    padding: float | None
    body_part: str
    is_localizer: bool
    parts: tuple[tuple[str, str], ...]

    @property
    def normal(self) -> NDArray[np.float64] | None:
        """Unit vector (LPS) across the frame, row direction x column direction; None without an orientation."""
        if self.orientation is None:
            return None
        normal = np.cross(self.orientation[:3], self.orientation[3:])
        return np.asarray(normal / np.linalg.norm(normal), np.float64)


def find_pixels(f: IO[bytes], pixels: PixelFormat, frames: int, is_implicit: bool) -> list[tuple[tuple[int, int], ...]]:
    """Where the pixels of every frame lie, from the PixelData element at the file's position.

    Parameters
    ----------
    f
        Open at the element's tag.
    frames
        How many there are by the header.
    is_implicit
        Whether elements are written without their type.

    Raises
    ------
    Truncated
        If the file ends before the pixels do, or holds fewer frames.
    """
    size = os.fstat(f.fileno()).st_size
    order = ">" if pixels.syntax == _BIG_ENDIAN else "<"
    head = f.read(8 if is_implicit else 12)
    tag = struct.unpack(order + "HH", head[:4]) if len(head) >= 8 else (0, 0)
    if tag != (0x7FE0, 0x0010):
        raise Truncated("no pixel data, as if the file ended early")
    if is_implicit or head[4:6] in (b"OB", b"OW", b"UN"):
        if not is_implicit and len(head) < 12:
            raise Truncated("no pixel data, as if the file ended early")
        (length,) = struct.unpack(order + "I", head[4:8] if is_implicit else head[8:12])
    else:
        raise Truncated("pixel data of an unknown type")
    start = f.tell()
    if length != _NO_LENGTH:
        if pixels.syntax not in (*_PLAIN, _BIG_ENDIAN):
            raise Truncated("compressed pixels that are not packed in items")
        need = pixels.num_bytes * frames
        there = min(length, size - start)
        if there < need:
            raise Truncated(f"truncated: {there} of {need} bytes of pixels are there")
        return [((start + i * pixels.num_bytes, pixels.num_bytes),) for i in range(frames)]
    if pixels.syntax in (*_PLAIN, _BIG_ENDIAN):
        raise Truncated("pixels packed in items, though the header says that they are not compressed")
    return _frames_of(f, _fragments(f, start, size), frames, pixels.syntax)


def _fragments(f: IO[bytes], offset: int, size: int) -> list[tuple[int, int]]:
    """(offset, bytes) of every item but the first (a table of offsets, often empty)."""
    found: list[tuple[int, int]] = []
    while True:
        f.seek(offset)
        head = f.read(8)
        # a file may end without the delimiter, but not within an item
        if head[:4] == _DELIMITER or (not head and found):
            return found[1:]
        length = struct.unpack("<I", head[4:])[0] if len(head) == 8 else _NO_LENGTH
        if head[:4] != _ITEM or offset + 8 + length > size:
            raise Truncated("truncated: the compressed pixels end early")
        found.append((offset + 8, length))
        offset += 8 + length


def _frames_of(
    f: IO[bytes], fragments: list[tuple[int, int]], frames: int, syntax: str
) -> list[tuple[tuple[int, int], ...]]:
    """Which fragments make which frame. The standard allows several for one, and the table may be empty."""

    def peek(offset: int, count: int) -> bytes:
        """`count` bytes of the pixel data from `offset` on."""
        f.seek(offset)
        return f.read(count)

    if len(fragments) == frames:
        groups = [[fragment] for fragment in fragments]
    elif frames == 1 and fragments:
        groups = [fragments]
    else:
        groups = []
        for fragment in fragments:
            if peek(fragment[0], 2) in _STARTS or not groups:
                groups.append([])
            groups[-1].append(fragment)
    if len(groups) != frames:
        raise Truncated(f"truncated: {len(groups)} of {frames} frames are there")
    if syntax != _RLE:
        for number, group in enumerate(groups, 1):
            offset, length = group[-1]
            tail = min(length, 16)
            if _END not in peek(offset + length - tail, tail):  # up to some bytes of padding follow it
                raise Truncated(f"truncated: the compressed pixels of frame {number} have no end")
    return [tuple(group) for group in groups]


def read_stored(frame: DicomFrame, where: str) -> NDArray[Any]:
    """Stored values of a frame, (rows, columns), of :attr:`PixelFormat.dtype`; bits that do not count are cleared.

    Parameters
    ----------
    where
        What messages call the file.

    Raises
    ------
    InputError
        If the file changed or its pixels are damaged.
    """
    pixels = frame.pixels
    try:
        with open_binary(frame.path) as f, reading(frame.path, "a DICOM file"):
            values = _plain(f, frame) if pixels.syntax in (*_PLAIN, _BIG_ENDIAN) else _decoded(f, frame)
            if values.shape != (pixels.rows, pixels.columns):
                raise ValueError(f"decoded to shape {values.shape}")
            return _cleared(values, pixels)
    except InputError:
        # the detail may quote a header; which decoder said what helps no one
        raise InputError(f"{where}: its pixels are damaged or cannot be decoded; export it again") from None


def _plain(f: IO[bytes], frame: DicomFrame) -> NDArray[Any]:
    pixels = frame.pixels
    (offset, _) = frame.pieces[0]
    dtype = pixels.dtype.newbyteorder(">" if pixels.syntax == _BIG_ENDIAN else "<")
    f.seek(offset)
    values = np.fromfile(f, dtype, pixels.rows * pixels.columns)
    if pixels.syntax == _BIG_ENDIAN and pixels.allocated == 8:
        raise ValueError("8-bit pixels in 16-bit words")  # which byte is first is not certain
    return values.astype(pixels.dtype, copy=False).reshape(pixels.rows, pixels.columns)


def _decoded(f: IO[bytes], frame: DicomFrame) -> NDArray[Any]:
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    pixels = frame.pixels
    pieces = []
    for offset, length in frame.pieces:
        f.seek(offset)
        pieces.append(f.read(length))
    if pixels.syntax != _RLE:
        check_code_stream(
            b"".join(pieces), rows=pixels.rows, columns=pixels.columns, samples=1, allocated=pixels.allocated
        )
    items = [_ITEM + bytes(4), *(_ITEM + struct.pack("<I", len(piece)) + piece for piece in pieces)]
    options: dict[str, Any] = {
        "rows": pixels.rows,
        "columns": pixels.columns,
        "number_of_frames": 1,
        "samples_per_pixel": 1,
        "photometric_interpretation": "MONOCHROME1" if pixels.is_inverted else "MONOCHROME2",
        "pixel_representation": int(pixels.is_signed),
        "bits_allocated": pixels.allocated,
        "bits_stored": pixels.stored,
        "pixel_keyword": "PixelData",
    }
    with muted_decoders():
        buffer = b"".join(items) + _DELIMITER + bytes(4)
        values, _ = get_decoder(UID(pixels.syntax)).as_array(buffer, index=0, raw=True, **options)
    return np.asarray(values).astype(pixels.dtype, copy=False)


def _cleared(values: NDArray[Any], pixels: PixelFormat) -> NDArray[Any]:
    """Overlays and other matter may lie in the bits that do not count."""
    unused = pixels.allocated - pixels.stored
    if unused == 0:
        return values
    values = np.array(values, copy=True)
    np.left_shift(values, unused, out=values)
    np.right_shift(values, unused, out=values)
    return values


def decoder_name(syntax: str) -> str | None:
    """Name of a transfer syntax that nothing installed can decode; None if it can be read."""
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    uid = UID(syntax)
    if syntax in (*_PLAIN, _BIG_ENDIAN):
        return None
    try:
        if get_decoder(uid).is_available:
            return None
    except NotImplementedError:
        pass
    return "an unknown transfer syntax" if uid.name == uid else one_line(uid.name, 80)
