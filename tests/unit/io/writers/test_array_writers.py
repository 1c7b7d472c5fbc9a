"""NIfTI, NRRD, MetaImage and TIFF masks: on the source's grid, as independent readers see it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from ibisagent.errors import InputError
from ibisagent.grid import LPS_FROM_RAS, Grid
from ibisagent.io.volume import ArrayVoxels, Volume
from ibisagent.io.writers import FORMATS, SegmentLabel, chosen_formats, default_formats, write_volume_mask

SHAPE = (5, 6, 7)
LABEL = SegmentLabel("left lung\\tumour", "ibisagent", "1.0", (255, 0, 51))


def rotation(degrees: float = 17.0) -> np.ndarray:
    """A turn about a skew axis."""
    axis = np.array([0.3, -0.5, 0.81])
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def affine_of(kind: str) -> np.ndarray:
    axes = np.diag([-0.7, 0.9, 2.5])
    if kind == "oblique":
        axes = rotation() @ axes
    elif kind == "turned":
        axes = axes[:, [2, 0, 1]]
    elif kind == "sheared":
        axes[1, 2] = 0.4
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes, (-101.3, 55.7, 1234.1)
    return affine


def volume_of(affine: np.ndarray, kind: str = "NIfTI", **more: Any) -> Volume:
    grid = Grid(SHAPE, tuple(map(tuple, affine.tolist())))
    return Volume(grid, ArrayVoxels(np.zeros(SHAPE, np.int16)), "/folder/Doe^Jane", kind, **more)


def blob() -> np.ndarray:
    """Not symmetric along any axis, nor under any exchange of axes."""
    mask = np.zeros(SHAPE, bool)
    mask[1:3, 2, 3:6] = mask[4, 0, 0] = mask[1, 5, 3] = True
    return mask


def read_itk(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(values by index i, j, k; index to RAS mm), as SimpleITK sees the file."""
    import SimpleITK as sitk

    image = sitk.ReadImage(str(path))
    lps = np.eye(4)
    lps[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    lps[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0), LPS_FROM_RAS @ lps


def read_pynrrd(path: Path) -> tuple[np.ndarray, np.ndarray]:
    import nrrd

    data, header = nrrd.read(str(path))
    assert header["space"] == "left-posterior-superior"
    lps = np.eye(4)
    lps[:3, :3], lps[:3, 3] = header["space directions"].T, header["space origin"]
    return data, LPS_FROM_RAS @ lps


@pytest.mark.parametrize("kind", ["upright", "oblique", "turned"])
@pytest.mark.parametrize("fmt", ["nifti", "nrrd", "metaimage"])
def test_itk_sees_the_mask_on_the_grid(tmp_path: Path, fmt: str, kind: str) -> None:
    volume = volume_of(affine_of(kind), "TIFF")
    path = tmp_path / FORMATS[fmt].filename
    write_volume_mask(blob(), volume, path, fmt, LABEL)
    values, affine = read_itk(path)
    assert values.dtype == np.uint8 and np.array_equal(values, blob())
    # NIfTI-1 holds float32, and ITK goes through its quaternions
    assert np.abs(affine - volume.grid.matrix).max() < (2e-3 if fmt == "nifti" else 1e-12)
    corners = np.array(list(itertools.product((0, 4), (0, 5), (0, 6))))
    seen = corners @ affine[:3, :3].T + affine[:3, 3]
    assert np.abs(seen - volume.grid.ras_mm(corners)).max() < 1e-3


@pytest.mark.parametrize("kind", ["upright", "oblique", "turned", "sheared"])
def test_nrrd_keeps_the_affine_to_the_bit(tmp_path: Path, kind: str) -> None:
    volume = volume_of(affine_of(kind), "NRRD")
    write_volume_mask(blob(), volume, tmp_path / "m.nrrd", "nrrd", LABEL)
    data, affine = read_pynrrd(tmp_path / "m.nrrd")
    assert np.array_equal(data, blob()) and np.array_equal(affine, volume.grid.matrix)


def test_nrrd_names_the_segment_for_slicer(tmp_path: Path) -> None:
    import nrrd

    write_volume_mask(blob(), volume_of(affine_of("upright")), tmp_path / "m.seg.nrrd", "nrrd", LABEL)
    header = nrrd.read_header(str(tmp_path / "m.seg.nrrd"))
    assert header["Segment0_Name"].replace("\\\\", "\\") == LABEL.name
    assert header["Segment0_Color"] == "1.000000 0.000000 0.200000"
    assert header["Segment0_Extent"] == "0 4 0 5 0 6"


@pytest.mark.parametrize("degrees", range(3, 180, 29))
def test_metaimage_gives_its_own_affine_back_to_the_bit(tmp_path: Path, degrees: float) -> None:
    """What a reader makes of spacing and direction is written so that a reader makes the same of it again."""
    lps = np.eye(4)
    lps[:3, :3] = rotation(degrees) * (0.7, 0.703125, 1.25)
    lps[:3, 3] = (-12.3, 1 / 3, 1e-3)
    volume = volume_of(LPS_FROM_RAS @ lps, "MetaImage")
    write_volume_mask(blob(), volume, tmp_path / "m.mha", "metaimage", LABEL)
    assert np.array_equal(read_itk(tmp_path / "m.mha")[1], volume.grid.matrix)


@pytest.mark.parametrize("kind", ["upright", "oblique", "turned", "sheared"])
@pytest.mark.parametrize("name", ["m.nii", "m.nii.gz"])
def test_nifti_lends_its_own_header(tmp_path: Path, kind: str, name: str) -> None:
    source = nib.Nifti1Image(np.zeros(SHAPE, np.int16), None)
    header = source.header
    header.set_sform(affine_of(kind), code=4)
    header.set_qform(affine_of("upright"), code=1)
    header.set_xyzt_units("mm", "sec")
    header["cal_max"], header["scl_slope"], header["descrip"] = 900, 2, b"secret"
    header["db_name"] = header["data_type"] = b"secret"
    volume = volume_of(np.asarray(header.get_best_affine()), header=header)
    write_volume_mask(blob(), volume, tmp_path / name, "nifti", LABEL)
    read: Any = nib.load(tmp_path / name)
    assert np.array_equal(np.asarray(read.dataobj), blob()) and read.get_data_dtype() == np.uint8
    for part in ("sform", "qform"):
        ours, theirs = getattr(read.header, f"get_{part}")(coded=True), getattr(header, f"get_{part}")(coded=True)
        assert np.array_equal(ours[0], theirs[0]) and ours[1] == theirs[1]
    assert np.array_equal(read.affine, volume.grid.matrix)
    assert read.header.get_xyzt_units() == ("mm", "sec") and b"secret" not in read.header.binaryblock
    assert header["cal_max"] == 900  # the source's own is left alone


def test_a_nifti_header_of_another_grid_is_not_lent(tmp_path: Path) -> None:
    other = nib.Nifti1Image(np.zeros(SHAPE, np.int16), np.eye(4)).header
    volume = volume_of(affine_of("upright"), header=other)
    write_volume_mask(blob(), volume, tmp_path / "m.nii.gz", "nifti", LABEL)
    assert np.allclose(nib.load(tmp_path / "m.nii.gz").affine, volume.grid.matrix, atol=1e-4)


def test_a_new_nifti_header_says_the_same_twice_unless_it_is_sheared(tmp_path: Path) -> None:
    for kind, code in (("oblique", 1), ("sheared", 0)):
        write_volume_mask(blob(), volume_of(affine_of(kind), "DICOM"), tmp_path / "m.nii.gz", "nifti", LABEL)
        header = nib.load(tmp_path / "m.nii.gz").header
        assert (int(header["qform_code"]), int(header["sform_code"])) == (code, 1)
        assert np.allclose(header.get_sform(), affine_of(kind), atol=1e-4)
        assert np.allclose(header.get_zooms(), np.sqrt((affine_of(kind)[:3, :3] ** 2).sum(axis=0)), atol=1e-5)
        if code:
            assert np.allclose(header.get_qform(), affine_of(kind), atol=1e-3)


def test_a_qform_that_would_be_off_is_not_offered(tmp_path: Path) -> None:
    """A quaternion of float32 is coarse near half turns: slightly oblique scans in DICOM's order."""
    lps = np.eye(4)
    lps[:3, :3] = rotation(0.05) * 0.7
    grid = Grid((500, 500, 2), tuple(map(tuple, (LPS_FROM_RAS @ lps).tolist())))
    volume = Volume(grid, ArrayVoxels(np.zeros((1, 1, 1))), "", "DICOM")
    write_volume_mask(np.zeros(grid.shape, bool), volume, tmp_path / "m.nii.gz", "nifti", LABEL)
    header = nib.load(tmp_path / "m.nii.gz").header
    assert (int(header["qform_code"]), int(header["sform_code"])) == (0, 1)
    far = np.array([499, 499, 1, 1])
    assert np.abs((header.get_qform() - grid.matrix) @ far).max() > 0.05  # what a reader of it would have got
    assert np.abs((read_itk(tmp_path / "m.nii.gz")[1] - grid.matrix) @ far).max() < 1e-4


def test_tiff_pages_are_the_axial_slices_as_shown(tmp_path: Path) -> None:
    import tifffile

    # upright: pages grow to the head, columns to the left, rows to the back
    volume = volume_of(np.diag([-1.0, -1.0, 1.0, 1.0]), "TIFF", has_world=False)
    write_volume_mask(blob(), volume, tmp_path / "m.tif", "tiff", LABEL)
    with tifffile.TiffFile(tmp_path / "m.tif") as stack:
        assert len(stack.pages) == 7
        pages = np.stack([page.asarray() for page in stack.pages])
    assert np.array_equal(pages, blob().transpose(2, 1, 0) * np.uint8(255))


@pytest.mark.parametrize("fmt", [f.name for f in FORMATS.values() if f.volume_writer and not f.needs_dicom])
def test_equal_masks_are_equal_files_and_nothing_else_is_left(tmp_path: Path, fmt: str) -> None:
    volume = volume_of(affine_of("oblique"))
    for name in ("a", "b"):
        write_volume_mask(blob(), volume, tmp_path / name, fmt, LABEL)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert b"Doe" not in (tmp_path / "a").read_bytes() and len(list(tmp_path.iterdir())) == 2
    with pytest.raises(InputError, match="cannot be written"):
        write_volume_mask(blob(), volume, tmp_path / "missing" / "a", fmt, LABEL)


def test_formats_follow_the_source() -> None:
    upright = affine_of("upright")
    assert default_formats(None) == ("png",)
    for kind, name in (("NIfTI", "nifti"), ("NRRD", "nrrd"), ("MetaImage", "metaimage"), ("TIFF", "tiff")):
        assert default_formats(volume_of(upright, kind)) == (name,)
    from ibisagent.io.volume import Frame

    dicom = volume_of(upright, "DICOM", frames=tuple(Frame(f"{k}") for k in range(7)))
    assert default_formats(dicom) == ("dicom-seg", "nifti")
    assert default_formats(volume_of(upright, "DICOM")) == ("nifti",)
    assert default_formats(volume_of(affine_of("sheared"), "DICOM", frames=dicom.frames)) == ("dicom-seg", "nrrd")
    assert chosen_formats(" NRRD, coco,nrrd", dicom) == ("nrrd", "coco")
    assert chosen_formats(None, None) == ("png",)


@pytest.mark.parametrize(
    "option, affine, words",
    [
        ("nifti,jpeg", "upright", "'jpeg' is not known; use nifti, nrrd"),
        (" , ", "upright", "no format is named"),
        ("png", "upright", "2-D images only"),
        ("rtstruct", "upright", "refers to DICOM images, and the source is NIfTI"),
        ("metaimage", "sheared", "tilted gantry"),
        ("nrrd", None, "needs a volume"),
        ("png,nifti", None, "needs a volume, and this is a 2-D image; use png"),
    ],
)
def test_what_cannot_be_written_is_said_before_work(option: str, affine: str | None, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        chosen_formats(option, None if affine is None else volume_of(affine_of(affine)))
    assert "\n" not in str(caught.value)


def test_a_mask_of_another_shape_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be bool"):
        write_volume_mask(blob()[1:], volume_of(affine_of("upright")), tmp_path / "m", "nifti", LABEL)
    with pytest.raises(InputError, match="tilted gantry"):
        write_volume_mask(blob(), volume_of(affine_of("sheared")), tmp_path / "m", "metaimage", LABEL)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("more", [{"name": " "}, {"colour": (0, 0, 256)}, {"colour": (0, 0)}])
def test_labels_are_checked(more: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        SegmentLabel(**{"name": "liver", **more})
