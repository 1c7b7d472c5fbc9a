"""PNG, JPEG and TIFF: 8-bit as they are, deeper ones through a recorded window.

What is decided here, once:

- Orientation tags (EXIF, TIFF) are applied, as every viewer does; the displayed grid is the image's grid.
- Transparency is composited on black, as medical viewers show it.
- 8-bit data are not windowed unless the user asks; 16-bit, 32-bit and float data always are.
- Print resolution (dpi, pHYs) is not a spacing in millimetres and is ignored.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.errors import InputError
from ibisagent.geometry import Geometry
from ibisagent.io.files import check_pixels, display_name, muted_decoders, read_bytes, reading
from ibisagent.io.windows import apply_window, canonical_modality, choose_window, parse_window
from ibisagent.types import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Raster", "decode_raster", "gray_to_rgb", "read_raster"]

_TAG_BITS_PER_SAMPLE, _TAG_PHOTOMETRIC, _TAG_ORIENTATION = 258, 262, 0x0112
_ARTICLE = {"PNG": "a PNG image", "JPEG": "a JPEG image", "TIFF": "a TIFF image"}


@dataclass(frozen=True, eq=False)
class Raster:
    """Stored values of one 2-D file, orientation applied.

    Parameters
    ----------
    values
        (H, W) or (H, W, 3); ``uint8`` for 8-bit files, else the stored integer or float type.
    alpha
        ``uint8`` (H, W) opacity, or None if the file has none (8-bit colours are not yet composited).
    inverted
        Whether the smallest stored value is white (16-bit MinIsWhite TIFF).
    """

    values: NDArray[Any]
    alpha: NDArray[np.uint8] | None = None
    inverted: bool = False


def gray_to_rgb(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Repeat a gray plane (H, W) as (H, W, 3); three-channel input passes unchanged."""
    return np.ascontiguousarray(np.repeat(gray[..., None], 3, axis=2) if gray.ndim == 2 else gray)


def read_raster(
    path: str | os.PathLike[str], kind: str, *, window: str | None = None, modality: str | None = None
) -> Image:
    """Read a PNG, JPEG or TIFF file.

    Parameters
    ----------
    path
        The file.
    kind
        ``"PNG"``, ``"JPEG"`` or ``"TIFF"``, as :func:`ibisagent.io.files.sniff` found.
    window
        ``--window`` option or None for the rule: none for 8-bit data, percentiles for deeper ones.
    modality
        What the user says it is; files of these kinds do not say.

    Raises
    ------
    InputError
        If the file is damaged, too large, has several pages, or the window cannot serve it.
    """
    where = display_name(path)
    choices = () if window is None else parse_window(window)
    raster = decode_raster(path, kind)
    name = canonical_modality(modality)
    values, record = raster.values, None
    if values.dtype != np.uint8 or window is not None:
        for choice in choices:
            if values.dtype == np.uint8 and isinstance(choice, str) and choice != "percentile":
                raise InputError(f"{where}: window '{choice}' means nothing for an 8-bit picture; leave --window out")
        if len(choices) > 1 and values.ndim == 3:
            raise InputError(f"{where}: a colour picture takes one window for its three channels, not several")
        with reading(path, _ARTICLE[kind]):
            record = choose_window(values, window, name, where=where)
            if raster.inverted:
                record = record.inverted()
            values = apply_window(values, record)
    pixels = gray_to_rgb(values)
    if raster.alpha is not None:
        pixels = ((pixels.astype(np.uint16) * raster.alpha[..., None] + 127) // 255).astype(np.uint8)
    return Image(pixels=pixels, geometry=Geometry.plane_2d(), modality=name, window=record, source=os.fspath(path))


def decode_raster(path: str | os.PathLike[str], kind: str) -> Raster:
    """Decode a PNG, JPEG or TIFF file to its stored values.

    Raises
    ------
    InputError
        If the file is damaged, too large, or has several pages.
    """
    data = read_bytes(path)
    with reading(path, _ARTICLE[kind]):
        import PIL.Image
        import PIL.ImageOps
        import PIL.TiffImagePlugin  # Pillow's lazy start-up leaves TIFF out

        try:
            img: Any = PIL.Image.open(io.BytesIO(data), formats=(kind,))
        except PIL.Image.DecompressionBombError:
            raise InputError(
                f"{display_name(path)}: the header claims too many pixels to decode; crop or downsample the image"
            ) from None
        check_pixels(path, *img.size)
        num_pages = getattr(img, "n_frames", 1) if kind == "TIFF" else 1
        if num_pages > 1:
            raise InputError(
                f"{display_name(path)}: {num_pages} pages in one TIFF; save the page you mean as a file of "
                "its own (of a stack choose --slice axial:N, of a slide a part with --region)"
            )
        if _is_deep_colour(img, data):
            return _decode_deep_colour(img, data)
        inverted = img.mode.startswith("I;16") and getattr(img, "tag_v2", {}).get(_TAG_PHOTOMETRIC) == 0
        with muted_decoders():
            img.load()
        img = PIL.ImageOps.exif_transpose(img)
        return _from_pillow(img, inverted)


def _from_pillow(img: Any, inverted: bool) -> Raster:
    """Sort Pillow's modes into gray, colour and deep values."""
    mode = img.mode
    if mode.startswith("I") or mode == "F":
        values = np.asarray(img)
        return Raster(np.ascontiguousarray(values.astype(values.dtype.newbyteorder("="))), inverted=inverted)
    if "transparency" in img.info or mode in ("RGBA", "RGBa", "LA", "La", "PA"):
        rgba = np.asarray(img.convert("RGBA"))
        return Raster(np.ascontiguousarray(rgba[..., :3]), alpha=np.ascontiguousarray(rgba[..., 3]))
    if mode in ("1", "L"):
        return Raster(np.ascontiguousarray(np.asarray(img.convert("L"))))
    return Raster(np.ascontiguousarray(np.asarray(img.convert("RGB"))))


def _is_deep_colour(img: Any, data: bytes) -> bool:
    """Whether it is 16-bit colour (or gray with alpha), of which Pillow would keep the high bytes only."""
    if img.format == "PNG":
        return data[24] == 16 and data[25] in (2, 4, 6)  # IHDR: bit depth, colour type
    bits = getattr(img, "tag_v2", {}).get(_TAG_BITS_PER_SAMPLE, (8,))
    return img.format == "TIFF" and len(bits) > 1 and max(bits) > 8 and img.mode in ("RGB", "RGBA", "RGBX")


def _decode_deep_colour(img: Any, data: bytes) -> Raster:
    """16-bit colour through OpenCV; dark 12-bit data in 16-bit files would come out black otherwise."""
    import cv2

    with muted_decoders():
        values: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.ndim != 3 or values.shape[2] not in (3, 4):
        raise ValueError("16-bit colour that cannot be decoded; save it with 8 bits a channel")
    alpha = None
    if values.shape[2] == 4:
        alpha = _orient((values[..., 3] >> 8).astype(np.uint8) if values.dtype == np.uint16 else values[..., 3], img)
    return Raster(_orient(values[..., 2::-1], img), alpha=alpha)


def _orient(array: NDArray[Any], img: Any) -> NDArray[Any]:
    """Apply the orientation tag (1 to 8) as :func:`PIL.ImageOps.exif_transpose` does."""
    tag = int(img.getexif().get(_TAG_ORIENTATION, 1) or 1)
    if tag in (5, 6, 7, 8):
        array = np.swapaxes(array, 0, 1)
    if tag in (2, 3, 6, 7):
        array = array[:, ::-1]
    if tag in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)
