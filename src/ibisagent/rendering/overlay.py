"""The one overlay a model ever sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["AGENT_ALPHA", "AGENT_COLOR", "agent_overlay"]

AGENT_COLOR: tuple[int, int, int] = (0, 255, 0)
"""Tint of the mask in the pictures a model sees."""

AGENT_ALPHA: float = 0.5
"""Its opacity: one half, so that the blend is exact in integers."""


def agent_overlay(pixels: NDArray[np.uint8], mask: NDArray[np.bool_] | None) -> NDArray[np.uint8]:
    """Lay a mask over an image the way every model sees it: half-transparent green.

    Data generation, training and inference all call this function, so that a model never meets
    an overlay it was not trained on. Same size in and out, no contour, no text.

    Parameters
    ----------
    pixels
        ``uint8`` (H, W, 3).
    mask
        ``bool`` (H, W), or None for the bare image.

    Returns
    -------
    NDArray
        New ``uint8`` (H, W, 3); inside the mask each channel is ``(pixel + colour + 1) // 2``.

    Raises
    ------
    ValueError
        If a dtype or shape is wrong.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"pixels must be uint8 (H, W, 3), not {pixels.dtype} {pixels.shape}")
    out = np.array(pixels, order="C")
    if mask is None:
        return out
    if mask.dtype != np.bool_ or mask.shape != pixels.shape[:2]:
        raise ValueError(f"mask must be bool {pixels.shape[:2]}, not {mask.dtype} {mask.shape}")
    # Integers, rounding half up: no float rounding that could differ between machines.
    blended = (out[mask].astype(np.uint16) + np.array(AGENT_COLOR, dtype=np.uint16) + 1) // 2
    out[mask] = blended.astype(np.uint8)
    return out
