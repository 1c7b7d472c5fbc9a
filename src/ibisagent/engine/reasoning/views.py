"""The two pictures of a step: what the agent sees, and what only a teacher sees.

The Agent view is the one overlay of :mod:`ibisagent.rendering`. The Oracle view shows the mask against the target:
hits in green, excess in red, misses hatched in yellow. It is made for a teacher that must know *why* an action is
right, and never enters a trajectory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ibisagent.rendering import AGENT_COLOR, agent_overlay

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["EXCESS_COLOR", "HIT_COLOR", "MISSED_COLOR", "agent_view", "oracle_view"]

HIT_COLOR: tuple[int, int, int] = AGENT_COLOR
"""True positives: the mask where it is right, tinted as the agent sees it."""
EXCESS_COLOR: tuple[int, int, int] = (255, 0, 0)
"""False positives: what the mask covers too much."""
MISSED_COLOR: tuple[int, int, int] = (255, 255, 0)
"""False negatives: an outline and diagonal stripes, so that the tissue between them stays in sight."""

_PERIOD = 8
_STRIPE = 2
"""Pixels from stripe to stripe along a row, and pixels that a stripe is wide."""

agent_view = agent_overlay
"""What the agent sees: see :func:`ibisagent.rendering.agent_overlay`."""


def oracle_view(
    pixels: NDArray[np.uint8], mask: NDArray[np.bool_] | None, target: NDArray[np.bool_] | None
) -> NDArray[np.uint8]:
    """Draw a mask against its target.

    Parameters
    ----------
    pixels
        ``uint8`` (H, W, 3).
    mask
        ``bool`` (H, W), None counts as empty.
    target
        ``bool`` (H, W), None (the target is absent) counts as empty.

    Returns
    -------
    NDArray
        New ``uint8`` (H, W, 3): hits blended half and half with green, excess with red; missed pixels are pure
        yellow on their region's own border and on diagonal stripes, and bare between them.

    Raises
    ------
    ValueError
        If a dtype or shape is wrong.
    """
    # The Agent view's own blend for the hits: the two pictures agree where the mask is right.
    shape = (pixels.shape[0], pixels.shape[1])
    current, wanted = _filled(mask, shape), _filled(target, shape)
    out = agent_overlay(pixels, current & wanted)
    excess, missed = current & ~wanted, wanted & ~current
    out[excess] = ((pixels[excess].astype(np.uint16) + np.array(EXCESS_COLOR, np.uint16) + 1) // 2).astype(np.uint8)
    striped = np.add.outer(np.arange(shape[0]), np.arange(shape[1])) % _PERIOD < _STRIPE
    padded = np.pad(missed, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    out[missed & (striped | ~inner)] = MISSED_COLOR
    return out


def _filled(mask: NDArray[np.bool_] | None, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    if mask is None:
        return np.zeros(shape, np.bool_)
    if mask.dtype != np.bool_ or mask.shape != shape:
        raise ValueError(f"a mask must be bool {shape}, not {mask.dtype} {mask.shape}")
    return mask
