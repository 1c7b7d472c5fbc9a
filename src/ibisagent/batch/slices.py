"""One picture out of a study: the study itself, or a slice of a volume, with masks for it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from ibisagent.io import read_image, read_mask
from ibisagent.io.files import sniff
from ibisagent.io.labels import read_label_volume
from ibisagent.io.nifti import parse_slice_spec
from ibisagent.slices import mask_to_source, slice_axes
from ibisagent.volume.shown import shown_mask

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ibisagent.io.volume import Volume
    from ibisagent.types import Image

__all__ = ["read_slice", "read_slice_mask", "slice_mask"]


def read_slice(
    path: str | os.PathLike[str],
    volume: Volume | None,
    spec: str | None,
    window: str | None,
    modality: str | None,
    instruction: str,
    *,
    preferred_window: str | None = None,
    region: str | None = None,
    mpp: float | None = None,
) -> Image:
    """Read one picture.

    Parameters
    ----------
    path
        The study.
    volume
        It, where it is a volume: then `spec` names the slice, which is shown with square pixels.
    spec, window, modality, region, mpp
        As :func:`ibisagent.io.read_image` takes them.
    instruction
        What is asked for, which the window of a CT depends on where `window` is None.
    preferred_window
        What the policy wants CT in then (:func:`ibisagent.registry.wanted_windows`).

    Raises
    ------
    InputError
        If there is no such slice, or something cannot be read.
    """
    if volume is None:
        return read_image(
            path,
            slice_spec=spec,
            window=window,
            modality=modality,
            region=region,
            mpp=mpp,
            target=instruction,
            preferred_window=preferred_window,
        )
    plane, index = parse_slice_spec(spec)
    shown = volume.window(window, target=instruction, preferred=preferred_window)
    return volume.image(plane, volume.check_slice(plane, index), shown)


def read_slice_mask(path: str | os.PathLike[str], image: Image, volume: Volume | None) -> NDArray[np.bool_]:
    """Read a mask for a picture, ``bool`` (H, W): a picture of its size or, for a slice, a label volume, too.

    Raises
    ------
    InputError
        If it cannot be read or does not fit.
    """
    if volume is None or (not os.path.isdir(path) and sniff(path) == "PNG"):
        return read_mask(path, image)
    geometry = image.geometry
    assert geometry.plane is not None and geometry.slice_index is not None
    return shown_mask(read_label_volume(path, volume), volume.grid, geometry.plane, geometry.slice_index)


def slice_mask(mask: NDArray[np.bool_], image: Image, volume: Volume) -> NDArray[np.bool_]:
    """The mask of one displayed slice on its volume's grid, ``bool`` (ni, nj, nk), zeros in all other slices."""
    geometry = image.geometry
    whole = np.zeros(volume.grid.shape, bool)
    place = (slice(None),) * slice_axes(geometry)[0] + (int(geometry.slice_index or 0),)
    whole[place] = mask_to_source(mask, geometry)
    return whole
