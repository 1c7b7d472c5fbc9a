"""Skin, twice: stained sections under the microscope (histology) and lesions from above (dermoscopy).

In sections the ``epidermis`` reaches from the surface to the dermis, so it contains the ``stratum corneum``
(its dead outermost layer), as the words mean; both are given.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ibisagent.phantoms.draw import blob, blur, fill, noise, smooth_field, spline, stroke
from ibisagent.phantoms.phantom import Drawing

__all__ = ["paint_dermoscopy", "paint_histology"]


def _ripple(rng: np.random.Generator, x: NDArray[np.float32], waves: int, height: float) -> NDArray[np.float32]:
    """Smooth random function of x in [-0.5, 1.5] with about ``waves`` bumps a unit."""
    knots = rng.normal(0, height, max(4, 2 * waves))
    fine = np.linspace(-0.5, 1.5, 1024)
    curve = cv2.resize(knots[None].astype(np.float32), (1024, 1), interpolation=cv2.INTER_CUBIC)[0]
    return np.interp(x, fine, curve).astype(np.float32)


def paint_histology(rng: np.random.Generator, size: int) -> Drawing:
    """Draw a stained (H&E) section of skin: slide, stratum corneum, living epidermis with ridges, dermis."""
    px = size / 256.0
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / np.float32(size)
    tilt = rng.normal(0, 0.18)
    v = y - (x - 0.5) * np.float32(tilt)
    surface = rng.uniform(0.08, 0.30) + _ripple(rng, x, 3, 0.02)
    corneum = rng.uniform(0.04, 0.12) * (1 + np.clip(_ripple(rng, x, 4, 0.2), -0.5, 0.6))
    living = rng.uniform(0.09, 0.18) + np.abs(_ripple(rng, x, int(rng.integers(6, 14)), rng.uniform(0.03, 0.09)))
    horn, cells = v >= surface, v >= surface + corneum
    deep = v >= surface + corneum + living
    lab = horn.astype(np.uint8) + cells + deep  # 0 slide, 1 corneum, 2 living epidermis, 3 dermis

    stain = rng.normal(0, 8, 3)
    palette = np.array([(232, 234, 232), (214, 180, 206), (168, 104, 164), (226, 166, 196)], np.float32)
    palette[1:] += stain + rng.normal(0, 5, (3, 3))
    image = palette[lab]
    # basket weave: thin dark lines along the surface
    weave = smooth_field(rng, size, int(rng.integers(14, 26)), int(rng.integers(60, 110)))
    lines = np.clip(1.2 - np.abs(weave) * rng.uniform(2.0, 4.0), 0, 1)[..., None]
    flakes = np.clip(weave, 0, 1)[..., None]
    image = np.where(
        lab[..., None] == 1, image + flakes * 28.0 - lines * np.array((95, 105, 70), np.float32) * 0.8, image
    )
    # collagen: pale cracks between bundles
    bundles = smooth_field(rng, size, 26, 48) + 0.5 * smooth_field(rng, size, 60, 90)
    crack = np.clip(np.abs(bundles) * -3.0 + 0.9, 0, 1)[..., None]
    depth = np.clip((v - surface - corneum - living) * 5.0, 0, 1)[..., None]
    image = np.where(
        lab[..., None] == 3,
        image + crack * depth * np.array((22, 50, 36), np.float32) + bundles[..., None] * 5.0,
        image,
    )
    image = np.where(lab[..., None] == 2, image + 8.0 * smooth_field(rng, size, 30)[..., None], image)
    # the lowest cells of the epidermis are darkest
    basal = (lab == 2) & (v > surface + corneum + living - 0.025)
    image[basal] -= (28, 30, 14)
    image = _nuclei(rng, image, lab)
    image = np.stack([blur(image[..., c], rng.uniform(0.5, 0.8) * px) for c in range(3)], axis=-1)
    image += noise(rng, size, rng.uniform(1, 4))[..., None]
    masks = {"stratum corneum": lab == 1, "epidermis": (lab == 1) | (lab == 2), "dermis": lab == 3}
    return Drawing(image, masks, "field")


def _nuclei(rng: np.random.Generator, image: NDArray[np.float32], lab: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Purple dots: dense in the epidermis, scattered and clustered in the dermis."""
    size = lab.shape[0]
    out = np.clip(image, 0, 255).astype(np.uint8)
    clusters = rng.uniform(0, size, (4, 2))
    zoom = rng.uniform(0.45, 1.0)
    for layer, density, colour in ((2, 1 / 70.0, (96, 44, 120)), (3, 1 / 330.0, (116, 66, 140))):
        ys, xs = np.nonzero(lab == layer)
        if not len(xs):
            continue
        pick = rng.integers(len(xs), size=int(len(xs) * density * (256 / size) ** 2))
        points = np.stack([xs[pick], ys[pick]], 1).astype(float)
        if layer == 3 and len(points) > 20:
            n = len(points) // 3
            crowd = clusters[rng.integers(4, size=n)] + rng.normal(0, 0.035 * size, (n, 2))
            at = np.clip(crowd, 0, size - 1).astype(int)
            crowd = crowd[lab[at[:, 1], at[:, 0]] == 3]
            points = np.concatenate([points, crowd])
        radii = np.maximum(zoom * rng.normal(2.3, 0.5, (len(points), 2)) * size / 256.0 * (1.0, 0.65), 0.8)
        turn = rng.uniform(0, 180, len(points))
        shade = rng.normal(0, 16, len(points))
        for (cx, cy), (a, b), t, s in zip(points, radii, turn, shade, strict=True):
            tint = tuple(float(np.clip(c + s, 0, 255)) for c in colour)
            centre, axes = (round(cx * 8), round(cy * 8)), (round(a * 8), round(b * 8))
            cv2.ellipse(out, centre, axes, t, 0, 360, tint, -1, cv2.LINE_AA, 3)
    return out.astype(np.float32)


def paint_dermoscopy(rng: np.random.Generator, size: int) -> Drawing:
    """Draw one pigmented lesion on skin, with hairs, dermoscope shadow and gloss."""
    px = size / 256.0
    red, warm, cool = rng.uniform(190, 240), rng.uniform(0.66, 0.84), rng.uniform(0.76, 0.98)
    skin = np.array((red, red * warm, red * warm * cool), np.float32)
    dark = (
        skin
        * np.float32(rng.uniform(0.6, 1.1))
        * np.array((0.62, rng.uniform(0.44, 0.54), rng.uniform(0.36, 0.50)), np.float32)
    )
    r = rng.uniform(0.09, 0.32)
    cx, cy = rng.uniform(0.33, 0.67, 2)
    mask = np.zeros((size, size), np.uint8)
    fill(
        mask,
        blob(
            rng,
            cx,
            cy,
            r,
            r * rng.uniform(0.65, 1.0),
            rng.uniform(0, np.pi),
            rng.uniform(0.03, 0.14),
            n=96,
            harmonics=7,
        ),
        1,
    )
    inside = mask > 0
    image = np.broadcast_to(skin, (size, size, 3)).copy()
    image += (7.0 * smooth_field(rng, size, 8) + 4.0 * smooth_field(rng, size, 50))[..., None]
    mottle = 0.5 * smooth_field(rng, size, int(rng.integers(5, 12))) + 0.3 * smooth_field(
        rng, size, int(rng.integers(24, 50))
    )
    weight = np.clip(0.8 + rng.uniform(0.1, 0.45) * mottle, 0.45, 1.4)[..., None]
    image = np.where(inside[..., None], image * (1 - weight) + dark * weight, image)
    if rng.random() < 0.4:  # a second colour within
        part = np.zeros_like(mask)
        fill(part, blob(rng, cx + rng.normal(0, r / 3), cy + rng.normal(0, r / 3), r * 0.5, r * 0.4, rough=0.15), 1)
        image[(part > 0) & inside] *= np.array((0.72, 0.72, rng.uniform(0.75, 1.0)), np.float32)
    image = np.stack([blur(image[..., c], rng.uniform(1.0, 2.0) * px) for c in range(3)], axis=-1)
    canvas = np.clip(image, 0, 255).astype(np.uint8)
    if rng.random() < 0.6:
        for _ in range(int(rng.integers(2, 18))):
            start, heading = rng.uniform(-0.1, 1.1, 2), rng.uniform(0, 2 * np.pi)
            t = np.linspace(0, rng.uniform(0.2, 0.8), 5)[:, None]
            line = start + t * (np.cos(heading), np.sin(heading)) + t**2 * rng.normal(0, 0.3, 2)
            tint = np.array((60, 42, 34)) * rng.uniform(0.4, 1.4)
            stroke(canvas, spline(line, 6, closed=False), tuple(tint), rng.uniform(0.002, 0.008), smooth=True)
    image = canvas.astype(np.float32)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / np.float32(size) - 0.5
    radius = np.sqrt(x * x + y * y)
    image *= (1.0 - rng.uniform(0.0, 0.6) * np.clip(radius / 0.7, 0, 1) ** 3)[..., None]
    if rng.random() < 0.25:
        image *= (radius < rng.uniform(0.52, 0.6))[..., None]
    image += noise(rng, size, rng.uniform(1, 4))[..., None]
    seen = inside & (radius < 0.5)
    return Drawing(image, {"skin lesion": inside if seen.all() else inside & (image.max(axis=2) > 8)}, "field")
