"""A volume's mask slice by slice, as the slices are shown: for formats of 2-D images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from ibisagent.geometry import Geometry
from ibisagent.io.volume import Volume
from ibisagent.slices import mask_to_display

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["shown_slices"]

_AT_ONCE = 32


def shown_slices(
    mask: NDArray[np.bool_], volume: Volume, plane: str = "axial"
) -> Iterator[tuple[Geometry, NDArray[np.bool_]]]:
    """Every slice of a plane by its index, one pixel a voxel, in radiological convention.

    Nothing is stretched to square pixels here, so that a format of pixels holds the grid's own voxels; a stack of TIFF
    pages comes out as it is stored.

    Yields
    ------
    tuple
        Where the slice lies, and its mask, ``bool`` (H, W).
    """
    axis = volume.grid.view_axes(plane)[0]
    turned = np.moveaxis(mask, axis, 0)
    for first in range(0, len(turned), _AT_ONCE):
        # neighbours in memory are neighbours along one axis only: reading several slices in one go is much faster
        for offset, shown in enumerate(np.ascontiguousarray(turned[first : first + _AT_ONCE])):
            geometry = volume.grid.view(plane, first + offset, square=False)
            yield geometry, mask_to_display(shown, geometry)
