"""Masks of whole volumes, from label volumes of any format, on the volume's own grid."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from ibisagent.errors import InputError
from ibisagent.grid import Grid
from ibisagent.io.files import display_name, sniff
from ibisagent.io.lattice import LatticeMap
from ibisagent.io.studies import open_volume
from ibisagent.io.volume import Volume

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["read_label_volume", "read_labels_on"]


def read_label_volume(
    path: str | os.PathLike[str], volume: Volume, *, label: int | str | None = None
) -> NDArray[np.bool_]:
    """Read a label volume onto a volume's grid. Nothing is resampled.

    Parameters
    ----------
    path
        NIfTI, NRRD or MetaImage of the volume's size, whose voxels are the volume's (its axes may be stored in another
        order or turned round, as converters from DICOM do); a DICOM-SEG object, or a segmentation of 3D Slicer cropped
        to a part of the volume; a TIFF stack for a volume that is one.
    volume
        The volume it belongs to.
    label
        The number that is foreground; None is whatever is not 0. For DICOM-SEG the number or label of a segment.

    Returns
    -------
    NDArray of bool
        (ni, nj, nk) on the volume's grid.

    Raises
    ------
    InputError
        If it cannot be read, has another size or lies elsewhere, holds numbers that are no labels, or has no such
        segment. A number that no voxel has is no error: the mask is empty.
    """
    header = volume.header if volume.kind == "DICOM" else None
    frame = str(header.get("FrameOfReferenceUID") or "") if header is not None else ""
    return _read(path, volume.grid, label, frame or None, is_stack=volume.kind == "TIFF")


def read_labels_on(path: str | os.PathLike[str], grid: Grid, *, label: int | str | None = None) -> NDArray[np.bool_]:
    """As :func:`read_label_volume`, where only the grid is known. Parameters, result and errors are the same."""
    return _read(path, grid, label, None, is_stack=False)


def _read(
    path: str | os.PathLike[str], grid: Grid, label: int | str | None, frame: str | None, *, is_stack: bool
) -> NDArray[np.bool_]:
    name = display_name(path)
    if os.path.isdir(path):
        raise InputError(f"{name}: is a directory; give the segmentation's file in it")
    if sniff(path) == "DICOM":
        from ibisagent.io.segmentations import read_segmentation

        return read_segmentation(path, grid, label=label, frame_of_reference=frame)
    if isinstance(label, str):
        raise InputError(f"{name}: only DICOM segmentations name their labels; give the label's number")
    labels = open_volume(path)
    if labels is None:
        raise InputError(f"{name}: a flat picture cannot be the label volume of a 3-D image; give a volume")
    mask = np.zeros(grid.shape, np.bool_)
    target = _placement(labels, grid, name, is_stack=is_stack).view(mask)
    for k in range(labels.grid.shape[2]):
        target[:, :, k] = _foreground(labels.voxels.plane(2, k), label, name)
    return mask


def _placement(labels: Volume, grid: Grid, name: str, *, is_stack: bool) -> LatticeMap:
    """Where the label volume's voxels lie on the grid."""
    shape = labels.grid.shape
    if labels.kind == "TIFF":
        if not is_stack:
            raise InputError(f"{name}: a TIFF stack does not say where it lies; give the labels as NIfTI or NRRD")
        if shape != grid.shape:
            raise InputError(_sizes(name, shape, grid))
        return LatticeMap(shape, (0, 1, 2), (1, 1, 1), (0, 0, 0))
    first = grid.index_of_ras(labels.grid.ras_mm((0, 0, 0)))
    steps = grid.index_of_ras(labels.grid.ras_mm(np.eye(3))) - first
    found, _ = LatticeMap.between(shape, steps.T, first)
    is_cropped = labels.kind == "NRRD" and "segmentation_referenceimageextentoffset" in labels.header
    if found is not None and (found.fills(grid.shape) or (is_cropped and found.fits(grid.shape))):
        return found
    if sorted(shape) != sorted(grid.shape) and not is_cropped:
        raise InputError(_sizes(name, shape, grid))
    raise InputError(
        f"{name}: its voxels do not lie on the volume's: another spacing, place or direction; "
        "resample it onto the volume's grid"
    )


def _sizes(name: str, shape: tuple[int, int, int], grid: Grid) -> str:
    return f"{name}: the labels' size is {shape}, but the volume's is {grid.shape}; give labels of the volume's size"


def _foreground(values: NDArray[np.generic], label: int | None, name: str) -> NDArray[np.bool_]:
    if values.dtype.kind != "f":
        return np.asarray(values != 0 if label is None else values == label)
    if not np.isfinite(values).all():
        raise InputError(f"{name}: it holds values that are not finite, not labels; give a label volume")
    if label is None:
        return np.asarray(values != 0)
    # rescaled integers miss their whole number by rounding only
    return np.asarray(np.abs(values.astype(np.float64) - label) < 1e-3)
