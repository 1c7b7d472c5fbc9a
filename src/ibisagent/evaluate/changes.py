"""The cases that changed most, as pictures: the reference, A and B side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ibisagent.evaluate.report.numbers import count_text, number_text
from ibisagent.evaluate.report.pictures import result_image
from ibisagent.evaluate.report.scales import figure_scale
from ibisagent.rendering.figure import figure_overlay
from ibisagent.rendering.prompts import final_prompts
from ibisagent.rendering.text import fit_text, load_font
from ibisagent.rle import decode_mask
from ibisagent.types import Image, PixelBox

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ibisagent.evaluate.compare import Change, Comparison
    from ibisagent.evaluate.records import Run
    from ibisagent.evaluate.result import CaseResult

__all__ = ["Panels", "change_panels", "joined", "shown_changes"]

SIDE = 420
"""Longer side of a panel's image, in pixels: three stand on a screen and on a page."""

_CLOSE = 0.7
"""A target whose surroundings take less of the image is shown enlarged."""

_GROUND = (17, 20, 24)
_FRAME = (255, 255, 255)


@dataclass(frozen=True, eq=False)
class Panels:
    """Pictures of one case.

    Parameters
    ----------
    reference, a, b
        ``uint8`` (h, w, 3): the whole image with the reference; the results, enlarged where the target is small.
    is_close
        Whether they are; a white frame in the first shows where.
    """

    reference: NDArray[np.uint8]
    a: NDArray[np.uint8]
    b: NDArray[np.uint8]
    is_close: bool


def shown_changes(comparison: Comparison, number: int) -> tuple[list[Change], list[Change]]:
    """The largest losses and the largest gains, half of `number` each where there are as many; largest first.

    What counts as a gain is what the main figure says is better; where it says nothing, a higher value.
    """
    sign = -1 if comparison.lines and comparison.lines[0].figure.higher_is_better is False else 1
    losses = [change for change in comparison.changes if sign * change.difference < 0]
    gains = [change for change in comparison.changes if sign * change.difference > 0]
    half = number // 2
    most = max(half, number - len(gains)), max(number - half, number - len(losses))
    return losses[: most[0]], gains[: most[1]]


def change_panels(comparison: Comparison, change: Change) -> Panels | None:
    """Draw a case.

    Returns
    -------
    Panels or None
        None where neither run kept an image that can be read, neither side has a run of it, or the two ran on images
        of different sizes.
    """
    sides = (
        (comparison.a.name, comparison.a.runs[change.run_a], change.a, change.value_a),
        (comparison.b.name, comparison.b.runs[change.run_b], change.b, change.value_b),
    )
    sizes = {(e.image.height, e.image.width) for _, _, r, _ in sides if (e := r.episode) is not None}
    images = [result_image(run, result) for _, run, result, _ in sides]
    first = images[0] or images[1]
    if first is None or len(sizes) > 1:
        return None
    shape = first.pixels.shape[:2]
    rle = next((r.target_mask for r in (change.a, change.b) if r.target_mask is not None), None)
    reference = np.zeros(shape, np.bool_) if rle is None else decode_mask(rle)
    masks = [_final_mask(result, shape) for _, _, result, _ in sides]
    close = _close([reference, *masks])
    scale = figure_scale((comparison.by_target or comparison.lines)[0].figure)
    drawn = []
    for (name, run, result, value), image, mask in zip(sides, images, masks, strict=True):
        score = f"{scale.title} {number_text(value, scale)}"
        drawn.append(_panel(name, run, result, score, image or first, mask, reference, close, comparison))
    whole = first if close is None else _framed(first, close)
    target = (change.a.target or "target").strip()
    note = "the frame shows what the others enlarge" if close is not None else "the whole image, as the others"
    wide = figure_overlay(
        whole, None, title="Reference", instruction=_line(target, 16), answer=note, reference=reference, side=SIDE
    )
    return Panels(wide, drawn[0], drawn[1], close is not None)


def joined(panels: Panels) -> NDArray[np.uint8]:
    """The three pictures of a case as one, ``uint8`` (h, w, 3)."""
    parts = (panels.reference, panels.a, panels.b)
    height = max(part.shape[0] for part in parts)  # legends may need different numbers of lines
    canvas = np.empty((height, sum(part.shape[1] for part in parts), 3), np.uint8)
    canvas[:] = _GROUND
    left = 0
    for part in parts:
        canvas[: part.shape[0], left : left + part.shape[1]] = part
        left += part.shape[1]
    return canvas


def _panel(
    name: str,
    run: Run,
    result: CaseResult,
    score: str,
    image: Image,
    mask: NDArray[np.bool_],
    reference: NDArray[np.bool_],
    close: PixelBox | None,
    comparison: Comparison,
) -> NDArray[np.uint8]:
    episode = result.episode
    prompts = None if episode is None else final_prompts(episode)
    clicks = [] if prompts is None else list(prompts.clicks)
    box = None if prompts is None else prompts.box
    several = len(comparison.a.runs) + len(comparison.b.runs) > 2
    steps = "" if episode is None else f", {count_text(episode.num_steps, 'step')}"
    own = f" ({run.path.name}, nearest to the mean)" if several else ""
    said = result.error or (episode.answer if episode is not None else "") or "no answer"
    if close is not None:
        image, mask, reference = _cropped(image, close), _cut(mask, close), _cut(reference, close)
        x0, y0 = close.x0, close.y0
        clicks = [c._replace(x=c.x - x0, y=c.y - y0) for c in clicks if _inside(c.x, c.y, close)]
        if box is not None:
            box = PixelBox(
                max(box.x0, x0) - x0, max(box.y0, y0) - y0, min(box.x1, close.x1) - x0, min(box.y1, close.y1) - y0
            )
            box = box if box.x0 <= box.x1 and box.y0 <= box.y1 else None
    return figure_overlay(
        image,
        mask,
        clicks,
        box,
        title=name,
        # One line each, so that the images of the three pictures lie on one height.
        instruction=_line(f"{score}{steps}{own}", 16),
        answer=_line(said, 15),
        outcome=None if episode is None or episode.outcome is None else str(episode.outcome),
        reference=reference,
        side=SIDE,
    )


def _line(text: str, size: int) -> str:
    font, text = load_font(size, " ".join(text.split()))
    return fit_text(text, font, SIDE + 30)


def _final_mask(result: CaseResult, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    episode = result.episode
    if episode is None or episode.final_mask is None or result.error:
        return np.zeros(shape, np.bool_)
    return decode_mask(episode.final_mask)


def _close(masks: Sequence[NDArray[np.bool_]]) -> PixelBox | None:
    """Square around everything that is marked, with room; None where the whole image shows it well."""
    marked = np.logical_or.reduce(masks)
    if not marked.any():
        return None
    height, width = marked.shape
    rows, columns = np.flatnonzero(marked.any(axis=1)), np.flatnonzero(marked.any(axis=0))
    side = int(max(1.6 * (columns[-1] - columns[0] + 1), 1.6 * (rows[-1] - rows[0] + 1), 40))
    if side >= _CLOSE * min(height, width):
        return None
    x = int(np.clip((columns[0] + columns[-1] + 1 - side) // 2, 0, width - side))
    y = int(np.clip((rows[0] + rows[-1] + 1 - side) // 2, 0, height - side))
    return PixelBox(x, y, x + side - 1, y + side - 1)


def _cropped(image: Image, box: PixelBox) -> Image:
    g = image.geometry
    # Pixel (0, 0) of the part is (x0, y0) of the whole: letters, scale and spacing go on being right.
    moved = tuple((a, b, a * box.x0 + b * box.y0 + c) for a, b, c in g.index_from_pixel)
    return Image(
        _cut(image.pixels, box), replace(g, index_from_pixel=moved), image.modality, image.window, image.source
    )


def _cut(array: NDArray, box: PixelBox) -> NDArray:
    return np.ascontiguousarray(array[box.y0 : box.y1 + 1, box.x0 : box.x1 + 1])


def _inside(x: int, y: int, box: PixelBox) -> bool:
    return box.x0 <= x <= box.x1 and box.y0 <= y <= box.y1


def _framed(image: Image, box: PixelBox) -> Image:
    pixels = image.pixels.copy()
    # As wide as two pixels of the picture, so that it is seen in a large image, too.
    wide = max(1, round(2 * max(pixels.shape[:2]) / SIDE))
    y0, y1, x0, x1 = box.y0, box.y1 + 1, box.x0, box.x1 + 1
    for rows, columns in (
        (slice(y0, y0 + wide), slice(x0, x1)),
        (slice(y1 - wide, y1), slice(x0, x1)),
        (slice(y0, y1), slice(x0, x0 + wide)),
        (slice(y0, y1), slice(x1 - wide, x1)),
    ):
        pixels[rows, columns] = _FRAME
    return replace(image, pixels=pixels, sha256="")
