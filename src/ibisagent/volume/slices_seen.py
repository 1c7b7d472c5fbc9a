"""The slices of one plane as images, made when they are asked for and forgotten soon."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import overload

from ibisagent.io.volume import Volume
from ibisagent.types import Image, Window

__all__ = ["SliceImages"]


class SliceImages(Sequence[Image]):
    """Images of a plane's slices, by index.

    Parameters
    ----------
    volume, plane, window
        As :meth:`ibisagent.io.volume.Volume.image` takes them.
    kept
        Images that are remembered.
    """

    def __init__(self, volume: Volume, plane: str, window: Window, kept: int = 16) -> None:
        self.volume, self.plane, self.window = volume, plane, window
        self._images: OrderedDict[int, Image] = OrderedDict()
        self._kept = kept

    def __len__(self) -> int:
        return self.volume.grid.num_slices(self.plane)

    @overload
    def __getitem__(self, index: int) -> Image: ...
    @overload
    def __getitem__(self, index: slice) -> list[Image]: ...
    def __getitem__(self, index: int | slice) -> Image | list[Image]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        if index not in self._images:
            self._images[index] = self.volume.image(self.plane, index, self.window)
        self._images.move_to_end(index)
        while len(self._images) > self._kept:
            self._images.popitem(last=False)
        return self._images[index]
