"""Procedural volumes with exact named masks: a head in MRI with a tumour, a chest in CT with a nodule.

As with the 2-D phantoms, nothing here is anatomy or a source of medical truth: ellipsoids, shells and blobs with rough
borders that carry the names, the intensities (CT in Hounsfield units) and the anisotropy of volumes, to try out how a
mask goes from slice to slice, and to test readers, writers and geometry without any data.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["VOLUME_KINDS", "PhantomVolume", "generate_volume"]

VOLUME_KINDS = ("head_mri", "chest_ct")
"""Every kind that :func:`generate_volume` draws."""


@dataclass(frozen=True, eq=False)
class PhantomVolume:
    """One procedural volume and the masks it was drawn from.

    Parameters
    ----------
    values
        ``int16`` (ni, nj, nk); Hounsfield units for CT.
    affine
        ``float64`` (4, 4), index to RAS mm: i runs to the patient's right, j to the front, k upwards.
    masks
        Target name -> ``bool`` (ni, nj, nk), never empty.
    modality
        ``"MRI"`` or ``"CT"``.
    kind, seed
        What it was drawn with; with shape and spacing they determine every voxel.
    """

    values: NDArray[np.int16]
    affine: NDArray[np.float64]
    masks: dict[str, NDArray[np.bool_]] = field(repr=False)
    modality: str
    kind: str
    seed: int


def generate_volume(
    kind: str,
    seed: int,
    shape: tuple[int, int, int] = (160, 160, 24),
    spacing_mm: tuple[float, float, float] | None = None,
) -> PhantomVolume:
    """Draw one volume; the same arguments give the same voxels.

    Parameters
    ----------
    kind
        One of :data:`VOLUME_KINDS`.
    seed
        Any integer >= 0.
    shape
        Voxels (ni, nj, nk), each at least 8.
    spacing_mm
        Distance of voxels along each axis; None fits a head of 190 mm or a chest of 360 mm into `shape`.

    Raises
    ------
    InputError
        Unknown kind, negative seed, or a size below 8.
    """
    if kind not in VOLUME_KINDS:
        raise InputError(f"unknown kind of phantom volume {kind!r}; there are {', '.join(VOLUME_KINDS)}")
    if seed < 0:
        raise InputError(f"phantom seed must be >= 0, not {seed}")
    if len(shape) != 3 or min(shape) < 8:
        raise InputError(f"a phantom volume needs at least 8 voxels along each axis, not {shape}")
    rng = np.random.default_rng((seed, zlib.crc32(kind.encode())))
    extent = (190.0, 220.0, 170.0) if kind == "head_mri" else (400.0, 320.0, 300.0)
    sizes = spacing_mm if spacing_mm is not None else tuple(e / n for e, n in zip(extent, shape, strict=True))
    axes = [(np.arange(n, dtype=np.float32) - (n - 1) / 2) * mm for n, mm in zip(shape, sizes, strict=True)]
    points = np.ix_(*axes)  # x to the right, y to the front, z upwards, in mm about the centre
    paint = _head if kind == "head_mri" else _chest
    values, masks, modality = paint(rng, points, shape)
    affine = np.diag([*sizes, 1.0])
    affine[:3, 3] = [axis[0] for axis in axes]
    kept = {name: mask for name, mask in masks.items() if mask.any()}
    return PhantomVolume(np.rint(values).astype(np.int16), affine, kept, modality, kind, seed)


def _bumps(rng: np.random.Generator, points: Any, wavelength: float, count: int = 6) -> NDArray[np.float32]:
    """A smooth random field of about unit size: a sum of plane waves of about `wavelength` mm."""
    out: Any = np.float32(0.0)
    for _ in range(count):
        wave = rng.normal(size=3)
        wave *= 2 * np.pi / (wavelength * rng.uniform(0.7, 1.4) * np.linalg.norm(wave))
        phase = sum(w * axis for w, axis in zip(wave.astype(np.float32), points, strict=True))
        out = out + np.sin(phase + np.float32(rng.uniform(0, 2 * np.pi)))
    return np.asarray(out * np.float32((2 / count) ** 0.5), np.float32)


def _ellipsoid(points: Any, centre: Any, radii: Any, rough: Any = 0.0) -> NDArray[np.bool_]:
    squares = (((axis - c) / r) ** 2 for axis, c, r in zip(points, centre, radii, strict=True))
    return np.asarray(sum(squares) < (1.0 + rough) ** 2)


def _head(
    rng: np.random.Generator, points: Any, shape: tuple[int, int, int]
) -> tuple[NDArray[np.float32], dict[str, NDArray[np.bool_]], str]:
    """T1 with contrast: scalp, skull, folded brain, ventricles, a tumour that may have a bright rim."""
    radii = np.array([68.0, 84.0, 68.0]) * rng.uniform(0.93, 1.05, 3)
    scalp = _ellipsoid(points, (0, 0, 0), radii + 14)
    skull = _ellipsoid(points, (0, 0, 0), radii + 8)
    brain = _ellipsoid(points, (0, 0, 0), radii, 0.02 * _bumps(rng, points, 60.0))
    folds = _bumps(rng, points, 22.0, 8)
    core = _ellipsoid(points, (0, 0, 0), radii - 16, 0.12 * folds)
    ventricles = np.zeros(shape, bool)
    for side in (-1, 1):
        ventricles |= _ellipsoid(points, (side * 11, 2, 4), (7, 30, 11), 0.15 * _bumps(rng, points, 25.0))
    direction = rng.normal(size=3)
    direction[2] *= 0.6
    centre = direction / np.linalg.norm(direction) * radii * rng.uniform(0.35, 0.6)
    size = rng.uniform(11, 24) * rng.uniform(0.8, 1.25, 3)
    rough = 0.22 * _bumps(rng, points, float(size.mean()) * 2.0)
    tumor = _ellipsoid(points, centre, size, rough) & brain
    values = np.where(scalp, 330.0, 8.0).astype(np.float32)
    values[skull] = 60
    values[brain] = 255
    values[core] = 320
    values[ventricles & brain] = 110
    rim = rng.random() < 0.5
    values[tumor] = rng.uniform(380, 560)
    if rim:
        values[_ellipsoid(points, centre, size * 0.6, rough) & tumor] = rng.uniform(170, 260)
    bias = 1 + 0.06 * _bumps(rng, points, 260.0, 3)
    values = _blurred(values * bias, 0.7) + rng.normal(0, rng.uniform(6, 14), shape).astype(np.float32)
    masks = {"brain": brain, "ventricles": ventricles & brain & ~tumor, "brain tumor": tumor}
    return np.clip(values, 0, 4000), masks, "MRI"


def _chest(
    rng: np.random.Generator, points: Any, shape: tuple[int, int, int]
) -> tuple[NDArray[np.float32], dict[str, NDArray[np.bool_]], str]:
    """Body, lungs with vessels, heart, spine, a nodule in one lung; the lungs end below a dome."""
    body = _ellipsoid(points, (0, 0, 0), (165 * rng.uniform(0.92, 1.05), 112 * rng.uniform(0.92, 1.05), 1e4))
    lungs = {}
    for name, side in (("right lung", 1), ("left lung", -1)):
        rough = 0.03 * _bumps(rng, points, 90.0)
        centre = (side * 76, 4, rng.uniform(5, 25))
        lungs[name] = _ellipsoid(points, centre, (54, 80, rng.uniform(105, 125)), rough) & body
    heart = _ellipsoid(points, (-22, 32, -25), (56, 46, 58), 0.05 * _bumps(rng, points, 80.0))
    dome = _ellipsoid(points, (40, 10, -130), (90, 90, 80 * rng.uniform(0.8, 1.1)))
    side = rng.choice(["left lung", "right lung"])
    spine = _ellipsoid(points, (0, -72, 0), (19, 19, 1e4)) & body
    for name in lungs:
        lungs[name] &= ~heart & ~dome & ~spine
    at = (-76 if side == "left lung" else 76) + rng.uniform(-22, 22), rng.uniform(-35, 25), rng.uniform(-40, 60)
    size = rng.uniform(12, 26) * rng.uniform(0.8, 1.25, 3)
    nodule = _ellipsoid(points, at, size, 0.2 * _bumps(rng, points, float(size.mean()) * 2.0)) & lungs[side]
    values = np.where(body, 40.0, -1000.0).astype(np.float32)
    fat = body & ~_ellipsoid(points, (0, 0, 0), (150, 98, 1e4))
    values[fat] = -100
    vessels = _bumps(rng, points, 26.0, 10) + _bumps(rng, points, 14.0, 10) > 2.0
    for lung in lungs.values():
        values[lung] = -840
        values[lung & vessels] = -60
    values[heart & body] = 130
    values[spine] = 420
    values[nodule] = rng.uniform(10, 70)
    values = _blurred(values, 0.6) + rng.normal(0, 18, shape).astype(np.float32)
    lungs = {name: mask & ~nodule for name, mask in lungs.items()}
    masks = {"body": body, **lungs, "heart": heart & body, "lung tumor": nodule}
    return np.clip(values, -1024, 3000), masks, "CT"


def _blurred(values: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Blur within slices, by `sigma` voxels: the slices' own thickness is left sharp."""
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(values, (sigma, sigma, 0.0)), np.float32)
