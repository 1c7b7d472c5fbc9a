"""Hard augmentation of an image and its masks: one warp, then intensity changes.

Images are ``uint8`` (H, W, 3), masks ``bool`` (H, W); every function takes its
randomness from the generator it is given.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ibisagent.phantoms.shapes import smooth_noise

__all__ = ["Warp", "change_intensity", "draw_warp"]


@dataclass(frozen=True, eq=False)
class Warp:
    """A map from output pixels to input pixels, applied alike to an image and to its masks.

    Parameters
    ----------
    map_x, map_y
        ``float32`` (S, S) input coordinates of every output pixel, for :func:`cv2.remap`.
    """

    map_x: NDArray[np.float32]
    map_y: NDArray[np.float32]

    def image(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Warp an image with bilinear interpolation; outside is zero."""
        return cv2.remap(pixels, self.map_x, self.map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)

    def mask(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Warp a mask: bilinear, cut at one half."""
        m = cv2.remap(
            mask.astype(np.uint8) * 255, self.map_x, self.map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
        )
        return m > 127


def draw_warp(
    rng: np.random.Generator,
    shape: tuple[int, int],
    size: int,
    *,
    focus: NDArray[np.bool_] | None = None,
    turn: float = 180.0,
    flip: bool = True,
    zoom: tuple[float, float] = (0.7, 1.7),
    elastic: float = 0.3,
    shift: float = 0.08,
    aspect: float = 0.12,
    stretch: bool = False,
) -> Warp:
    """Draw a random warp of an image of ``shape`` onto a square.

    Parameters
    ----------
    shape
        (height, width) of the input, in pixels; what lies outside it is zero.
    size
        Side of the square, in pixels.
    focus
        A mask to keep in view where the zoom is above 1; None to stay centred.
    turn
        Largest rotation, in degrees.
    flip
        Whether mirror images are allowed (not where left and right matter).
    zoom
        Smallest and largest magnification relative to fitting the longest side (with ``stretch``, each side).
    elastic
        Probability of a smooth deformation.
    shift
        Largest translation, as a share of the longest side (with ``stretch``, of each side).
    aspect
        Largest stretch of either axis, as a natural logarithm.
    stretch
        Whether the input's sides are stretched to the square's; else its aspect is kept.
    """
    h, w = shape
    longest = max(h, w)
    z = float(np.exp(rng.uniform(np.log(zoom[0]), np.log(zoom[1]))))
    cx, cy = w / 2, h / 2
    if focus is not None and z > 1.05:
        ys, xs = np.nonzero(focus)
        if len(xs):
            i = int(rng.integers(len(xs)))
            pull = 1 - 1 / z
            cx, cy = cx + (xs[i] - cx) * pull, cy + (ys[i] - cy) * pull
    cx += rng.uniform(-shift, shift) * (w if stretch else longest)
    cy += rng.uniform(-shift, shift) * (h if stretch else longest)
    angle = np.deg2rad(rng.uniform(-turn, turn))
    kx, ky = (w, h) if stretch else (longest, longest)
    ax, ay = (k / size / z * np.exp(rng.uniform(-aspect, aspect)) for k in (kx, ky))
    if flip and rng.random() < 0.5:
        ax = -ax
    grid = np.arange(size, dtype=np.float32) - (size - 1) / 2
    gx, gy = np.meshgrid(grid, grid)
    if rng.random() < elastic:
        amount = size * rng.uniform(0.005, 0.03)
        cells = int(rng.integers(2, 7))
        gx = gx + smooth_noise(rng, size, cells) * amount
        gy = gy + smooth_noise(rng, size, cells) * amount
    c, s = np.cos(angle), np.sin(angle)
    shear = rng.uniform(-0.1, 0.1)
    ux, uy = (gx + shear * gy) * ax, gy * ay
    return Warp((c * ux - s * uy + cx - 0.5).astype(np.float32), (s * ux + c * uy + cy - 0.5).astype(np.float32))


def change_intensity(
    rng: np.random.Generator, pixels: NDArray[np.uint8], *, strength: float = 1.0
) -> NDArray[np.uint8]:
    """Change contrast, noise, blur, bias, tint and resolution at random.

    Parameters
    ----------
    pixels
        ``uint8`` (S, S, 3); it is not changed.
    strength
        Scales the probability of every change but the last, of brightness and contrast, which is always made.
    """

    def chance(p: float) -> bool:
        return rng.random() < p * strength

    size = pixels.shape[0]
    x = pixels.astype(np.float32) / 255
    if chance(0.5):
        x = np.clip(x, 0, 1) ** float(np.exp(rng.uniform(-0.6, 0.6)))
    if chance(0.25):
        knots = np.sort(rng.uniform(0, 1, 6))
        knots[0], knots[-1] = 0, 1
        x = np.interp(x, np.linspace(0, 1, 6), knots).astype(np.float32)
    if chance(0.15):
        x = 1 - x
    if chance(0.3):
        x = x * (1 + smooth_noise(rng, size, int(rng.integers(1, 4)))[..., None] * rng.uniform(0.03, 0.15))
    if chance(0.2):
        small = int(size / rng.uniform(1.3, 3.0))
        x = cv2.resize(cv2.resize(x, (small, small), interpolation=cv2.INTER_AREA), (size, size))
    if chance(0.25):
        x = cv2.GaussianBlur(x, (0, 0), rng.uniform(0.4, 1.5))
    if chance(0.4):
        noise = rng.standard_normal((size, size, 1)).astype(np.float32) * rng.uniform(0.01, 0.08)
        x = x * (1 + noise) if rng.random() < 0.3 else x + noise
    if chance(0.15):
        tint = rng.uniform(0.2, 1.0, (2, 3)).astype(np.float32)
        gray = x.mean(2, keepdims=True)
        x = tint[0] * (1 - gray) + tint[1] * gray
    elif chance(0.3) and not np.array_equal(pixels[..., 0], pixels[..., 1]):
        x = x * rng.uniform(0.7, 1.3, 3).astype(np.float32) + rng.uniform(-0.1, 0.1, 3).astype(np.float32)
    x = (x - 0.5) * rng.uniform(0.7, 1.2) + 0.5 + rng.uniform(-0.1, 0.1)
    return (np.clip(x, 0, 1) * 255).astype(np.uint8)
