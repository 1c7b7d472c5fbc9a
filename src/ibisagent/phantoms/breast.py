"""Breast MRI after contrast, axial: a bright lesion in dark fat and patchy glandular tissue.

Two layouts: a whole breast in front of the chest wall, and a tight crop without its outline, as in ``data/mini``.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ibisagent.phantoms.draw import blob, blur, fill, noise, smooth_field, spline, stroke
from ibisagent.phantoms.phantom import Drawing

__all__ = ["paint_breast_mri"]


def paint_breast_mri(rng: np.random.Generator, size: int) -> Drawing:
    """Draw one slice with one lesion."""
    px = size / 256.0
    fat = rng.uniform(18, 60)
    gland = fat + rng.uniform(8, 45)
    image = np.full((size, size), fat, np.float32)
    tissue = np.ones((size, size), np.uint8)
    crop = rng.random() < 0.5
    gland_field = smooth_field(rng, size, 6) + 0.6 * smooth_field(rng, size, 18)
    if crop:
        image += (gland - fat) * np.clip(gland_field - rng.uniform(-0.2, 0.8), 0, 1.2)
        if rng.random() < 0.6:
            # skin or chest wall crosses one edge of the crop
            top = [
                (-0.1, -0.1),
                (1.1, -0.1),
                (1.1, rng.uniform(0, 0.15)),
                (0.5, rng.uniform(-0.05, 0.1)),
                (-0.1, rng.uniform(0, 0.2)),
            ]
            _spot(image, spline(top), rng.uniform(150, 235))
    else:
        tissue[:] = 0
        cx, r = rng.uniform(0.42, 0.58), rng.uniform(0.30, 0.42)
        points = [
            (cx - r * 1.25, 0.92),
            (cx - r, 0.60),
            (cx - r * 0.6, 0.28),
            (cx, rng.uniform(0.1, 0.18)),
            (cx + r * 0.6, 0.28),
        ]
        points += [(cx + r, 0.60), (cx + r * 1.25, 0.92)]
        fill(tissue, spline(np.array(points) + rng.normal(0, 0.012, (7, 2))), 1)
        image[tissue == 0] = 3.0
        lobe = np.zeros_like(tissue)
        fill(lobe, blob(rng, cx, rng.uniform(0.45, 0.52), r * 0.65, 0.22, rough=0.12), 1)
        soft = blur(lobe.astype(np.float32), 5 * px)
        image += soft * (gland - fat) * np.clip(0.7 + 0.6 * gland_field, 0, 1.8)
        wall = np.zeros_like(tissue)
        fill(wall, spline([(-0.1, 1.1), (-0.1, 0.86), (0.3, 0.78), (0.7, 0.8), (1.1, 0.88), (1.1, 1.1)]), 1)
        image[wall > 0] = rng.uniform(60, 120)
        tissue[wall > 0] = 0
        skin = cv2.morphologyEx(tissue, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
        image[skin > 0] = rng.uniform(60, 130)
    # vessels
    layer = np.zeros((size, size), np.uint8)
    for _ in range(int(rng.integers(2, 7))):
        p = rng.uniform(0.1, 0.9, 2) + np.cumsum(rng.normal(0, 0.07, (5, 2)), axis=0)
        stroke(layer, spline(p, 6, closed=False), rng.uniform(25, 110), rng.uniform(0.003, 0.010), smooth=True)
    image = np.where(tissue > 0, np.maximum(image, layer.astype(np.float32)), image)

    mask, level = _lesion(rng, tissue, size, gland)
    inside = smooth_field(rng, size, int(rng.integers(16, 40)))
    image[mask] = np.clip(level * (1.0 + 0.10 * inside[mask]), 0, 250)
    if rng.random() < 0.3:
        # poor perfusion in the middle
        d = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3)
        image[d > 0.65 * d.max()] *= rng.uniform(0.6, 0.85)
    image *= 1.0 + rng.uniform(0, 0.1) * smooth_field(rng, size, 2)
    image = blur(image, rng.uniform(0.8, 1.5) * px)
    image += blur(noise(rng, size), rng.uniform(0.3, 0.9)) * rng.uniform(2, 8)
    return Drawing(np.abs(image), {"breast lesion": mask}, "axial")


def _spot(image: NDArray[np.float32], curve: NDArray[np.float64], value: float) -> None:
    one = np.zeros(image.shape, np.uint8)
    fill(one, curve, 1)
    image[one > 0] = value


def _lesion(
    rng: np.random.Generator, tissue: NDArray[np.uint8], size: int, gland: float
) -> tuple[NDArray[np.bool_], float]:
    """Mask of the lesion, wholly inside the tissue where that has room, and its gray level."""
    depth = cv2.distanceTransform(np.pad(tissue, 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    r = rng.uniform(0.022, 0.085)
    ys, xs = np.nonzero(depth >= min(1.1 * r * size, 0.8 * depth.max()))
    at = int(rng.integers(len(xs)))
    spiky = rng.random() < 0.4
    curve = blob(
        rng,
        xs[at] / size,
        ys[at] / size,
        r,
        r * rng.uniform(0.55, 1.0),
        rng.uniform(0, np.pi),
        0.13 if spiky else 0.07,
        n=96,
        harmonics=9 if spiky else 4,
    )
    one = np.zeros((size, size), np.uint8)
    fill(one, curve, 1)
    one[tissue == 0] = 0
    n, parts, stats, _ = cv2.connectedComponentsWithStats(one, connectivity=4)
    mask = parts == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA])) if n > 1 else one > 0
    return mask, float(gland + rng.uniform(55, 130))
