"""What is drawn onto an image: mask, contour, clicks, box. Pixels in, pixels out; no text strips here."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import PIL.Image
from PIL import ImageDraw

from ibisagent.rendering.prompts import NumberedClick
from ibisagent.rendering.text import load_font

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ibisagent.types import PixelBox

__all__ = [
    "BOX", "GIVEN", "MASK", "NEGATIVE", "POSITIVE", "REFERENCE", "click_sprite", "draw_box", "draw_clicks", "draw_mask",
]  # fmt: skip

Color = tuple[int, int, int]

# Okabe-Ito tones, apart from each other for every common kind of colour vision; shapes differ too.
MASK: Color = (64, 196, 255)
GIVEN: Color = (240, 196, 70)
REFERENCE: Color = (255, 111, 174)
POSITIVE: Color = (0, 158, 115)
NEGATIVE: Color = (213, 94, 0)
BOX: Color = (255, 255, 255)


def draw_mask(
    picture: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    color: Color,
    *,
    tint: float = 0.22,
    width: float = 2.0,
    dashed: bool = False,
) -> NDArray[np.uint8]:
    """Draw a mask onto an enlarged image: light tint, thin contour, and a dark rim that keeps it visible on white.

    Parameters
    ----------
    picture
        ``uint8`` (h, w, 3), the enlarged image.
    mask
        ``bool`` (H, W) on the image's own grid.
    color, tint, width, dashed
        Colour, opacity of the inside, line width in pixels of the picture, and whether the line is broken.

    Returns
    -------
    NDArray
        New ``uint8`` (h, w, 3). The line straddles the border, which is the half-way line between pixel centres.
    """
    import cv2  # here, because `import ibisagent` shall not pay for it

    height, width_px = picture.shape[:2]
    fine = (width_px * 2, height * 2)  # twice as fine, so that the line comes out smooth
    source = PIL.Image.fromarray(mask.astype(np.uint8) * 255)
    shrinks = mask.shape[0] > fine[1] or mask.shape[1] > fine[0]
    if shrinks:  # never lose a structure that is smaller than a pixel of the picture
        inside = np.asarray(source.resize(fine, PIL.Image.Resampling.BOX)) > 0
    else:
        inside = np.asarray(source.resize(fine, PIL.Image.Resampling.BILINEAR)) >= 128
        # A lone pixel's peak may fall between samples: keep every pixel's centre.
        rows, cols = np.nonzero(mask)
        inside = inside.copy()
        inside[
            ((rows + 0.5) * fine[1] / mask.shape[0]).astype(int), ((cols + 0.5) * fine[0] / mask.shape[1]).astype(int)
        ] = True
    solid = inside.astype(np.uint8)

    def opacity(shape: NDArray[np.uint8]) -> NDArray[np.float32]:
        coarse = cv2.resize(shape * 255, (width_px, height), interpolation=cv2.INTER_AREA)
        return np.asarray(coarse, np.float32) / np.float32(255)

    def band(pixels: float) -> NDArray[np.float32]:
        size = max(3, round(pixels * 2) | 1)
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
        # Outside of the image continues the mask, so that no line runs along the picture's edge.
        border = {"borderType": cv2.BORDER_REPLICATE}
        line = cv2.dilate(solid, kernel, **border) - cv2.erode(solid, kernel, **border)
        if dashed:
            y, x = np.indices(line.shape)
            line = line * (((x + y) // 16 + (x - y) // 16) % 2).astype(np.uint8)
        return opacity(line)

    fill = opacity(solid)
    out = picture.astype(np.float32)
    for alpha, tone in ((fill * tint, color), (band(width + 2) * 0.45, (0, 0, 0)), (band(width), color)):
        out += alpha[..., None] * (np.array(tone, np.float32) - out)
    return np.clip(out + 0.5, 0, 255).astype(np.uint8)


@lru_cache(maxsize=8)
def click_sprite(positive: bool, radius: int) -> PIL.Image.Image:
    """Marker of a click as RGBA: a round one with a plus, or a diamond with a minus."""
    zoom, r = 4, radius * 4
    side = 2 * (r + 2 * zoom) + zoom  # odd number of picture pixels, so that the centre is a pixel
    sprite = PIL.Image.new("RGBA", (side, side), (0, 0, 0, 0))
    draw, c = ImageDraw.Draw(sprite), side / 2
    reach = r if positive else r * 1.2

    def shape(size: float, fill: tuple[int, ...]) -> None:
        if positive:
            draw.ellipse((c - size, c - size, c + size, c + size), fill=fill)
        else:
            draw.polygon([(c, c - size), (c + size, c), (c, c + size), (c - size, c)], fill=fill)

    shape(reach, (0, 0, 0, 255))
    shape(reach - 0.6 * zoom, (255, 255, 255, 255))
    shape(reach - (1.9 if positive else 2.3) * zoom, (*(POSITIVE if positive else NEGATIVE), 255))
    arm, thick = r * 0.5, zoom * 0.85
    draw.rectangle((c - arm, c - thick, c + arm, c + thick), fill=(255, 255, 255, 255))
    if positive:
        draw.rectangle((c - thick, c - arm, c + thick, c + arm), fill=(255, 255, 255, 255))
    return sprite.resize((side // zoom, side // zoom), PIL.Image.Resampling.BOX)


def draw_clicks(
    picture: PIL.Image.Image, clicks: Sequence[NumberedClick], scale_xy: tuple[float, float], radius: int = 7
) -> None:
    """Draw numbered clicks in place; a number stands beside its marker, where it covers no other mark."""
    draw = ImageDraw.Draw(picture)
    taken: list[tuple[float, float, float, float]] = []
    centres = []
    for click in clicks:
        x, y = (click.x + 0.5) * scale_xy[0], (click.y + 0.5) * scale_xy[1]
        centres.append((x, y))
        taken.append((x - radius, y - radius, x + radius, y + radius))
    for click, (x, y) in zip(clicks, centres, strict=True):
        sprite = click_sprite(click.positive, radius)
        picture.paste(sprite, (round(x - sprite.width / 2), round(y - sprite.height / 2)), sprite)
    for click, (x, y) in zip(clicks, centres, strict=True):
        font, text = load_font(2 * radius + 1, str(click.step))
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font, stroke_width=2)
        box = _free_place((x, y), (right - left, bottom - top), radius, picture.size, taken)
        taken.append(box)
        draw.text(
            (box[0] - left, box[1] - top), text, font=font, fill=(255, 255, 255), stroke_width=2, stroke_fill=(0, 0, 0)
        )


def _free_place(
    centre: tuple[float, float],
    size: tuple[float, float],
    radius: int,
    bounds: tuple[int, int],
    taken: list[tuple[float, float, float, float]],
) -> tuple[float, float, float, float]:
    """Box of a label around a marker that hits the fewest others and lies in the picture."""
    (x, y), (w, h) = centre, size
    gap = radius + 2
    best, fewest = (x + gap, y - gap - h, x + gap + w, y - gap), 10**9
    for dx, dy in ((1, -0.6), (1, 0.6), (-1, -0.6), (-1, 0.6), (0, -1), (0, 1), (1, 0), (-1, 0)):
        left = x + dx * gap if dx > 0 else x + dx * gap - w if dx < 0 else x - w / 2
        top = y + dy * gap - h / 2 if dx else (y + gap if dy > 0 else y - gap - h)
        box = (left, top, left + w, top + h)
        hits = sum(box[0] < t[2] and t[0] < box[2] and box[1] < t[3] and t[1] < box[3] for t in taken)
        outside = box[0] < 0 or box[1] < 0 or box[2] > bounds[0] or box[3] > bounds[1]
        if hits + 100 * outside < fewest:
            best, fewest = box, hits + 100 * outside
    return best


def draw_box(picture: PIL.Image.Image, box: PixelBox, scale_xy: tuple[float, float]) -> None:
    """Draw a prompt box in place: dashed, around its outermost pixels."""
    draw = ImageDraw.Draw(picture)
    x0, y0 = box.x0 * scale_xy[0], box.y0 * scale_xy[1]
    x1, y1 = (box.x1 + 1) * scale_xy[0] - 1, (box.y1 + 1) * scale_xy[1] - 1
    for a, b in (((x0, y0), (x1, y0)), ((x1, y0), (x1, y1)), ((x0, y1), (x1, y1)), ((x0, y0), (x0, y1))):
        length = max(abs(b[0] - a[0]), abs(b[1] - a[1]))
        count = max(1, round(length / 14))
        for k in range(count):
            t0, t1 = k / count, (k + 0.6) / count
            ends = [(a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t) for t in (t0, t1)]
            draw.line(ends, fill=(0, 0, 0), width=4)
            draw.line(ends, fill=BOX, width=2)
