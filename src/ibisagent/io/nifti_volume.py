"""A NIfTI file as a volume: a plain file is mapped, a gzipped one unpacked when its first slice is asked for."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from ibisagent.io.files import reading
from ibisagent.io.lazy_voxels import LazyVoxels
from ibisagent.io.nifti import open_nifti
from ibisagent.io.stored_array import StoredArray, check_volume_size
from ibisagent.io.volume import Volume
from ibisagent.io.windows import canonical_modality

__all__ = ["read_nifti_volume"]

_WHAT = "a NIfTI volume"


def read_nifti_volume(path: str | os.PathLike[str], *, modality: str | None = None) -> Volume:
    """Read a NIfTI volume's header; its voxels follow on demand.

    The affine is the sform's where its code says there is one, else the qform's. It is taken to be in millimetres,
    whatever ``xyzt_units`` says. Where the file has neither, nibabel's guess stands in and `has_world` is False. Every
    such choice is among the volume's notes.

    Parameters
    ----------
    path
        ``.nii`` or ``.nii.gz``.
    modality
        What the user says it is; NIfTI does not say.

    Returns
    -------
    Volume
        `header` is nibabel's.

    Raises
    ------
    InputError
        As :func:`ibisagent.io.nifti.open_nifti`; 4-D files are refused.
    """
    opened = open_nifti(path)
    check_volume_size(path, opened.shape, opened.dtype)
    stored = StoredArray(
        os.fspath(path),
        _WHAT,
        opened.shape,
        opened.dtype,
        skip=opened.offset,
        coding="deflate" if opened.gzipped else "raw",
    )
    with reading(path, _WHAT):
        slope, intercept = opened.header.get_slope_inter()
        notes, has_world = _placement_notes(opened.header)
    scale = (1.0, 0.0) if slope is None else (float(slope), float(intercept))
    return Volume(
        grid=opened.grid,
        voxels=LazyVoxels(stored.load, 0 if stored.is_mapped else stored.num_bytes, *scale),
        source=os.fspath(path),
        kind="NIfTI",
        modality=canonical_modality(modality),
        hounsfield=True,
        has_world=has_world,
        notes=notes,
        header=opened.header,
    )


def _placement_notes(header: Any) -> tuple[tuple[str, ...], bool]:
    """What must be known about the affine, and whether it says where the patient is."""
    notes = []
    sform_code, qform_code = int(header["sform_code"]), int(header["qform_code"])
    unit = header.get_xyzt_units()[0]
    if unit not in ("mm", "unknown"):
        notes.append(f"the header gives its unit as {unit}; lengths were taken as millimetres")
    if sform_code <= 0 and qform_code <= 0:
        notes.append("the header says nothing of orientation (sform and qform codes are 0): left and right are a guess")
    elif sform_code > 0 and qform_code > 0:
        sform = header.get_sform()
        try:
            qform = header.get_qform()
        except Exception:  # a quaternion that is none: the sform serves, and nothing is there to compare
            return tuple(notes), True
        # the farthest corner of the volume moves most; the difference is a linear map
        size = np.append(np.maximum(np.array((*header.get_data_shape()[:3], 1, 1)[:3]) - 1, 0), 1)
        gap = max(float(np.linalg.norm((sform - qform)[:3] @ (size * (*corner, 1)))) for corner in np.ndindex(2, 2, 2))
        if gap > 0.5 * float(np.sqrt((sform[:3, :3] ** 2).sum(axis=0)).min()):
            notes.append(f"sform and qform differ by up to {gap:.1f} mm; the sform was used")
    return tuple(notes), sform_code > 0 or qform_code > 0
