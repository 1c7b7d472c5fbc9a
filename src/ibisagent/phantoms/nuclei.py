"""Fluorescence nuclei: bright ellipses on a dark, noisy field, some touching, some cut by the border.

What the names mean is measured on the train masks of ``data/mini`` (group dsb2018), and the same here:

- ``cell nuclei``: every visible nucleus, those cut by the border included.
- ``largest``, ``smallest``, ``leftmost``, ``rightmost``, ``uppermost``, ``lowest``, ``brightest nucleus``: one nucleus
  among those that do **not touch the border** (no pixel in the first or last row or column), and only
  where there are at least three such. Largest and smallest go by area, brightest by mean intensity.
- For leftmost and the like, mini's masks do not tell the smallest centroid from the smallest extreme pixel:
  both give the same nucleus in every train image. A name is given here only where both agree.
- A name is left out where the runner-up is too close to call by eye (area within 10%, place within
  2.5% of the side, brightness within 15%), and where a nucleus cut by the border beats the choice in area
  or brightness.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from ibisagent.phantoms.draw import blob, blur, fill, noise, smooth_field
from ibisagent.phantoms.phantom import Drawing

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["extreme_nuclei", "paint_nuclei"]

_MIN_CANDIDATES = 3
_PLACE_MARGIN = 0.025


def paint_nuclei(rng: np.random.Generator, size: int) -> Drawing:
    """Draw one field of 3 to 40 nuclei."""
    count = int(np.clip(np.round(np.exp(rng.uniform(np.log(3.5), np.log(40)))), 3, 40))
    cover = rng.uniform(0.10, 0.30)
    radius = min(float(np.sqrt(cover / (count * np.pi))), 0.13)
    clumpy = rng.random() < 0.6
    labels = np.zeros((size, size), np.uint8)
    label = 0
    centres: list[tuple[float, float, float]] = []
    for _ in range(count * 8):
        if label == count:
            break
        r = radius * float(np.exp(rng.normal(0.0, 0.22)))
        small = rng.random() < 0.12
        if small:
            r *= rng.uniform(0.45, 0.7)
        if centres and clumpy and rng.random() < 0.35:
            # beside another one, close enough to touch
            ox, oy, orad = centres[int(rng.integers(len(centres)))]
            t = rng.uniform(0.0, 2.0 * np.pi)
            d = (orad + r) * rng.uniform(0.80, 1.02)
            x, y = ox + d * np.cos(t), oy + d * np.sin(t)
        else:
            x, y = rng.uniform(-0.03, 1.03, 2)
        gap = 0.78 if clumpy else 1.15
        if any((x - ox) ** 2 + (y - oy) ** 2 < (gap * (r + orad)) ** 2 for ox, oy, orad in centres):
            continue
        squash = rng.uniform(0.55, 1.0)
        curve = blob(
            rng,
            x,
            y,
            r / np.sqrt(squash),
            r * np.sqrt(squash),
            rng.uniform(0, np.pi),
            rng.uniform(0.0, 0.06),
            harmonics=3,
        )
        one = np.zeros_like(labels)
        fill(one, curve, 1)
        free = (one > 0) & (labels == 0)
        if free.sum() < max(4, 24 * (size / 256) ** 2) or free.sum() < 0.6 * (one > 0).sum():
            continue
        # what the neighbour leaves may fall apart; keep the main piece, so that a nucleus is one thing
        n, parts, stats, _ = cv2.connectedComponentsWithStats(free.astype(np.uint8), connectivity=4)
        if n > 2:
            free = parts == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
        label += 1
        labels[free] = label
        centres.append((x, y, r))
    image, level = _expose(rng, labels, label, [c[2] for c in centres])
    masks: dict[str, NDArray[np.bool_]] = {"cell nuclei": labels > 0}
    masks.update(extreme_nuclei(labels, level))
    return Drawing(image, masks, "field")


def _expose(
    rng: np.random.Generator, labels: NDArray[np.uint8], count: int, radii: list[float]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Light the nuclei: (image, brightness of each label, 0 for the background)."""
    size = labels.shape[0]
    background = rng.uniform(4, 40)
    typical = background + rng.uniform(28, 130)
    level = np.zeros(256)
    spread = rng.uniform(0.08, 0.35)
    level[1 : count + 1] = (typical - background) * np.exp(rng.normal(0.0, spread, count))
    # dividing nuclei are small and far brighter
    mitotic = (np.array(radii) < 0.8 * np.median(radii)) & (rng.random(count) < 0.5) if count else np.zeros(0, bool)
    level[1 : count + 1][mitotic] = rng.uniform(140, 240, int(mitotic.sum()))
    level = np.minimum(level, 250.0 - background)
    texture = 1.0 + rng.uniform(0.02, 0.16) * smooth_field(rng, size, max(8, int(size / rng.uniform(4, 9))))
    signal = level[labels].astype(np.float32) * np.clip(texture, 0.5, 1.5)
    px = size / 256.0
    sharp = blur(signal, rng.uniform(0.6, 1.8) * px)
    if rng.random() < 0.5 and count > 1:
        # some nuclei lie out of focus: their light alone is blurred further
        far = np.zeros(256, np.float32)
        far[1 : count + 1] = rng.random(count) < 0.3
        soft = signal * far[labels]
        sharp = blur(signal - soft, rng.uniform(0.6, 1.0) * px) + blur(soft, 2.0 * px)
    halo = blur(cv2.resize(signal, (size // 4, size // 4), interpolation=cv2.INTER_AREA), rng.uniform(2.0, 4.0) * px)
    halo = cv2.resize(halo, (size, size), interpolation=cv2.INTER_LINEAR) * rng.uniform(0.03, 0.15)
    image = background + sharp + halo + rng.uniform(0, 3) * smooth_field(rng, size, 3)
    grain = noise(rng, size, rng.uniform(0.5, 3.2))
    if rng.random() < 0.7:
        grain = blur(grain, 0.7) * 2.0
    image += grain * np.sqrt(np.maximum(image, 1.0) / 25.0)
    return image, level


def extreme_nuclei(labels: NDArray[np.uint8], level: NDArray[np.float64]) -> dict[str, NDArray[np.bool_]]:
    """The single nuclei that a name singles out beyond doubt; rules in the module's docstring.

    Parameters
    ----------
    labels
        ``uint8`` (H, W), 0 for background, one number a nucleus.
    level
        Brightness of each label.

    Returns
    -------
    dict
        Name -> ``bool`` (H, W); possibly empty.
    """
    size = labels.shape[0]
    present = np.unique(labels)
    present = present[present > 0]
    if not len(present):
        return {}
    rim = np.zeros(256, bool)
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        rim[edge] = True
    inside = present[~rim[present]]
    if len(inside) < _MIN_CANDIDATES:
        return {}
    area = np.bincount(labels.ravel(), minlength=256).astype(float)
    box = np.zeros((256, 6))  # cx, cy, x0, y0, x1, y1 in units of the side
    ys, xs = np.nonzero(labels)
    which = labels[ys, xs]
    for column, values in ((0, xs), (1, ys)):
        box[:, column] = np.bincount(which, values, 256) / np.maximum(area, 1) / size
    for label in inside:
        at = which == label
        box[label, 2:] = xs[at].min() / size, ys[at].min() / size, xs[at].max() / size, ys[at].max() / size

    chosen: dict[str, int] = {}

    def ranked(key: NDArray[np.float64]) -> NDArray[np.uint8]:
        return inside[np.argsort(key[inside], kind="stable")]

    cut = present[rim[present]]
    by_area = ranked(area)
    if area[by_area[-1]] >= 1.10 * max(area[by_area[-2]], area[cut].max(initial=0.0)):
        chosen["largest nucleus"] = by_area[-1]
    if 1.10 * area[by_area[0]] <= min(area[by_area[1]], area[cut].min(initial=np.inf)):
        chosen["smallest nucleus"] = by_area[0]
    by_level = ranked(level)
    if level[by_level[-1]] >= 1.15 * max(level[by_level[-2]], level[cut].max(initial=0.0)):
        chosen["brightest nucleus"] = by_level[-1]
    for name, centre, extreme, sign in (
        ("leftmost nucleus", 0, 2, 1.0),
        ("uppermost nucleus", 1, 3, 1.0),
        ("rightmost nucleus", 0, 4, -1.0),
        ("lowest nucleus", 1, 5, -1.0),
    ):
        c, e = sign * box[:, centre], sign * box[:, extreme]
        first, second = ranked(c)[:2]
        if c[second] - c[first] >= _PLACE_MARGIN and e[first] <= e[inside].min():
            chosen[name] = first
    return {name: labels == label for name, label in chosen.items()}
