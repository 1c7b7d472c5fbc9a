"""Masks in and out: PNG on a 2-D image's grid, NIfTI on a volume's whole grid.

Reading: any nonzero value is foreground. Writing is atomic, and what is written reads back bit for bit.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.errors import InputError
from ibisagent.geometry import Geometry
from ibisagent.grid import Grid
from ibisagent.io.files import display_name, sniff
from ibisagent.io.labels import read_labels_on
from ibisagent.io.nifti import NiftiVolume, open_nifti, read_plane
from ibisagent.io.raster import decode_raster
from ibisagent.io.writers.nifti import write_slice
from ibisagent.io.writers.png import write_png
from ibisagent.slices import mask_to_display, slice_axes
from ibisagent.types import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["check_same_grid", "mask_filename", "read_label_plane", "read_mask", "write_mask"]


def mask_filename(image: Image) -> str:
    """Name of an image's mask in an output folder: ``"mask.nii.gz"`` for a volume's slice, else ``"mask.png"``."""
    return "mask.png" if image.geometry.volume_shape is None else "mask.nii.gz"


def write_mask(mask: NDArray[np.bool_], image: Image, path: str | os.PathLike[str]) -> None:
    """Write a mask next to its image's source, atomically; the name's ending decides the format.

    Parameters
    ----------
    mask
        ``bool`` (H, W) on the image's grid.
    image
        The image it belongs to.
    path
        ``.png``: 8-bit gray, 0 and 255, the image's grid (any image). ``.nii`` or ``.nii.gz``: ``uint8`` 0 and 1 on the
        grid of the volume that the image is a slice of, zeros outside the slice, with the source's own shape, affine,
        qform and sform. That header is read again from ``image.source``; if the file is gone or has another grid by
        now, the affine in the image's geometry is written as its sform (code 2).

    Raises
    ------
    InputError
        If the ending is another, the image is no slice of a volume but NIfTI is asked for, or writing fails.
    ValueError
        If the mask is not ``bool`` of the image's shape.
    """
    shape = image.pixels.shape[:2]
    if mask.dtype != np.bool_ or mask.shape != shape:
        raise ValueError(f"mask must be bool {shape}, not {mask.dtype} {mask.shape}")
    name = os.fspath(path).lower()
    if name.endswith(".png"):
        write_png(mask, path)
    elif name.endswith((".nii", ".nii.gz")):
        write_slice(mask, image, path)
    else:
        raise InputError(f"{display_name(path)}: a mask is written as .png, .nii or .nii.gz; rename it")


def read_mask(path: str | os.PathLike[str], image: Image) -> NDArray[np.bool_]:
    """Read a mask onto an image's grid.

    Parameters
    ----------
    path
        PNG or TIFF of the image's size (colour: any channel nonzero; transparent pixels are background), or, for
        a slice of a volume, a NIfTI, NRRD or MetaImage mask on the volume's grid, of which the same slice is taken.
    image
        The image it belongs to.

    Returns
    -------
    NDArray of bool
        (H, W); True where the stored value is not zero.

    Raises
    ------
    InputError
        If it cannot be read, is JPEG (lossy) or DICOM, has another size or grid, or holds values that are not finite.
    """
    name = display_name(path)
    kind = sniff(path)
    if kind == "NIfTI":
        values: NDArray[Any] = read_label_plane(path, image)
        mask = values != 0
    elif kind in ("NRRD", "MetaImage"):
        values = mask = _label_slice(path, image)
    elif kind in ("PNG", "TIFF"):
        raster = decode_raster(path, kind)
        values = raster.values
        mask = values != 0 if values.ndim == 2 else (values != 0).any(axis=2)
        if raster.alpha is not None:
            mask &= raster.alpha != 0
    else:
        why = "JPEG blurs masks" if kind == "JPEG" else f"{kind} masks are read for whole volumes"
        raise InputError(f"{name}: {why}; save the mask as PNG, TIFF or NIfTI")
    if not np.isfinite(values).all():
        raise InputError(f"{name}: the mask holds values that are not finite; save it with 0 and 1 only")
    if mask.shape != (image.height, image.width):
        raise InputError(
            f"{name}: the mask is {mask.shape[1]} x {mask.shape[0]} pixels, but the image is "
            f"{image.width} x {image.height}; give a mask of the image's size"
        )
    return np.ascontiguousarray(mask)


def _label_slice(path: str | os.PathLike[str], image: Image) -> NDArray[np.bool_]:
    geometry = image.geometry
    if geometry.volume_shape is None or geometry.affine is None:
        raise InputError(f"{display_name(path)}: a volume cannot be the mask of a 2-D image; give the mask as PNG")
    ni, nj, nk = geometry.volume_shape
    volume = read_labels_on(path, Grid((ni, nj, nk), geometry.affine))
    plane = np.take(volume, int(geometry.slice_index or 0), axis=slice_axes(geometry)[0])
    return mask_to_display(plane, geometry, (image.height, image.width))


def read_label_plane(path: str | os.PathLike[str], image: Image) -> NDArray[np.float64]:
    """Read a NIfTI label volume's values under a slice.

    Parameters
    ----------
    path
        A volume of the image's shape and affine.
    image
        A slice of a volume.

    Returns
    -------
    NDArray of float64
        (H, W) on the image's grid, as stored (rescaled by slope and intercept).

    Raises
    ------
    InputError
        If it cannot be read, the image is no slice of a volume, or the grids differ.
    """
    volume = open_nifti(path)
    check_same_grid(volume, image.geometry)
    return read_plane(volume, image.geometry)


def check_same_grid(volume: NiftiVolume, geometry: Geometry) -> None:
    """Make sure that a mask or label volume lies on the grid of the volume that an image is a slice of.

    Raises
    ------
    InputError
        If the image is no slice of a volume, or shape or affine differ.
    """
    name = display_name(volume.path)
    if geometry.volume_shape is None:
        raise InputError(f"{name}: a NIfTI mask needs a NIfTI image, but this image is 2-D; give the mask as PNG")
    if volume.shape != geometry.volume_shape:
        raise InputError(
            f"{name}: the mask's shape is {volume.shape}, but the image's is {geometry.volume_shape}; "
            "resample the mask onto the image's grid"
        )
    affine = np.asarray(geometry.affine)
    # headers rewritten by other tools differ in the last float32 digits; a thousandth of a voxel is the same grid
    tolerance = 1e-3 * np.sqrt((affine[:3, :3] ** 2).sum(axis=0)).min()
    if np.abs(volume.affine[:3, :3] - affine[:3, :3]).max() * max(volume.shape) > 50 * tolerance or (
        np.abs(volume.affine[:3, 3] - affine[:3, 3]).max() > 10 * tolerance
    ):
        raise InputError(f"{name}: the mask's affine differs from the image's; resample the mask onto the image's grid")
