"""Volumes from DICOM files made on the spot, and the outside programs that judge what is written for them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dicom_maker import write_multiframe, write_series
from ibisagent.io.dicom_series import read_dicom_volume
from ibisagent.io.volume import Volume

UPRIGHT = np.diag([0.7, 0.8, 2.5, 1.0])


def oblique(tilt_mm: float = 0.0) -> np.ndarray:
    """An affine (index to LPS mm) turned about all axes, spacing 0.7, 0.8, 2.5; each slice slides `tilt_mm` along j."""
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    turn[:, 2] *= np.sign(np.linalg.det(turn))
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([0.7, 0.8, 2.5])
    affine[:3, 2] += affine[:3, 1] * tilt_mm / 0.8
    affine[:3, 3] = (-101.25, 20.5, 33.0625)
    return affine


def make_volume(
    folder: Path, shape=(17, 14, 6), affine=None, *, multiframe: bool = False, modality: str = "CT", **more
) -> Volume:
    """Random voxels, written and opened."""
    values = np.random.default_rng(0).integers(0, 500, shape).astype(np.float64)
    lps = UPRIGHT if affine is None else affine
    if multiframe:
        write_multiframe(folder / "frames.dcm", values, lps, modality=modality, **more)
    else:
        write_series(folder, values, lps, modality=modality, **more)
    volume = read_dicom_volume(folder)
    assert volume is not None and volume.grid.shape == shape
    return volume


def some_mask(shape=(17, 14, 6)) -> np.ndarray:
    """An asymmetric solid with a hole, a corner-touching neighbour, and an empty slice between its parts."""
    mask = np.zeros(shape, bool)
    mask[3:10, 4:11, 1:3] = True
    mask[5:8, 6:8, 1] = False
    mask[6, 9, 1] = False
    mask[10, 11, 1] = True
    mask[12, 2, 4] = True
    return mask


def program(name: str) -> str:
    """Path of a program, beside Python's own or on the path; the test skips without it."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def complaints(path: Path) -> list[str]:
    """What dciodvfy says against a DICOM file: errors and warnings."""
    said = subprocess.run([program("dciodvfy"), str(path)], capture_output=True, text=True, timeout=60).stderr
    assert said.strip(), "dciodvfy says at least what kind of object it is"
    return [line for line in said.splitlines() if line.startswith(("Error", "Warning"))]
