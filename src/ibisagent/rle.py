"""COCO's compressed run-length encoding of masks: column-major runs in printable characters.

Written in numpy so that the core needs no compiled reader, and so that a damaged record raises an
error instead of reading past its end; tests pin it to pycocotools, byte for byte.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, field_validator

from ibisagent.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Rle", "decode_mask", "encode_mask"]

MAX_PIXELS = 2**28
"""Largest mask that is decoded, so that a damaged size cannot exhaust the memory."""

_MAX_GROUPS = 7  # characters of one run: 35 bits, more than MAX_PIXELS needs


class Rle(BaseModel):
    """A mask in COCO's form.

    Attributes
    ----------
    size
        (height, width).
    counts
        Compressed column-major run lengths, beginning with the zeros.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: tuple[int, int]
    counts: str

    @field_validator("size")
    @classmethod
    def _positive(cls, size: tuple[int, int]) -> tuple[int, int]:
        if min(size) < 1 or size[0] * size[1] > MAX_PIXELS:
            raise ValueError(f"a mask of {size[0]} x {size[1]} pixels is not possible")
        return size


def encode_mask(mask: NDArray[np.bool_]) -> Rle:
    """Encode a ``bool`` (H, W) mask.

    Raises
    ------
    ValueError
        If `mask` is not a two-dimensional bool array with pixels.
    """
    if mask.dtype != np.bool_ or mask.ndim != 2 or mask.size == 0:
        raise ValueError(f"a mask must be bool (H, W), not {mask.dtype} {mask.shape}")
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    start = [0] if not flat[0] else [0, 0]  # the first run counts zeros, so it is empty before a one
    bounds = np.concatenate([start, edges, [flat.size]])
    runs = np.diff(bounds).astype(np.int64)
    # From the fourth run on, a run is stored as its difference to the run two before.
    values = runs.copy()
    values[3:] -= runs[1:-2]
    chars = np.zeros((values.size, _MAX_GROUPS), np.uint8)
    keep = np.zeros(chars.shape, bool)
    alive = np.ones(values.size, bool)
    for group in range(_MAX_GROUPS):
        low = values & 0x1F
        values = values >> 5
        more = np.where(low & 0x10, values != -1, values != 0)
        chars[:, group] = (low | (more.astype(np.int64) << 5)) + 48
        keep[:, group] = alive
        alive = alive & more
        if not alive.any():
            break
    return Rle(size=(mask.shape[0], mask.shape[1]), counts=chars[keep].tobytes().decode("ascii"))


def decode_mask(rle: Rle) -> NDArray[np.bool_]:
    """Decode to a ``bool`` (H, W) mask, C-contiguous.

    Raises
    ------
    InputError
        If the runs are damaged or do not fill the size.
    """
    runs = _runs(rle.counts)
    height, width = rle.size
    if runs.size == 0 or runs.min() < 0 or runs.max() > MAX_PIXELS or int(runs.sum()) != height * width:
        raise InputError(f"damaged mask: its runs do not fill {height} x {width} pixels")
    values = (np.arange(runs.size) & 1).astype(bool)
    return np.ascontiguousarray(np.repeat(values, runs).reshape((height, width), order="F"))


def _runs(counts: str) -> NDArray[Any]:
    try:
        codes = np.frombuffer(counts.encode("ascii"), np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        raise InputError("damaged mask: its runs are not ASCII") from None
    if codes.size == 0 or codes.min() < 0 or codes.max() > 63 or codes[-1] & 0x20:
        raise InputError("damaged mask: its runs are cut off or not of this encoding")
    ends = np.flatnonzero((codes & 0x20) == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _MAX_GROUPS:
        raise InputError("damaged mask: a run is too long")
    position = np.arange(codes.size) - np.repeat(starts, lengths)
    values = np.add.reduceat((codes & 0x1F) << (5 * position), starts)
    negative = (codes[ends] & 0x10) != 0
    values = values - (negative.astype(np.int64) << (5 * lengths))
    runs = values.copy()
    runs[1::2] = np.cumsum(values[1::2])
    runs[2::2] = np.cumsum(values[2::2])
    return runs
