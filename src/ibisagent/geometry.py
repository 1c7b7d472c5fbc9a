"""Where a pixel lies: in text, in the source's array, in the patient.

Pixels are (x, y) with the origin top-left and centres at integers. Text carries coordinates in
[0, 1] with four decimals; these two functions are the only way across.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

__all__ = ["Geometry", "Matrix", "as_matrix", "norm_to_pixel", "pixel_to_norm"]

Matrix = tuple[tuple[float, ...], ...]

_PLANES = (None, "axial", "coronal", "sagittal")


def norm_to_pixel(value: float, size: int) -> int:
    """Turn a coordinate in [0, 1] into a pixel index: ``min(floor(value * size), size - 1)``.

    Raises
    ------
    ValueError
        If `value` is outside [0, 1] (or NaN) or `size` is below 1.
    """
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"a coordinate must lie in [0, 1], not {value!r}")
    if size < 1:
        raise ValueError(f"an image side must be at least 1 pixel, not {size}")
    return min(math.floor(value * size), size - 1)


def pixel_to_norm(pixel: int, size: int) -> float:
    """Write a pixel as its centre, ``(pixel + 0.5) / size``, rounded to four decimals.

    Rounding moves a centre by at most 0.00005 * size pixels, so :func:`norm_to_pixel` gives the pixel
    back for every side up to 5000 (a quarter pixel) and in practice up to 9999. Beyond that four
    decimals cannot name every pixel, and the way back may land ``ceil(size / 20000)`` pixels off.

    Raises
    ------
    ValueError
        If `pixel` is not an index of a side of `size` pixels.
    """
    if not 0 <= pixel < size:
        raise ValueError(f"pixel {pixel} is outside an image side of {size}")
    return round((pixel + 0.5) / size, 4)


def as_matrix(value: Any, rows: int, name: str) -> Matrix:
    """Square matrix of finite floats as nested tuples.

    Raises
    ------
    ValueError
        If it is not `rows` x `rows` or not finite; the message calls it `name`.
    """
    matrix = tuple(tuple(float(v) for v in row) for row in value)
    if len(matrix) != rows or any(len(row) != rows for row in matrix):
        raise ValueError(f"{name} must be {rows} x {rows}")
    if not all(math.isfinite(v) for row in matrix for v in row):
        raise ValueError(f"{name} must be finite")
    return matrix


@dataclass(frozen=True)
class Geometry:
    """Maps a display pixel to the source's index and to world millimetres.

    Parameters
    ----------
    spacing_mm
        (row, column) distance between pixel centres on the display, or None if unknown.
    index_from_pixel
        3 x 3 matrix A with source index (i, j, k) = A @ (x, y, 1). For rasters (i, j, k) = (x, y, 0). Where a slice is
        stretched to square pixels its entries are fractions (:meth:`ibisagent.grid.Grid.view`).
    affine
        4 x 4 matrix from source index to RAS millimetres, or None if the source has no world.
    volume_shape
        Shape of the source array, or None for rasters.
    plane
        ``"axial"``, ``"coronal"``, ``"sagittal"`` or None.
    slice_index
        Index of the slice along that plane's axis of the source array, or None.
    """

    spacing_mm: tuple[float, float] | None
    index_from_pixel: Matrix
    affine: Matrix | None = None
    volume_shape: tuple[int, ...] | None = None
    plane: str | None = None
    slice_index: int | None = None

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        set_(self, "index_from_pixel", as_matrix(self.index_from_pixel, 3, "index_from_pixel"))
        xx, xy, yy = self._products()
        if not xx * yy - xy * xy > 1e-9 * xx * yy:
            raise ValueError("index_from_pixel maps the display onto a line")
        if self.affine is not None:
            set_(self, "affine", as_matrix(self.affine, 4, "affine"))
        if self.spacing_mm is not None:
            row, col = (float(v) for v in self.spacing_mm)
            if not (math.isfinite(row) and math.isfinite(col) and row > 0 and col > 0):
                raise ValueError(f"spacing_mm must be two positive numbers, not {self.spacing_mm}")
            set_(self, "spacing_mm", (row, col))
        if self.volume_shape is not None:
            set_(self, "volume_shape", tuple(int(v) for v in self.volume_shape))
        if self.plane not in _PLANES:
            raise ValueError(f"plane must be axial, coronal, sagittal or None, not {self.plane!r}")

    @classmethod
    def plane_2d(cls, spacing_mm: tuple[float, float] | None = None) -> Geometry:
        """Geometry of a raster: the source's index is the pixel, there is no world."""
        return cls(spacing_mm=spacing_mm, index_from_pixel=((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 0.0)))

    def source_index(self, x: float, y: float) -> tuple[int, int, int]:
        """Index (i, j, k) of the source voxel under pixel (x, y), rounded to the nearest."""
        i, j, k = (math.floor(v + 0.5) for v in self._index(x, y))
        return i, j, k

    def world_mm(self, x: float, y: float) -> tuple[float, float, float] | None:
        """Centre of pixel (x, y) in RAS millimetres, or None where the source has no world."""
        if self.affine is None:
            return None
        index = (*self._index(x, y), 1.0)
        a, b, c = (sum(m * v for m, v in zip(row, index, strict=True)) for row in self.affine[:3])
        return a, b, c

    def world_lps_mm(self, x: float, y: float) -> tuple[float, float, float] | None:
        """Centre of pixel (x, y) in LPS millimetres (DICOM, ITK), or None where the source has no world."""
        point = self.world_mm(x, y)
        return None if point is None else (-point[0], -point[1], point[2])

    def pixel(self, i: float, j: float, k: float) -> tuple[float, float]:
        """Display pixel (x, y), not rounded, of a source index; what lies off the slice is projected onto it."""
        a = self.index_from_pixel
        offset = [v - row[2] for v, row in zip((i, j, k), a, strict=True)]
        # least squares through the two columns: exact for the points of the slice itself
        xx, xy, yy = self._products()
        bx, by = (sum(r[c] * v for r, v in zip(a, offset, strict=True)) for c in (0, 1))
        determinant = xx * yy - xy * xy
        return (bx * yy - by * xy) / determinant, (by * xx - bx * xy) / determinant

    def _products(self) -> tuple[float, float, float]:
        """Dot products of a pixel's two steps through the source, x·x, x·y and y·y, in voxels squared."""
        rows = self.index_from_pixel
        xx, xy, yy = (sum(r[p] * r[q] for r in rows) for p, q in ((0, 0), (0, 1), (1, 1)))
        return xx, xy, yy

    def _index(self, x: float, y: float) -> tuple[float, ...]:
        return tuple(row[0] * x + row[1] * y + row[2] for row in self.index_from_pixel)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; :meth:`from_json` is the inverse."""
        return {
            "spacing_mm": list(self.spacing_mm) if self.spacing_mm else None,
            "index_from_pixel": [list(row) for row in self.index_from_pixel],
            "affine": [list(row) for row in self.affine] if self.affine else None,
            "volume_shape": list(self.volume_shape) if self.volume_shape else None,
            "plane": self.plane,
            "slice_index": self.slice_index,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Geometry:
        """Read what :meth:`to_json` wrote.

        Raises
        ------
        ValueError
            If a field is missing or malformed.
        """
        try:
            return cls(
                spacing_mm=tuple(value["spacing_mm"]) if value["spacing_mm"] else None,
                index_from_pixel=value["index_from_pixel"],
                affine=value["affine"],
                volume_shape=value["volume_shape"],
                plane=value["plane"],
                slice_index=value["slice_index"],
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"damaged geometry: {error!r}") from error
