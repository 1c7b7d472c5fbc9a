"""What a run leaves in its folder: the mask in every wanted format, a picture, the record, a page, measurements."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ibisagent import __version__
from ibisagent.batch.naming import segment_name
from ibisagent.io.writers import FORMATS, SegmentLabel, write_image_mask, write_volume_mask
from ibisagent.slices import mask_to_source, slice_axes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ibisagent.episode import Episode
    from ibisagent.io.volume import Volume
    from ibisagent.scoring import Scores
    from ibisagent.types import Image
    from ibisagent.volume.segment import VolumeSegmentation

__all__ = ["JOURNAL", "OWNED", "segment_label", "slice_mask", "write_image_results", "write_volume_results"]

JOURNAL = "volume.journal"
"""Of a run on a volume, in its folder until it ends."""

OWNED = (
    *dict.fromkeys(fmt.filename for fmt in FORMATS.values()),
    "overlay.png", "episode.json", "episode.html", "volume.json", "volume.html", "measurements.json",
)  # fmt: skip
"""Every name that a run may write."""


def segment_label(instruction: str, name: str | None, policy: str, segmenter: str) -> SegmentLabel:
    """What files say of a mask, where they can: its name (`name`, or what the instruction asks for) and author."""
    return SegmentLabel(name or segment_name(instruction), f"ibisagent {policy} + {segmenter}"[:64], __version__)


def write_volume_results(
    result: VolumeSegmentation, folder: Path, formats: Sequence[str], label: SegmentLabel
) -> dict[str, str]:
    """Write everything about a run on a volume.

    Parameters
    ----------
    result
        The run. Without a mask (it failed) there are the record and the page alone.
    folder
        Where to; it exists.
    formats
        Names of :data:`ibisagent.io.writers.FORMATS`.
    label
        What the mask is of.

    Returns
    -------
    dict
        Names of the files by what they are: ``mask`` (the first format), ``mask.FORMAT`` for others, ``overlay``,
        ``measurements``, ``record``, ``html``.

    Raises
    ------
    InputError
        If a format cannot hold the mask, or a slice cannot be read again.
    OSError
        If the folder cannot be written.
    """
    from ibisagent.rendering import save_png
    from ibisagent.volume.figure import volume_figure
    from ibisagent.web.volume_page import write_volume_page

    volume, record, window = result.volume, result.record, result.window
    files, shown = _masks(result.mask, volume, folder, formats, label), None
    if result.mask is not None:
        files["overlay"] = "overlay.png"
        save_png(volume_figure(record, volume, window), folder / files["overlay"])
        files["measurements"] = "measurements.json"
        shown = _measure(result.mask, volume, folder / files["measurements"])
    files["record"], files["html"] = "volume.json", "volume.html"
    record.save(folder / files["record"])
    write_volume_page(record, volume, window, folder / files["html"], shown)
    return files


def write_image_results(
    episode: Episode,
    image: Image,
    mask: NDArray[np.bool_] | None,
    folder: Path,
    formats: Sequence[str],
    label: SegmentLabel,
    *,
    volume: Volume | None = None,
    scores: Scores | None = None,
) -> dict[str, str]:
    """Write everything about a run on one image.

    Parameters
    ----------
    episode, image, mask
        The run; `mask` is ``bool`` (H, W), None where it failed.
    folder, formats, label
        As :func:`write_volume_results`.
    volume
        What the image is a slice of: the mask is written on its grid, zeros elsewhere.
    scores
        For the page.

    Returns
    -------
    dict
        As :func:`write_volume_results`, with ``episode`` for the record.

    Raises
    ------
    InputError, OSError
        As :func:`write_volume_results`.
    """
    from ibisagent.rendering import episode_figure, save_png
    from ibisagent.replay import with_image
    from ibisagent.web.episode_page import write_episode_page

    files: dict[str, str] = {}
    if mask is not None and volume is not None:
        whole = slice_mask(mask, image, volume)
        files = _masks(whole, volume, folder, formats, label)
    elif mask is not None:
        for fmt in formats:
            files["mask" if not files else f"mask.{fmt}"] = FORMATS[fmt].filename
            write_image_mask(mask, image, folder / FORMATS[fmt].filename, fmt, label)
    if mask is not None:
        files["overlay"] = "overlay.png"
        save_png(episode_figure(episode, image), folder / files["overlay"])
    files["episode"], files["html"] = "episode.json", "episode.html"
    with_image(episode, image).save(folder / files["episode"])
    write_episode_page(episode, image, folder / files["html"], scores)
    return files


def slice_mask(mask: NDArray[np.bool_], image: Image, volume: Volume) -> NDArray[np.bool_]:
    """The mask of one displayed slice on its volume's grid, ``bool`` (ni, nj, nk), zeros in all other slices."""
    geometry = image.geometry
    whole = np.zeros(volume.grid.shape, bool)
    place = (slice(None),) * slice_axes(geometry)[0] + (int(geometry.slice_index or 0),)
    whole[place] = mask_to_source(mask, geometry)
    return whole


def _masks(
    mask: NDArray[np.bool_] | None, volume: Volume, folder: Path, formats: Sequence[str], label: SegmentLabel
) -> dict[str, str]:
    files: dict[str, str] = {}
    if mask is not None:
        for fmt in formats:
            files["mask" if not files else f"mask.{fmt}"] = FORMATS[fmt].filename
            write_volume_mask(mask, volume, folder / FORMATS[fmt].filename, fmt, label)
    return files


def _measure(mask: NDArray[np.bool_], volume: Volume, path: Path) -> Mapping[str, str]:
    """Write the measurement report, and return its main lines for the page."""
    from ibisagent.io.measurements import measure

    report = measure(mask, volume)
    path.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return {}
