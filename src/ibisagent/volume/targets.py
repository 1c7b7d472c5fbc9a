"""The reference of a volume, slice by slice, for the policies that may see one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from ibisagent.grid import PLANES, Grid
from ibisagent.slices import mask_to_display, slice_axes

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SliceTargets", "slice_id"]


def slice_id(plane: str, index: int) -> str:
    """Name of a slice's case: ``"axial:12"``."""
    return f"{plane}:{index}"


class SliceTargets(Mapping[str, "NDArray[np.bool_]"]):
    """Slices of a reference mask on their displays, by :func:`slice_id`; made when they are asked for.

    The run itself never has it: it goes to the policy ``oracle`` when that is made.

    Parameters
    ----------
    mask
        ``bool`` (ni, nj, nk) on the volume's grid.
    grid
        The volume's grid.
    """

    def __init__(self, mask: NDArray[np.bool_], grid: Grid) -> None:
        grid.check_mask(mask, "a reference")
        self._mask, self._grid = mask, grid

    def __getitem__(self, case_id: str) -> NDArray[np.bool_]:
        plane, _, index = case_id.partition(":")
        if plane not in PLANES or not index.isdigit() or int(index) >= self._grid.num_slices(plane):
            raise KeyError(case_id)
        geometry = self._grid.view(plane, int(index))
        source = np.take(self._mask, int(index), axis=slice_axes(geometry)[0])
        return mask_to_display(source, geometry, self._grid.view_size(plane))

    def __iter__(self) -> Iterator[str]:
        return (slice_id(plane, i) for plane in PLANES for i in range(self._grid.num_slices(plane)))

    def __len__(self) -> int:
        return sum(self._grid.num_slices(plane) for plane in PLANES)
