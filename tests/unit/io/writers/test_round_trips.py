"""A mask in the source's own format lies on the source's own grid, to the bit, for our readers too."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ibisagent.io.studies import open_volume
from ibisagent.io.volume import Volume
from ibisagent.io.writers import FORMATS, SegmentLabel, default_formats, write_volume_mask

SHAPE = (6, 5, 4)


def oblique() -> np.ndarray:
    """Index to LPS mm of a plausible oblique scan, its spacings short numbers."""
    directions, _ = np.linalg.qr(np.array([[0.9, 0.2, -0.1], [-0.3, 0.8, 0.25], [0.05, -0.2, 1.0]]))
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = directions * (0.7, 0.6875, 3.3), (-101.25, 1 / 3, 77.7)
    return affine


def source_file(folder: Path, kind: str) -> Path:
    values = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    if kind == "NIfTI":
        nib.save(nib.Nifti1Image(values, np.diag([-1.0, -1, 1, 1]) @ oblique()), folder / "s.nii.gz")
        return folder / "s.nii.gz"
    if kind == "TIFF":
        import tifffile

        facts = {"axes": "ZYX", "spacing": 2.5, "unit": "um"}
        tifffile.imwrite(folder / "s.tif", values.astype(np.uint16).T, imagej=True, metadata=facts)
        return folder / "s.tif"
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(values.transpose(2, 1, 0))
    affine = oblique()
    spacing = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    path = folder / ("s.nrrd" if kind == "NRRD" else "s.mha")
    sitk.WriteImage(image, str(path))
    return path


def opened(path: Path) -> Volume:
    volume = open_volume(path)
    assert volume is not None
    return volume


@pytest.mark.parametrize("kind", ["NIfTI", "NRRD", "MetaImage", "TIFF"])
def test_the_sources_own_format_and_grid(tmp_path: Path, kind: str) -> None:
    volume = opened(source_file(tmp_path, kind))
    assert volume.kind == kind and volume.grid.shape == SHAPE
    mask = volume.voxels.array() % 7 == 3
    (fmt,) = default_formats(volume)
    path = tmp_path / FORMATS[fmt].filename
    write_volume_mask(mask, volume, path, fmt, SegmentLabel("x"))
    read = opened(path)
    assert read.kind == kind and np.array_equal(read.voxels.array() != 0, mask)
    if kind != "TIFF":  # which has no place in the world to keep
        assert read.grid.affine == volume.grid.affine


@pytest.mark.parametrize("fmt", ["nifti", "nrrd", "metaimage"])
def test_another_format_keeps_the_place(tmp_path: Path, fmt: str) -> None:
    volume = opened(source_file(tmp_path, "NRRD"))
    mask = volume.voxels.array() > 100
    path = tmp_path / FORMATS[fmt].filename
    write_volume_mask(mask, volume, path, fmt, SegmentLabel("x"))
    read = opened(path)
    assert read.has_world and read.grid.is_close(volume.grid, voxels=1e-4)
    assert np.array_equal(read.voxels.array() != 0, mask)
