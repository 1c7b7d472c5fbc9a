"""What a run leaves in its folder: the mask in every wanted format, a picture, the record, a page, measurements."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from ibisagent import __version__
from ibisagent.batch.naming import segment_name
from ibisagent.batch.slices import slice_mask
from ibisagent.io.writers import FORMATS, SegmentLabel, write_image_mask, write_volume_mask
from ibisagent.volume.shown import ml_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ibisagent.episode import Episode
    from ibisagent.io.volume import Volume
    from ibisagent.scoring import Scores
    from ibisagent.types import Image
    from ibisagent.volume.segment import VolumeSegmentation

__all__ = ["JOURNAL", "OWNED", "segment_label", "write_image_results", "write_volume_results"]

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
    files, shown = _masks(result.mask, volume, folder, formats, label), []
    if result.mask is not None:
        files["overlay"] = "overlay.png"
        save_png(volume_figure(record, volume, window), folder / files["overlay"])
        files["measurements"] = "measurements.json"
        shown = _measure(result.mask, volume, label, folder / files["measurements"])
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
        files["measurements"] = "measurements.json"
        _measure(whole, volume, label, folder / files["measurements"])
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


def _masks(
    mask: NDArray[np.bool_] | None, volume: Volume, folder: Path, formats: Sequence[str], label: SegmentLabel
) -> dict[str, str]:
    files: dict[str, str] = {}
    if mask is not None:
        for fmt in formats:
            files["mask" if not files else f"mask.{fmt}"] = FORMATS[fmt].filename
            write_volume_mask(mask, volume, folder / FORMATS[fmt].filename, fmt, label)
    return files


def _measure(mask: NDArray[np.bool_], volume: Volume, label: SegmentLabel, path: Path) -> list[tuple[str, str]]:
    """Write the measurement report, and return its main lines for the page."""
    from ibisagent.io.measurements import measure_mask

    found = measure_mask(mask, volume)
    path.write_text(json.dumps(found.to_json(label.name), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    whole, unit = found.whole, " HU" if found.unit == "[hnsf'U]" else ""
    lines = [("name", label.name), ("voxels", f"{whole.voxel_count:,}")]
    if whole.volume_ml is not None:
        lines.append(("volume", ml_text(whole.volume_ml)))
    for name, diameter in (("longest diameter", whole.longest), ("perpendicular", whole.perpendicular)):
        if diameter is not None:
            lines.append((name, f"{diameter.mm:.1f} mm ({found.plane} {diameter.slice_index})"))
    if whole.extent_mm is not None:
        lines.append(("extent", " × ".join(f"{mm:.1f}" for mm in whole.extent_mm) + " mm (R-L, P-A, I-S)"))
    if whole.mean is not None and whole.standard_deviation is not None:
        lines.append(("intensity", f"{whole.mean:.1f} ± {whole.standard_deviation:.1f}{unit}"))
    return [*lines, ("parts", str(found.num_components))]
