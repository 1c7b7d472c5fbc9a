"""Regions of whole-slide images through OpenSlide: the pixels of one level, and where they lie on the slide.

A slide's own coordinates are the pixels of its finest level (level 0), origin at the upper left. The geometry of an
image that is read here leads from its pixels there, so that masks written as GeoJSON open in the right place in QuPath.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.errors import InputError, MissingExtraError
from ibisagent.geometry import Geometry
from ibisagent.io.files import check_pixels, display_name, muted_decoders, one_line, open_binary, reading
from ibisagent.io.windows import canonical_modality
from ibisagent.types import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MAX_SIDE", "SlideRegion", "is_slide", "parse_region", "read_slide_region"]

MAX_SIDE = 2048
"""Longest side of a region's image, in pixels, when the user asks for no resolution."""

_NOUN = "a whole-slide image"
_SAME = 1.01  # resolutions within one per cent are the same


@dataclass(frozen=True)
class SlideRegion:
    """A rectangle on a slide in pixels of level 0.

    Parameters
    ----------
    x, y
        Its upper left corner.
    width, height
        Its size.
    """

    x: int
    y: int
    width: int
    height: int


def parse_region(text: str) -> SlideRegion:
    """Read ``"X,Y,W,H"``.

    Raises
    ------
    InputError
        If it is not four whole numbers, X and Y from 0, W and H from 1.
    """
    parts = [part.strip() for part in text.split(",")]
    if len(parts) == 4 and all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        x, y, width, height = map(int, parts)
        if width and height:
            return SlideRegion(x, y, width, height)
    raise InputError(
        f"region '{one_line(text, 60)}' is not understood; write X,Y,W,H in pixels of the slide's finest level, "
        "for example 12000,8000,2048,2048"
    )


def is_slide(path: str | os.PathLike[str]) -> bool:
    """Whether a TIFF is a whole slide: it has several pages, and they are one picture at several sizes.

    Scanners mark theirs, which OpenSlide knows (if it is installed); else the sizes of the pages decide.

    Raises
    ------
    InputError
        If the file cannot be opened, or its pages cannot be counted or told apart.
    """
    from ibisagent.io.tiff_stack import count_pages, read_tiff_stack

    if count_pages(path) < 2:
        return False
    try:
        with muted_decoders():
            vendor = _library().OpenSlide.detect_format(os.fspath(path))
    except MissingExtraError:
        vendor = None
    return vendor not in (None, "generic-tiff") or read_tiff_stack(path) is None


def read_slide_region(
    path: str | os.PathLike[str],
    region: str | None = None,
    *,
    mpp: float | None = None,
    level: int | None = None,
    modality: str | None = None,
) -> Image:
    """Read a region of a whole-slide image.

    Parameters
    ----------
    path
        Anything that OpenSlide opens: SVS, NDPI, MRXS, SCN, BIF, pyramidal TIFF, DICOM slides.
    region
        ``"X,Y,W,H"`` in pixels of level 0; None is the whole slide.
    mpp
        Wanted micrometres per pixel: the next finer level is read and averaged down.
    level
        Level to read as it is stored, 0 the finest. With neither `mpp` nor `level`, the finest level on which the
        region is at most :data:`MAX_SIDE` pixels long; if there is none, the coarsest, averaged down to that.
    modality
        What it is; ``"Histology"`` if not given.

    Returns
    -------
    Image
        The whole pixels of the level that cover the region. ``index_from_pixel`` leads to level 0 (pixel centres at
        integers there, too), ``spacing_mm`` is set where the slide says its resolution. Where nothing was scanned, the
        slide's own background colour, or white.

    Raises
    ------
    MissingExtraError
        If OpenSlide is not installed.
    InputError
        If the file is no slide or damaged, or the region, level or resolution is not on it or too large.
    """
    if mpp is not None and level is not None:
        raise InputError("a resolution and a level exclude each other; give one of them")
    if mpp is not None and not (math.isfinite(mpp) and mpp > 0):
        raise InputError(f"a resolution of {mpp:g} micrometres per pixel is not possible; give a positive number")
    wanted = None if region is None else parse_region(region)
    openslide = _library()
    open_binary(path).close()  # OpenSlide would call a missing file an unknown format
    with reading(path, _NOUN), muted_decoders(), openslide.OpenSlide(os.fspath(path)) as slide:
        area = _checked(path, wanted, slide.dimensions)
        resolution = _resolution(slide.properties)
        level, shrink = _choose(path, slide, area, mpp, level, resolution)
        pixels, origin, pitch = _read(path, slide, area, level)
    if shrink > _SAME:
        pixels, pitch = _averaged(pixels, pitch, shrink)
    (x, y), (dx, dy) = origin, pitch
    geometry = Geometry(
        spacing_mm=None if resolution is None else (resolution[1] * dy / 1000, resolution[0] * dx / 1000),
        # the centre of the first pixel lies half a pixel, less half a pixel of level 0, from the corner
        index_from_pixel=((dx, 0.0, x + dx / 2 - 0.5), (0.0, dy, y + dy / 2 - 0.5), (0.0, 0.0, 0.0)),
    )
    name = canonical_modality(modality) or "Histology"
    return Image(pixels=pixels, geometry=geometry, modality=name, source=os.fspath(path))


def _library() -> Any:
    try:
        import openslide
    except (ImportError, OSError):  # the second if the shared library behind it is missing
        raise MissingExtraError("reading a region of a slide", "slides") from None
    return openslide


def _checked(path: str | os.PathLike[str], region: SlideRegion | None, size: tuple[int, int]) -> SlideRegion:
    width, height = size
    if region is None:
        return SlideRegion(0, 0, width, height)
    if region.x + region.width > width or region.y + region.height > height:
        raise InputError(
            f"{display_name(path)}: region {region.x},{region.y},{region.width},{region.height} reaches beyond the "
            f"slide, which has {width} x {height} pixels; give one inside it"
        )
    return region


def _resolution(properties: Any) -> tuple[float, float] | None:
    """(x, y) micrometres per pixel of level 0, or None if the slide does not say or says nonsense."""
    try:
        x, y = float(properties["openslide.mpp-x"]), float(properties["openslide.mpp-y"])
    except (KeyError, ValueError):
        return None
    return (x, y) if all(math.isfinite(v) and v > 0 for v in (x, y)) else None


def _choose(
    path: str | os.PathLike[str],
    slide: Any,
    area: SlideRegion,
    mpp: float | None,
    level: int | None,
    resolution: tuple[float, float] | None,
) -> tuple[int, float]:
    """The level to read, and how much its pixels are to be averaged down after that."""
    name, steps = display_name(path), [float(step) for step in slide.level_downsamples]
    if level is not None:
        if not 0 <= level < len(steps):
            raise InputError(f"{name}: no level {level} on this slide; use 0 (finest) to {len(steps) - 1}")
        return level, 1.0
    if mpp is not None:
        if resolution is None:
            raise InputError(f"{name}: the slide does not say its resolution; choose a level instead of micrometres")
        finest = max(resolution)
        if mpp * _SAME < finest:
            raise InputError(
                f"{name}: {mpp:g} micrometres per pixel is finer than the slide's {finest:.4g}; ask for more"
            )
        step = mpp / finest
        found = max(n for n, s in enumerate(steps) if s <= step * _SAME)
        return found, step / steps[found]
    longest = max(area.width, area.height)
    for found, s in enumerate(steps):
        if longest / s <= MAX_SIDE:
            return found, 1.0
    return len(steps) - 1, longest / steps[-1] / MAX_SIDE


def _read(
    path: str | os.PathLike[str], slide: Any, area: SlideRegion, level: int
) -> tuple[NDArray[np.uint8], tuple[float, float], tuple[float, float]]:
    """Whole pixels of a level that cover an area: ``uint8`` (H, W, 3), the corner and the pixel's size on level 0."""
    import PIL.Image

    step = float(slide.level_downsamples[level])
    width, height = slide.level_dimensions[level]
    left, top = min(int(area.x / step), width - 1), min(int(area.y / step), height - 1)
    right = min(max(math.ceil((area.x + area.width) / step - 1e-6), left + 1), width)
    bottom = min(max(math.ceil((area.y + area.height) / step - 1e-6), top + 1), height)
    size = (right - left, bottom - top)
    check_pixels(path, *size)
    read = slide.read_region((round(left * step), round(top * step)), level, size)
    colour = f"#{slide.properties.get('openslide.background-color', 'FFFFFF')}"
    ground = PIL.Image.new("RGB", size, colour)
    ground.paste(read, mask=read.getchannel("A"))
    return np.asarray(ground), (left * step, top * step), (step, step)


def _averaged(
    pixels: NDArray[np.uint8], pitch: tuple[float, float], shrink: float
) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    import cv2

    height, width = pixels.shape[:2]
    new = (max(1, round(width / shrink)), max(1, round(height / shrink)))
    smaller: NDArray[np.uint8] = cv2.resize(pixels, new, interpolation=cv2.INTER_AREA)
    return smaller, (pitch[0] * width / new[0], pitch[1] * height / new[1])
