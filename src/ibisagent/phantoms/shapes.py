"""Generic procedural images: random shapes, textures and folds with exact masks.

They have no anatomy. They exist so that a click-conditioned network learns what a click *means*
(this object, all objects like it, this side of that edge) on images of unlimited variety.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["random_shapes", "smooth_noise"]

Mask = NDArray[np.bool_]


def smooth_noise(rng: np.random.Generator, size: int, cells: int) -> NDArray[np.float32]:
    """Standardised smooth random field, ``float32`` (size, size), with about ``cells`` bumps a side.

    Parameters
    ----------
    rng
        The only source of randomness.
    size
        Side of the field, in pixels.
    cells
        Bumps a side, at least 1.
    """
    coarse = rng.standard_normal((cells + 3, cells + 3)).astype(np.float32)
    field = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    return (field - field.mean()) / (field.std() + 1e-6)


def _blob(rng: np.random.Generator, size: int, cx: float, cy: float, radius: float) -> Mask:
    """A star-shaped blob with a random smooth outline."""
    angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    wobble = sum(
        rng.normal(0, 0.25 / k) * np.cos(k * angles + rng.uniform(0, 2 * np.pi))
        for k in range(1, int(rng.integers(2, 7)))
    )
    r = radius * np.clip(1 + wobble * rng.uniform(0.0, 0.9), 0.25, 2.0)
    stretch, turn = rng.uniform(0.45, 1.0), rng.uniform(0, np.pi)
    px, py = r * np.cos(angles), r * np.sin(angles) * stretch
    x = cx + px * np.cos(turn) - py * np.sin(turn)
    y = cy + px * np.sin(turn) + py * np.cos(turn)
    out = np.zeros((size, size), np.uint8)
    cv2.fillPoly(out, [np.stack([x, y], 1).round().astype(np.int32)], 1)
    return out.astype(bool)


def _tube(rng: np.random.Generator, size: int) -> Mask:
    """A curved tube (vessel, rib, catheter)."""
    t = np.linspace(0, 1, 40)
    knots = rng.uniform(0, size, (4, 2))
    b = np.stack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], 1) @ knots
    out = np.zeros((size, size), np.uint8)
    cv2.polylines(out, [b.round().astype(np.int32)], False, 1, int(rng.integers(2, max(3, size // 20))))
    return out.astype(bool)


def _field_mask(rng: np.random.Generator, size: int) -> Mask:
    """A part of the plane under a smooth field: folds, layers, tissue."""
    f = smooth_noise(rng, size, int(rng.integers(2, 14)))
    if rng.random() < 0.5:
        low = rng.uniform(-0.9, 0.3)
        return (f > low) & (f < low + rng.uniform(0.3, 1.0))
    return f > rng.uniform(-0.6, 1.0)


def random_shapes(rng: np.random.Generator, size: int = 256) -> tuple[NDArray[np.uint8], list[Mask]]:
    """Draw one image.

    Parameters
    ----------
    rng
        The only source of randomness.
    size
        Side of the square image, in pixels.

    Returns
    -------
    pixels, masks
        ``uint8`` (size, size, 3) and the exact masks one may ask for: classes (all objects that
        look alike), single objects, bodies, shells. Each has at least 30 pixels.
    """
    labels = np.zeros((size, size), np.int32)
    masks: list[Mask] = []
    level = [rng.uniform(0, 1)]

    def paint(m: Mask, value: float | None = None) -> Mask:
        level.append(rng.uniform(0, 1) if value is None else value)
        labels[m] = len(level) - 1
        return m

    classes: list[list[int]] = []
    body: Mask | None = None
    if rng.random() < 0.7:
        body = _blob(
            rng, size, size * rng.uniform(0.35, 0.65), size * rng.uniform(0.35, 0.65), size * rng.uniform(0.25, 0.5)
        )
        paint(body)
        masks.append(body)
        if rng.random() < 0.4:
            inner = cv2.erode(body.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=int(rng.integers(1, 10))) > 0
            classes.append([len(level) - 1])
            paint(inner)
            masks.append(inner)
    for _ in range(int(rng.integers(1, 5))):
        kind = rng.random()
        first = len(level)
        value = rng.uniform(0, 1)
        if kind < 0.45:
            count = int(rng.choice([1, 1, 1, 2, 3, 6, 14, 25]))
            radius = size * rng.uniform(0.02, 0.22) / np.sqrt(count) * 1.6
            for _ in range(count):
                m = _blob(
                    rng, size, rng.uniform(0, size), rng.uniform(0, size), max(3.0, radius * rng.uniform(0.6, 1.4))
                )
                if body is not None and rng.random() < 0.8:
                    m &= body
                paint(m, float(np.clip(value + rng.normal(0, 0.03), 0, 1)))
        elif kind < 0.6:
            for _ in range(int(rng.integers(1, 5))):
                paint(_tube(rng, size), value)
        elif kind < 0.85:
            m = _field_mask(rng, size)
            paint(m & body if body is not None else m, value)
        else:
            outer = _blob(rng, size, rng.uniform(0, size), rng.uniform(0, size), size * rng.uniform(0.08, 0.35))
            inner = cv2.erode(outer.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=int(rng.integers(2, 9))) > 0
            paint(outer & ~inner, value)
        classes.append(list(range(first, len(level))))
    image = np.asarray(level, np.float32)[labels]
    for i in range(len(level)):
        if rng.random() < 0.35:
            texture = smooth_noise(rng, size, int(rng.integers(8, size // 3)))
            image += np.where(labels == i, texture * rng.uniform(0.01, 0.08), 0).astype(np.float32)
    for members in classes:
        union = np.isin(labels, members)
        masks.append(union)
        if len(members) > 1:
            for member in rng.choice(members, min(3, len(members)), replace=False):
                masks.append(labels == int(member))
    if body is not None:
        masks.append(body)
    image += smooth_noise(rng, size, 2) * rng.uniform(0, 0.08)
    sigma = rng.uniform(0, 1.6)
    if sigma > 0.3:
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    image += rng.standard_normal((size, size)).astype(np.float32) * rng.uniform(0, 0.07)
    if rng.random() < 0.25:
        tint = rng.uniform(0.2, 1.0, (2, 3)).astype(np.float32)
        rgb = tint[0] * (1 - image[..., None]) + tint[1] * image[..., None]
    else:
        rgb = np.repeat(image[..., None], 3, 2)
    low, high = np.percentile(rgb, (0.2, 99.8))
    pixels = (np.clip((rgb - low) / max(float(high - low), 0.05), 0, 1) * 255).astype(np.uint8)
    return pixels, [m for m in masks if m.sum() >= 30]
