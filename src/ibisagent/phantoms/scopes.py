"""Endoscopy and ultrasound: a polyp in a lit tube of mucosa; a cyst or a lesion in speckle."""

from __future__ import annotations

import cv2
import numpy as np

from ibisagent.phantoms.draw import blob, blur, fill, noise, smooth_field
from ibisagent.phantoms.phantom import Drawing

__all__ = ["paint_endoscopy", "paint_ultrasound"]


def paint_endoscopy(rng: np.random.Generator, size: int) -> Drawing:
    """Draw one polyp on folded mucosa, with gloss, a dark lumen and black corners."""
    px = size / 256.0
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / np.float32(size)
    base = np.array((rng.uniform(170, 225), rng.uniform(85, 130), rng.uniform(70, 115)), np.float32)
    lx, ly = rng.uniform(0.15, 0.85, 2)
    away = np.sqrt((x - lx) ** 2 + (y - ly) ** 2) + 0.03 * smooth_field(rng, size, 5)
    light = np.clip(0.15 + away * rng.uniform(1.6, 3.2), 0.1, 1.05)
    # folds: rings around the lumen, bright crest and dark valley
    rings = np.sin(away * rng.uniform(25, 45) + 0.6 * smooth_field(rng, size, 4))
    light *= 1.0 + rng.uniform(0.05, 0.16) * rings
    image = base * light[..., None]
    image += (5.0 * smooth_field(rng, size, 30))[..., None] * (1.0, 0.7, 0.7)
    veins = np.clip(0.35 - np.abs(smooth_field(rng, size, 9)), 0, 0.35)
    image -= veins[..., None] * np.array((25, 60, 50), np.float32) * rng.uniform(0, 0.8)

    mask = np.zeros((size, size), np.uint8)
    r = rng.uniform(0.07, 0.22)
    while True:  # on the wall, not in the lumen
        cx, cy = rng.uniform(0.22, 0.78, 2)
        if np.hypot(cx - lx, cy - ly) > 0.22:
            break
    fill(mask, blob(rng, cx, cy, r, r * rng.uniform(0.65, 1.0), rng.uniform(0, np.pi), 0.06, n=72, harmonics=4), 1)
    inside = mask > 0
    dome = cv2.distanceTransform(np.pad(mask, 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    dome = np.sqrt(np.clip(dome / max(float(dome.max()), 1.0), 0, 1))
    tone = base * np.array((1.05, rng.uniform(0.75, 1.2), rng.uniform(0.75, 1.15)), np.float32)
    lit = 0.55 + 0.5 * dome + 0.06 * smooth_field(rng, size, int(rng.integers(14, 40)))
    image = np.where(inside[..., None], tone * lit[..., None], image)
    shade = blur(np.roll(mask, (round(5 * px), round(3 * px)), (0, 1)).astype(np.float32), 5 * px)
    image = np.where(inside[..., None], image, image * (1.0 - 0.35 * shade[..., None]))
    gloss = np.zeros((size, size), np.uint8)
    for _ in range(int(rng.integers(2, 12))):
        on = rng.random() < 0.5
        gx, gy = (cx + rng.normal(0, r / 3), cy + rng.normal(0, r / 3)) if on else rng.uniform(0.1, 0.9, 2)
        s = rng.uniform(0.003, 0.016)
        fill(gloss, blob(rng, gx, gy, s, s * rng.uniform(0.4, 1.0), rng.uniform(0, np.pi), 0.2), 255)
    image = np.maximum(image, blur(gloss, 0.8 * px)[..., None])
    image = np.stack([blur(image[..., c], rng.uniform(0.6, 1.3) * px) for c in range(3)], axis=-1)
    corner = np.abs(x - 0.5) + np.abs(y - 0.5) < rng.uniform(0.78, 1.0)
    image = image * corner[..., None] + noise(rng, size, rng.uniform(1, 4))[..., None]
    return Drawing(image, {"polyp": inside & corner}, "field")


def paint_ultrasound(rng: np.random.Generator, size: int) -> Drawing:
    """Draw a fan or a rectangle of speckle with a cyst (black, bright behind), a lesion (dark gray), or both."""
    px = size / 256.0
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / np.float32(size)
    if rng.random() < 0.65:
        apex = rng.uniform(-0.25, 0.05)
        radius = np.sqrt((x - 0.5) ** 2 + (y - apex) ** 2)
        angle = np.arctan2(x - 0.5, y - apex)
        near = 0.08 - apex
        fan = (np.abs(angle) < rng.uniform(0.5, 0.75)) & (radius > near) & (radius < 0.96 - apex)
        depth, across = radius - near, angle
    else:
        fan = (x > 0.06) & (x < 0.94) & (y > 0.03) & (y < 0.97)
        depth, across = y - 0.03, x - 0.5
    # layers of tissue, then slow changes
    layers = np.interp(
        depth + 0.02 * smooth_field(rng, size, 4), np.linspace(0, 1, 9), np.exp(rng.uniform(-2.0, 0.0, 9))
    )
    echo = layers.astype(np.float32) * np.clip(1.0 + 0.25 * smooth_field(rng, size, 7, 12), 0.3, 1.8)
    echo *= np.float32(1.0) - np.float32(rng.uniform(0.1, 0.5)) * np.clip(depth, 0, 1)

    masks = {}
    taken = np.zeros((size, size), bool)
    which = [("cyst", "lesion"), ("cyst",), ("lesion",)][int(rng.choice(3, p=[0.3, 0.35, 0.35]))]
    room = cv2.distanceTransform(np.pad(fan.astype(np.uint8), 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    for name in which:
        r = rng.uniform(0.045, 0.13)
        ys, xs = np.nonzero((room > 0.75 * r * size) & ~taken & (depth > 0.08))
        if not len(xs):
            continue
        at = int(rng.integers(len(xs)))
        rough = 0.03 if name == "cyst" else rng.uniform(0.06, 0.14)
        one = np.zeros((size, size), np.uint8)
        fill(
            one,
            blob(
                rng,
                xs[at] / size,
                ys[at] / size,
                r,
                r * rng.uniform(0.55, 0.95),
                rng.normal(0, 0.3),
                rough,
                n=72,
                harmonics=6,
            ),
            1,
        )
        spot = (one > 0) & fan & ~taken
        tail = np.zeros((size, size), np.float32)
        tail[(np.abs(across - across[ys[at], xs[at]]) < 0.8 * r) & (depth > depth[ys[at], xs[at]]) & ~spot] = 1.0
        tail = blur(tail, 5 * px)
        echo = np.where(spot, echo, echo * (1.0 + tail * (0.6 if name == "cyst" else rng.uniform(-0.4, 0.2))))
        echo[spot] = rng.uniform(0.01, 0.05) if name == "cyst" else echo[spot].mean() * rng.uniform(0.12, 0.4)
        masks[name] = spot
        taken |= cv2.dilate(one, np.ones((9, 9), np.uint8)) > 0
    echo = blur(echo, 0.9 * px)
    # speckle: Rayleigh amplitude with grains wider than deep, then logarithmic compression
    grain_x, grain_y = rng.uniform(0.8, 2.0) * px, rng.uniform(0.6, 1.0) * px
    re, im = (cv2.GaussianBlur(noise(rng, size), (0, 0), grain_x, sigmaY=grain_y) for _ in range(2))
    speckle = np.sqrt(re * re + im * im)
    speckle /= speckle.mean()
    peak = rng.uniform(1.8, 4.0)
    amplitude = echo * (0.25 + 0.75 * speckle) + 0.004
    span = rng.uniform(36, 52)
    image = 255.0 * (1.0 + 20.0 * np.log10(amplitude / peak) / span)
    image = np.clip(image, 0, 255) * fan + np.abs(noise(rng, size, 0.8))
    return Drawing(image, masks, "field")
