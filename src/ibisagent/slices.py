"""Slices of a volume's array to and from the display: which axes, turned how, stretched to square pixels or not.

The rule is :class:`ibisagent.geometry.Geometry`'s ``index_from_pixel``, as :meth:`ibisagent.grid.Grid.view` makes it: a
permutation with flips, and a factor where a display axis is stretched. Values are stretched linearly, masks by the
nearest neighbour, both about voxel centres, so that a mask's way back to the grid is exact wherever the display is no
coarser than the grid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.geometry import Geometry

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["mask_to_display", "mask_to_source", "slice_axes", "to_display", "to_source"]


def slice_axes(geometry: Geometry) -> tuple[int, int, int]:
    """Source axes of (normal, columns, rows) of a slice."""
    rows = np.asarray(geometry.index_from_pixel)
    across, down = int(np.abs(rows[:, 0]).argmax()), int(np.abs(rows[:, 1]).argmax())
    return 3 - across - down, across, down


def to_display(plane: NDArray[Any], geometry: Geometry, size: tuple[int, int] | None = None) -> NDArray[Any]:
    """Turn a slice's values into display rows and columns.

    Parameters
    ----------
    plane
        The slice: its two source axes in their order.
    geometry
        The view.
    size
        (height, width) of the display (:meth:`ibisagent.grid.Grid.view_size`); None is one pixel a voxel.

    Returns
    -------
    NDArray
        A view of the array, or stretched: linearly, ``float32``.
    """
    shown = _turned(plane, geometry)
    if size is None or shown.shape == tuple(size):
        return shown
    import cv2

    return cv2.resize(np.ascontiguousarray(shown, dtype=np.float32), (size[1], size[0]), interpolation=cv2.INTER_LINEAR)


def to_source(shown: NDArray[Any], geometry: Geometry) -> NDArray[Any]:
    """Undo :func:`to_display` where a pixel is a voxel; a view of the array."""
    _, across, down = slice_axes(geometry)
    rows = np.asarray(geometry.index_from_pixel)
    unflipped = shown[:: int(np.sign(rows[down, 1])), :: int(np.sign(rows[across, 0]))]
    return unflipped.T if across < down else unflipped


def mask_to_display(
    plane: NDArray[np.bool_], geometry: Geometry, size: tuple[int, int] | None = None
) -> NDArray[np.bool_]:
    """Show a mask of the grid's slice: every pixel takes the voxel under its centre. Parameters as :func:`to_display`.

    Returns
    -------
    NDArray of bool
        (H, W), C-contiguous.
    """
    shown = _turned(plane, geometry)
    if size is not None:
        shown = shown[np.ix_(*(_nearest(n, pixels) for n, pixels in zip(shown.shape, size, strict=True)))]
    return np.ascontiguousarray(shown)


def mask_to_source(mask: NDArray[np.bool_], geometry: Geometry) -> NDArray[np.bool_]:
    """Put a display's mask on the grid's slice: every voxel takes the pixel over its centre.

    Parameters
    ----------
    mask
        ``bool`` (H, W) on the display.
    geometry
        A view of a volume (its ``volume_shape`` is set).

    Returns
    -------
    NDArray of bool
        The slice: its two source axes in their order, C-contiguous.

    Raises
    ------
    ValueError
        If the geometry is no view of a volume.
    """
    if geometry.volume_shape is None:
        raise ValueError("the geometry is no view of a volume")
    _, across, down = slice_axes(geometry)
    sizes = (geometry.volume_shape[down], geometry.volume_shape[across])
    voxels = mask[np.ix_(*(_nearest(pixels, n) for n, pixels in zip(sizes, mask.shape, strict=True)))]
    return np.ascontiguousarray(to_source(voxels, geometry))


def _turned(plane: NDArray[Any], geometry: Geometry) -> NDArray[Any]:
    _, across, down = slice_axes(geometry)
    rows = np.asarray(geometry.index_from_pixel)
    shown = plane.T if across < down else plane  # (down, across)
    return shown[:: int(np.sign(rows[down, 1])), :: int(np.sign(rows[across, 0]))]


def _nearest(source: int, target: int) -> NDArray[np.intp]:
    """For each of `target` cells the one of `source` cells under its centre, both spread over the same length."""
    return np.asarray(((2 * np.arange(target) + 1) * source) // (2 * target), dtype=np.intp)
