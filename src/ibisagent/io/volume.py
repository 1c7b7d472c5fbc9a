"""A volume as every reader gives it: a grid, voxels that are read when they are asked for, and facts about them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ibisagent.errors import InputError
from ibisagent.geometry import Geometry
from ibisagent.grid import Grid
from ibisagent.io.files import check_pixels, display_name, reading
from ibisagent.io.raster import gray_to_rgb
from ibisagent.io.windows import apply_window, choose_window
from ibisagent.slices import slice_axes, to_display
from ibisagent.types import Image, Window

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ArrayVoxels", "Frame", "Volume", "Voxels", "place_slice"]

_SAMPLED_SLICES = 16


class Voxels(Protocol):
    """Where a volume's values come from: rescaled (Hounsfield units for CT), in the source's axis order."""

    def plane(self, axis: int, index: int) -> NDArray[Any]:
        """Slice `index` along source axis `axis`: the two other axes in their order, any real dtype.

        Raises
        ------
        ibisagent.errors.InputError
            If the file is damaged.
        """
        ...

    def array(self) -> NDArray[Any]:
        """All values, (ni, nj, nk). It may have to read everything. Raises as :meth:`plane`."""
        ...


@dataclass(frozen=True, eq=False)
class ArrayVoxels:
    """Values in memory (or mapped), rescaled as they are asked for.

    Parameters
    ----------
    stored
        (ni, nj, nk), any real dtype.
    slope, intercept
        value = stored * slope + intercept; 1 and 0 leave the stored dtype alone, others give ``float32``.
    """

    stored: NDArray[Any]
    slope: float = 1.0
    intercept: float = 0.0

    def plane(self, axis: int, index: int) -> NDArray[Any]:
        """See :meth:`Voxels.plane`."""
        return self._rescaled(self.stored[(slice(None),) * axis + (index,)])

    def array(self) -> NDArray[Any]:
        """See :meth:`Voxels.array`."""
        return self._rescaled(self.stored)

    def _rescaled(self, values: NDArray[Any]) -> NDArray[Any]:
        if (self.slope, self.intercept) == (1.0, 0.0):
            return values
        out = values.astype(np.float32)
        with np.errstate(all="ignore"):  # what overflows is not finite, and is handled as such
            out *= np.float32(self.slope)
            out += np.float32(self.intercept)
        return out


@dataclass(frozen=True)
class Frame:
    """The DICOM frame that holds one slice (an index along the volume's third axis).

    Parameters
    ----------
    path
        The file.
    number
        Frame in it, from 1.
    """

    path: str
    number: int = 1


@dataclass(frozen=True, eq=False)
class Volume:
    """One 3-D image. Files with a single slice are volumes of one slice.

    Parameters
    ----------
    grid
        Shape and place of the voxels. For sources without a world (a TIFF stack) an upright one is assumed
        (`has_world` is False then), so that slices are shown as they are stored.
    voxels
        Its values.
    source
        File or folder it was read from.
    kind
        ``"NIfTI"``, ``"NRRD"``, ``"MetaImage"``, ``"DICOM"`` or ``"TIFF"``.
    modality
        Canonical modality, None if unknown.
    body_part
        What the source says was examined, lower case, or None.
    hounsfield
        Whether the values of a CT are Hounsfield units.
    header_window
        (low, high) that the source proposes, or None.
    is_inverted
        Whether low values are shown bright (DICOM ``MONOCHROME1``).
    padding
        Value that marks voxels outside the picture, or None.
    has_world
        Whether the grid's place in the patient is known.
    notes
        What a user must know about how it was read, one line each: a tilted gantry, PET without SUV, a guessed axis.
    frames
        DICOM: the frame of every index along the third axis; empty for other sources.
    header
        The reader's own header for writers of the same format (nibabel's for NIfTI, a data set of the first file
        without pixels for DICOM), or None.
    """

    grid: Grid
    voxels: Voxels
    source: str
    kind: str
    modality: str | None = None
    body_part: str | None = None
    hounsfield: bool = False
    header_window: tuple[float, float] | None = None
    is_inverted: bool = False
    padding: float | None = None
    has_world: bool = True
    notes: tuple[str, ...] = ()
    frames: tuple[Frame, ...] = ()
    header: Any = field(default=None, repr=False)

    def image(self, plane: str, index: int, window: Window, *, square: bool = True) -> Image:
        """One slice as an agent sees it.

        Parameters
        ----------
        plane, index, square
            As :meth:`ibisagent.grid.Grid.view` takes them.
        window
            From :meth:`window`: one for all slices, so that a tissue looks the same on each.

        Raises
        ------
        InputError
            If the slice cannot be read or is too large.
        """
        geometry = self.grid.view(plane, index, square=square)
        size = self.grid.view_size(plane, square=square)
        values = self.display(geometry, size)
        pixels = gray_to_rgb(apply_window(values, window))
        # folders and files of DICOM are often named after patients, and a record takes the last part of this
        source = "" if self.kind == "DICOM" else os.fspath(self.source)
        return Image(pixels=pixels, geometry=geometry, modality=self.modality, window=window, source=source)

    def display(self, geometry: Geometry, size: tuple[int, int]) -> NDArray[Any]:
        """Values of one view on its display grid, (height, width) of `size`, C-contiguous. Raises as :meth:`image`."""
        check_pixels(self.source, size[1], size[0])
        with reading(self.source, f"a {self.kind} volume"):
            values = self.voxels.plane(slice_axes(geometry)[0], int(geometry.slice_index or 0))
            return np.ascontiguousarray(to_display(values, geometry, size))

    def window(self, option: str | None = None, *, target: str | None = None, preferred: str | None = None) -> Window:
        """The window for all slices, by the rule of :mod:`ibisagent.io.windows` on a sample of slices.

        Pictures that are stored with 8 bits (TIFF, DICOM) are shown as they are, unless they hold a CT.

        Parameters
        ----------
        option
            ``--window``, or None for the rule.
        target
            The instruction or the target's name, for the rule on CT.
        preferred
            What a policy wants for CT where there is no option (its ``windows``).

        Raises
        ------
        InputError
            If the option cannot serve this volume, or no value is finite.
        """
        axis = int(np.argmin(self.grid.shape)) if not self.frames else 2
        size = self.grid.shape[axis]
        picked = np.unique(np.linspace(0, size - 1, min(size, _SAMPLED_SLICES)).round().astype(int))
        with reading(self.source, f"a {self.kind} volume"):
            sample = np.concatenate([np.ravel(self.voxels.plane(axis, int(i)))[::7] for i in picked])
        if option is None and sample.dtype == np.uint8 and self.kind in ("TIFF", "DICOM") and self.modality != "CT":
            chosen = Window(0.0, 255.0, "none")
        else:
            counted = sample if self.padding is None else sample[sample != self.padding]
            chosen = choose_window(
                counted if counted.size else sample,
                option,
                self.modality,
                header=self.header_window,
                hounsfield=self.hounsfield or self.kind != "DICOM",
                guess_ct=self.kind != "DICOM",
                target=target,
                body_part=self.body_part,
                preferred=preferred,
                where=display_name(self.source),
            )
        return chosen.inverted() if self.is_inverted else chosen

    def check_slice(self, plane: str, index: int | None) -> int:
        """`index`, or the middle for None.

        Raises
        ------
        InputError
            If there is no such slice.
        """
        count = self.grid.num_slices(plane)
        if index is None:
            return count // 2
        if not 0 <= index < count:
            raise InputError(
                f"{display_name(self.source)}: slice {plane}:{index} is outside; use {plane}:0 to {plane}:{count - 1}"
            )
        return index


def place_slice(mask: NDArray[np.bool_], plane: NDArray[np.bool_], geometry: Geometry) -> None:
    """Write a slice (its two source axes in order) into a volume's ``bool`` (ni, nj, nk) mask, in place."""
    mask[(slice(None),) * slice_axes(geometry)[0] + (int(geometry.slice_index or 0),)] = plane
