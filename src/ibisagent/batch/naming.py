"""What a mask is called in the files that carry a name, from what was asked for."""

from __future__ import annotations

import re

__all__ = ["segment_name"]

_MOST = 64  # characters of a name in DICOM
_ASKING = re.compile(
    r"^(?:please|can you|could you|segment|outline|delineate|contour|mark|find|show|extract|annotate|locate|me|the|an?)"
    r"\s+",
    re.IGNORECASE,
)


def segment_name(instruction: str) -> str:
    """The target of an instruction as a short name: ``"Segment the left lung."`` gives ``"left lung"``.

    Only words of asking at the beginning and the stop at the end go; nothing is interpreted. At most 64 characters, cut
    between words where possible; never empty.
    """
    name = " ".join(instruction.split()).rstrip(" .!?")
    name = "".join(c for c in name if c.isprintable() and c not in "\\")  # a backslash separates values in DICOM
    while (shorter := _ASKING.sub("", name, count=1)) != name and shorter:
        name = shorter
    if len(name) > _MOST:
        cut = name[: _MOST + 1].rpartition(" ")[0]
        name = (cut or name)[:_MOST]
    return name.strip() or "target"
