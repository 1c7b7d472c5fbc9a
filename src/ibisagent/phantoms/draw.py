"""Drawing tools shared by the painters: curves, blobs, smooth fields, fills.

Points are float arrays (N, 2) of (x, y) in units of the image side, origin top-left, so that a drawing
looks the same at every size. A label image holds one small integer per pixel and is never
antialiased: masks are read from it, and the picture is made from it by blurring less than two pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    Points = NDArray[np.float64]

__all__ = [
    "Warp",
    "blob",
    "blur",
    "ellipse",
    "fill",
    "main_pieces",
    "noise",
    "smooth_field",
    "spline",
    "stroke",
    "to_fixed",
]

_SHIFT = 4  # fractional bits that OpenCV takes


def to_fixed(points: ArrayLike, size: int) -> NDArray[np.int32]:
    """Unit points to OpenCV's fixed-point pixels (pixel centres at integers), shape (N, 1, 2)."""
    p = np.asarray(points, dtype=np.float64).reshape(-1, 1, 2)
    return np.round(np.clip(p * size - 0.5, -size * 4, size * 5) * (1 << _SHIFT)).astype(np.int32)


def fill(image: NDArray[np.uint8], points: ArrayLike, value: float) -> None:
    """Fill a closed curve of unit points in place, without antialiasing."""
    cv2.fillPoly(image, [to_fixed(points, image.shape[0])], _colour(value), cv2.LINE_8, _SHIFT)


def stroke(
    image: NDArray[np.uint8],
    points: ArrayLike,
    value: float | Sequence[float],
    width: float,
    *,
    closed: bool = False,
    smooth: bool = False,
) -> None:
    """Draw a line through unit points in place; ``width`` in units of the side, at least one pixel.

    ``smooth`` antialiases, which is for pictures (``uint8``) and never for labels.
    """
    px = max(1, round(width * image.shape[0]))
    line = cv2.LINE_AA if smooth else cv2.LINE_8
    cv2.polylines(image, [to_fixed(points, image.shape[0])], closed, _colour(value), px, line, _SHIFT)


def _colour(value: float | Sequence[float]) -> tuple[float, ...]:
    return tuple(float(v) for v in np.atleast_1d(value))


def ellipse(cx: float, cy: float, rx: float, ry: float, angle: float = 0.0, n: int = 48, power: float = 2.0) -> Points:
    """Closed curve of a (super)ellipse; ``angle`` in radians, ``power`` 2 is an ellipse, more is boxier."""
    t = np.linspace(0.0, 2.0 * np.pi, n, endpoint=False)
    c, s = np.cos(t), np.sin(t)
    if power != 2.0:
        c = np.sign(c) * np.abs(c) ** (2.0 / power)
        s = np.sign(s) * np.abs(s) ** (2.0 / power)
    x, y = rx * c, ry * s
    ca, sa = np.cos(angle), np.sin(angle)
    return np.stack([cx + ca * x - sa * y, cy + sa * x + ca * y], axis=1)


def blob(
    rng: np.random.Generator,
    cx: float,
    cy: float,
    rx: float,
    ry: float,
    angle: float = 0.0,
    rough: float = 0.08,
    n: int = 48,
    harmonics: int = 5,
) -> Points:
    """Closed curve of an ellipse whose radius wobbles by about ``rough`` (relative, low harmonics)."""
    t = np.linspace(0.0, 2.0 * np.pi, n, endpoint=False)
    k = np.arange(2, 2 + harmonics)[:, None]
    amplitude = rng.normal(0.0, rough, (harmonics, 1)) / np.sqrt(k)
    phase = rng.uniform(0.0, 2.0 * np.pi, (harmonics, 1))
    r = np.clip(1.0 + (amplitude * np.cos(k * t + phase)).sum(axis=0), 0.35, 1.8)
    x, y = rx * r * np.cos(t), ry * r * np.sin(t)
    ca, sa = np.cos(angle), np.sin(angle)
    return np.stack([cx + ca * x - sa * y, cy + sa * x + ca * y], axis=1)


def spline(points: ArrayLike, per_segment: int = 8, *, closed: bool = True) -> Points:
    """Catmull-Rom curve through unit points, (N * per_segment, 2)."""
    p = np.asarray(points, dtype=np.float64)
    if closed:
        a, b, c, d = np.roll(p, 1, 0), p, np.roll(p, -1, 0), np.roll(p, -2, 0)
    else:
        q = np.concatenate([p[:1], p, p[-1:]])
        a, b, c, d = q[:-3], q[1:-2], q[2:-1], q[3:]
    t = np.linspace(0.0, 1.0, per_segment, endpoint=False)[None, :, None]
    a, b, c, d = a[:, None], b[:, None], c[:, None], d[:, None]
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    curve = curve.reshape(-1, 2)
    return curve if closed else np.concatenate([curve, p[-1:]])


def noise(rng: np.random.Generator, size: int, sigma: float = 1.0) -> NDArray[np.float32]:
    """White Gaussian noise, ``float32`` (size, size)."""
    return rng.standard_normal((size, size), dtype=np.float32) * np.float32(sigma)


def smooth_field(rng: np.random.Generator, size: int, cells: int, cells_y: int | None = None) -> NDArray[np.float32]:
    """Smooth random field of about unit variance with ``cells`` bumps across, ``float32`` (size, size)."""
    grid = rng.standard_normal((max(2, cells_y or cells), max(2, cells)), dtype=np.float32)
    return np.asarray(cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC), dtype=np.float32)


def blur(image: NDArray[np.generic], sigma: float) -> NDArray[np.float32]:
    """Gaussian blur with ``sigma`` in pixels; ``float32``. No blur at all below 0.2."""
    f = np.asarray(image, dtype=np.float32)
    if sigma < 0.2:
        return f
    return np.asarray(cv2.GaussianBlur(f, (0, 0), float(sigma), borderType=cv2.BORDER_REFLECT_101), dtype=np.float32)


def main_pieces(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Drop slivers under 3% of the mask: what organs leave of a lung may be a few stray pixels."""
    n, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    if n <= 2:
        return mask
    keep = stats[:, cv2.CC_STAT_AREA] >= 0.03 * mask.sum()
    keep[0] = False
    return keep[parts]


class Warp:
    """Smooth random map of the plane: similarity, then two octaves of sine waves.

    Applied to the points of canonical anatomy before they are drawn, it varies shapes without ever
    touching pixels, so masks stay exact. Displacements stay small enough not to fold.

    Parameters
    ----------
    rng
        Source of the map.
    amount
        Typical displacement in canonical units.
    scale, angle, shift
        The similarity that takes canonical units to image units (applied last).
    """

    def __init__(
        self,
        rng: np.random.Generator,
        amount: float,
        scale: tuple[float, float] = (1.0, 1.0),
        angle: float = 0.0,
        shift: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        self._k = rng.uniform(1.5, 4.5, (6, 2)) * rng.choice([-1.0, 1.0], (6, 2))
        self._phase = rng.uniform(0.0, 2.0 * np.pi, 6)
        self._amp = rng.normal(0.0, amount / np.sqrt(3.0), (6, 2))
        ca, sa = np.cos(angle), np.sin(angle)
        self._matrix = np.array([[ca, -sa], [sa, ca]]) @ np.diag(scale)
        self._shift = np.array(shift)

    def __call__(self, points: ArrayLike) -> Points:
        """Map points (N, 2)."""
        p = np.asarray(points, dtype=np.float64)
        q = p + np.sin(p @ self._k.T + self._phase) @ self._amp
        return q @ self._matrix.T + self._shift
