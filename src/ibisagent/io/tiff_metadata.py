"""What the description of a TIFF stack says of its pages: OME-XML and ImageJ's lines, nothing else."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from ibisagent.errors import InputError

__all__ = ["StackFacts", "stack_facts"]

_MM = {
    "nm": 1e-6,
    "µm": 1e-3,
    "μm": 1e-3,
    "um": 1e-3,
    "micron": 1e-3,
    "microns": 1e-3,
    "mm": 1.0,
    "cm": 10.0,
    "m": 1000.0,
    "inch": 25.4,
}
_X_RESOLUTION, _Y_RESOLUTION = 282, 283


@dataclass(frozen=True)
class StackFacts:
    """Facts of a stack.

    Parameters
    ----------
    spacing_mm
        (column, row, page); 1.0 where it is not known.
    notes
        What a user must know about them.
    """

    spacing_mm: tuple[float, float, float]
    notes: tuple[str, ...]


def stack_facts(description: str, tags: dict[int, Any], num_pages: int, name: str) -> StackFacts:
    """Read a stack's description.

    Parameters
    ----------
    description
        The first page's ImageDescription.
    tags
        Its tags by number, as Pillow gives them.
    num_pages
        How many pages there are.
    name
        The file, for messages.

    Raises
    ------
    InputError
        If the pages are channels, or run over time and depth both.
    """
    sizes: dict[str, int]
    spacing: list[float | None]
    if "<Pixels" in description:
        sizes, spacing = _ome(description)
    elif description.startswith("ImageJ="):
        sizes, spacing = _imagej(description, tags)
    else:
        sizes, spacing = {}, [None, None, None]
    channels, times, depths = (sizes.get(axis, 1) for axis in "CTZ")
    if channels > 1:
        raise InputError(f"{name}: a stack of {channels} channels; save one channel as a stack of its own")
    if times > 1 and depths > 1:
        raise InputError(f"{name}: 4-D data ({times} times of {depths} slices); save one time as a stack of its own")
    notes = []
    if times > 1:
        notes.append(f"its {num_pages} pages are points in time, shown as slices")
    if None in spacing:
        notes.append("the file does not say how large a voxel is: 1 mm was assumed where it is not known")
    x, y, z = (1.0 if mm is None else mm for mm in spacing)
    return StackFacts((x, y, z), tuple(notes))


def _ome(description: str) -> tuple[dict[str, int], list[float | None]]:
    """Attributes of the first ``Pixels`` element; an XML parser would unfold entities, and nothing else is needed."""
    found = re.search(r"<Pixels\b[^>]{0,4000}", description)
    attributes = dict(re.findall(r'(\w+)\s*=\s*"([^"]*)"', found[0])) if found else {}
    sizes = {axis: _whole(attributes.get(f"Size{axis}")) for axis in "CTZ"}
    spacing = [
        _length(attributes.get(f"PhysicalSize{axis}"), attributes.get(f"PhysicalSize{axis}Unit", "µm"))
        for axis in "XYZ"
    ]
    return sizes, spacing


def _imagej(description: str, tags: dict[int, Any]) -> tuple[dict[str, int], list[float | None]]:
    lines = dict(line.split("=", 1) for line in description.splitlines() if "=" in line)
    sizes = {axis: _whole(lines.get(key)) for axis, key in (("C", "channels"), ("T", "frames"), ("Z", "slices"))}
    unit = lines.get("unit", "").replace("\\u00B5", "µ")
    spacing = [_length(_inverse(tags.get(tag)), unit) for tag in (_X_RESOLUTION, _Y_RESOLUTION)]
    return sizes, [*spacing, _length(lines.get("spacing"), unit)]


def _whole(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 10 else 1


def _inverse(resolution: Any) -> str | None:
    try:
        return str(1.0 / float(resolution))
    except (TypeError, ValueError, ArithmeticError):
        return None


def _length(text: str | None, unit: str) -> float | None:
    """Millimetres, or None if it is no length that a voxel may have."""
    factor = _MM.get(unit.strip().lower())
    try:
        mm = abs(float(text or "")) * (factor or math.nan)
    except ValueError:
        return None
    return mm if 1e-9 < mm < 1e6 else None
