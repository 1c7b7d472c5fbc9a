"""How a mask goes from one slice to the next: what the segmenter is told, and how far its answer is believed.

What the target looks like is learnt from the neighbour: gray levels under its mask against those close around it. On
the next slice the mask is cut to what looks like the target and grown into what does too, close by; that goes along as
a prior, with clicks that it implies: deep inside its largest pieces, and around the neighbour's mask where it does not
look like the target. What the segmenter answers is judged by the same likeness. All of it follows from a mask and a
slice, so that a run can be taken up again from its record.
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

__all__ = ["ALIKE", "ENDED", "MIN_PIXELS", "Doubt", "Look", "carried_prompt", "doubt"]

MIN_PIXELS = 6
"""Masks of fewer pixels are nothing: the target has ended."""

ALIKE, ENDED = 0.4, 0.0
"""Likeness under which a carried mask is doubted, and given up where nobody can be asked: 1 is as much like the target
as the neighbour's mask was, 0 as much as its surroundings. On neighbouring slices of mini's train split and of phantom
volumes (622 pairs, a segmenter trained on procedural images alone) 110 of 112 masks whose target had ended lie below 0,
and 21 of 510 whose target had not."""

_NUM_INSIDE, _NUM_AROUND = 3, 4
_GAP = 0.6  # of the equivalent radius: where negative clicks go
_GROWTH = 0.3  # of the equivalent radius: how far the next slice's target may reach beyond the neighbour's mask
_LEVELS = 32


class Look:
    """What a target looks like on a slice: gray levels under its mask against those close around it.

    Parameters
    ----------
    pixels
        ``uint8`` (H, W, 3) as displayed; the mean over the channels counts.
    mask
        ``bool`` (H, W), not empty.
    """

    def __init__(self, pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> None:
        from scipy import ndimage

        levels = _levels(pixels)
        distance = ndimage.distance_transform_edt(~mask)
        ring = (distance > 1.5) & (distance < max(4.0, 0.5 * _radius(mask)) + 1.5)
        inside = _histogram(levels[mask])
        around = _histogram(levels[ring] if ring.any() else levels[~mask])
        self._share = inside / (inside + around)
        self.own = float(self._share[levels[mask]].mean())
        """Mean probability of the mask's own pixels to be the target's rather than its surroundings'."""

    def probability(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """How much each pixel of a slice looks like the target rather than its surroundings, (H, W) in (0, 1)."""
        return np.asarray(self._share[_levels(pixels)])

    def likeness(self, pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> float:
        """How much a mask (``bool`` (H, W), not empty) on another slice looks like the target; see :data:`ALIKE`."""
        found = float(self._share[_levels(pixels)[mask]].mean())
        return (found - 0.5) / max(self.own - 0.5, 0.02)


def _levels(pixels: NDArray[np.uint8]) -> NDArray[np.intp]:
    return np.asarray(pixels.mean(axis=2) * (_LEVELS / 256), np.intp)


def _histogram(levels: NDArray[np.intp]) -> NDArray[np.float64]:
    """Smoothed shares of gray levels; none is zero, so that what was never seen speaks for neither side."""
    counts = np.bincount(levels, minlength=_LEVELS).astype(np.float64)
    smooth = np.convolve(counts, (0.06, 0.24, 0.4, 0.24, 0.06), "same") + 0.002 * max(1, len(levels))
    return np.asarray(smooth / smooth.sum())


def _radius(mask: NDArray[np.bool_]) -> float:
    return float(np.sqrt(mask.sum() / np.pi))


def carried_prompt(
    mask: NDArray[np.bool_], look: Look, pixels: NDArray[np.uint8], capabilities: Capabilities
) -> Prompt:
    """What a segmenter is told on a slice whose neighbour has `mask`.

    Parameters
    ----------
    mask
        ``bool`` (H, W), the neighbour's mask, not empty, on the same display.
    look
        What the target looked like there.
    pixels
        The slice, ``uint8`` (H, W, 3).
    capabilities
        What the segmenter understands. A prior mask goes along where it can, else a box around it, a tenth wider.

    Returns
    -------
    Prompt
        Positive clicks at the deepest pixels of the (up to three) largest pieces of what looks like the target,
        negative ones in four directions at 0.6 equivalent radii from `mask`, apart from those in the same region of
        what looks like the target. Where under a fifth of `mask` does, the mask is told as it is.
    """
    from scipy import ndimage

    alike = ndimage.uniform_filter(look.probability(pixels), 3) > 0.5
    inside = mask & alike
    prior, negatives = mask, _around(mask)
    if inside.sum() > 0.2 * mask.sum():
        # specks do not grow: an error would, from slice to slice
        main = np.logical_or.reduce(_pieces(inside))
        close = ndimage.distance_transform_edt(~main) <= max(2.0, _GROWTH * _radius(main))
        prior = np.ascontiguousarray(ndimage.binary_opening(close & alike) | inside)
        regions, _ = ndimage.label(alike)
        own = np.unique(regions[main])  # the other lung looks like this one too, but it is another region
        negatives = [click for click in negatives if regions[click.y, click.x] not in own]
    else:
        inside = mask
    clicks: list[PixelClick] = []
    if capabilities.clicks:
        clicks += [PixelClick(*deepest_point(piece), True) for piece in _pieces(inside)]
        if capabilities.negative_clicks:
            clicks += negatives
        if capabilities.max_clicks is not None:
            clicks = clicks[: capabilities.max_clicks]
    box = _box(prior) if capabilities.boxes and not capabilities.prior_mask else None
    return Prompt(clicks=tuple(clicks), box=box, prior_mask=prior if capabilities.prior_mask else None)


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
    gap = max(3.0, _GAP * _radius(mask))
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
    look: Look,
    pixels: NDArray[np.uint8],
    min_agreement: float,
) -> Doubt:
    """Judge a carried mask.

    Parameters
    ----------
    before, carried
        ``bool`` (H, W), the neighbour's mask (not empty) and the new one.
    look
        What the target looked like under the neighbour's mask.
    pixels
        The new slice, ``uint8`` (H, W, 3).
    min_agreement
        Dice of the two masks under which the new one is doubted.
    """
    agreement = dice(before, carried)
    if int(carried.sum()) < MIN_PIXELS:
        return Doubt(agreement, True, "nothing of it is left")
    likeness = look.likeness(pixels, carried)
    reasons = []
    if agreement < min_agreement:
        reasons.append(f"agreement {agreement:.2f} with the slice before")
    if likeness < ALIKE:
        reasons.append(f"likeness {max(likeness, 0.0):.2f} to what it was")
    return Doubt(agreement, likeness < ENDED or len(reasons) == 2, " and ".join(reasons))
