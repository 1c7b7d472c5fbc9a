"""What a written mask is called, by whom it was drawn, and its colour."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DEFAULT_COLOUR", "SegmentLabel"]

DEFAULT_COLOUR = (0, 170, 60)
"""Green that stands out on gray images and in print."""


@dataclass(frozen=True)
class SegmentLabel:
    """Facts about the one segment of a mask that formats with room for them carry along.

    Parameters
    ----------
    name
        What was segmented, in plain words (the target's name, never a patient's).
    algorithm_name, algorithm_version
        What drew it.
    colour
        (red, green, blue), each 0 to 255: what a viewer is told to show it in.
    tracking_uid
        DICOM tracking unique identifier that names this lesion across studies; None lets the writer make one where
        its format needs it.

    Raises
    ------
    ValueError
        If the name is empty or a colour is outside 0 to 255.
    """

    name: str
    algorithm_name: str = "ibisagent"
    algorithm_version: str = ""
    colour: tuple[int, int, int] = DEFAULT_COLOUR
    tracking_uid: str | None = None

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ValueError("a segment needs a name")
        if len(self.colour) != 3 or not all(0 <= part <= 255 for part in self.colour):
            raise ValueError(f"a colour is three numbers from 0 to 255, not {self.colour}")
