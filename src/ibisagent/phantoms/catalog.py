"""The list of kinds, and the one function that draws any of them."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np

from ibisagent.errors import InputError
from ibisagent.phantoms.brain import paint_brain_mri
from ibisagent.phantoms.breast import paint_breast_mri
from ibisagent.phantoms.chest import paint_chest_ct
from ibisagent.phantoms.eye import paint_fundus, paint_oct
from ibisagent.phantoms.nuclei import paint_nuclei
from ibisagent.phantoms.phantom import Drawing, Phantom
from ibisagent.phantoms.scopes import paint_endoscopy, paint_ultrasound
from ibisagent.phantoms.skin import paint_dermoscopy, paint_histology
from ibisagent.phantoms.xray import paint_xray

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Painter = Callable[[np.random.Generator, int], Drawing]

__all__ = ["KINDS", "MIN_PIXELS", "MODALITIES", "generate"]

MIN_PIXELS = 20
"""Fewest pixels of a mask at 256 pixels a side; scaled with the area at other sizes."""

_PAINTERS: dict[str, tuple[Painter, str]] = {
    "nuclei": (paint_nuclei, "Fluorescence microscopy"),
    "chest_ct": (paint_chest_ct, "CT"),
    "brain_mri": (paint_brain_mri, "MRI"),
    "breast_mri": (paint_breast_mri, "MRI"),
    "histology": (paint_histology, "Histology"),
    "ultrasound": (paint_ultrasound, "Ultrasound"),
    "dermoscopy": (paint_dermoscopy, "Dermoscopy"),
    "fundus": (paint_fundus, "Fundus photography"),
    "endoscopy": (paint_endoscopy, "Endoscopy"),
    "xray": (paint_xray, "X-ray"),
    "oct": (paint_oct, "OCT"),
}

KINDS: list[str] = list(_PAINTERS)
"""Every kind that :func:`generate` draws."""

MODALITIES: dict[str, str] = {kind: modality for kind, (_, modality) in _PAINTERS.items()}
"""Kind -> modality, spelt as in ``data/mini``."""


def generate(kind: str, seed: int, size: int = 256) -> Phantom:
    """Draw one phantom; the same three arguments give the same pixels.

    Parameters
    ----------
    kind
        One of :data:`KINDS`.
    seed
        Any integer >= 0. Kinds do not share random streams: seed 7 of two kinds has nothing in common.
    size
        Side in pixels, at least 64. Shapes scale with it; the drawing at another size is not a resampled copy.

    Returns
    -------
    Phantom
        ``uint8`` (size, size, 3) and masks ``bool`` (size, size), each of at least 20 pixels (at 256; in
        proportion to the area otherwise).

    Raises
    ------
    InputError
        Unknown kind, negative seed, or a size below 64.
    """
    if kind not in _PAINTERS:
        raise InputError(f"unknown phantom kind {kind!r}; there are {', '.join(KINDS)}")
    if seed < 0:
        raise InputError(f"phantom seed must be >= 0, not {seed}")
    if size < 64:
        raise InputError(f"phantom size must be >= 64 pixels, not {size}")
    painter, modality = _PAINTERS[kind]
    rng = np.random.default_rng((seed, zlib.crc32(kind.encode())))
    drawing = painter(rng, size)
    least = max(4.0, MIN_PIXELS * (size / 256) ** 2)
    masks = {name: np.ascontiguousarray(mask) for name, mask in drawing.masks.items() if mask.sum() >= least}
    return Phantom(_finish(drawing.pixels), masks, modality, drawing.view, kind, seed)


def _finish(pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Round, clip, and repeat gray planes."""
    out = pixels if pixels.dtype == np.uint8 else np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    if out.ndim == 2:
        out = np.repeat(out[:, :, None], 3, axis=2)
    return np.ascontiguousarray(out)
