"""One door for every image file: :func:`read_image` looks at the bytes and calls the reader for them."""

from __future__ import annotations

import os

from ibisagent.errors import InputError
from ibisagent.io.files import display_name, sniff
from ibisagent.io.nifti import parse_slice_spec
from ibisagent.io.slide import is_slide, read_slide_region
from ibisagent.io.studies import open_volume
from ibisagent.types import Image

__all__ = ["read_image"]


def read_image(
    path: str | os.PathLike[str],
    *,
    slice_spec: str | None = None,
    window: str | None = None,
    modality: str | None = None,
    region: str | None = None,
    mpp: float | None = None,
    target: str | None = None,
    preferred_window: str | None = None,
) -> Image:
    """Read an image: PNG, JPEG, TIFF, one DICOM file, one slice of a volume, or a region of a whole slide.

    The content decides, not the name's ending.

    Parameters
    ----------
    path
        The file.
    slice_spec
        For volumes: ``"axial:57"``, ``"coronal:10"``, ``"sagittal"`` (the middle one); None is the middle axial
        slice. The number counts voxels from 0 along the source axis nearest to the plane's normal.
    window
        Display window: ``"lung"``, ``"soft-tissue"``, ``"brain"``, ``"bone"``, ``"percentile"``, ``"header"`` (DICOM)
        or ``"LOW,HIGH"``; three joined by ``+`` are shown as red, green and blue. None chooses by modality, target and
        body part (:mod:`ibisagent.io.windows`). The choice is recorded in ``Image.window``.
    modality
        What it is, where the file does not say (PNG, NIfTI, NRRD …) or says it wrongly.
    region, mpp
        For whole slides: as :func:`ibisagent.io.slide.read_slide_region` takes them. With either the file is opened as
        a slide, whatever it looks like; without both, a slide that is a TIFF is shown whole.
    target, preferred_window
        For CT where `window` is None: what is asked for (an instruction or a name), and the windows that a policy wants
        whatever that is (:func:`ibisagent.registry.wanted_windows`).

    Returns
    -------
    Image
        Pixels ``uint8`` (H, W, 3), with geometry, window, modality and source.

    Raises
    ------
    InputError
        Whatever is wrong with the file or the options, in one line.
    """
    if region is not None or mpp is not None:
        if slice_spec is not None or window is not None:
            raise InputError(f"{display_name(path)}: a region of a slide takes neither --slice nor --window")
        return read_slide_region(path, region, mpp=mpp, modality=modality)
    kind = sniff(path)
    if kind == "NIfTI":
        from ibisagent.io.nifti import read_nifti

        return read_nifti(
            path,
            slice_spec=slice_spec,
            window=window,
            modality=modality,
            target=target,
            preferred_window=preferred_window,
        )
    if kind in ("NRRD", "MetaImage") or (kind == "TIFF" and slice_spec is not None):
        volume = open_volume(path, modality=modality)
        if volume is not None:
            plane, index = parse_slice_spec(slice_spec)
            # a pixel a voxel, as for NIfTI
            shown = volume.window(window, target=target, preferred=preferred_window)
            return volume.image(plane, volume.check_slice(plane, index), shown, square=False)
    if slice_spec is not None:
        raise InputError(f"{display_name(path)}: {kind} has no slices to choose from (NIfTI has); leave --slice out")
    if kind == "DICOM":
        from ibisagent.io.dicom import read_dicom

        return read_dicom(path, window=window, modality=modality, target=target, preferred_window=preferred_window)
    if kind == "TIFF" and window is None and is_slide(path):
        return read_slide_region(path, modality=modality)
    from ibisagent.io.raster import read_raster

    return read_raster(path, kind, window=window, modality=modality)
