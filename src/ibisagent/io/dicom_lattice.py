"""The lattice of a stack of DICOM slices: even distances or a clear refusal, a tilted gantry as a sheared affine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ibisagent.errors import InputError
from ibisagent.io.dicom_frames import DicomFrame
from ibisagent.io.dicom_stacks import heights, place_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["fit_lattice"]

_UNEVEN = 0.01
"""Share of the slice distance by which neighbours may differ from it."""
_ROUNDED_MM = 0.0101
"""Headers write positions with two decimals at least, so a distance may be off by that much."""
_OFF_LINE = 0.1
"""Share of a voxel by which a slice may lie off the fitted lattice."""


def fit_lattice(frames: Sequence[DicomFrame], where: str) -> tuple[NDArray[np.float64], list[str]]:
    """Find the affine of sorted slices.

    Parameters
    ----------
    frames
        With positions, lowest first along their normal, no place twice.
    where
        What messages call the stack.

    Returns
    -------
    affine
        ``float64`` (4, 4): index (column, row, slice) to LPS mm.
    notes
        What a user should know about it.

    Raises
    ------
    InputError
        If slices are missing, their distances differ, or they are shifted against each other.
    """
    first = frames[0]
    notes: list[str] = []
    if first.orientation is None:
        row, column, normal = np.eye(3)
    else:
        row, column = np.array(first.orientation[:3]), np.array(first.orientation[3:])
        normal = np.asarray(first.normal)
    down, across = first.spacing or (1.0, 1.0)
    if first.spacing is None:
        notes.append("the header has no pixel spacing; 1 mm is assumed, so millimetres are not to be trusted")
    places = np.array([f.position for f in frames], np.float64)
    if len(frames) == 1:
        size = abs(first.between or 0) or first.thickness
        if size is None and first.orientation is not None:
            notes.append("the header has no slice thickness; 1 mm is assumed, so volumes are not to be trusted")
        step = normal * (size or 1.0)
    else:
        gaps = np.diff(heights(frames))
        _check_gaps(frames, gaps, where)
        step = (places[-1] - places[0]) / (len(frames) - 1)
        step = _upright(step, normal, len(frames), min(down, across), notes)
        _check_line(places, step, normal, min(down, across), where)
        distance = float(step @ normal)
        off = float(np.abs(gaps - distance).max())
        if off > max(1e-3 * distance, 0.5 * _ROUNDED_MM):
            notes.append(f"slice distances vary by up to {off:.3g} mm around {distance:.4g} mm; even ones are assumed")
        if first.between is not None and round(distance / abs(first.between)) > 1:
            notes.append(
                f"slices are {distance:.4g} mm apart, and the header says {abs(first.between):.4g}: "
                "every second one or more may be missing"
            )
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2], affine[:3, 3] = row * across, column * down, step, places[0]
    return affine, notes


def _check_gaps(frames: Sequence[DicomFrame], gaps: NDArray[np.float64], where: str) -> None:
    """Refuse missing slices, and distances that differ."""
    smallest = float(gaps.min())
    step = float(np.median(gaps[gaps <= 1.5 * smallest]))
    tolerance = max(_UNEVEN * step, min(_ROUNDED_MM, _OFF_LINE * step))
    times = np.rint(gaps / step)
    if (np.abs(gaps - times * step) > tolerance * np.maximum(times, 1)).any():
        raise InputError(
            f"{where}: the slices lie {smallest:.4g} to {gaps.max():.4g} mm apart, so they are no even volume, or some "
            "are missing; export the whole series, or resample it to even distances"
        )
    holes = np.flatnonzero(times > 1)
    if not holes.size:
        return
    missing = int((times - 1).sum())
    named = [
        f"{int(times[i] - 1)} between {_place(frames[i])} and {_place(frames[i + 1])} mm" for i in holes[:5].tolist()
    ]
    more = f" and {holes.size - 5} more gaps" if holes.size > 5 else ""
    advice = "export the whole series again"
    if 3 * missing > len(frames):  # so many that it may be meant
        advice += ", or resample it if its distances change on purpose"
    raise InputError(
        f"{where}: {missing} slice{'s are' if missing > 1 else ' is'} missing of {missing + len(frames)}, "
        f"{step:.4g} mm apart ({', '.join(named)}{more}); {advice}"
    )


def _place(frame: DicomFrame) -> str:
    return place_name(frame, frame.position or (0.0, 0.0, 0.0))


def _upright(
    step: NDArray[np.float64], normal: NDArray[np.float64], count: int, pixel: float, notes: list[str]
) -> NDArray[np.float64]:
    """The step along the normal where its drift is no more than rounding; else as it is, with a note."""
    along = float(step @ normal)
    drift = step - along * normal
    across = float(np.linalg.norm(drift))
    if across * (count - 1) <= max(0.01, 0.02 * pixel) and across <= 1e-2 * along:
        return along * normal
    degrees = float(np.degrees(np.arctan2(across, along)))
    if degrees > 0.1:
        notes.append(f"the gantry was tilted by {degrees:.3g} degrees: slices are shifted against each other")
    return step


def _check_line(
    places: NDArray[np.float64], step: NDArray[np.float64], normal: NDArray[np.float64], pixel: float, where: str
) -> None:
    """Refuse slices that lie off the lattice; small errors may add up along a stack."""
    off = places - places[0] - np.arange(len(places))[:, None] * step
    along = np.abs(off @ normal)
    across = np.linalg.norm(off - np.outer(off @ normal, normal), axis=1)
    distance = float(step @ normal)
    if along.max() > max(_OFF_LINE * distance, _ROUNDED_MM):
        raise InputError(
            f"{where}: slice distances change along the stack, by up to {along.max():.3g} mm from even ones; "
            "resample it to even distances"
        )
    if across.max() > max(0.5 * pixel, _ROUNDED_MM):
        raise InputError(
            f"{where}: slices are shifted against each other by up to {across.max():.3g} mm, so they are no volume; "
            "export one acquisition"
        )
