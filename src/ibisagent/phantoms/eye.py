"""The eye: fundus photographs and OCT sections of the retina."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ibisagent.phantoms.draw import blur, ellipse, fill, noise, smooth_field, spline, stroke
from ibisagent.phantoms.phantom import Drawing

__all__ = ["paint_fundus", "paint_oct"]


def paint_fundus(rng: np.random.Generator, size: int) -> Drawing:
    """Draw a fundus photograph: disc, fovea, a tree of vessels.

    ``vessels`` holds every vessel drawn, those that cross the disc included; ``optic disc`` is the whole disc.
    """
    px = size / 256.0
    side = rng.choice([-1.0, 1.0])
    dx, dy = 0.5 + side * rng.uniform(0.16, 0.28), 0.5 + rng.normal(0, 0.03)
    rd = rng.uniform(0.05, 0.075)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / np.float32(size)
    field = rng.uniform(0.46, 0.50)
    view = (x - 0.5) ** 2 + (y - 0.5) ** 2 < field**2
    base = np.array((rng.uniform(165, 225), rng.uniform(70, 115), rng.uniform(25, 65)), np.float32)
    light = 1.0 + 0.06 * smooth_field(rng, size, 4) + 0.03 * smooth_field(rng, size, 22)
    light -= rng.uniform(0.2, 0.6) * ((x - 0.5) ** 2 + (y - 0.5) ** 2) / 0.25
    fx, fy = dx - side * rng.uniform(0.30, 0.36), dy + 0.03
    light -= rng.uniform(0.15, 0.35) * np.exp(-((x - fx) ** 2 + (y - fy) ** 2) / (2 * 0.045**2))
    image = base * light[..., None]

    disc = np.zeros((size, size), np.uint8)
    fill(disc, ellipse(dx, dy, rd * rng.uniform(0.85, 1.0), rd * rng.uniform(0.95, 1.1), rng.normal(0, 0.2)), 1)
    cup = np.zeros_like(disc)
    fill(cup, ellipse(dx - side * 0.006, dy, rd * rng.uniform(0.25, 0.6), rd * rng.uniform(0.3, 0.65)), 1)
    image[disc > 0] = base + np.array((45, 95, 70), np.float32) * rng.uniform(0.6, 1.1)
    image[(disc > 0) & (cup > 0)] += (15, 38, 40)

    vessels, shade = np.zeros_like(disc), np.zeros_like(disc)
    for up in (-1.0, 1.0):
        for vein in (0, 1):
            bend = rng.uniform(0.16, 0.26)
            reach = rng.uniform(0.65, 0.8)
            trunk = np.array([(0, 0), (0.02, 0.4 * bend), (-0.10, bend), (-0.32, bend * 1.25), (-reach, bend * 0.6)])
            trunk = (
                trunk * (side, up)
                + (dx + rng.normal(0, 0.008), dy)
                + rng.normal(0, 0.012, (5, 2)) * np.arange(5)[:, None] / 2
            )
            _branch(rng, vessels, shade, spline(trunk, 8, closed=False), rng.uniform(0.009, 0.016), 2, 100 + 50 * vein)
            short = np.array([(0, 0), (0.06, 0.08), (0.16, 0.2), (0.2, 0.36)]) * (side, up) * rng.uniform(0.7, 1.1) + (
                dx,
                dy,
            )
            short += rng.normal(0, 0.01, (4, 2))
            _branch(rng, vessels, shade, spline(short, 8, closed=False), rng.uniform(0.006, 0.011), 1, 100 + 50 * vein)
    red = np.array((0.78, 0.45, 0.5), np.float32) * rng.uniform(0.9, 1.1)
    keep = 1.0 - (1.0 - red) * (shade.astype(np.float32) / 150.0 * rng.uniform(0.75, 1.0))[..., None]
    image = np.where((vessels > 0)[..., None], image * keep, image)
    image[~view] = 0
    soft = rng.uniform(0.5, 1.0) * px
    image = np.stack([blur(image[..., c], soft) for c in range(3)], axis=-1)
    image += (noise(rng, size, rng.uniform(1, 4)) * view)[..., None]
    return Drawing(image, {"optic disc": (disc > 0) & view, "vessels": (vessels > 0) & view}, "field")


def _branch(
    rng: np.random.Generator,
    vessels: NDArray[np.uint8],
    shade: NDArray[np.uint8],
    line: NDArray[np.float64],
    width: float,
    depth: int,
    tint: float,
) -> None:
    """Draw a vessel that narrows towards its end, then its side branches."""
    n = len(line)
    for a in range(0, n - 1, 6):
        w = width * (1.0 - 0.6 * a / n)
        for layer, value in ((vessels, 1.0), (shade, tint)):
            stroke(layer, line[a : a + 7], value, w)
    if depth == 0:
        return
    for _ in range(int(rng.integers(2, 6) if depth > 1 else rng.integers(1, 3))):
        at = int(rng.integers(n // 5, n - 2))
        ahead = line[min(at + 3, n - 1)] - line[at]
        heading = np.arctan2(ahead[1], ahead[0]) + rng.choice([-1.0, 1.0]) * rng.uniform(0.4, 1.0)
        turn = heading + np.cumsum(rng.normal(0, 0.25, 5))
        step = rng.uniform(0.015, 0.05)
        path = line[at] + np.concatenate(
            [[(0.0, 0.0)], np.cumsum(np.stack([np.cos(turn), np.sin(turn)], 1) * step, axis=0)]
        )
        _branch(rng, vessels, shade, spline(path, 4, closed=False), width * rng.uniform(0.45, 0.65), depth - 1, tint)


def paint_oct(rng: np.random.Generator, size: int) -> Drawing:
    """Draw an OCT section: layers of the retina over the bright pigment epithelium, choroid below.

    ``retina`` reaches from its inner surface to the lower border of the pigment epithelium, which it contains.
    """
    px = size / 256.0
    x = np.linspace(0, 1, size)
    curve = rng.uniform(-0.25, 0.25) * (x - 0.5) ** 2 + rng.normal(0, 0.06) * (x - 0.5)
    rpe = rng.uniform(0.5, 0.66) + curve + _columns(rng, size, 4, 0.006)
    thick = rng.uniform(0.20, 0.30) + _columns(rng, size, 3, 0.012)
    pit = rng.uniform(0.4, 0.65) if rng.random() < 0.75 else 0.0
    fovea = np.exp(-((x - rng.uniform(0.35, 0.65)) ** 2) / (2 * rng.uniform(0.05, 0.09) ** 2))
    top = rpe - thick * (1.0 - pit * fovea)
    if rng.random() < 0.35:  # drusen lift the epithelium
        for _ in range(int(rng.integers(1, 5))):
            bump = rng.uniform(0.01, 0.035) * np.exp(
                -((x - rng.uniform(0.1, 0.9)) ** 2) / (2 * rng.uniform(0.015, 0.04) ** 2)
            )
            rpe = rpe - bump
    band = rng.uniform(0.018, 0.03)
    y = (np.arange(size) / size)[:, None]
    depth = ((y - top) / np.maximum(rpe - top, 1e-3)).astype(np.float32)  # 0 at the surface, 1 at the epithelium
    edges = np.array([0.0, 0.14, 0.36, 0.46, 0.62, 0.70, 0.92, 1.0]) + np.concatenate(
        [[0], rng.normal(0, 0.012, 6), [0]]
    )
    levels = np.array([rng.uniform(150, 200), 120, 75, 115, 62, 90, 140]) * rng.uniform(0.8, 1.1, 7)
    which = np.clip(np.searchsorted(edges, depth.ravel(), side="right") - 1, 0, 6).reshape(size, size)
    image = levels[which].astype(np.float32)
    vitreous = y < top
    epithelium = (y >= rpe) & (y < rpe + band)
    below = y >= rpe + band
    image[np.broadcast_to(vitreous, image.shape)] = rng.uniform(5, 25)
    image[epithelium] = rng.uniform(195, 245)
    fade = np.exp(-(y - rpe - band) / rng.uniform(0.08, 0.2)).astype(np.float32)
    choroid = 120.0 * np.clip(0.8 + 0.35 * smooth_field(rng, size, 22, 16), 0.2, 1.4) * fade + 12.0
    image = np.where(below, choroid, image).astype(np.float32)
    # shadows of vessels: dark columns
    shadow = np.ones(size, np.float32)
    for _ in range(int(rng.integers(0, 6))):
        shadow -= rng.uniform(0.1, 0.3) * np.exp(-((x - rng.random()) ** 2) / (2 * 0.008**2)).astype(np.float32)
    image = np.where(depth > 0.15, image * shadow, image)
    image = blur(image, rng.uniform(0.6, 1.1) * px)
    grain = np.exp(blur(noise(rng, size), 0.6) * rng.uniform(0.25, 0.6)).astype(np.float32)
    image = image * grain + np.abs(noise(rng, size, rng.uniform(2, 8)))
    retina = (y >= top) & (y < rpe + band)
    return Drawing(image, {"retina": retina, "retinal pigment epithelium": epithelium}, "cross-section")


def _columns(rng: np.random.Generator, size: int, waves: int, height: float) -> NDArray[np.float32]:
    """Smooth random function over the columns, ``float32`` (size,), with about ``waves`` bumps."""
    return smooth_field(rng, size, waves, 2)[0] * np.float32(height)
