"""The picture a person sees: the image undisturbed but for its marks, and everything else around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import PIL.Image
from PIL import ImageDraw

from ibisagent.rendering.guides import edge_letters, image_facts, pixel_aspect, scale_bar
from ibisagent.rendering.marks import GIVEN, MASK, REFERENCE, draw_box, draw_clicks, draw_mask
from ibisagent.rendering.prompts import NumberedClick, final_prompts
from ibisagent.rendering.strips import GROUND, OUTCOME_WORDS, STAGE, TEXT, facts_strip, header_strip, legend_strip
from ibisagent.rendering.text import load_font
from ibisagent.rle import decode_mask

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ibisagent.episode import Episode
    from ibisagent.types import Image, PixelBox

__all__ = ["OUTCOME_WORDS", "area_text", "area_words", "episode_figure", "figure_overlay"]

_MARGIN = 34
_MIN_SIDE, _MAX_SIDE, _MIN_WIDTH = 768, 1536, 600


def area_text(mask: NDArray[np.bool_], image: Image) -> str:
    """Size of a mask in pixels, and in mm² or cm² where the spacing is known."""
    pixels = int(np.count_nonzero(mask))
    size = area_words(pixels, image.geometry.spacing_mm)
    return f"{size}, {pixels:,} px" if size else f"{pixels:,} px"


def area_words(pixels: int, spacing_mm: tuple[float, float] | None) -> str:
    """That many pixels in mm² or cm²; empty where the (row, column) spacing is unknown."""
    if spacing_mm is None:
        return ""
    area = pixels * spacing_mm[0] * spacing_mm[1]
    return f"{area / 100:.1f} cm²" if area >= 1000 else f"{area:.1f} mm²"


def figure_overlay(
    image: Image,
    mask: NDArray[np.bool_] | None,
    clicks: Sequence[tuple[int, int, bool, int]] = (),
    box: PixelBox | None = None,
    *,
    title: str = "",
    instruction: str = "",
    answer: str = "",
    outcome: str | None = None,
    initial_mask: NDArray[np.bool_] | None = None,
    reference: NDArray[np.bool_] | None = None,
    side: int | None = None,
) -> NDArray[np.uint8]:
    """Draw a result for a person to judge.

    The image is enlarged smoothly to about 768 pixels (large ones keep their size up to 1536), with the pixel
    aspect of its spacing. It carries the mask as a thin contour with a light tint, the clicks with their numbers
    and the box; letters, scale bar, legend and facts stand outside of it. It is never turned or mirrored.

    Parameters
    ----------
    image
        The image.
    mask
        ``bool`` (H, W), or None for no mask.
    clicks
        (x, y, positive, number of the step) of every click, in pixels.
    box
        The box that counts, in pixels.
    title, instruction, answer
        Text above the image: what is shown, what was asked, what the agent answered.
    outcome
        One of the outcomes of an episode, shown as a badge.
    initial_mask
        ``bool`` (H, W) mask that was given, drawn as a broken line.
    reference
        ``bool`` (H, W) mask to judge the result by: a broken line, or a full one where it stands alone.
    side
        Longer side of the image in the figure, in pixels, for figures that stand side by side.

    Returns
    -------
    NDArray
        ``uint8`` (h, w, 3).

    Raises
    ------
    ValueError
        If a mask does not have the image's shape.
    """
    for name, given in (("mask", mask), ("initial_mask", initial_mask), ("reference", reference)):
        if given is not None and (given.dtype != np.bool_ or given.shape != image.pixels.shape[:2]):
            raise ValueError(f"{name} must be bool {image.pixels.shape[:2]}, not {given.dtype} {given.shape}")
    numbered = [NumberedClick(int(x), int(y), bool(positive), int(step)) for x, y, positive, step in clicks]
    picture = _marked_image(image, mask, numbered, box, initial_mask, reference, side)
    width = max(picture.width + 2 * _MARGIN, _MIN_WIDTH if side is None else side + 2 * _MARGIN)
    header = header_strip(width, title, instruction, answer, outcome)
    legend = legend_strip(width, _legend_items(image, mask, numbered, box, initial_mask, reference))
    stage = _stage(width, picture, image)
    facts = facts_strip(width, image_facts(image))
    parts = [header, stage, legend, facts]
    canvas = PIL.Image.new("RGB", (width, sum(part.height for part in parts)), GROUND)
    top = 0
    for part in parts:
        canvas.paste(part, (0, top))
        top += part.height
    return np.asarray(canvas)


def episode_figure(episode: Episode, image: Image) -> NDArray[np.uint8]:
    """Draw an episode's result: its final mask with the clicks and the box that made it.

    Parameters
    ----------
    episode
        The run.
    image
        The image it ran on.

    Returns
    -------
    NDArray
        ``uint8`` (h, w, 3), as :func:`figure_overlay` makes it.

    Raises
    ------
    ValueError
        If the image is not of the episode's size.
    """
    if (image.width, image.height) != (episode.image.width, episode.image.height):
        raise ValueError(
            f"the image is {image.width} x {image.height}, the episode's {episode.image.width} x {episode.image.height}"
        )
    prompts = final_prompts(episode)
    return figure_overlay(
        image,
        decode_mask(episode.final_mask) if episode.final_mask is not None else None,
        prompts.clicks,
        prompts.box,
        title=(episode.target or "")[:1].upper() + (episode.target or "")[1:],
        instruction=episode.instruction,
        answer=f"Error: {episode.error}" if episode.error else f"Answer: {episode.answer}" if episode.answer else "",
        outcome=str(episode.outcome) if episode.outcome is not None else None,
        initial_mask=decode_mask(episode.initial_mask) if episode.initial_mask is not None else None,
    )


def _display_size(image: Image, side: int | None = None) -> tuple[int, int]:
    aspect = pixel_aspect(image.geometry)
    # The finer of the two spacings keeps its pixels, the coarser one is stretched.
    width, height = (image.width, image.height * aspect) if aspect >= 1 else (image.width / aspect, float(image.height))
    longest = max(width, height)
    scale = (min(max(longest, _MIN_SIDE), _MAX_SIDE) if side is None else side) / longest
    return max(1, round(width * scale)), max(1, round(height * scale))


def _marked_image(
    image: Image,
    mask: NDArray[np.bool_] | None,
    clicks: Sequence[NumberedClick],
    box: PixelBox | None,
    initial_mask: NDArray[np.bool_] | None,
    reference: NDArray[np.bool_] | None = None,
    side: int | None = None,
) -> PIL.Image.Image:
    size = _display_size(image, side)
    pixels = np.asarray(PIL.Image.fromarray(image.pixels).resize(size, PIL.Image.Resampling.BICUBIC))
    if mask is not None and mask.any():
        pixels = draw_mask(pixels, mask, MASK)
    if initial_mask is not None and initial_mask.any():
        pixels = draw_mask(pixels, initial_mask, GIVEN, tint=0.0, width=2.6, dashed=True)
    if reference is not None and reference.any():
        pixels = draw_mask(pixels, reference, REFERENCE, tint=0.0, width=2.0, dashed=mask is not None)
    picture = PIL.Image.fromarray(pixels)
    scale = (size[0] / image.width, size[1] / image.height)
    if box is not None:
        draw_box(picture, box, scale)
    draw_clicks(picture, clicks, scale)
    return picture


def _stage(width: int, picture: PIL.Image.Image, image: Image) -> PIL.Image.Image:
    """The image on black with letters at its edges and the scale bar below it."""
    stage = PIL.Image.new("RGB", (width, picture.height + 2 * _MARGIN), STAGE)
    left = (width - picture.width) // 2
    stage.paste(picture, (left, _MARGIN))
    draw = ImageDraw.Draw(stage)
    centre_x, centre_y = left + picture.width / 2, _MARGIN + picture.height / 2
    letters = edge_letters(image.geometry)
    if letters is not None:
        gap = _MARGIN / 2
        for text, where in (
            (letters.left, (left - gap, centre_y)),
            (letters.right, (left + picture.width + gap, centre_y)),
            (letters.top, (centre_x, gap)),
            (letters.bottom, (centre_x, _MARGIN + picture.height + gap)),
        ):
            font = load_font(20 if len(text) == 1 else 16)[0]
            draw.text(where, text, font=font, fill=TEXT, anchor="mm")
            if text == "I":  # this font's I is a bare stroke, which reads as a tick of the scale
                for y in (where[1] - 7, where[1] + 7):
                    draw.line([(where[0] - 4, y), (where[0] + 4, y)], fill=TEXT, width=2)
    bar = scale_bar(image)
    if bar is not None:
        y = _MARGIN + picture.height + _MARGIN // 2
        x1 = left + round(bar.fraction * picture.width)
        draw.line([(left, y), (x1, y)], fill=TEXT, width=2)
        for x in (left, x1):
            draw.line([(x, y - 5), (x, y + 5)], fill=TEXT, width=2)
        draw.text((x1 + 10, y), bar.label, font=load_font(15)[0], fill=TEXT, anchor="lm")
    return stage


def _legend_items(
    image: Image,
    mask: NDArray[np.bool_] | None,
    clicks: Sequence[NumberedClick],
    box: PixelBox | None,
    initial_mask: NDArray[np.bool_] | None,
    reference: NDArray[np.bool_] | None = None,
) -> list[tuple[str, str]]:
    if mask is None:
        items = [("", "no mask")] if reference is None else []
    elif mask.any():
        items = [("mask", f"mask ({area_text(mask, image)})")]
    else:
        items = [("", "empty mask: nothing is marked")]
    if initial_mask is not None:
        items.append(("given", "given mask"))
    if reference is not None:
        empty = "" if reference.any() else ": none, the target is absent"
        items.append(("reference" if mask is not None else "reference-alone", f"reference{empty}"))
    if any(click.positive for click in clicks):
        items.append(("positive", "click inside, with its step"))
    if any(not click.positive for click in clicks):
        items.append(("negative", "click outside, with its step"))
    if box is not None:
        items.append(("box", "box"))
    return items
