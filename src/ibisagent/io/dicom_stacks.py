"""Frames put into stacks: one series, one orientation, size, spacing and acquisition each, every place at most once."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ibisagent.errors import InputError
from ibisagent.io.dicom_frames import DicomFrame
from ibisagent.io.files import display_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Stack", "make_stacks", "place_name", "plane_name"]

_MAX_STACKS = 200
_COSINES = 2e-3
"""Difference of cosines (about 0.1 degrees) within which orientations count as one."""
_SPACINGS = 1e-3
"""The same for pixel spacings, as a share."""


@dataclass(frozen=True, repr=False)
class Stack:
    """Frames that belong together.

    Parameters
    ----------
    frames
        Sorted along the normal where they have places, as they came where not.
    part
        What tells it from others of its series (``"echo 2 of 3"``); may be empty.
    repeated
        Places at which several different frames lie, which nothing tells apart; mm along the normal.
    dropped
        How many exact copies were left out.
    """

    frames: tuple[DicomFrame, ...]
    part: str = ""
    repeated: tuple[float, ...] = ()
    dropped: int = 0

    @property
    def is_placed(self) -> bool:
        """Whether every frame says where in the patient it lies."""
        return all(f.position is not None and f.orientation is not None for f in self.frames)

    @property
    def is_localizer(self) -> bool:
        """Whether it consists of scout views."""
        return all(f.is_localizer for f in self.frames)

    @property
    def description(self) -> str:
        """What a user chooses by; nothing of it identifies anyone."""
        first, count = self.frames[0], len(self.frames)
        plane = plane_name(first)
        size = f"{count} slice{'s' if count > 1 else ''} of {first.pixels.columns} x {first.pixels.rows}"
        modality = first.modality if first.modality.isalnum() and len(first.modality) <= 6 else "unknown modality"
        return ", ".join(word for word in (modality, plane, size, self.part) if word)


def plane_name(frame: DicomFrame) -> str:
    """``"axial"``, ``"coronal"`` or ``"sagittal"``, whichever is nearest; empty without an orientation."""
    normal = frame.normal
    return "" if normal is None else ("sagittal", "coronal", "axial")[int(np.abs(normal).argmax())]


def place_name(frame: DicomFrame, position: Sequence[float]) -> str:
    """A place as DICOM's headers tell it: the coordinate nearest to the normal, ``"z = 12.5"`` (LPS mm)."""
    normal = frame.normal
    axis = 2 if normal is None else int(np.abs(normal).argmax())
    return f"{'xyz'[axis]} = {position[axis]:.6g}"


def heights(frames: Sequence[DicomFrame]) -> NDArray[np.float64]:
    """Place of every frame along the normal of the first, in mm. They must have positions."""
    normal = frames[0].normal
    places = np.array([f.position for f in frames], np.float64)
    return places @ (np.array([0.0, 0.0, 1.0]) if normal is None else normal)


def make_stacks(frames: Sequence[DicomFrame], where: str) -> list[Stack]:
    """Sort frames into stacks, in an order that does not depend on names of files.

    Series come by their number (and UID), within a series the stack with most frames first.

    Parameters
    ----------
    where
        What messages call the whole.

    Raises
    ------
    InputError
        If two files claim to be the same image and are not, or a series falls into too many pieces.
    """
    kept, copies = _without_copies(frames, where)
    groups: dict[Hashable, list[DicomFrame]] = defaultdict(list)
    for frame in kept:
        groups[_exact_key(frame)].append(frame)
    merged: list[list[DicomFrame]] = []
    by_series: dict[str, list[list[DicomFrame]]] = defaultdict(list)
    for group in groups.values():
        same = next((other for other in by_series[group[0].series] if _are_alike(other[0], group[0])), None)
        if same is not None:
            same.extend(group)
            continue
        by_series[group[0].series].append(group)
        merged.append(group)
        if len(merged) > _MAX_STACKS:
            raise InputError(
                f"{where}: its slices have more than {_MAX_STACKS} orientations, sizes or spacings, which are no "
                "volume; give the folder of one series"
            )
    merged.sort(key=_rank)
    stacks = []
    for group in merged:
        echoes = _grouped(group, ("echo",))
        for number, echo in enumerate(echoes, 1):
            label = f"echo {number} of {len(echoes)}" if len(echoes) > 1 else ""
            dropped = sum(copies[id(f)] for f in echo)
            for stack in _split(echo):
                part = ", ".join(word for word in (label, stack.part) if word)
                stacks.append(_ordered(replace(stack, part=part, dropped=stack.dropped + dropped)))
                dropped = 0
    return stacks


def _rank(frames: list[DicomFrame]) -> tuple[object, ...]:
    first = frames[0]
    form = (first.pixels.columns, first.pixels.rows, first.orientation or (), first.spacing or ())
    return first.series_number, first.series, -len(frames), form


def _without_copies(frames: Sequence[DicomFrame], where: str) -> tuple[list[DicomFrame], dict[int, int]]:
    """Leave out files that say and hold the same as another; how many copies of each remaining frame there were."""
    seen: dict[tuple[str, str, int], DicomFrame] = {}
    copies: dict[int, int] = defaultdict(int)
    kept = []
    for frame in frames:
        key = (frame.series, frame.instance, frame.number)
        if not frame.instance or key not in seen:
            seen[key] = frame
            kept.append(frame)
        elif _say_the_same(seen[key], frame) and pixel_digest(seen[key]) == pixel_digest(frame):
            copies[id(seen[key])] += 1
        else:
            place = f" at {place_name(frame, frame.position)} mm" if frame.position is not None else ""
            raise InputError(f"{where}: two files claim to be the same image{place} and differ; remove the wrong one")
    return kept, copies


def _say_the_same(a: DicomFrame, b: DicomFrame) -> bool:
    return replace(a, path="", pieces=()) == replace(b, path="", pieces=())


def pixel_digest(frame: DicomFrame) -> bytes:
    """SHA-256 of the bytes of a frame's pixels as they are stored."""
    digest = hashlib.sha256()
    with open(frame.path, "rb") as f:
        for offset, length in frame.pieces:
            f.seek(offset)
            digest.update(f.read(length))
    return digest.digest()


def _exact_key(frame: DicomFrame) -> tuple[Hashable, ...]:
    pixels = frame.pixels
    form = (pixels.rows, pixels.columns, pixels.is_inverted, frame.is_localizer)
    # frames without a place share at most the order in their file
    lone = dict(frame.parts)["object"] if frame.position is None or frame.orientation is None else ""
    return (frame.series, frame.space, form, lone, frame.orientation, frame.spacing)


def _are_alike(a: DicomFrame, b: DicomFrame) -> bool:
    """Whether two frames of one series belong to one stack, small differences of written numbers aside."""
    if _exact_key(a)[:4] != _exact_key(b)[:4]:
        return False
    if (a.orientation is None, a.spacing is None) != (b.orientation is None, b.spacing is None):
        return False
    pairs = zip(a.orientation or (), b.orientation or (), strict=True)
    if any(abs(x - y) > _COSINES for x, y in pairs):
        return False
    return all(math.isclose(x, y, rel_tol=_SPACINGS) for x, y in zip(a.spacing or (), b.spacing or (), strict=True))


def _split(frames: list[DicomFrame]) -> list[Stack]:
    """Take apart what lies at the same places: echoes, points in time ... by the first name that explains all of it."""
    if any(f.position is None for f in frames) or _most_at_a_place(frames) == 1:
        return [Stack(tuple(frames))]
    count = _most_at_a_place(frames)
    values = {name: {dict(f.parts)[name] for f in frames} for name, _ in frames[0].parts}
    # a name that some frames lack explains less than one that all have
    names = sorted((name for name, found in values.items() if len(found) > 1), key=lambda name: "" in values[name])
    for chosen in (*((n,) for n in names), *itertools.combinations(names, 2)):
        groups = _grouped(frames, chosen)
        if len(groups) == count and all(_most_at_a_place(group) == 1 for group in groups):
            label = "/".join(chosen)
            return [Stack(tuple(g), part=f"{label} {i} of {count}") for i, g in enumerate(groups, 1)]
    passes = _passes(frames, count)
    if passes:
        return [Stack(tuple(g), part=f"pass {i} of {count}") for i, g in enumerate(passes, 1)]
    unique = _without_equal_pixels(frames)
    dropped = len(frames) - len(unique)
    if _most_at_a_place(unique) == 1:
        return [Stack(tuple(unique), dropped=dropped)]
    return [Stack(tuple(unique), dropped=dropped, repeated=tuple(_repeated(unique)))]


def _passes(frames: Sequence[DicomFrame], count: int) -> list[list[DicomFrame]]:
    """Passes over all places, one after the other, by the clock; empty if the times do not show them.

    Each slice may have its own time, as long as one pass ends before the next begins.
    """
    starts = [dict(f.parts)["start"] for f in frames]
    places = _places(frames)
    if any(len(place) != count for place in places):
        return []
    try:
        times = [float(start) for start in starts]
    except ValueError:
        return []
    ordered = [sorted(place, key=lambda i: times[i]) for place in places]
    passes = [[place[rank] for place in ordered] for rank in range(count)]
    if any(max(times[i] for i in a) >= min(times[i] for i in b) for a, b in itertools.pairwise(passes)):
        return []
    return [[frames[i] for i in one] for one in passes]


def _grouped(frames: Iterable[DicomFrame], names: Sequence[str]) -> list[list[DicomFrame]]:
    """Groups by some of their parts, numbers in their order."""

    def order(values: tuple[str, ...]) -> tuple[tuple[float, str], ...]:
        """Numbers by their size, other words after their letters."""
        numbers = []
        for value in values:
            try:
                numbers.append((float(value), value))
            except ValueError:
                numbers.append((math.inf, value))
        return tuple(numbers)

    groups: dict[tuple[str, ...], list[DicomFrame]] = defaultdict(list)
    for frame in frames:
        parts = dict(frame.parts)
        groups[tuple(parts[name] for name in names)].append(frame)
    return [groups[k] for k in sorted(groups, key=order)]


def _places(frames: Sequence[DicomFrame]) -> list[list[int]]:
    """Indices of frames by place, lowest first."""
    along = heights(frames)
    order = np.argsort(along, kind="stable")
    gaps = np.diff(along[order])
    steps = gaps[gaps > 1e-5]
    tolerance = min(1e-3, 0.05 * float(np.median(steps))) if steps.size else 1e-3
    breaks = np.flatnonzero(gaps > tolerance) + 1
    return [[int(i) for i in part] for part in np.split(order, breaks)]


def _most_at_a_place(frames: Sequence[DicomFrame]) -> int:
    return max(len(place) for place in _places(frames))


def _repeated(frames: Sequence[DicomFrame]) -> list[float]:
    along = heights(frames)
    return [float(along[place[0]]) for place in _places(frames) if len(place) > 1]


def _without_equal_pixels(frames: list[DicomFrame]) -> list[DicomFrame]:
    """Of frames at one place with the same pixels and rescaling only the first."""
    kept = []
    for place in _places(frames):
        seen = set()
        for index in place:
            frame = frames[index]
            if len(place) > 1:
                key = (pixel_digest(frame), frame.slope, frame.intercept, frame.position, frame.pixels)
                if key in seen:
                    continue
                seen.add(key)
            kept.append(frame)
    return kept


def _ordered(stack: Stack) -> Stack:
    frames = stack.frames
    if any(f.position is None for f in frames):
        return stack
    along = heights(frames)
    order = sorted(range(len(frames)), key=lambda i: (along[i], frames[i].instance, frames[i].number))
    return replace(stack, frames=tuple(frames[i] for i in order))


def describe(stacks: Sequence[Stack]) -> str:
    """The numbered list from which a user chooses, at most 12 of them."""
    lines = [f"{i}: {stack.description}" for i, stack in enumerate(stacks[:12], 1)]
    more = f"; and {len(stacks) - 12} more" if len(stacks) > 12 else ""
    return display_name("; ".join(lines)) + more
