"""How much of each label a label volume has on each of its slices, counted while the volume streams by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.errors import InputError
from ibisagent.io.files import display_name, open_binary, reading
from ibisagent.io.nifti import (
    CHUNK_BYTES,
    NiftiVolume,
    _decompressed,
    _exactly,
    _skip,
    slice_geometry,
)
from ibisagent.slices import slice_axes

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["count_labels"]

_TABLE = 2**16


def count_labels(volume: NiftiVolume, plane: str, labels: Sequence[int]) -> NDArray[np.int64]:
    """Count voxels of labels on every slice.

    Parameters
    ----------
    volume
        A label volume, from :func:`ibisagent.io.nifti.open_nifti`.
    plane
        ``"axial"``, ``"coronal"`` or ``"sagittal"``.
    labels
        The labels to count, each once, from 0 to 65535.

    Returns
    -------
    NDArray of int64
        (len(labels), number of slices); slices by voxel index along the source axis of the plane's normal.

    Raises
    ------
    InputError
        If the file is damaged, or holds values that are no labels (broken or negative numbers, NaN).
    """
    axis = slice_axes(slice_geometry(volume, plane, 0))[0]
    place = np.zeros(_TABLE, np.int64)  # label -> its row, counted from 1; 0 collects all others
    for row, label in enumerate(labels, start=1):
        place[label] = row
    (ni, nj, nk), num_rows = volume.shape, len(labels) + 1
    counts = np.zeros((num_rows, volume.shape[axis]), np.int64)
    plane_bytes = ni * nj * volume.dtype.itemsize
    step = max(1, CHUNK_BYTES // plane_bytes)
    with open_binary(volume.path) as f, reading(volume.path, "a NIfTI volume"):
        slope, inter = volume.header.get_slope_inter()
        stream = _decompressed(f, volume.gzipped)
        _skip(stream, volume.offset, volume.gzipped)
        stream.seek(volume.offset)
        for k in range(0, nk, step):
            n = min(step, nk - k)
            block = np.frombuffer(_exactly(stream, n * plane_bytes), volume.dtype).reshape((ni, nj, n), order="F")
            rows = place[_as_labels(block, slope, inter, volume)]
            size = block.shape[axis]
            shape = [1, 1, 1]
            shape[axis] = size
            cells = rows * size + np.arange(size).reshape(shape)
            found = np.bincount(cells.ravel(order="K"), minlength=num_rows * size).reshape(num_rows, size)
            first = k if axis == 2 else 0
            counts[:, first : first + size] += found
        if volume.gzipped:
            stream.read(CHUNK_BYTES)  # reach the end of the stream, so that its checksum is verified
    return counts[1:]


def _as_labels(block: NDArray[Any], slope: Any, inter: Any, volume: NiftiVolume) -> NDArray[Any]:
    """Values as indices into a table of 65536; larger whole numbers are no label that anyone asked for."""
    values = block
    if slope is not None and (slope, inter) != (1.0, 0.0):
        values = block * slope + inter
    if values.dtype.kind == "f":
        whole = np.rint(values)
        # rescaled integers miss their whole number by rounding only
        if not (np.isfinite(values).all() and np.abs(values - whole).max(initial=0.0) < 1e-3):
            raise InputError(f"{display_name(volume.path)}: it holds broken numbers, not labels; give a label volume")
        values = whole.astype(np.int64)
    if values.dtype.kind == "i" and values.size and values.min() < 0:
        raise InputError(f"{display_name(volume.path)}: it holds negative numbers, not labels; give a label volume")
    if values.dtype.itemsize > 2 and values.size and values.max() >= _TABLE:
        raise InputError(f"{display_name(volume.path)}: it holds labels above {_TABLE - 1}; number them from 1")
    return values
