"""Writers of masks: one registry, one door for volumes and one for 2-D images.

A volume's mask is ``bool`` (ni, nj, nk) on ``volume.grid``; an image's is ``bool`` (H, W) on the image's pixels.
Nothing is resampled on the way out: every format gets the voxels of the grid. Files appear whole or not at all.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np

from ibisagent.errors import InputError
from ibisagent.io.files import display_name, one_line
from ibisagent.io.volume import Volume
from ibisagent.io.writers.label import SegmentLabel
from ibisagent.types import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "FORMATS",
    "Format",
    "SegmentLabel",
    "chosen_formats",
    "default_formats",
    "write_image_mask",
    "write_volume_mask",
]


@dataclass(frozen=True)
class Format:
    """One file format of masks.

    Parameters
    ----------
    name
        As ``--format`` takes it.
    title
        For people.
    filename
        Name of the mask's file in an output folder.
    volume_writer
        ``"module:function"`` below this package, called with (mask, volume, path, label), or "" if there is none.
    image_writer
        The same for 2-D images, called with (mask, image, path, label).
    needs_dicom
        Whether it refers to the DICOM instances that the volume was read from.
    """

    name: str
    title: str
    filename: str
    volume_writer: str = ""
    image_writer: str = ""
    needs_dicom: bool = False

    def obstacle(self, volume: Volume | None) -> str | None:
        """Why a mask of this volume (None: of a 2-D image) cannot be written so, or None if it can."""
        if volume is None:
            return None if self.image_writer else f"{self.title} needs a volume, and this is a 2-D image"
        if not self.volume_writer:
            return f"{self.title} holds 2-D images only, and this is a volume"
        if self.needs_dicom and not (volume.kind == "DICOM" and volume.frames):
            return f"{self.title} refers to DICOM images, and the source is {volume.kind}"
        if self.name == "metaimage" and not volume.grid.is_orthogonal:
            return f"{self.title} cannot hold a grid whose axes are not at right angles (a tilted gantry)"
        return None


FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format("nifti", "NIfTI", "mask.nii.gz", "nifti:write_volume", "nifti:write_image"),
        Format("nrrd", "NRRD", "mask.seg.nrrd", "nrrd:write_volume"),
        Format("metaimage", "MetaImage", "mask.mha", "metaimage:write_volume"),
        Format("tiff", "TIFF stack", "mask.tif", "tiff:write_volume"),
        Format("dicom-seg", "DICOM-SEG", "mask.dcm", "dicom_seg:write_dicom_seg", needs_dicom=True),
        Format("rtstruct", "RTSTRUCT", "rtstruct.dcm", "rtstruct:write_rtstruct", needs_dicom=True),
        Format("coco", "COCO RLE", "mask.coco.json", "coco:write_volume", "coco:write_image"),
        Format("geojson", "GeoJSON", "mask.geojson", "geojson:write_volume", "geojson:write_image"),
        Format("png", "PNG", "mask.png", "", "png:write_image"),
    )
}
"""Every format by its name."""

_OWN = {"NIfTI": "nifti", "NRRD": "nrrd", "MetaImage": "metaimage", "TIFF": "tiff"}


def default_formats(volume: Volume | None) -> tuple[str, ...]:
    """Names of the formats that a mask gets when the user names none.

    Parameters
    ----------
    volume
        The source, or None for a 2-D image: the source's own format, DICOM-SEG and NIfTI for DICOM, PNG for images.
        A tilted gantry gets NRRD for NIfTI, whose sheared affines ITK's readers (3D Slicer, ITK-SNAP) refuse.
    """
    if volume is None:
        return ("png",)
    array = "nifti" if volume.grid.is_orthogonal else "nrrd"
    wanted = ("dicom-seg", array) if volume.kind == "DICOM" else (_OWN.get(volume.kind, array),)
    return tuple(n for n in wanted if FORMATS[n].obstacle(volume) is None) or (array,)


def chosen_formats(option: str | None, volume: Volume | None) -> tuple[str, ...]:
    """Names in a ``--format`` option, checked before any work is done.

    Parameters
    ----------
    option
        ``"nifti,dicom-seg"``, or None for :func:`default_formats`.
    volume
        The source, or None for a 2-D image.

    Raises
    ------
    InputError
        If a name is unknown, or its format cannot hold a mask of this source.
    """
    if option is None:
        return default_formats(volume)
    names = tuple(dict.fromkeys(part.strip().lower() for part in option.split(",") if part.strip()))
    if not names:
        raise InputError(f"no format is named; use {', '.join(FORMATS)}")
    for name in names:
        _format(name, volume)
        if name == "nifti" and volume is None:  # writable for a slice, which comes with its volume
            raise InputError("format 'nifti': NIfTI needs a volume, and this is a 2-D image; use png, coco, geojson")
    return names


def write_volume_mask(
    mask: NDArray[np.bool_], volume: Volume, path: str | os.PathLike[str], fmt: str, label: SegmentLabel
) -> None:
    """Write a volume's mask on the source's grid, atomically.

    Parameters
    ----------
    mask
        ``bool`` (ni, nj, nk) on ``volume.grid``.
    volume
        The source.
    path
        File to write; its name decides nothing.
    fmt
        A name of :data:`FORMATS`.
    label
        What it is.

    Raises
    ------
    InputError
        If the format is unknown or cannot hold this volume's mask, or writing fails.
    ValueError
        If the mask is not ``bool`` of the grid's shape.
    """
    volume.grid.check_mask(mask)
    _call(_format(fmt, volume).volume_writer, mask, volume, path, label)


def write_image_mask(
    mask: NDArray[np.bool_], image: Image, path: str | os.PathLike[str], fmt: str, label: SegmentLabel
) -> None:
    """Write the mask of a 2-D image, a region of a slide or one slice of a volume, atomically.

    Parameters
    ----------
    mask
        ``bool`` (H, W) on the image's pixels.
    image
        The image.
    path, fmt, label
        As :func:`write_volume_mask` takes them.

    Raises
    ------
    InputError
        If the format is unknown or cannot hold this image's mask, or writing fails.
    ValueError
        If the mask is not ``bool`` of the image's shape.
    """
    shape = image.pixels.shape[:2]
    if mask.dtype != np.bool_ or mask.shape != shape:
        raise ValueError(f"mask must be bool {shape}, not {mask.dtype} {mask.shape}")
    chosen = _format(fmt, None)
    if fmt == "nifti" and image.geometry.volume_shape is None:
        raise InputError(f"{display_name(path)}: {chosen.title} needs a volume, and this is a 2-D image; use png")
    _call(chosen.image_writer, mask, image, path, label)


def _format(name: str, volume: Volume | None) -> Format:
    if name not in FORMATS:
        raise InputError(f"format '{one_line(name, 40)}' is not known; use {', '.join(FORMATS)}")
    why = FORMATS[name].obstacle(volume)
    if why is not None:
        usable = ", ".join(f.name for f in FORMATS.values() if f.obstacle(volume) is None)
        raise InputError(f"format '{name}': {why}; use {usable}")
    return FORMATS[name]


def _call(writer: str, mask: NDArray[np.bool_], source: Volume | Image, path: object, label: SegmentLabel) -> None:
    # a format's libraries are loaded when it is written
    module, function = writer.split(":")
    getattr(import_module(f"{__name__}.{module}"), function)(mask, source, path, label)
