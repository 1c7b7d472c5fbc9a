"""DICOM folders and files as volumes: series grouped and sorted by geometry, never by names or instance numbers.

The axes of a volume are (column, row, slice), slices in the order in which their positions grow along the normal (row
direction x column direction), so the grid is right-handed. Headers are read at once, and checked against the sizes of
the files; pixels follow when they are asked for.

What is no gray image with a place (segmentations, structured reports, plans, colour pictures, films, scouts beside a
volume, other files) is set aside and counted in the volume's notes. Messages name no series by what its header says of
it, since descriptions and UIDs may identify a patient.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.errors import InputError
from ibisagent.geometry import as_matrix
from ibisagent.grid import LPS_FROM_RAS, Grid
from ibisagent.io.dicom_headers import Contents, read_contents
from ibisagent.io.dicom_lattice import fit_lattice
from ibisagent.io.dicom_stacks import Stack, describe, make_stacks
from ibisagent.io.dicom_voxels import DicomVoxels
from ibisagent.io.files import MAX_VOLUME_BYTES, display_name, one_line, reading
from ibisagent.io.volume import Frame, Volume
from ibisagent.io.windows import canonical_modality

if TYPE_CHECKING:
    from ibisagent.io.dicom_frames import DicomFrame

__all__ = ["read_dicom_volume"]

_NOUN = "a DICOM series"


def read_dicom_volume(
    path: str | os.PathLike[str], *, series: str | None = None, modality: str | None = None
) -> Volume | None:
    """Open the volume in a DICOM folder (its subfolders included) or file.

    Parameters
    ----------
    path
        Folder, or one file: a multi-frame object, or a single slice, which becomes a volume of one slice.
    series
        Which one, where there are several: its number in the message that lists them, or its Series Instance UID.
    modality
        Overrides the header's.

    Returns
    -------
    Volume or None
        None for a single file that holds one plain picture: colour, or gray without a place in the patient.

    Raises
    ------
    InputError
        If there are several series and none is chosen, files are damaged or truncated, slices are missing, repeated
        with other content, unevenly spaced or shifted, or there is no volume at all. Nothing is read but headers.
    """
    where = display_name(path)
    with reading(path, _NOUN):
        contents = read_contents(path)
        if not os.path.isdir(path) and _is_picture(contents):
            if series is not None:
                raise InputError(f"{where}: a single picture has no series to choose from; leave --series out")
            return None
        stacks, notes = _candidates(contents, where)
        stack = _chosen(stacks, series, where)
        return _volume(path, stack, contents, notes, modality)


def _is_picture(contents: Contents) -> bool:
    if contents.frames:
        frame = contents.frames[0]
        return len(contents.frames) == 1 and (frame.position is None or frame.orientation is None)
    return contents.colour == 1


def _candidates(contents: Contents, where: str) -> tuple[list[Stack], list[str]]:
    """The stacks that a user may mean, and notes about what is set aside."""
    if not contents.frames:
        if contents.films:
            raise InputError(f"{where}: a film (frames over time), which is no volume; export the frame you mean")
        if contents.colour:
            raise InputError(f"{where}: colour pictures, which are no volume; give one file of them")
        raise InputError(f"{where}: no image among the DICOM files ({_others(contents)}); give the images' folder")
    stacks = make_stacks(contents.frames, where)
    notes = []
    for what, is_wanted in (
        ("scout view", lambda s: not s.is_localizer),
        ("image without a place in the patient", lambda s: s.is_placed or s.frames[0].position is not None),
    ):
        wanted = [s for s in stacks if is_wanted(s)]
        if wanted and len(wanted) < len(stacks):
            count = sum(len(s.frames) for s in stacks if not is_wanted(s))
            notes.append(f"{count} {what}{'s' if count > 1 else ''} set aside")
            stacks = wanted
    others = _others(contents)
    return stacks, notes + ([f"{others} set aside"] if others else [])


def _others(contents: Contents) -> str:
    counts = {**contents.others, "colour picture": contents.colour, "film": contents.films}
    return ", ".join(f"{n} {kind}{'s' if n > 1 else ''}" for kind, n in sorted(counts.items()) if n)


def _chosen(stacks: Sequence[Stack], series: str | None, where: str) -> Stack:
    if series is None:
        if len(stacks) == 1:
            return stacks[0]
        raise InputError(f"{where}: {_reason(stacks)}; choose one with --series NUMBER ({describe(stacks)})")
    number = series.strip()
    if number.isdecimal() and len(number) < 9 and 1 <= int(number) <= len(stacks):
        return stacks[int(number) - 1]
    by_uid = [s for s in stacks if s.frames[0].series == number]
    if len(by_uid) == 1:
        return by_uid[0]
    many = f"{len(stacks)} series" if len(stacks) > 1 else "one series"
    raise InputError(f"{where}: no series '{one_line(series, 20)}' among {many}; choose by number ({describe(stacks)})")


def _reason(stacks: Sequence[Stack]) -> str:
    """Why there are several stacks: series, or what differs within a single one."""
    firsts = [s.frames[0] for s in stacks]
    if len({f.series for f in firsts}) > 1:
        return f"{len(stacks)} series in it"
    found: dict[str, set[Any]] = {
        "sizes": {(f.pixels.columns, f.pixels.rows) for f in firsts},
        "orientations": {tuple(round(v, 2) + 0.0 for v in f.orientation or ()) for f in firsts},
        "pixel spacings": {tuple(float(f"{v:.3g}") for v in f.spacing or ()) for f in firsts},
        "coordinate systems": {f.space for f in firsts},
    }
    for noun, values in found.items():
        if len(values) > 1:
            return f"slices of {len(values)} {noun} in one series"
    return f"{len(stacks)} stacks of slices in one series"


def _volume(
    path: str | os.PathLike[str], stack: Stack, contents: Contents, notes: list[str], modality: str | None
) -> Volume:
    where = display_name(path)
    frames = stack.frames
    first = frames[0]
    if stack.repeated:
        raise InputError(
            f"{where}: several different images at {len(stack.repeated)} of the places of one series, and nothing in "
            "their headers tells them apart; give a folder with one of them at each place"
        )
    if stack.dropped:
        notes.append(f"{stack.dropped} exact cop{'ies' if stack.dropped > 1 else 'y'} of slices dropped")
    if any(f.position is None for f in frames) and len(frames) > 1:
        raise InputError(f"{where}: {len(frames)} images that do not say where they lie; give one file of them")
    if sum(f.pixels.num_bytes for f in frames) > MAX_VOLUME_BYTES:
        raise InputError(f"{where}: a series over the limit of {MAX_VOLUME_BYTES / 2**30:g} GiB; crop it")
    if not stack.is_placed:
        notes.append("the header does not say where in the patient it lies; slices are shown as they are stored")
    placed = [replace(f, position=f.position or (0.0, 0.0, 0.0)) for f in frames]
    lps, more = fit_lattice(placed, where)
    grid = Grid((first.pixels.columns, first.pixels.rows, len(frames)), as_matrix(LPS_FROM_RAS @ lps, 4, "affine"))
    name = canonical_modality(modality) or canonical_modality(first.modality)
    if first.modality == "PT" and name == "PET":
        units = f" ({first.units})" if first.units.isalnum() and len(first.units) <= 8 else ""
        more.append(f"PET values are as stored{units}, not SUV")
    middle = frames[len(frames) // 2]
    return Volume(
        grid=grid,
        voxels=DicomVoxels(frames, {f.path: contents.labels[f.path] for f in frames}),
        source=os.fspath(path),
        kind="DICOM",
        modality=name,
        body_part=first.body_part or None,
        hounsfield=first.modality == "CT" and name == "CT" and first.units in ("", "HU") and not stack.is_localizer,
        header_window=middle.window,
        is_inverted=first.pixels.is_inverted,
        padding=_padding(frames),
        has_world=stack.is_placed and first.spacing is not None,
        notes=tuple(notes + more),
        frames=tuple(Frame(f.path, f.number) for f in frames),
        header=_header(first.path),
    )


def _padding(frames: Sequence[DicomFrame]) -> float | None:
    """The value that all slices give to pixels outside the picture, rescaled."""
    found = {None if f.padding is None else f.padding * f.slope + f.intercept for f in frames}
    return float(np.float32(value)) if len(found) == 1 and (value := found.pop()) is not None else None


def _header(path: str) -> Any:
    import pydicom

    try:
        return pydicom.dcmread(path, stop_before_pixels=True, force=True)
    except Exception:  # its words may quote the header
        return None
