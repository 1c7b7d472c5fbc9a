"""What most readers share: image and mask files, label maps, and masks that cannot be used as faults."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.engine.sources.label_map import LabelMap
from ibisagent.engine.sources.sample import Fault, FaultCode, LabelledImage
from ibisagent.errors import InputError
from ibisagent.io.files import display_name, one_line, read_bytes, sniff
from ibisagent.io.images import read_image
from ibisagent.io.masks import read_mask
from ibisagent.io.raster import decode_raster
from ibisagent.types import Image

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

__all__ = [
    "FilesReader",
    "LabelMapReader",
    "Tray",
    "decode_labels",
    "gray_mask",
    "image_with_spacing",
    "labels_of_image",
    "mask_fault",
    "named_masks",
    "unknown_labels",
]


class Tray:
    """Collects the masks of one sample and what is wrong with the others.

    Parameters
    ----------
    source, item
        Data set and sample, for the faults.
    """

    def __init__(self, source: str, item: str) -> None:
        self.source, self.item = source, item
        self.masks: dict[str, NDArray[np.bool_]] = {}
        self.faults: list[Fault] = []

    def add(self, name: str, mask: NDArray[np.bool_]) -> None:
        """Keep a mask; one without a pixel becomes a fault."""
        if mask.any():
            self.masks[name] = mask
        else:
            self.fault("empty_mask", f"the mask of '{one_line(name, 80)}' has no pixel; remove it or draw it again")

    def fault(self, code: FaultCode, message: str) -> None:
        """Note what cannot be used."""
        self.faults.append(Fault(self.source, self.item, code, one_line(message, 1000)))

    def done(self, image: Image) -> LabelledImage:
        """The sample as read."""
        return LabelledImage(image, self.masks, tuple(self.faults))


def image_with_spacing(
    path: str | Path, modality: str | None = None, spacing_mm: tuple[float, float] | None = None
) -> Image:
    """Read an image file; `spacing_mm` (row, column) counts where the file itself knows none.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    image = read_image(path, modality=modality)
    if spacing_mm is None or image.geometry.spacing_mm is not None:
        return image
    return dataclasses.replace(image, geometry=dataclasses.replace(image.geometry, spacing_mm=spacing_mm))


def mask_fault(path: str | Path, image: Image, error: InputError) -> tuple[FaultCode, str]:
    """Which fault it is that a mask file could not be read onto its image's grid."""
    if not os.path.exists(path):
        return "missing_mask", f"{display_name(path)}: the mask does not exist; restore it or take the case out"
    try:
        import PIL.Image

        with PIL.Image.open(path) as raster:
            size = raster.size
    except Exception:  # whatever a damaged header makes Pillow raise
        return "unreadable", str(error)
    return ("unreadable" if size == (image.width, image.height) else "size_mismatch"), str(error)


@dataclass(frozen=True)
class FilesReader:
    """Reads an image file and one mask file for each structure.

    Parameters
    ----------
    source, key
        Data set and sample, for the faults.
    image
        The image file.
    masks
        (name, mask file) of every structure; several files of one name are united.
    modality
        Of the image, or None.
    spacing_mm
        (row, column), used where the image file knows none.
    threshold
        Gray from which on a mask's pixel is inside, and masks are any picture; None takes masks as
        :func:`ibisagent.io.masks.read_mask` does.
    """

    source: str
    key: str
    image: str
    masks: tuple[tuple[str, str], ...]
    modality: str | None = None
    spacing_mm: tuple[float, float] | None = None
    threshold: int | None = None

    def __call__(self) -> LabelledImage:
        """Read image and masks; see :class:`ibisagent.engine.sources.sample.Reader`."""
        image = image_with_spacing(self.image, self.modality, self.spacing_mm)
        tray = Tray(self.source, self.key)
        united: dict[str, NDArray[np.bool_]] = {}
        broken: set[str] = set()
        for name, path in self.masks:
            try:
                mask = read_mask(path, image) if self.threshold is None else gray_mask(path, image, self.threshold)
            except InputError as exc:
                tray.fault(*mask_fault(path, image, exc))
                broken.add(name)
                continue
            united[name] = united[name] | mask if name in united else mask
        for name, mask in united.items():
            if name not in broken:  # a part of a structure would be a wrong mask of it
                tray.add(name, mask)
        return tray.done(image)


def gray_mask(path: str | Path, image: Image, threshold: int) -> NDArray[np.bool_]:
    """Read a picture as a mask: pixels whose gray is at least `threshold` are inside.

    Parameters
    ----------
    path
        An 8-bit picture of the image's size; colours count by the mean of their channels.
    threshold
        From 1 to 255.

    Returns
    -------
    NDArray of bool
        (H, W).

    Raises
    ------
    InputError
        If it cannot be read, has more than 8 bits, or another size.
    """
    name = display_name(path)
    kind = sniff(path)
    if kind not in ("PNG", "JPEG", "TIFF"):
        raise InputError(f"{name}: threshold= is for masks as PNG, JPEG or TIFF, not {kind}; leave it out")
    raster = decode_raster(path, kind)
    values: NDArray[Any] = raster.values
    if values.dtype != np.uint8:
        raise InputError(f"{name}: threshold= is for 8-bit pictures, but this holds {values.dtype}; save it as 8 bits")
    if values.shape[:2] != (image.height, image.width):
        raise InputError(
            f"{name}: the mask is {values.shape[1]} x {values.shape[0]} pixels, but the image is "
            f"{image.width} x {image.height}; give a mask of the image's size"
        )
    gray = values if values.ndim == 2 else np.rint(values.mean(axis=2, dtype=np.float64))
    mask = gray >= threshold
    if raster.alpha is not None:
        mask &= raster.alpha != 0
    return np.ascontiguousarray(mask)


def decode_labels(path: str | Path) -> NDArray[np.int64]:
    """Read a label map: a PNG or TIFF whose stored values are numbers of labels.

    Returns
    -------
    NDArray of int64
        (H, W).

    Raises
    ------
    InputError
        If it cannot be read, is JPEG or no raster, has colours, transparency or values that are not whole numbers.
    """
    name = display_name(path)
    kind = sniff(path)
    if kind not in ("PNG", "TIFF"):
        raise InputError(f"{name}: a label map is PNG or TIFF, not {kind}; save it without loss")
    palette = _palette_indices(path) if kind == "PNG" else None
    if palette is not None:
        return palette
    raster = decode_raster(path, kind)
    values: NDArray[Any] = raster.values
    if values.ndim == 3:
        if not (np.array_equal(values[..., 0], values[..., 1]) and np.array_equal(values[..., 0], values[..., 2])):
            raise InputError(f"{name}: a label map has one number a pixel, not colours; save the numbers as gray")
        values = values[..., 0]
    if values.dtype.kind == "f" and not (np.isfinite(values).all() and np.array_equal(values, np.rint(values))):
        raise InputError(f"{name}: a label map holds whole numbers; save it as integers")
    if values.size and values.min() < 0:
        raise InputError(f"{name}: a label map has no numbers below 0; save the background as 0")
    return np.ascontiguousarray(values.astype(np.int64))


def _palette_indices(path: str | Path) -> NDArray[np.int64] | None:
    """Numbers of a PNG with a palette (as VOC-like sets have), whose colours would otherwise be read."""
    import io

    import PIL.Image

    data = read_bytes(path)
    if len(data) < 26 or data[25] != 3:  # IHDR: colour type 3 is a palette
        return None
    decode_raster(path, "PNG")  # the checks of size and damage
    with PIL.Image.open(io.BytesIO(data), formats=("PNG",)) as img:
        return np.ascontiguousarray(np.asarray(img).astype(np.int64))


def labels_of_image(path: str, image: Image, tray: Tray) -> NDArray[np.int64] | None:
    """A label map of an image's size; where it cannot be used, None and a fault in the tray."""
    if not os.path.exists(path):
        tray.fault("missing_mask", f"{display_name(path)}: the mask does not exist; restore it or take the case out")
        return None
    try:
        labels = decode_labels(path)
    except InputError as exc:
        tray.fault("unreadable", str(exc))
        return None
    if labels.shape != (image.height, image.width):
        tray.fault(
            "size_mismatch",
            f"{display_name(path)}: the mask is {labels.shape[1]} x {labels.shape[0]} pixels, but the image is "
            f"{image.width} x {image.height}; give a mask of the image's size",
        )
        return None
    return labels


def named_masks(
    labels: NDArray[np.integer[Any]], structures: Iterable[tuple[str, tuple[int, ...]]]
) -> dict[str, NDArray[np.bool_]]:
    """Masks of a label map in the order of the structures; structures without a pixel are left out.

    Parameters
    ----------
    labels
        Integers (H, W).
    structures
        (name, its labels) of each; structures may share labels.
    """
    shown = set(np.unique(labels).tolist())
    masks: dict[str, NDArray[np.bool_]] = {}
    for name, numbers in structures:
        here = [number for number in numbers if number in shown]
        if here:
            masks[name] = labels == here[0] if len(here) == 1 else np.isin(labels, here)
    return masks


def unknown_labels(shown: Iterable[int], names: LabelMap) -> str:
    """What is wrong where pixels have a label that its description does not know; empty if all is well."""
    unknown = sorted(set(shown) - {0, *names.labels, *names.unnamed})
    if not unknown:
        return ""
    numbers = ", ".join(map(str, unknown[:8])) + (" …" if len(unknown) > 8 else "")
    return f"pixels with labels that have no name ({numbers}); name them in the labels file, or null to leave them out"


@dataclass(frozen=True)
class LabelMapReader:
    """Reads an image file and a label map.

    Parameters
    ----------
    source, key
        Data set and sample, for the faults.
    image, labels
        The two files.
    structures
        (name, its labels) of every structure.
    modality
        Of the image, or None.
    """

    source: str
    key: str
    image: str
    labels: str
    structures: tuple[tuple[str, tuple[int, ...]], ...]
    modality: str | None = None

    def __call__(self) -> LabelledImage:
        """Read image and masks; see :class:`ibisagent.engine.sources.sample.Reader`."""
        image = read_image(self.image, modality=self.modality)
        tray = Tray(self.source, self.key)
        labels = labels_of_image(self.labels, image, tray)
        if labels is not None:
            for name, mask in named_masks(labels, self.structures).items():
                tray.add(name, mask)
        return tray.done(image)
