"""Several slices of one volume side by side, for a person to judge a mask by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import PIL.Image
from PIL import ImageDraw

from ibisagent.rendering.guides import edge_letters, pixel_aspect, scale_bar
from ibisagent.rendering.marks import MASK, draw_box, draw_clicks, draw_mask
from ibisagent.rendering.prompts import StandingPrompts
from ibisagent.rendering.strips import GROUND, QUIET, STAGE, TEXT, facts_strip, header_strip, legend_strip
from ibisagent.rendering.text import fit_text, load_font
from ibisagent.types import PixelBox

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ibisagent.types import Image

__all__ = ["Tile", "montage"]

_GUTTER, _TOP, _BOTTOM, _GAP = 20, 44, 24, 6


@dataclass(frozen=True, eq=False)
class Tile:
    """One slice of a montage.

    Parameters
    ----------
    image
        The slice.
    title, tag
        What stands above it: left and right.
    mask
        ``bool`` (H, W), or None.
    prompts
        Clicks and box on this slice.
    crop
        Part of the slice that is shown, or None for all of it.
    frame
        A part to draw a rectangle around: what other tiles show enlarged.
    """

    image: Image
    title: str
    tag: str = ""
    mask: NDArray[np.bool_] | None = None
    prompts: StandingPrompts = field(default_factory=StandingPrompts)
    crop: PixelBox | None = None
    frame: PixelBox | None = None


def montage(
    tiles: Sequence[Tile],
    *,
    instruction: str = "",
    answer: str = "",
    outcome: str | None = None,
    legend: Sequence[tuple[str, str]] = (),
    facts: Sequence[str] = (),
    side: int = 288,
    columns: int | None = None,
) -> NDArray[np.uint8]:
    """Draw tiles row by row, each with its own letters and scale bar; slices are never turned or mirrored.

    Parameters
    ----------
    tiles
        At least one.
    instruction, answer, outcome
        As :func:`ibisagent.rendering.figure.figure_overlay` takes them.
    legend, facts
        For :func:`~ibisagent.rendering.strips.legend_strip` and :func:`~ibisagent.rendering.strips.facts_strip`.
    side
        Longer side of a slice in the picture, in pixels.
    columns
        Tiles in a row, at most; None takes 3 to 5, whatever fills the rows best.

    Returns
    -------
    NDArray
        ``uint8`` (h, w, 3).

    Raises
    ------
    ValueError
        If there is no tile, or a mask does not have its image's shape.
    """
    if not tiles:
        raise ValueError("a montage needs a tile")
    drawn = [_tile(tile, side) for tile in tiles]
    columns = min(columns or _columns(len(drawn)), len(drawn))
    rows = [drawn[k : k + columns] for k in range(0, len(drawn), columns)]
    cell = side + 2 * _GUTTER
    width = max(columns * cell + (columns + 1) * _GAP, 640)
    stage = PIL.Image.new("RGB", (width, _GAP + sum(max(t.height for t in row) + _GAP for row in rows)), STAGE)
    left, top = (width - columns * cell - (columns - 1) * _GAP) // 2, _GAP
    for row in rows:
        for number, picture in enumerate(row):
            stage.paste(picture, (left + number * (cell + _GAP), top))
        top += max(picture.height for picture in row) + _GAP
    strips = [header_strip(width, "", instruction, answer, outcome), stage]
    strips += [legend_strip(width, legend)] if legend else []
    strips.append(facts_strip(width, facts))
    canvas = PIL.Image.new("RGB", (width, sum(strip.height for strip in strips)), GROUND)
    top = 0
    for strip in strips:
        canvas.paste(strip, (0, top))
        top += strip.height
    return np.asarray(canvas)


def _columns(count: int) -> int:
    return count if count <= 4 else min((4, 5, 3), key=lambda columns: -count % columns)


def _tile(tile: Tile, side: int) -> PIL.Image.Image:
    if tile.mask is not None and tile.mask.shape != tile.image.pixels.shape[:2]:
        raise ValueError(f"a mask must be bool {tile.image.pixels.shape[:2]}, not {tile.mask.shape}")
    part = _cropped(tile)
    height, width = part.pixels.shape[:2]
    aspect = pixel_aspect(tile.image.geometry)
    wide, tall = (width, height * aspect) if aspect >= 1 else (width / aspect, float(height))
    zoom = side / max(wide, tall)
    size = (max(1, round(wide * zoom)), max(1, round(tall * zoom)))
    pixels = np.asarray(PIL.Image.fromarray(part.pixels).resize(size, PIL.Image.Resampling.BICUBIC))
    if part.mask is not None and part.mask.any():
        pixels = draw_mask(pixels, part.mask, MASK, width=1.6)
    picture = PIL.Image.fromarray(pixels)
    scale = (size[0] / width, size[1] / height)
    for box in (part.prompts.box, part.frame):
        if box is not None:
            draw_box(picture, box, scale)
    draw_clicks(picture, part.prompts.clicks, scale, radius=6)
    return _framed(picture, tile, side, width / tile.image.width)


@dataclass(frozen=True, eq=False)
class _Part:
    pixels: NDArray[np.uint8]
    mask: NDArray[np.bool_] | None
    prompts: StandingPrompts
    frame: PixelBox | None


def _cropped(tile: Tile) -> _Part:
    """What of the slice is shown, in its own pixels."""
    crop = tile.crop
    if crop is None:
        return _Part(tile.image.pixels, tile.mask, tile.prompts, tile.frame)
    window = (slice(crop.y0, crop.y1 + 1), slice(crop.x0, crop.x1 + 1))
    clicks = tuple(
        click._replace(x=click.x - crop.x0, y=click.y - crop.y0)
        for click in tile.prompts.clicks
        if crop.x0 <= click.x <= crop.x1 and crop.y0 <= click.y <= crop.y1
    )
    box = tile.prompts.box
    moved = box and PixelBox(box.x0 - crop.x0, box.y0 - crop.y0, box.x1 - crop.x0, box.y1 - crop.y0)
    pixels = np.ascontiguousarray(tile.image.pixels[window])
    mask = None if tile.mask is None else np.ascontiguousarray(tile.mask[window])
    return _Part(pixels, mask, replace(tile.prompts, clicks=clicks, box=moved), None)


def _framed(picture: PIL.Image.Image, tile: Tile, side: int, share: float) -> PIL.Image.Image:
    """The slice with what a reader needs around it; `share` is how much of the image's width it shows."""
    cell = PIL.Image.new("RGB", (side + 2 * _GUTTER, picture.height + _TOP + _BOTTOM), STAGE)
    draw = ImageDraw.Draw(cell)
    left = (cell.width - picture.width) // 2
    right, bottom = left + picture.width, _TOP + picture.height
    cell.paste(picture, (left, _TOP))
    tag_font, tag = load_font(13, tile.tag)
    draw.text((cell.width - _GUTTER, 6), tag, font=tag_font, fill=QUIET, anchor="ra")
    font, title = load_font(15, tile.title)
    room = cell.width - 2 * _GUTTER - tag_font.getlength(tag) - 10
    draw.text((_GUTTER, 5), fit_text(title, font, room), font=font, fill=TEXT)
    letters = edge_letters(tile.image.geometry)
    if letters is not None:
        for text, where in (
            (letters.left, (left - 10, (_TOP + bottom) / 2)),
            (letters.right, (right + 10, (_TOP + bottom) / 2)),
            (letters.top, ((left + right) / 2, _TOP - 10)),
            (letters.bottom, ((left + right) / 2, bottom + 11)),
        ):
            draw.text(where, text, font=load_font(14 if len(text) == 1 else 11)[0], fill=TEXT, anchor="mm")
            if text == "I":  # this font's I is a bare stroke
                for y in (where[1] - 5, where[1] + 5):
                    draw.line([(where[0] - 3, y), (where[0] + 3, y)], fill=TEXT, width=1)
    bar = scale_bar(tile.image, share=0.25 * share)
    if bar is not None:
        end, y = left + round(bar.fraction / share * picture.width), bottom + 11
        draw.line([(left, y), (end, y)], fill=TEXT, width=1)
        for x in (left, end):
            draw.line([(x, y - 4), (x, y + 4)], fill=TEXT, width=1)
        draw.text((end + 7, y), bar.label, font=load_font(12)[0], fill=TEXT, anchor="lm")
    return cell
