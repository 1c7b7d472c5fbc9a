"""Chest X-ray, frontal: a projection, so shadows add up instead of hiding one another.

The patient's left is on the image's right. ``lungs`` are the lung fields outside the heart's and the
diaphragm's shadow; ribs and clavicles that cross them belong to them.
"""

from __future__ import annotations

import numpy as np

from ibisagent.phantoms.draw import Warp, blob, blur, fill, main_pieces, noise, smooth_field, spline, stroke
from ibisagent.phantoms.phantom import Drawing

__all__ = ["paint_xray"]

# patient's right lung field, canonical [-1, 1], on the image's left
_FIELD = np.array(
    [(-0.14, -0.52), (-0.22, -0.72), (-0.38, -0.80), (-0.53, -0.66), (-0.66, -0.30), (-0.74, 0.12), (-0.78, 0.52)]
    + [(-0.60, 0.42), (-0.40, 0.36), (-0.20, 0.44), (-0.13, 0.30), (-0.12, -0.1)]
)
_RIGHT, _LEFT, _HEART = 1, 2, 3


def paint_xray(rng: np.random.Generator, size: int) -> Drawing:
    """Draw one frontal film."""
    px = size / 256.0
    scale = rng.uniform(0.52, 0.60)
    warp = Warp(
        rng, 0.02, (scale, scale * rng.uniform(0.92, 1.08)), rng.normal(0, 0.03), (0.5 + rng.normal(0, 0.02), 0.52)
    )
    lab = np.zeros((size, size), np.uint8)
    for sign, name in ((1.0, _RIGHT), (-1.0, _LEFT)):
        shape = _FIELD * (sign, 1.0) + rng.normal(0, 0.015, _FIELD.shape)
        shape[6:10, 1] += rng.normal(0, 0.06) + (0.05 if name == _LEFT else -0.02)
        fill(lab, warp(spline(shape)), name)
    grow = rng.uniform(0.85, 1.2)
    heart = np.array(
        [(-0.06, -0.28), (0.10, -0.26), (0.20, -0.06), (0.36, 0.14), (0.43, 0.34), (0.34, 0.46), (0.05, 0.44)]
    )
    heart = np.concatenate([heart, [(-0.16, 0.36), (-0.20, 0.16), (-0.12, -0.06)]])
    fill(lab, warp(spline((heart - (0.08, 0.1)) * grow + (0.08, 0.1) + rng.normal(0, 0.01, heart.shape))), _HEART)

    def layer(curve: np.ndarray, soft: float) -> np.ndarray:
        one = np.zeros((size, size), np.uint8)
        fill(one, curve, 1)
        return blur(one, soft * px)

    torso = [
        (-0.3, -0.98),
        (0.3, -0.98),
        (0.85, -0.82),
        (1.0, -0.5),
        (0.9, 0.0),
        (0.92, 1.2),
        (-0.92, 1.2),
        (-0.9, 0.0),
        (-1.0, -0.5),
    ]
    skin = spline(np.array([*torso, (-0.85, -0.82)]) + rng.normal(0, 0.02, (10, 2)))
    # thickness of what absorbs, in arbitrary units
    dense = 1.0 * layer(warp(skin), 3.0)
    dense += 0.25 * layer(
        warp(spline([(-0.14, -1.0), (0.14, -1.0), (0.16, 0.4), (0.14, 1.2), (-0.14, 1.2), (-0.16, 0.4)])), 3.0
    )
    lung = (lab == _RIGHT) | (lab == _LEFT)
    dense -= rng.uniform(0.55, 0.75) * blur(lung.astype(np.float32), 1.1 * px)
    dense += rng.uniform(0.20, 0.35) * blur((lab == _HEART).astype(np.float32), 1.1 * px)
    dense += 0.18 * layer(warp(blob(rng, 0.0, 0.95, 0.85, 0.5, rough=0.03)), 4.0)
    dense -= 0.22 * layer(
        warp(np.array([(-0.035, -1.0), (0.035, -1.0), (0.04, -0.35), (-0.04, -0.35)])), 1.5
    )  # trachea
    bones = np.zeros((size, size), np.uint8)
    for side in (-1.0, 1.0):
        for i in range(9):
            y0 = -0.78 + 0.155 * i + rng.normal(0, 0.008)
            far = 0.40 + 0.40 * np.sqrt((i + 0.3) / 9.0)
            back = spline(
                [
                    (side * 0.08, y0),
                    (side * far * 0.6, y0 - 0.05),
                    (side * far, y0 + 0.12),
                    (side * far * 0.98, y0 + 0.25),
                ],
                6,
                closed=False,
            )
            rib = np.zeros((size, size), np.uint8)
            stroke(rib, warp(back), 60, rng.uniform(0.016, 0.022))
            stroke(rib, warp(back), 42, 0.010)
            bones = np.maximum(bones, rib)
            if i > 1:
                front = spline(
                    [(side * far * 0.98, y0 + 0.25), (side * far * 0.75, y0 + 0.38), (side * far * 0.5, y0 + 0.42)],
                    6,
                    closed=False,
                )
                stroke(bones, warp(front), 30, 0.014)
        collar = spline([(side * 0.08, -0.68), (side * 0.35, -0.74), (side * 0.75, -0.86)], 6, closed=False)
        stroke(bones, warp(collar), 80, 0.026)
    for y0 in np.linspace(-0.95, 1.0, 16):
        stroke(bones, warp(np.array([(-0.09, y0), (0.09, y0)])), 36, 0.008)
    dense += blur(bones, 1.0 * px) / 255.0 * rng.uniform(0.6, 1.1)
    # vessels fan out from the hila
    marks = np.zeros((size, size), np.uint8)
    for side in (-1.0, 1.0):
        for _ in range(30):
            t, far = rng.uniform(-1.2, 1.2), rng.uniform(0.15, 0.45)
            tip = np.array([side * (0.18 + far * np.cos(t)), 0.0 + far * np.sin(t)])
            path = np.array([(side * 0.17, -0.02), np.add(tip, (side * 0.17, 0.0)) / 2 + rng.normal(0, 0.02, 2), tip])
            stroke(
                marks, warp(spline(path, 4, closed=False)), rng.uniform(20, 70), rng.uniform(0.003, 0.008), smooth=True
            )
    dense += np.where(lung, blur(marks, 1.0 * px) / 255.0 * 0.5, 0.0)
    dense += 0.03 * smooth_field(rng, size, 5) + 0.012 * smooth_field(rng, size, 30)
    gray = 255.0 * (1.0 - np.exp(-rng.uniform(0.75, 1.4) * np.clip(dense, 0, None)))
    image = gray + blur(noise(rng, size), 0.5) * rng.uniform(2, 9)
    left, right = main_pieces(lab == _LEFT), main_pieces(lab == _RIGHT)
    return Drawing(
        image, {"lungs": left | right, "left lung": left, "right lung": right, "heart": lab == _HEART}, "frontal"
    )
