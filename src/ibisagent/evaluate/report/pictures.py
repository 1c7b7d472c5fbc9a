"""A case as a picture: the bare image once, and outlines as paths, so that they stay sharp and can be taken away."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from ibisagent.errors import InputError
from ibisagent.evaluate.report.model import Picture
from ibisagent.geometry import Geometry
from ibisagent.rendering.guides import edge_letters, pixel_aspect, scale_bar
from ibisagent.rendering.prompts import final_prompts
from ibisagent.types import Image
from ibisagent.web.parts import data_uri

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ibisagent.episode import Episode
    from ibisagent.evaluate.records import Run
    from ibisagent.evaluate.result import CaseResult

__all__ = ["case_picture", "outline", "recorded_image", "result_image"]

_SIDE = 640
"""Most pixels of an embedded image's longer side: sharp at twice the size of a card."""

_CLOSE_SHARE = 0.45
"""A marked region whose square takes less of the image's shorter side is shown enlarged, too."""

_QUALITY = 90


def recorded_image(episode: Episode, pixels: NDArray[np.uint8]) -> Image:
    """The image of a run from its pixels and what its record says of them.

    Parameters
    ----------
    episode
        The run.
    pixels
        ``uint8`` (H, W, 3).
    """
    record = episode.image
    try:
        geometry = Geometry.from_json(record.geometry) if record.geometry else Geometry.plane_2d()
    except (KeyError, TypeError, ValueError):  # of a record from elsewhere; the picture is none the worse
        geometry = Geometry.plane_2d()
    try:
        window = record.window.window() if record.window is not None else None
    except ValueError:
        window = None
    return Image(pixels, geometry, record.modality, window, record.source)


def result_image(run: Run, result: CaseResult) -> Image | None:
    """The image that a result was played on, as the run kept it.

    Returns
    -------
    Image or None
        None where it was not kept, cannot be read, has another size than the record says, or nothing was played: one
        damaged picture is no reason to write no page.
    """
    try:
        pixels = run.image(result)
    except InputError:
        return None
    if pixels is None or result.episode is None:
        return None
    record = result.episode.image
    return recorded_image(result.episode, pixels) if pixels.shape[:2] == (record.height, record.width) else None


def case_picture(
    key: str,
    episode: Episode,
    image: Image,
    mask: NDArray[np.bool_] | None,
    reference: NDArray[np.bool_] | None,
    alt: str,
) -> Picture:
    """Make a picture of a run's result.

    Parameters
    ----------
    key
        Unique in the page.
    episode
        The run, for its clicks.
    image
        What it ran on.
    mask, reference
        ``bool`` (H, W) final mask and reference; None or empty for none.
    alt
        For who cannot see it.
    """
    aspect = pixel_aspect(image.geometry)
    # The finer of the two spacings keeps its pixels, as in every picture of the house.
    across, down = (1.0, aspect) if aspect >= 1 else (1 / aspect, 1.0)
    width, height = image.width * across, image.height * down
    letters = edge_letters(image.geometry)
    bar = scale_bar(image)
    clicks = tuple(
        (round((c.x + 0.5) * across, 1), round((c.y + 0.5) * down, 1), c.positive, c.step)
        for c in final_prompts(episode).clicks
    )
    return Picture(
        key=key,
        data=_embedded(image.pixels),
        width=round(width, 2),
        height=round(height, 2),
        mask=outline(mask, across, down),
        reference=outline(reference, across, down),
        alt=alt,
        clicks=clicks,
        close=_close(mask, reference, across, down),
        letters=None if letters is None else (letters.left, letters.right, letters.top, letters.bottom),
        bar=None if bar is None else (bar.fraction, bar.label),
    )


def outline(mask: NDArray[np.bool_] | None, across: float = 1.0, down: float = 1.0) -> str:
    """The border of a mask as an SVG path; half-way between the centres of pixels inside and outside.

    Parameters
    ----------
    mask
        ``bool`` (H, W); pixel (x, y) takes the unit square from (x, y). None and an empty one have no border, and
        there is none along the image's own edge.
    across, down
        Factors for x and y.
    """
    if mask is None or not mask.any():
        return ""
    import cv2
    from contourpy import LineType, contour_generator

    padded = np.pad(mask.astype(np.float32), 1, mode="edge")
    parts = []
    for line in contour_generator(z=padded, line_type=LineType.Separate).lines(0.5):
        points = np.asarray(line)
        closed = bool(np.array_equal(points[0], points[-1]))
        ring = points[:-1] if closed else points
        ring = cv2.approxPolyDP(ring.astype(np.float32)[:, None], 0.3, closed)[:, 0]
        # Sample j of the padded mask is the centre of pixel j - 1.
        xy = (ring - 0.5) * (across, down)
        parts.append("M" + "L".join(f"{x:.5g} {y:.5g}" for x, y in xy) + ("Z" if closed else ""))
    return "".join(parts)


def _close(
    mask: NDArray[np.bool_] | None, reference: NDArray[np.bool_] | None, across: float, down: float
) -> tuple[float, float, float, float] | None:
    """Square around what is marked, with some room; None where the whole image shows it well enough."""
    marked = [m for m in (mask, reference) if m is not None and m.any()]
    if not marked:
        return None
    joined = np.logical_or.reduce(marked)
    height, width = joined.shape[0] * down, joined.shape[1] * across
    rows, columns = np.flatnonzero(joined.any(axis=1)), np.flatnonzero(joined.any(axis=0))
    left, right = float(columns[0]) * across, float(columns[-1] + 1) * across
    top, bottom = float(rows[0]) * down, float(rows[-1] + 1) * down
    side = max((right - left) * 1.5, (bottom - top) * 1.5, 40.0)
    if side >= _CLOSE_SHARE * min(width, height):
        return None
    x = min(max((left + right - side) / 2, 0.0), width - side)
    y = min(max((top + bottom - side) / 2, 0.0), height - side)
    return round(x, 1), round(y, 1), round(side, 1), round(side, 1)


def _embedded(pixels: NDArray[np.uint8]) -> str:
    import PIL.Image

    gray = np.array_equal(pixels[..., 0], pixels[..., 1]) and np.array_equal(pixels[..., 0], pixels[..., 2])
    picture = PIL.Image.fromarray(np.ascontiguousarray(pixels[..., 0] if gray else pixels))
    scale = _SIDE / max(picture.size)
    if scale < 1:
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(size, PIL.Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY, subsampling=0, optimize=True)
    return data_uri(buffer.getvalue(), "image/jpeg")
