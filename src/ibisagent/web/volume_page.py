"""``volume.html``: one self-contained page that scrolls through a volume and steps through the run on it.

As :mod:`ibisagent.web.episode_page`: its pictures, style and script are in itself, it asks the network for nothing, and
texts of models and users stay text. It names no file and no patient: of the study it shows what the record has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibisagent.rendering.figure import OUTCOME_WORDS
from ibisagent.rendering.png import write_atomic
from ibisagent.volume.figure import study_facts
from ibisagent.volume.shown import volume_text
from ibisagent.web.parts import asset, content_policy, script_json, template
from ibisagent.web.volume_view import KINDS, build_planes, build_stops, visit_prompts

if TYPE_CHECKING:
    from ibisagent.io.volume import Volume
    from ibisagent.types import Window
    from ibisagent.volume.record import VolumeEpisode

__all__ = ["render_volume_page", "write_volume_page"]


def render_volume_page(
    record: VolumeEpisode, volume: Volume, window: Window, measurements: Sequence[tuple[str, str]] = ()
) -> str:
    """Make the page.

    Parameters
    ----------
    record
        The run; it may still go on.
    volume
        What it ran on.
    window
        The window it was shown in.
    measurements
        Names and values to show beside the record.

    Returns
    -------
    str
        HTML that can be encoded in UTF-8.

    Raises
    ------
    ValueError
        If the volume is not of the record's shape.
    ibisagent.errors.InputError
        If a slice cannot be read.
    """
    if volume.grid.shape != record.grid.shape:
        raise ValueError(f"the volume is {volume.grid.shape}, the record's {record.grid.shape}")
    mask = record.final_mask.decode() if record.final_mask is not None else None
    planes, stops = build_planes(record, volume, window), build_stops(record, volume)
    start = _start(record, planes)
    style, script = asset("theme.css", "episode.css", "volume.css"), asset("drawing.js", "volume.js")
    page = template("volume.html.jinja").render(
        policy=content_policy(style, script),
        style=style,
        script=script,
        data=script_json({"planes": planes, "visits": _visits(record), "start": start}),
        base=planes[0],
        base_image=planes[0]["images"][planes[0]["slices"].index(start)],
        planes=planes,
        record=record,
        stops=stops,
        kinds=KINDS,
        size="no mask" if mask is None else volume_text(mask, volume) if mask.any() else "empty mask",
        clicked=len(record.clicked_slices),
        visited=len({(visit.plane, visit.index) for visit in record.visits}),
        outcome=str(record.outcome) if record.outcome is not None else "running",
        outcome_words=OUTCOME_WORDS.get(str(record.outcome), "Running"),
        facts=study_facts(volume, window),
        metadata=_metadata(record, volume, measurements, planes),
    )
    # A text from a command line may hold half of a surrogate pair, which UTF-8 cannot write.
    return page.encode("utf-8", "replace").decode("utf-8")


def write_volume_page(
    record: VolumeEpisode,
    volume: Volume,
    window: Window,
    path: str | Path,
    measurements: Sequence[tuple[str, str]] = (),
) -> None:
    """Write the page to a file, whole or not at all; see :func:`render_volume_page`.

    Raises
    ------
    ValueError
        If the volume is not of the record's shape.
    OSError
        If the file cannot be written.
    """
    write_atomic(render_volume_page(record, volume, window, measurements).encode("utf-8"), path)


def _start(record: VolumeEpisode, planes: Sequence[Mapping[str, Any]]) -> int:
    """Where the page opens: the key slice, else the largest part of the mask, else the middle."""
    plane = planes[0]
    slices: list[int] = plane["slices"]
    keys = [v.index for v in record.visits if v.kind == "key" and v.plane == plane["name"] and v.index in slices]
    largest = max(slices, key=lambda index: plane["areas"][index])
    return keys[0] if keys else largest if plane["areas"][largest] else slices[len(slices) // 2]


def _visits(record: VolumeEpisode) -> list[dict[str, Any]]:
    found = []
    for visit in record.visits:
        prompts = visit_prompts(visit)
        box = prompts.box
        found.append(
            {
                "plane": visit.plane,
                "index": visit.index,
                "kind": visit.kind,
                "mask": None if visit.mask is None else visit.mask.counts,
                "absent": visit.is_absent,
                "clicks": [list(click) for click in prompts.clicks],
                "box": [box.x0, box.y0, box.x1, box.y1] if box is not None else None,
            }
        )
    return found


def _metadata(
    record: VolumeEpisode, volume: Volume, measurements: Sequence[tuple[str, str]], planes: Sequence[Mapping[str, Any]]
) -> list[tuple[str, list[tuple[str, str]]]]:
    """Groups of (name, value) for the panel of the record; what is not known is left out."""
    study, config, grid = record.study, record.config, record.grid
    embedded = ", ".join(f"{len(p['slices'])} of {len(p['areas'])} {p['name']}" for p in planes)
    jpeg = any(picture.startswith("data:image/jpeg") for plane in planes for picture in plane["images"][:1])
    part = (config.first_slice, config.last_slice)
    groups: list[tuple[str, list[tuple[str, object]]]] = [
        (
            "Study",
            [
                ("case", record.case_id),
                ("source", study.source),
                ("format", study.kind),
                ("modality", study.modality),
                ("body part", study.body_part),
                ("voxels", " × ".join(str(n) for n in grid.shape)),
                ("spacing", " × ".join(f"{mm:.4g}" for mm in grid.spacing_mm) + " mm" if volume.has_world else None),
                ("axes grow to", grid.code if volume.has_world else None),
                ("window", study.window),
                *(("note", note) for note in study.notes),
                ("sha256", study.sha256),
            ],
        ),
        ("Mask", list(measurements)),
        (
            "Run",
            [
                ("outcome", record.outcome),
                ("ended by", (record.end_reason or "").replace("_", " ")),
                ("planes", ", ".join(config.planes)),
                ("slices", None if part == (None, None) else " to ".join("end" if n is None else str(n) for n in part)),
                ("scan", f"{config.scan_slices} slices, {config.scan}"),
                ("key slices", config.key_slices),
                ("revisits", f"at most {config.max_revisits}, under agreement {config.min_agreement:g}"),
                ("carried by", config.carry),
                ("steps a slice", f"at most {config.rollout.max_steps}"),
                ("seed", config.rollout.seed),
                ("time", f"{record.seconds_total:.1f} s"),
                ("ibisagent", record.ibisagent_version),
            ],
        ),
        (
            "Policy and segmenter",
            [
                ("policy", record.policy.name),
                ("dialect", record.policy.dialect),
                ("weights sha256", record.policy.weights_sha256),
                ("segmenter", record.segmenter.name),
                ("weights sha256", record.segmenter.weights_sha256),
            ],
        ),
        ("This page", [("slices in it", embedded), ("pictures", "JPEG" if jpeg else "PNG")]),
    ]
    shown = [(name, [(k, str(v)) for k, v in rows if v is not None and v != ""]) for name, rows in groups]
    return [(name, rows) for name, rows in shown if rows]
