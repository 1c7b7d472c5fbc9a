"""The picture of a volume's result: slices through the mask, in the plane it was made in and across."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ibisagent.rendering.figure import area_text
from ibisagent.rendering.guides import level_text
from ibisagent.rendering.montage import Tile, montage
from ibisagent.rendering.prompts import StandingPrompts, final_prompts
from ibisagent.slices import mask_to_display
from ibisagent.types import PixelBox
from ibisagent.volume.shown import has_scale, shown_image, shown_mask, volume_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from ibisagent.grid import Grid
    from ibisagent.io.volume import Volume
    from ibisagent.types import Window
    from ibisagent.volume.record import Visit, VolumeEpisode

__all__ = ["KIND_WORDS", "spread", "study_facts", "volume_figure"]

KIND_WORDS = {"scan": "scan", "key": "key slice", "carry": "carried", "revisit": "revisited"}
"""Kinds of visits for a reader."""

_TILES = 12
_ORDER = ("key", "revisit", "carry", "scan")


def volume_figure(record: VolumeEpisode, volume: Volume, window: Window, *, side: int = 288) -> NDArray[np.uint8]:
    """Draw a result for a person to judge.

    Up to twelve tiles: a whole slice, then slices of the first plane from one end of the mask to the other (key slices
    among them, enlarged where the mask is small), then the other two planes through its centre. Without a mask: the
    slices that were looked at.

    Parameters
    ----------
    record
        The run.
    volume
        What it ran on.
    window
        The window it was shown in.
    side
        Longer side of a tile's slice, in pixels.

    Returns
    -------
    NDArray
        ``uint8`` (h, w, 3), as :func:`ibisagent.rendering.montage.montage` makes it.

    Raises
    ------
    ibisagent.errors.InputError
        If a slice cannot be read.
    """
    mask = record.final_mask.decode() if record.final_mask is not None else None
    tiles = _mask_tiles(record, volume, window, mask) if mask is not None and mask.any() else []
    tiles = tiles or _looked_at(record, volume, window)
    clicks = [click for tile in tiles for click in tile.prompts.clicks]
    legend = [("mask", f"mask ({volume_text(mask, volume)})")] if mask is not None and mask.any() else []
    if not legend:
        legend = [("", "no mask" if mask is None else "empty mask: nothing is marked")]
    legend += [("positive", "click inside, with its step")] * any(click.positive for click in clicks)
    legend += [("negative", "click outside, with its step")] * any(not click.positive for click in clicks)
    if any(tile.frame is not None for tile in tiles):
        legend.append(("box", "the part that other slices show"))
    elif any(tile.prompts.box is not None for tile in tiles):
        legend.append(("box", "box"))
    answer = f"Error: {record.error}" if record.error else f"Answer: {record.answer}" if record.answer else ""
    return montage(
        tiles,
        instruction=record.instruction,
        answer=answer,
        outcome=str(record.outcome) if record.outcome is not None else None,
        legend=legend,
        facts=study_facts(volume, window),
        side=side,
    )


def spread(indices: Sequence[int], most: int, wanted: Iterable[int] = ()) -> list[int]:
    """At most `most` of sorted indices (two at least): both ends, the wanted ones, and others evenly between.

    Where there are more wanted ones than room, they are taken evenly.
    """
    if len(indices) <= most:
        return list(indices)
    picked, known = {indices[0], indices[-1]}, set(indices)
    for some in (sorted(known.intersection(wanted)), indices):
        left = [index for index in some if index not in picked]
        room = min(most - len(picked), len(left))
        if room > 0:
            # the middles of equal parts, so that neither end of what is left is favoured
            picked.update(left[(2 * k + 1) * len(left) // (2 * room)] for k in range(room))
    return sorted(picked)


def study_facts(volume: Volume, window: Window) -> list[str]:
    """What a reader should know of the study: modality, format, size, spacing, window."""
    grid = volume.grid
    facts = [volume.modality] if volume.modality else []
    facts += [volume.kind, " x ".join(str(n) for n in grid.shape) + " voxels"]
    if has_scale(volume):
        facts.append(" x ".join(f"{mm:.3g}" for mm in grid.spacing_mm) + " mm")
    return [*facts, f"window {level_text(window.low)} to {level_text(window.high)}, {window.name}"]


def _mask_tiles(record: VolumeEpisode, volume: Volume, window: Window, mask: NDArray[np.bool_]) -> list[Tile]:
    grid, plane = volume.grid, record.config.planes[0]
    normal = grid.view_axes(plane)[0]
    areas = mask.sum(axis=tuple(axis for axis in range(3) if axis != normal))
    largest = int(areas.argmax())
    found = [int(i) for i in np.flatnonzero(areas)]
    keys = [visit.index for visit in record.visits if visit.plane == plane and visit.kind in ("key", "revisit")]
    crop = _region(mask, grid, plane)
    tiles = []
    if crop is not None:
        tiles.append(_tile(record, volume, window, mask, plane, largest, frame=crop, title=f"{plane} {largest}, whole"))
    across = [p for p in ("axial", "coronal", "sagittal") if p != plane and grid.num_slices(p) > 1]
    room = _TILES - len(tiles) - len(across)
    tiles += [
        _tile(record, volume, window, mask, plane, index, crop=crop) for index in spread(found, room, [largest, *keys])
    ]
    for other in across:
        axis = grid.view_axes(other)[0]
        counts = mask.sum(axis=tuple(a for a in range(3) if a != axis))
        centre = int(np.abs(np.cumsum(counts) - counts.sum() / 2).argmin())  # the median slice always has some
        tiles.append(_tile(record, volume, window, mask, other, centre, crop=_region(mask, grid, other)))
    return tiles


def _looked_at(record: VolumeEpisode, volume: Volume, window: Window) -> list[Tile]:
    """The slices of the visits, or the middle one where there was none."""
    plane = record.config.planes[0]
    visited = sorted({visit.index for visit in record.visits if visit.plane == plane})
    shown = spread(visited, _TILES) or [volume.grid.num_slices(plane) // 2]
    return [_tile(record, volume, window, None, plane, index) for index in shown]


def _tile(
    record: VolumeEpisode,
    volume: Volume,
    window: Window,
    mask: NDArray[np.bool_] | None,
    plane: str,
    index: int,
    *,
    crop: PixelBox | None = None,
    frame: PixelBox | None = None,
    title: str = "",
) -> Tile:
    image = shown_image(volume, plane, index, window)
    shown = None if mask is None else shown_mask(mask, volume.grid, plane, index)
    visits = [visit for visit in record.visits if (visit.plane, visit.index) == (plane, index)]
    visit = min(visits, key=lambda v: _ORDER.index(v.kind), default=None)
    area = f", {area_text(shown, image).split(',')[0]}" if shown is not None and shown.any() else ""
    return Tile(
        image,
        title or f"{plane} {index}{area}",
        tag=_tag(visit, shown),
        mask=shown,
        prompts=_prompts(visits) if frame is None else StandingPrompts(),
        crop=crop,
        frame=frame,
    )


def _tag(visit: Visit | None, shown: NDArray[np.bool_] | None) -> str:
    if visit is None:
        return ""
    said = "absent" if shown is None and visit.is_absent else ""
    return ", ".join(word for word in (KIND_WORDS[visit.kind], said) if word)


def _prompts(visits: Sequence[Visit]) -> StandingPrompts:
    """Clicks and box behind the mask of a slice: those of the last accepted run on it."""
    for visit in reversed(visits):
        if visit.episode is not None and visit.accepted:
            return final_prompts(visit.episode)
    return StandingPrompts()


def _region(mask: NDArray[np.bool_], grid: Grid, plane: str) -> PixelBox | None:
    """The part of a plane's display that holds all of a mask, with room around it; None where that is most of it."""
    axis = grid.view_axes(plane)[0]
    geometry = grid.view(plane, 0)
    height, width = grid.view_size(plane)
    shade = mask_to_display(np.asarray(mask.any(axis=axis)), geometry, (height, width))
    rows, columns = np.flatnonzero(shade.any(axis=1)), np.flatnonzero(shade.any(axis=0))
    if not rows.size:
        return None
    share = max((columns[-1] - columns[0] + 1) / width, (rows[-1] - rows[0] + 1) / height) * 2.0
    share = max(share, 0.3)
    if share > 0.8:
        return None
    w, h = round(width * share), round(height * share)
    x0 = int(np.clip((columns[0] + columns[-1] + 1 - w) // 2, 0, width - w))
    y0 = int(np.clip((rows[0] + rows[-1] + 1 - h) // 2, 0, height - h))
    return PixelBox(x0, y0, x0 + w - 1, y0 + h - 1)
