"""What a reader needs to trust a picture: which way it lies, and how large things are.

Both come from the geometry alone. Where the geometry does not say, there is nothing to show:
a guessed R or L is worse than none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ibisagent.geometry import Geometry
    from ibisagent.types import Image

__all__ = ["EdgeLetters", "ScaleBar", "edge_letters", "image_facts", "level_text", "pixel_aspect", "scale_bar"]

_POSITIVE = "RAS"
_NEGATIVE = "LPI"
_SECOND_LETTER = math.sin(math.radians(20.0))


@dataclass(frozen=True)
class EdgeLetters:
    """Patient directions at the four edges of a displayed image (``"L"``, ``"AS"`` …)."""

    left: str
    right: str
    top: str
    bottom: str


@dataclass(frozen=True)
class ScaleBar:
    """A round length that fits a share of the image's width: ``length_mm`` is ``fraction`` of it."""

    length_mm: float
    fraction: float

    @property
    def label(self) -> str:
        """The length for a reader, in mm, or in cm from 10 cm on."""
        if self.length_mm >= 100:
            return f"{self.length_mm / 10:g} cm"
        return f"{self.length_mm:g} mm"


def _letters(direction: np.ndarray) -> str:
    """Name a RAS direction by its largest component, and by a second one beyond 20 degrees."""
    order = np.argsort(-np.abs(direction), kind="stable")
    names = [_POSITIVE[axis] if direction[axis] > 0 else _NEGATIVE[axis] for axis in order]
    return names[0] + (names[1] if abs(direction[order[1]]) >= _SECOND_LETTER else "")


def edge_letters(geometry: Geometry) -> EdgeLetters | None:
    """Say which way the patient lies in the displayed image.

    Parameters
    ----------
    geometry
        The image's geometry: pixel to index, index to RAS millimetres.

    Returns
    -------
    EdgeLetters or None
        None where the geometry has no affine, or one that maps an image axis to nothing.
    """
    if geometry.affine is None:
        return None
    affine = np.asarray(geometry.affine, dtype=np.float64)
    pixel = np.asarray(geometry.index_from_pixel, dtype=np.float64)
    if affine.shape != (4, 4) or pixel.shape != (3, 3):
        return None
    axes = affine[:3, :3] @ pixel[:, :2]
    lengths = np.linalg.norm(axes, axis=0)
    if not np.all(np.isfinite(lengths)) or np.any(lengths < 1e-9):
        return None
    axes = axes / lengths
    return EdgeLetters(
        left=_letters(-axes[:, 0]), right=_letters(axes[:, 0]), top=_letters(-axes[:, 1]), bottom=_letters(axes[:, 1])
    )


def pixel_aspect(geometry: Geometry) -> float:
    """Height of a pixel over its width; 1.0 where the spacing is unknown or not positive."""
    spacing = geometry.spacing_mm
    if spacing is None:
        return 1.0
    row, col = float(spacing[0]), float(spacing[1])
    if not (math.isfinite(row) and math.isfinite(col) and row > 0 and col > 0):
        return 1.0
    return row / col


def scale_bar(image: Image, share: float = 0.25) -> ScaleBar | None:
    """Choose a round scale bar (1, 2 or 5 times a power of ten) of at most ``share`` of the width.

    Returns None where the spacing is unknown.
    """
    spacing = image.geometry.spacing_mm
    if spacing is None:
        return None
    width_mm = float(spacing[1]) * image.width
    if not math.isfinite(width_mm) or width_mm <= 0:
        return None
    budget = width_mm * share
    power = 10.0 ** math.floor(math.log10(budget))
    length = max(step * power for step in (1, 2, 5) if step * power <= budget * (1 + 1e-9))
    return ScaleBar(length_mm=length, fraction=length / width_mm)


def image_facts(image: Image) -> list[str]:
    """List what a reader should know of the picture: modality, plane, size, spacing, window."""
    facts = [image.modality] if image.modality else []
    geometry = image.geometry
    if geometry.plane is not None:
        number = "" if geometry.slice_index is None else f" slice {geometry.slice_index}"
        facts.append(f"{geometry.plane}{number}")
    facts.append(f"{image.width} x {image.height} px")
    if geometry.spacing_mm is not None:
        row, col = geometry.spacing_mm
        same = math.isclose(row, col, rel_tol=1e-3)
        facts.append(f"{col:.3g} mm/px" if same else f"{col:.3g} x {row:.3g} mm/px")
    if image.window is not None:
        facts.append(f"window {level_text(image.window.low)} to {level_text(image.window.high)}, {image.window.name}")
    return facts


def level_text(value: float) -> str:
    """A stored value for a reader: no decimals where they say nothing."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
