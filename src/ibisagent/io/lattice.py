"""Arrays that lie on a volume's voxels in another order of axes: where they go, without resampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TOLERANCE", "LatticeMap"]

TOLERANCE = 0.05
"""How far from a voxel's centre, in voxels, a sample may lie to be that voxel's."""


@dataclass(frozen=True)
class LatticeMap:
    """Which voxel every sample of an array belongs to: axes in another order, turned round, shifted by whole voxels.

    Parameters
    ----------
    shape
        Of the array: two or three sizes.
    axes
        For each axis of the array the axis of the volume.
    signs
        For each of them +1, or -1 where they run against each other.
    start
        Voxel (i, j, k) of the array's first sample.
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    signs: tuple[int, ...]
    start: tuple[int, int, int]

    @classmethod
    def between(
        cls, shape: tuple[int, ...], steps: NDArray[np.float64], first: NDArray[np.float64]
    ) -> tuple[LatticeMap | None, float]:
        """Find the map of an array.

        Parameters
        ----------
        shape
            Of the array: n sizes, two or three.
        steps
            (3, n): by how many voxels of the volume one sample along each axis moves.
        first
            (3,) where the first sample lies, in voxels of the volume.

        Returns
        -------
        tuple
            The map, or None where samples lie off the voxels' centres by more than :data:`TOLERANCE`; and how far, in
            voxels, the worst of them lies off (infinite where axes do not match at all).
        """
        if not (np.isfinite(steps).all() and np.isfinite(first).all()):
            return None, float("inf")
        whole, start = np.rint(steps), np.rint(first)
        # one sample's step does not matter: any axis of the volume that is left will do
        single = [a for a, size in enumerate(shape) if size == 1]
        whole[:, single] = 0
        for a in single:
            left = np.where(np.abs(whole).sum(axis=1) == 0, np.abs(steps[:, a]), -1.0)
            whole[int(left.argmax()), a] = 1
        if not (
            (np.abs(whole).sum(axis=0) == 1).all()
            and (np.abs(whole).sum(axis=1) <= 1).all()
            and np.abs(start).max() < 2**40
        ):
            return None, float("inf")
        corners = np.array(list(np.ndindex(*(2,) * len(shape)))) * (np.array(shape) - 1)
        gap = float(np.abs((corners @ steps.T + first) - (corners @ whole.T + start)).max())
        if gap > TOLERANCE:
            return None, gap
        axes = np.abs(whole).argmax(axis=0)
        i, j, k = (int(v) for v in start)
        signs = tuple(int(whole[axis, a]) for a, axis in enumerate(axes))
        return cls(tuple(shape), tuple(int(v) for v in axes), signs, (i, j, k)), gap

    def fills(self, shape: tuple[int, int, int]) -> bool:
        """Whether the array covers a volume of this shape exactly."""
        return len(self.shape) == 3 and all(
            (low, high) == (0, n) for (low, high), n in zip(self._ranges(), shape, strict=True)
        )

    def fits(self, shape: tuple[int, int, int]) -> bool:
        """Whether the array lies within a volume of this shape."""
        return all(low >= 0 and high <= n for (low, high), n in zip(self._ranges(), shape, strict=True))

    def view(self, volume: NDArray[Any]) -> NDArray[Any]:
        """The part of a volume's array (ni, nj, nk) that the array covers, with the array's own axes: a view.

        Raises
        ------
        ValueError
            If it lies outside.
        """
        shape = (volume.shape[0], volume.shape[1], volume.shape[2])
        if not self.fits(shape):
            raise ValueError("the array lies outside of the volume")
        part = volume[tuple(slice(low, high) for low, high in self._ranges())]
        missing = [axis for axis in range(3) if axis not in self.axes]
        part = part.transpose(*self.axes, *missing).reshape(self.shape)
        return part[tuple(slice(None, None, sign) for sign in self.signs)]

    def _ranges(self) -> list[tuple[int, int]]:
        """For each axis of the volume the first voxel and the one behind the last."""
        ranges = [(v, v + 1) for v in self.start]
        for size, axis, sign in zip(self.shape, self.axes, self.signs, strict=True):
            first = self.start[axis]
            ranges[axis] = (first, first + size) if sign > 0 else (first - size + 1, first + 1)
        return ranges
