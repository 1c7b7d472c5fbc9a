"""The elements of a mask's surface: where they are and how much surface each stands for.

Two conventions are in use, and they give different numbers:

``surfels``
    An element sits at every corner between pixels whose 2 x 2 (in 3-D: 2 x 2 x 2) neighbourhood is neither all inside
    nor all outside, and stands for the length (area) that marching squares (cubes) draws there, in mm (mm2). DeepMind's
    surface-distance, and MONAI's surface Dice with ``use_subvoxels``.
``voxels``
    An element is a pixel of the mask with a neighbour across a side (a face) that is not in the mask; all count 1,
    however thick the slices are. MONAI's default, and medpy.

In both, what lies beyond the edge of the image is outside the mask.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Elements", "SurfaceElements", "find_elements"]

Elements = Literal["surfels", "voxels"]
"""What a surface is made of; see the module."""

# Triangles that marching cubes draws for a 2 x 2 x 2 neighbourhood, as their normals times 8: the length of a normal
# is the triangle's area for cubes of side 1. Only absolute values are kept, as an area asks for no more. The kinds of
# triangles and which code has which are those of surface-distance's table (Apache License 2.0), in a form of our own.
_TRIANGLES: dict[str, tuple[tuple[int, int, int], ...]] = {
    ".": (),
    "a": ((1, 1, 1),),
    "b": ((1, 1, 1),) * 2,
    "c": ((1, 1, 1),) * 3,
    "d": ((1, 1, 1),) * 4,
    "e": ((1, 1, 1), (1, 1, 1), (2, 2, 2), (2, 2, 2)),
    # A side of the cube, across the axis that has the 4.
    "f": ((4, 0, 0),) * 2,
    "g": ((0, 4, 0),) * 2,
    "h": ((0, 0, 4),) * 2,
    # Half a side and a slanted half.
    "i": ((4, 0, 0), (1, 1, 1), (2, 2, 2)),
    "j": ((0, 4, 0), (1, 1, 1), (2, 2, 2)),
    "k": ((0, 0, 4), (1, 1, 1), (2, 2, 2)),
    "l": ((4, 0, 0), (1, 1, 1), (1, 1, 1), (2, 2, 2)),
    "m": ((0, 4, 0), (1, 1, 1), (1, 1, 1), (2, 2, 2)),
    "n": ((0, 0, 4), (1, 1, 1), (1, 1, 1), (2, 2, 2)),
    # A roof along the axis that has the 0: once, twice, and with a cut corner.
    "o": ((0, 2, 2),) * 2,
    "p": ((2, 0, 2),) * 2,
    "q": ((2, 2, 0),) * 2,
    "r": ((0, 2, 2),) * 4,
    "s": ((2, 0, 2),) * 4,
    "t": ((2, 2, 0),) * 4,
    "u": ((0, 2, 2), (0, 2, 2), (1, 1, 1)),
    "v": ((2, 0, 2), (2, 0, 2), (1, 1, 1)),
    "w": ((2, 2, 0), (2, 2, 0), (1, 1, 1)),
    # Two half roofs that meet.
    "x": ((0, 2, 2), (2, 0, 2), (1, 1, 1), (3, 3, 3)),
    "y": ((0, 2, 2), (2, 2, 0), (1, 1, 1), (3, 3, 3)),
    "z": ((2, 0, 2), (2, 2, 0), (1, 1, 1), (3, 3, 3)),
}
_CODES = (  # the kind of codes 0 to 127; code 255 - c, the same with inside and outside swapped, is of the kind of c
    ".aaqapbiabpiqiifaobjbkcebuvxwyliabojbvuxbckewlyiqjjgwzmjwmzjtwwq"
    "abbwokuybcvljexipkvzkhnkvnsvzkvpbcumunrucdncmcubiexjykuolcvbwbba"
)


@dataclass(frozen=True)
class SurfaceElements:
    """The elements of one mask within a box.

    Parameters
    ----------
    is_element
        ``bool`` grid of the box: pixels for ``voxels``, corners between pixels for ``surfels`` (one more per axis).
    flat
        ``int64`` (N,) positions of the elements in the flattened grid, ascending.
    weights
        ``float64`` (N,) surface of each: mm (2-D) or mm2 (3-D) for ``surfels``, 1 for ``voxels``.
    """

    is_element: NDArray[np.bool_]
    flat: NDArray[np.int64]
    weights: NDArray[np.float64]

    def indices(self) -> NDArray[np.int64]:
        """``int64`` (N, number of axes) grid indices of the elements."""
        return np.stack(np.unravel_index(self.flat, self.is_element.shape), axis=1)


def find_elements(mask: NDArray[np.bool_], spacing: tuple[float, ...], elements: Elements) -> SurfaceElements:
    """The surface of a mask of two or three dimensions.

    Parameters
    ----------
    mask
        ``bool``, cut to a box outside of which nothing is.
    spacing
        Distance of pixel centres, one per axis.
    elements
        The convention.

    Raises
    ------
    ValueError
        If the mask has neither two nor three dimensions, or the convention is unknown.
    """
    if mask.ndim not in (2, 3):
        raise ValueError(f"a surface needs a mask of two or three dimensions, not {mask.ndim}")
    if elements not in get_args(Elements):
        raise ValueError(f"unknown surface elements {elements!r}: choose from {', '.join(get_args(Elements))}")
    padded = np.pad(mask, 1)
    if elements == "voxels":
        is_element = _border(padded, mask)
        flat = np.flatnonzero(is_element)
        return SurfaceElements(is_element, flat, np.ones(flat.size))
    codes = _codes(padded)
    full = 2 ** (2**mask.ndim) - 1
    is_element = (codes - np.uint8(1)) < full - 1  # neither 0, which wraps around to 255, nor full
    flat = np.flatnonzero(is_element)
    return SurfaceElements(is_element, flat, _surfaces(spacing)[codes.ravel()[flat]])


def _border(padded: NDArray[np.bool_], mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of `mask` with a neighbour across a side that is not in it; `padded` is the mask with a rim of False."""
    inner = mask.copy()
    core = [slice(1, -1)] * mask.ndim
    for axis in range(mask.ndim):
        for side in (slice(None, -2), slice(2, None)):
            inner &= padded[tuple(core[:axis] + [side] + core[axis + 1 :])]
    return mask ^ inner


def _codes(padded: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """One bit for each pixel around a corner, the first along every axis being the highest; from the last axis on."""
    codes = padded.view(np.uint8)
    for step, axis in enumerate(reversed(range(padded.ndim))):
        first = codes[(slice(None),) * axis + (slice(None, -1),)]
        second = codes[(slice(None),) * axis + (slice(1, None),)]
        codes = (first << (2**step)) | second
    return codes


@cache
def _surfaces(spacing: tuple[float, ...]) -> NDArray[np.float64]:
    """Length (16 codes) or area (256 codes) of the surface in a neighbourhood, by its code."""
    if len(spacing) == 2:
        row, column = spacing
        corner = math.hypot(row, column) / 2  # a corner is cut along half the pixel's diagonal
        lengths = [0.0, corner, corner, column, corner, row, 2 * corner, corner]
        return np.array(lengths + lengths[::-1])
    # An area scales with the spacings of the two axes that its normal is across to.
    scale = math.prod(spacing) / np.array(spacing) / 8
    areas = [sum(float(np.linalg.norm(normal * scale)) for normal in _TRIANGLES[kind]) for kind in _CODES]
    return np.array(areas + areas[::-1])
