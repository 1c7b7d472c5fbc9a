"""One door for every volume: :func:`open_volume` looks at the bytes and calls the reader for them."""

from __future__ import annotations

import os

from ibisagent.errors import InputError
from ibisagent.io.files import display_name, sniff
from ibisagent.io.volume import Volume

__all__ = ["open_volume"]


def open_volume(
    path: str | os.PathLike[str], *, series: str | None = None, modality: str | None = None
) -> Volume | None:
    """Open a volume: a DICOM folder or file, NIfTI, NRRD, MetaImage, or a TIFF with several pages.

    The content decides, not the name's ending. Headers are read and checked, voxels follow on demand.

    Parameters
    ----------
    path
        A file, or a folder of DICOM files.
    series
        DICOM: which of several series, as the message about them numbers them.
    modality
        What it is, where the source does not say or says it wrongly.

    Returns
    -------
    Volume or None
        None for a plain 2-D picture: PNG, JPEG, a TIFF of one page (or a pyramid of one picture), a DICOM file that
        does not say where in the patient it lies (a radiograph, a photograph). :func:`ibisagent.io.read_image` reads
        those.

    Raises
    ------
    InputError
        Whatever is wrong with the source or the options, in one line.
    """
    kind = "DICOM" if os.path.isdir(path) else sniff(path)
    if series is not None and kind != "DICOM":
        raise InputError(f"{display_name(path)}: {kind} has no series to choose from (DICOM has); leave --series out")
    if kind == "NIfTI":
        from ibisagent.io.nifti_volume import read_nifti_volume

        return read_nifti_volume(path, modality=modality)
    if kind == "NRRD":
        from ibisagent.io.nrrd import read_nrrd_volume

        return read_nrrd_volume(path, modality=modality)
    if kind == "MetaImage":
        from ibisagent.io.metaimage import read_metaimage_volume

        return read_metaimage_volume(path, modality=modality)
    if kind == "TIFF":
        from ibisagent.io.tiff_stack import read_tiff_stack

        return read_tiff_stack(path, modality=modality)
    if kind == "DICOM":
        from ibisagent.io.dicom_series import read_dicom_volume

        return read_dicom_volume(path, series=series, modality=modality)
    return None
