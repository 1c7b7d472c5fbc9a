"""Slices and masks of a volume as a person is shown them, and no more than is known about them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ibisagent.slices import mask_to_display, slice_axes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ibisagent.grid import Grid
    from ibisagent.io.volume import Volume
    from ibisagent.types import Image, Window

__all__ = ["has_scale", "ml_text", "shown_image", "shown_mask", "volume_text"]


def has_scale(volume: Volume) -> bool:
    """Whether its millimetres are the source's; a stack without any has voxels of 1 x 1 x 1."""
    return volume.has_world or volume.grid.spacing_mm != (1.0, 1.0, 1.0)


def shown_image(volume: Volume, plane: str, index: int, window: Window) -> Image:
    """One slice; where the source has no world, its geometry claims neither directions nor made-up millimetres.

    Raises
    ------
    ibisagent.errors.InputError
        If the slice cannot be read.
    """
    image = volume.image(plane, index, window)
    if volume.has_world:
        return image
    spacing = image.geometry.spacing_mm if has_scale(volume) else None
    return replace(image, geometry=replace(image.geometry, affine=None, spacing_mm=spacing))


def shown_mask(mask: NDArray[np.bool_], grid: Grid, plane: str, index: int) -> NDArray[np.bool_]:
    """One slice of a ``bool`` (ni, nj, nk) mask on its display, ``bool`` (H, W)."""
    geometry = grid.view(plane, index)
    source = np.take(mask, index, axis=slice_axes(geometry)[0])
    return mask_to_display(source, geometry, grid.view_size(plane))


def volume_text(mask: NDArray[np.bool_], volume: Volume) -> str:
    """Size of a mask in millilitres, where they are known, and voxels."""
    voxels = int(np.count_nonzero(mask))
    text = f"{voxels:,} voxel{'' if voxels == 1 else 's'}"
    return f"{ml_text(voxels * volume.grid.voxel_ml)}, {text}" if has_scale(volume) else text


def ml_text(value: float) -> str:
    """Millilitres for a reader: three digits, or all of the whole ones."""
    return f"{value:,.0f} ml" if value >= 100 else f"{value:.3g} ml"
