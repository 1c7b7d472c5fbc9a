"""How a mask goes from one slice to the next: what the segmenter is told, and how far its answer is believed.

The neighbour's mask goes along as a prior, with clicks that it implies: deep inside its largest pieces, and around it
at some distance, where the next slice's target is not likely to reach. All of it follows from the mask alone, so that a
run can be taken up again from its record.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ibisagent.clicks import deepest_point
from ibisagent.metrics import dice
from ibisagent.segmenters.protocol import Capabilities
from ibisagent.types import PixelBox, PixelClick, Prompt

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MIN_PIXELS", "Appearance", "Doubt", "appearance", "carried_prompt", "doubt"]

MIN_PIXELS = 6
"""Masks of fewer pixels are nothing: the target has ended."""

_NUM_INSIDE = 3
_NUM_AROUND = 4
_GAP = 0.6


def carried_prompt(mask: NDArray[np.bool_], capabilities: Capabilities) -> Prompt:
    """What a segmenter is told on a slice whose neighbour has `mask`.

    Parameters
    ----------
    mask
        ``bool`` (H, W), the neighbour's mask, not empty, on the same display.
    capabilities
        What the segmenter understands. A prior mask goes along where it can, else a box around it, a tenth wider.

    Returns
    -------
    Prompt
        Positive clicks at the deepest pixels of the (up to three) largest pieces, negative ones in four directions at
        0.6 equivalent radii from the mask.
    """
    clicks: list[PixelClick] = []
    if capabilities.clicks:
        clicks += [PixelClick(*deepest_point(piece), True) for piece in _pieces(mask)]
        if capabilities.negative_clicks:
            clicks += _around(mask)
        if capabilities.max_clicks is not None:
            clicks = clicks[: capabilities.max_clicks]
    box = None
    if capabilities.boxes and not capabilities.prior_mask:
        box = _box(mask)
    return Prompt(clicks=tuple(clicks), box=box, prior_mask=mask if capabilities.prior_mask else None)


def _pieces(mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """The largest connected pieces, those of at least a tenth of the largest."""
    from scipy import ndimage

    labels, count = ndimage.label(mask)
    if count == 0:
        return []
    areas = np.bincount(labels.ravel())[1:]
    order = np.argsort(-areas, kind="stable")[:_NUM_INSIDE]
    return [labels == i + 1 for i in order if areas[i] >= 0.1 * areas.max()]


def _around(mask: NDArray[np.bool_]) -> list[PixelClick]:
    """Negative clicks outside: one in each of four directions from the mask's centre, at the ring's distance."""
    from scipy import ndimage

    distance = ndimage.distance_transform_edt(~mask)
    gap = max(3.0, _GAP * float(np.sqrt(mask.sum() / np.pi)))
    ys, xs = np.nonzero((distance > gap) & (distance < gap + 2))
    if len(ys) == 0:
        return []
    rows, columns = np.nonzero(mask)
    angles = np.arctan2(ys - rows.mean(), xs - columns.mean())
    clicks = []
    for wanted in np.linspace(-np.pi, np.pi, _NUM_AROUND, endpoint=False):
        nearest = int(np.argmin(np.abs(np.angle(np.exp(1j * (angles - wanted))))))
        clicks.append(PixelClick(int(xs[nearest]), int(ys[nearest]), False))
    return list(dict.fromkeys(clicks))


def _box(mask: NDArray[np.bool_]) -> PixelBox:
    ys, xs = np.nonzero(mask)
    wider_x, wider_y = (int(np.ceil(0.05 * (v.max() - v.min() + 1))) for v in (xs, ys))
    height, width = mask.shape
    return PixelBox(
        max(0, int(xs.min()) - wider_x),
        max(0, int(ys.min()) - wider_y),
        min(width - 1, int(xs.max()) + wider_x),
        min(height - 1, int(ys.max()) + wider_y),
    )


@dataclass(frozen=True)
class Appearance:
    """Gray levels under a mask and close around it."""

    mean: float
    spread: float
    """Standard deviation under the mask."""
    around: float
    spread_around: float

    @property
    def contrast(self) -> float:
        """How far the mask stands out from its surroundings, in their joint spread; signed."""
        return (self.mean - self.around) / (float(np.hypot(self.spread, self.spread_around)) + 4.0)


def appearance(pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> Appearance:
    """Measure what lies under and around a mask.

    Parameters
    ----------
    pixels
        ``uint8`` (H, W, 3) as displayed; their mean over the channels counts.
    mask
        ``bool`` (H, W), not empty.
    """
    from scipy import ndimage

    gray = pixels.mean(axis=2)
    distance = ndimage.distance_transform_edt(~mask)
    ring = (distance > 1.5) & (distance < max(4.0, 0.5 * float(np.sqrt(mask.sum() / np.pi))) + 1.5)
    inside, outside = gray[mask], gray[ring] if ring.any() else gray[~mask] if not mask.all() else gray[mask]
    return Appearance(float(inside.mean()), float(inside.std()), float(outside.mean()), float(outside.std()))


@dataclass(frozen=True)
class Doubt:
    """Whether a carried mask is believed, and why not."""

    agreement: float
    """Dice with the neighbour's mask."""
    is_over: bool
    """Whether the target has ended here as far as anyone can tell without asking."""
    reason: str
    """Why the mask is doubted, empty if it is not."""


def doubt(
    before: NDArray[np.bool_],
    carried: NDArray[np.bool_],
    looked_before: Appearance,
    looks: Appearance | None,
    min_agreement: float,
) -> Doubt:
    """Compare a carried mask with the one it came from.

    Parameters
    ----------
    before, carried
        ``bool`` (H, W), the neighbour's mask (not empty) and the new one.
    looked_before
        How the target looks where it was last asked for or seen.
    looks
        How the new mask looks; None if it is empty.
    min_agreement
        Dice under which it is doubted.
    """
    agreement = dice(before, carried)
    if looks is None or int(carried.sum()) < MIN_PIXELS:
        return Doubt(agreement, True, "nothing of it is left")
    reasons = []
    if agreement < min_agreement:
        reasons.append(f"agreement {agreement:.2f} with the slice before")
    faded = looks.contrast / looked_before.contrast if looked_before.contrast else 1.0
    if faded < FADED:
        reasons.append("it no longer stands out as it did")
    shift = abs(looks.mean - looked_before.mean) / (looked_before.spread + 6.0)
    if shift > SHIFTED:
        reasons.append("it does not look alike any more")
    return Doubt(agreement, faded < GONE or shift > FOREIGN, " and ".join(reasons))


FADED, GONE = 0.45, 0.15
"""Share of the former contrast under which a mask is doubted, and given up where nobody can be asked. On neighbouring
slices of mini's train split and of phantom volumes (276 pairs, a segmenter that had seen phantoms only) the bounds for
giving up end 40 of 43 masks whose target had ended, and 7 of 233 whose target had not."""
SHIFTED, FOREIGN = 0.9, 1.6
"""Change of the mean gray level, in its former spread, likewise."""
