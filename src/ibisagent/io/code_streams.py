"""Headers of JPEG, JPEG-LS and JPEG 2000 code streams, looked at before anything decodes them.

Decoders written in C fill a buffer of the size that the DICOM header claims with as many pixels as the code stream has;
where the two differ, GDCM's JPEG-LS decoder writes beyond the buffer, which no exception tells.
"""

from __future__ import annotations

import struct
from typing import Any

__all__ = ["check_code_stream", "check_data_set"]

_RLE = "1.2.840.10008.1.2.5"  # has no size of its own
_JPEG_2000 = b"\xff\x4f\xff\x51"  # start, and the marker of sizes, which must follow at once
# start of frame: C0 to CF without tables (C4, CC) and an extension (C8), and JPEG-LS's
_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}


def check_code_stream(data: bytes, *, rows: int, columns: int, samples: int, allocated: int) -> None:
    """Make sure that a code stream is of the size that the DICOM header says.

    Parameters
    ----------
    data
        One frame, its fragments joined.
    rows, columns, samples, allocated
        Height, width, samples a pixel and bits allocated by the header.

    Raises
    ------
    ValueError
        If it is not, or its own header cannot be found.
    """
    start = data.find(_JPEG_2000, 0, 4096)  # boxes may come before it
    height, width, components, bits = _jpeg_2000(data, start) if start >= 0 else _jpeg(data)
    if (height, width, components) != (rows, columns, samples) or bits > allocated:
        raise ValueError(f"its code stream is {width} x {height}, {components} samples of {bits} bits")


def check_data_set(ds: Any) -> None:
    """As :func:`check_code_stream`, for all frames of a pydicom data set; what has no code streams passes."""
    from pydicom.encaps import generate_frames

    syntax = getattr(getattr(ds, "file_meta", None), "TransferSyntaxUID", None)
    if syntax is None or not syntax.is_compressed or syntax == _RLE:
        return
    for frame in generate_frames(ds.PixelData, number_of_frames=int(ds.get("NumberOfFrames") or 1)):
        check_code_stream(
            frame,
            rows=int(ds.Rows),
            columns=int(ds.Columns),
            samples=int(ds.get("SamplesPerPixel") or 1),
            allocated=int(ds.BitsAllocated),
        )


def _jpeg_2000(data: bytes, start: int) -> tuple[int, int, int, int]:
    right, bottom, left, top = struct.unpack_from(">4I", data, start + 8)
    components, depth = struct.unpack_from(">HB", data, start + 40)
    return bottom - top, right - left, components, (depth & 0x7F) + 1


def _jpeg(data: bytes) -> tuple[int, int, int, int]:
    if data[:2] != b"\xff\xd8":
        raise ValueError("no code stream")
    at = 2
    while True:
        mark, marker, length = struct.unpack_from(">BBH", data, at)
        if mark != 0xFF:
            raise ValueError("a code stream without a size")
        if marker == 0xFF:  # padding before a marker
            at += 1
        elif marker in _FRAMES:
            bits, height, width, components = struct.unpack_from(">BHHB", data, at + 4)
            return height, width, components, bits
        else:
            at += 2 + length
