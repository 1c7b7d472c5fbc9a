"""Voxels of a DICOM stack: a slice is read when it is asked for, the rest only if need be."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.io.dicom_frames import DicomFrame, read_stored
from ibisagent.io.lazy_voxels import LazyVoxels

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["DicomVoxels"]

_KEPT_SLICES = 8


class DicomVoxels:
    """A :class:`ibisagent.io.volume.Voxels` over frames, axes (column, row, slice).

    Slices of the third axis are read one by one, and the last few stay in memory; for the other axes all frames are
    read once. Where slope and intercept are whole numbers values are exact integers, else ``float32``.

    Parameters
    ----------
    frames
        One a slice, in order, all of one size.
    labels
        What messages call each file.
    """

    def __init__(self, frames: Sequence[DicomFrame], labels: dict[str, str]) -> None:
        self._frames = tuple(frames)
        self._labels = labels
        self._is_whole = all(f.slope.is_integer() and f.intercept.is_integer() for f in frames)
        ends = [v * f.slope + f.intercept for f in frames for v in f.pixels.limits]
        self._plane_dtype = _smallest(min(ends), max(ends)) if self._is_whole else np.dtype(np.float32)
        pixels = frames[0].pixels
        self._whole = LazyVoxels(self._load, pixels.rows * pixels.columns * len(frames) * self._plane_dtype.itemsize)
        self._recent: OrderedDict[int, NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def plane(self, axis: int, index: int) -> NDArray[Any]:
        """See :meth:`ibisagent.io.volume.Voxels.plane`. Not to be written to."""
        if axis % 3 != 2 or self._whole.is_held:
            return self._whole.plane(axis, index)
        index %= len(self._frames)
        with self._lock:
            if index in self._recent:
                self._recent.move_to_end(index)
                return self._recent[index]
        values = self._rescaled(index).T
        values.flags.writeable = False
        with self._lock:
            self._recent[index] = values
            while len(self._recent) > _KEPT_SLICES:
                self._recent.popitem(last=False)
        return values

    def array(self) -> NDArray[Any]:
        """See :meth:`ibisagent.io.volume.Voxels.array`: the smallest type that holds the values. Not to be written."""
        return self._whole.array()

    def _stored(self, index: int) -> NDArray[Any]:
        frame = self._frames[index]
        return read_stored(frame, self._labels.get(frame.path, "a DICOM file"))

    def _rescaled(self, index: int) -> NDArray[Any]:
        frame, stored = self._frames[index], self._stored(index)
        if not self._is_whole:
            return (stored * frame.slope + frame.intercept).astype(np.float32)
        if self._plane_dtype.kind == "f":  # beyond 64 bits there is nothing exact
            return stored * frame.slope + frame.intercept
        if (frame.slope, frame.intercept) == (1.0, 0.0):
            return stored.astype(self._plane_dtype, copy=False)
        wide = stored.astype(np.int64) * int(frame.slope) + int(frame.intercept)
        return wide.astype(self._plane_dtype)

    def _load(self) -> NDArray[Any]:
        frames = self._frames
        first = frames[0]
        shape = (len(frames), first.pixels.rows, first.pixels.columns)
        offsets = {f.intercept for f in frames}
        kinds = {f.pixels.dtype for f in frames}
        if not (self._is_whole and len(offsets) == len(kinds) == 1 and {f.slope for f in frames} == {1.0}):
            values = np.empty(shape, self._plane_dtype)
            for k in range(len(frames)):
                values[k] = self._rescaled(k)
            return values.T
        # the common case: stored values shifted by one whole number, in place if the type can hold them
        stored = np.empty(shape, kinds.pop())
        low, high = np.inf, -np.inf
        for k in range(len(frames)):
            stored[k] = self._stored(k)
            low, high = min(low, int(stored[k].min())), max(high, int(stored[k].max()))
        shift = int(offsets.pop())
        if shift == 0:
            return stored.T
        dtype = _smallest(low + shift, high + shift)
        if dtype.itemsize != stored.itemsize:
            out = np.empty(shape, dtype)
            np.add(stored, shift, out=out, dtype=np.int64, casting="unsafe")
            return out.T
        # sums modulo 2^n are exact where the results fit
        unsigned = stored.view(np.dtype(f"u{stored.itemsize}"))
        np.add(unsigned, unsigned.dtype.type(shift % 2 ** (8 * stored.itemsize)), out=unsigned)
        return stored.view(dtype).T

    def __getstate__(self) -> dict[str, Any]:
        return {"frames": self._frames, "labels": self._labels}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["frames"], state["labels"])  # type: ignore[misc]


def _smallest(low: float, high: float) -> np.dtype[Any]:
    """The smallest integer type for a range, signed ones first; ``float64`` where none does."""
    for name in ("i1", "u1", "i2", "u2", "i4", "u4", "i8"):
        info = np.iinfo(name)
        if info.min <= low and high <= info.max:
            return np.dtype(name)
    return np.dtype(np.float64)
