"""A run on a volume as a reader goes through it: planes with their slices, visits with what was said."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image

from ibisagent.grid import PLANES
from ibisagent.rendering.figure import area_words
from ibisagent.rendering.guides import edge_letters
from ibisagent.rendering.png import png_bytes
from ibisagent.rendering.prompts import StandingPrompts, final_prompts
from ibisagent.rle import decode_mask, encode_mask
from ibisagent.slices import slice_axes
from ibisagent.volume.figure import spread
from ibisagent.volume.shown import has_scale, shown_image, shown_mask
from ibisagent.web.frames import describe_action
from ibisagent.web.parts import data_uri

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ibisagent.io.volume import Volume
    from ibisagent.types import Image, Window
    from ibisagent.volume.record import Visit, VolumeEpisode

__all__ = ["KINDS", "Said", "Stop", "build_planes", "build_stops", "visit_prompts"]

_MOST_SLICES = 200
_MOST_ACROSS = 24
_MOST_SIDE = 640
_LOSSLESS_PIXELS = 6_000_000
_JPEG_QUALITY = 90

KINDS = {"scan": "Scan", "key": "Key slice", "carry": "Carried", "revisit": "Asked again"}
"""Kinds of visits as headings."""


@dataclass
class Said:
    """One reply of the policy on a slice."""

    label: str
    heading: str
    kind: str
    thought: str = ""
    note: str = ""


@dataclass
class Stop:
    """One entry of the list of visits: a visit, or a run of masks that were carried on without a word."""

    kind: str
    heading: str
    visits: list[int]
    """Numbers of its visits in the record."""
    summary: str = ""
    note: str = ""
    said: list[Said] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)
    rows: list[tuple[int, list[str]]] = field(default_factory=list)
    """Of a run: (number of the visit, slice, agreement, score, what became of it)."""
    is_absent: bool = False


def build_planes(record: VolumeEpisode, volume: Volume, window: Window) -> list[dict[str, Any]]:
    """What the page's script draws of every plane that has slices to show.

    Planes that were worked in come whole, up to 200 slices; the others show up to 24 slices through the mask. Beyond
    some millions of pixels the pictures are JPEG.

    Raises
    ------
    ibisagent.errors.InputError
        If a slice cannot be read.
    """
    mask = record.final_mask.decode() if record.final_mask is not None else None
    picked = {plane: _picked(record, volume, mask, plane) for plane in PLANES}
    pixels = sum(int(np.prod(volume.grid.view_size(plane))) * len(found) for plane, found in picked.items())
    order = [*record.config.planes, *(plane for plane in PLANES if plane not in record.config.planes)]
    lossless = pixels <= _LOSSLESS_PIXELS
    return [_plane(volume, window, mask, plane, picked[plane], lossless) for plane in order if picked[plane]]


def _picked(record: VolumeEpisode, volume: Volume, mask: NDArray[np.bool_] | None, plane: str) -> list[int]:
    grid, config = volume.grid, record.config
    count, normal = grid.num_slices(plane), grid.view_axes(plane)[0]
    found: list[int] = []
    if mask is not None:
        found = [int(i) for i in np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != normal)))]
    if plane in config.planes:
        first, last = config.first_slice or 0, count - 1 if config.last_slice is None else config.last_slice
        visited = [visit.index for visit in record.visits if visit.plane == plane]
        every = sorted({*range(first, min(last, count - 1) + 1), *visited, *found})
        return spread(every, _MOST_SLICES, [*visited, *spread(found, _MOST_SLICES * 3 // 4)])
    if count == 1 or not found:
        return []
    room = max(1, (found[-1] - found[0]) // 10)
    return spread(range(max(0, found[0] - room), min(count, found[-1] + room + 1)), _MOST_ACROSS)


def _plane(
    volume: Volume,
    window: Window,
    mask: NDArray[np.bool_] | None,
    plane: str,
    picked: Sequence[int],
    lossless: bool,
) -> dict[str, Any]:
    grid = volume.grid
    height, width = grid.view_size(plane)
    geometry = grid.view(plane, 0)
    normal = slice_axes(geometry)[0]
    known = shown_image(volume, plane, picked[0], window).geometry
    world = None
    if known.affine is not None:
        affine = np.asarray(geometry.affine)
        rows = affine @ np.vstack([np.asarray(geometry.index_from_pixel), [0.0, 0.0, 1.0]])
        world = [[round(float(v), 6) for v in row] for row in np.column_stack([rows, affine[:, normal]])[:3]]
    letters = edge_letters(known)
    axis, sign = grid.axes[normal]
    letter = ("LR", "PA", "IS")[axis] if known.affine is not None else ""
    masks: dict[str, str] = {}
    areas = [0] * grid.num_slices(plane)
    if mask is not None:
        areas = [int(n) for n in mask.sum(axis=tuple(a for a in range(3) if a != normal))]
        for index in np.flatnonzero(areas):
            masks[str(index)] = encode_mask(shown_mask(mask, grid, plane, int(index))).counts
    spacing = [mm for axis, mm in enumerate(grid.spacing_mm) if axis != normal]
    return {
        "name": plane,
        "width": width,
        "height": height,
        "aspect": 1.0 if known.spacing_mm is None else known.spacing_mm[0] / known.spacing_mm[1],
        "mmPerPixel": None if known.spacing_mm is None else known.spacing_mm[1],
        "letters": None if letters is None else [letters.left, letters.right, letters.top, letters.bottom],
        "ends": list(letter[::sign]) or ["", ""],
        "world": world,
        "slices": list(picked),
        "images": [_picture(shown_image(volume, plane, index, window), lossless) for index in picked],
        "masks": masks,
        "areas": areas,
        "mm2": spacing[0] * spacing[1] if has_scale(volume) else None,
    }


def _picture(image: Image, lossless: bool) -> str:
    pixels = image.pixels
    longest = max(image.width, image.height)
    if longest > _MOST_SIDE:  # a page of a hundred megabytes opens nowhere
        scale = _MOST_SIDE / longest
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        pixels = np.asarray(PIL.Image.fromarray(pixels).resize(size, PIL.Image.Resampling.LANCZOS))
    if lossless:
        return data_uri(png_bytes(pixels), "image/png")
    buffer = io.BytesIO()
    picture = PIL.Image.fromarray(pixels)
    (picture.convert("L") if image.is_gray else picture).save(buffer, format="JPEG", quality=_JPEG_QUALITY)
    return data_uri(buffer.getvalue(), "image/jpeg")


# -- visits ----------------------------------------------------------------------------------------


def build_stops(record: VolumeEpisode, volume: Volume) -> list[Stop]:
    """The visits for the list beside the image: in their order, carried masks of a row put together."""
    stops: list[Stop] = []
    for number, visit in enumerate(record.visits):
        if visit.kind == "carry" and visit.episode is None:
            last = stops[-1] if stops else None
            if last is not None and last.kind == "carry" and last.rows and _follows(record, last.visits[-1], visit):
                last.visits.append(number)
            else:
                last = Stop("carry", "", [number])
                stops.append(last)
            last.rows.append((number, _row(visit)))
            _name_run(record, last)
        else:
            stops.append(_stop(number, visit, volume))
    return stops


def visit_prompts(visit: Visit) -> StandingPrompts:
    """Clicks and box behind the visit's mask."""
    return final_prompts(visit.episode) if visit.episode is not None else StandingPrompts()


def _follows(record: VolumeEpisode, number: int, visit: Visit) -> bool:
    before = record.visits[number]
    step = visit.index - before.index
    if before.plane != visit.plane or abs(step) != 1:
        return False
    return before.carried_from is None or (before.index - before.carried_from) * step > 0


def _name_run(record: VolumeEpisode, stop: Stop) -> None:
    visits = [record.visits[number] for number in stop.visits]
    first, last = visits[0], visits[-1]
    span = f"{first.index}" if first is last else f"{first.index} → {last.index}"
    stop.heading = f"{first.plane.capitalize()} {span}"
    agreements = [visit.agreement for visit in visits if visit.agreement is not None]
    stop.summary = f"agreement {'≥ ' if len(agreements) > 1 else ''}{min(agreements):.2f}" if agreements else ""
    stop.note = last.note
    stop.is_absent = all(visit.is_absent for visit in visits)


def _row(visit: Visit) -> list[str]:
    became = "ended here" if visit.is_absent else "kept" if visit.accepted else "doubted"
    return [str(visit.index), _decimals(visit.agreement), _decimals(visit.score), became]


def _decimals(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _stop(number: int, visit: Visit, volume: Volume) -> Stop:
    episode = visit.episode
    said, clicks = [], 0
    for step in episode.steps if episode is not None else []:
        kind = str(step.action.kind) if step.action is not None and step.invalid is None else "invalid"
        if kind == "click" and step.action is not None and step.action.kind == "click":
            kind = "positive" if all(click.positive for click in step.action.clicks) else "negative"
        clicks += len(step.pixels_xy) if step.invalid is None else 0
        note = step.invalid.reason if step.invalid is not None else ""
        if step.segmenter_score is not None:
            note = f"segmenter's score {step.segmenter_score:.2f}"
        said.append(Said(str(step.index + 1), describe_action(step), kind, step.thought or "", note))
    facts = [("Mask", _area(visit, volume)), ("Score", _decimals(visit.score))]
    facts += [("Agreement", _decimals(visit.agreement)), ("Time", f"{visit.seconds:.1f} s" if visit.seconds else "")]
    if episode is not None and episode.error:
        said.append(Said("!", "The run on this slice failed", "failed", note=episode.error))
    verdict = "absent" if visit.is_absent else f"{clicks} click{'' if clicks == 1 else 's'}" if clicks else ""
    return Stop(
        visit.kind,
        f"{visit.plane.capitalize()} {visit.index}",
        [number],
        summary=verdict,
        note=visit.note,
        said=said,
        facts=[(name, value) for name, value in facts if value],
        is_absent=visit.is_absent,
    )


def _area(visit: Visit, volume: Volume) -> str:
    if visit.mask is None:
        return "none"
    pixels = int(np.count_nonzero(decode_mask(visit.mask)))
    spacing = volume.grid.view(visit.plane, visit.index).spacing_mm if has_scale(volume) else None
    return area_words(pixels, spacing) or f"{pixels:,} px" if pixels else "empty"
