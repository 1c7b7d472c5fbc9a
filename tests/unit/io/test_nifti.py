"""NIfTI slices: radiological display and bit-exact mapping, whatever the file's axis order."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from io_samples import MINI, make_nifti
from nibabel.orientations import apply_orientation, inv_ornt_aff

from ibisagent.errors import InputError
from ibisagent.io import read_image, read_mask, write_mask
from ibisagent.types import Image

BRAIN = MINI / "volumes" / "brain1.nii.gz"
LABEL = MINI / "volumes" / "brain1_label.nii.gz"
ORIENTATIONS = [
    np.array(list(zip(axes, flips, strict=True)))
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]


def random_mask(image: Image, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((image.height, image.width)) < 0.3


def reoriented(path: Path, orientation: np.ndarray, data: np.ndarray, affine: np.ndarray) -> Path:
    """Store the same patient with other axes."""
    return make_nifti(path, apply_orientation(data, orientation), affine @ inv_ornt_aff(orientation, data.shape))


def small_patient() -> tuple[np.ndarray, np.ndarray]:
    """Unequal sizes and a slightly oblique affine; every voxel's value is unique."""
    data = np.arange(5 * 6 * 7, dtype=np.int16).reshape(5, 6, 7)
    tilt = np.deg2rad(8)
    turn = np.array([[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([1.0, 1.5, 3.0])
    affine[:3, 3] = (-10, 20, 30)
    return data, affine


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_display_is_radiological(plane: str) -> None:
    for index in (None, 3):
        geometry = read_image(BRAIN, slice_spec=plane if index is None else f"{plane}:{index}").geometry
        origin = np.array(geometry.world_mm(0, 0))
        across, down = np.array(geometry.world_mm(1, 0)) - origin, np.array(geometry.world_mm(0, 1)) - origin
        # RAS: the patient's left is -x, back is -y, down is -z
        expected = {"axial": (0, 1), "coronal": (0, 2), "sagittal": (1, 2)}[plane]
        for step, axis in zip((across, down), expected, strict=True):
            assert int(np.abs(step).argmax()) == axis and step[axis] < 0
        assert geometry.spacing_mm == (np.linalg.norm(down), np.linalg.norm(across))
        assert geometry.plane == plane


def test_default_is_the_middle_axial_slice() -> None:
    image = read_image(BRAIN)
    assert (image.geometry.plane, image.geometry.slice_index) == ("axial", 12)
    assert image.sha256 == read_image(BRAIN, slice_spec="AXIAL:12").sha256
    assert image.geometry.volume_shape == (256, 256, 25)


def test_pixels_are_the_voxels_that_the_geometry_names() -> None:
    image = read_image(BRAIN, slice_spec="sagittal:100", window="0,2550")
    data = np.asarray(nib.load(BRAIN).dataobj)
    for x, y in ((0, 0), (17, 3), (255, 24), (100, 20)):
        value = min(int(data[image.geometry.source_index(x, y)]), 2550)
        assert image.pixels[y, x, 0] == np.floor(value / 10 + 0.5)


def test_mini_slice_is_the_same_slice() -> None:
    # the PNG of the mini set holds the voxels with y along the second axis, so it is ours turned upside down
    ours = read_image(BRAIN, slice_spec="axial:14").pixels[::-1, :, 0].astype(float)
    theirs = read_image(MINI / "images" / "brain1_axial_014.png").pixels[..., 0].astype(float)
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.999


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_real_mask_round_trip(tmp_path: Path, plane: str) -> None:
    image = read_image(
        BRAIN, slice_spec={"axial": "axial:14", "coronal": "coronal:90", "sagittal": "sagittal:200"}[plane]
    )
    tumour = read_mask(LABEL, image)
    label = np.asarray(nib.load(LABEL).dataobj)
    take = [slice(None)] * 3
    take[{"sagittal": 0, "coronal": 1, "axial": 2}[plane]] = image.geometry.slice_index
    assert tumour.sum() == (label[tuple(take)] != 0).sum()
    for mask in (tumour, random_mask(image)):
        write_mask(mask, image, tmp_path / "m.nii.gz")
        written = nib.load(tmp_path / "m.nii.gz")
        assert np.array_equal(read_mask(tmp_path / "m.nii.gz", image), mask)
        volume = np.asarray(written.dataobj)
        assert volume.dtype == np.uint8 and volume.shape == (256, 256, 25) and volume.sum() == mask.sum()
        y, x = np.argwhere(mask)[0] if mask.any() else (0, 0)
        assert volume[image.geometry.source_index(int(x), int(y))] == mask[y, x]


@pytest.mark.parametrize("number", range(len(ORIENTATIONS)))
def test_all_48_orientations_look_the_same_and_map_back(tmp_path: Path, number: int) -> None:
    data, affine = small_patient()
    reference = read_image(make_nifti(tmp_path / "ref.nii", data, affine), slice_spec="axial:2", window="0,255")
    path = reoriented(tmp_path / "a.nii.gz", ORIENTATIONS[number], data, affine)
    stored = nib.load(path)
    axis = [code in "SI" for code in nib.aff2axcodes(stored.affine)].index(True)
    index = 2 if nib.aff2axcodes(stored.affine)[axis] == "S" else data.shape[2] - 1 - 2
    image = read_image(path, slice_spec=f"axial:{index}", window="0,255")
    assert np.array_equal(image.pixels, reference.pixels)
    assert np.allclose(image.geometry.world_mm(1, 4), reference.geometry.world_mm(1, 4), atol=1e-4)
    mask = random_mask(image, number)
    write_mask(mask, image, tmp_path / "m.nii.gz")
    volume = np.asarray(nib.load(tmp_path / "m.nii.gz").dataobj)
    values = np.asarray(stored.dataobj)
    assert set(values[volume == 1]) == set(reference.pixels[..., 0][mask])
    assert np.array_equal(read_mask(tmp_path / "m.nii.gz", image), mask)


@pytest.mark.parametrize("plane", ["coronal", "sagittal"])
def test_other_planes_in_every_axis_order(tmp_path: Path, plane: str) -> None:
    data, affine = small_patient()
    reference = read_image(make_nifti(tmp_path / "ref.nii", data, affine), slice_spec=f"{plane}:1", window="0,255")
    for orientation in ORIENTATIONS[::5]:
        path = reoriented(tmp_path / "a.nii", orientation, data, affine)
        codes = nib.aff2axcodes(nib.load(path).affine)
        ends = {"coronal": "AP", "sagittal": "RL"}[plane]
        axis = [code in ends for code in codes].index(True)
        size = nib.load(path).shape[axis]
        image = read_image(path, slice_spec=f"{plane}:{1 if codes[axis] == ends[0] else size - 2}", window="0,255")
        assert np.array_equal(image.pixels, reference.pixels)
        mask = random_mask(image)
        write_mask(mask, image, tmp_path / "m.nii")
        assert np.array_equal(read_mask(tmp_path / "m.nii", image), mask)


def header_bits(path: Path) -> list[bytes]:
    header = nib.load(path).header
    fields = ["qform_code", "sform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "quatern_c", "quatern_d"]
    fields += ["qoffset_x", "qoffset_y", "qoffset_z", "pixdim", "dim", "xyzt_units"]
    return [np.asarray(header[field]).tobytes() for field in fields]


@pytest.mark.parametrize("make", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("qcode, scode", [(1, 2), (1, 0), (0, 4), (0, 0), (3, 1)])
def test_mask_keeps_the_sources_header(tmp_path: Path, make: type, qcode: int, scode: int) -> None:
    data, affine = small_patient()
    source = make(data, affine)
    source.set_qform(affine, qcode)
    source.set_sform(affine, scode)
    source.header["xyzt_units"] = 10
    source.header.set_slope_inter(2.0, -5.0)
    nib.save(source, tmp_path / "a.nii.gz")
    image = read_image(tmp_path / "a.nii.gz", slice_spec="coronal:3")
    write_mask(random_mask(image), image, tmp_path / "m.nii.gz")
    assert header_bits(tmp_path / "m.nii.gz") == header_bits(tmp_path / "a.nii.gz")
    assert nib.load(tmp_path / "m.nii.gz").affine.tobytes() == nib.load(tmp_path / "a.nii.gz").affine.tobytes()
    assert set(np.unique(nib.load(tmp_path / "m.nii.gz").get_fdata())) == {0.0, 1.0}
    assert type(nib.load(tmp_path / "m.nii.gz")) is make


def test_mask_without_its_source_keeps_the_affine(tmp_path: Path) -> None:
    data, affine = small_patient()
    path = make_nifti(tmp_path / "a.nii", data, affine)
    image = read_image(path)
    stored = nib.load(path).affine
    path.unlink()
    write_mask(random_mask(image), image, tmp_path / "m.nii.gz")
    written = nib.load(tmp_path / "m.nii.gz")
    assert np.array_equal(written.affine, stored) and written.shape == data.shape
    assert int(written.header["sform_code"]) == 2
    make_nifti(path, data[:-1], affine)  # another volume under the old name must not lend its header
    write_mask(random_mask(image), image, tmp_path / "n.nii.gz")
    assert nib.load(tmp_path / "n.nii.gz").shape == data.shape


def test_rescaling_and_big_endian(tmp_path: Path) -> None:
    data, affine = small_patient()
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    source = nib.Nifti1Image(data, affine, header)
    source.header.set_slope_inter(2.0, -100.0)
    nib.save(source, tmp_path / "a.nii")
    expected = nib.load(tmp_path / "a.nii").get_fdata()
    assert nib.load(tmp_path / "a.nii").header.endianness == ">"
    image = read_image(tmp_path / "a.nii", slice_spec="axial:0", window="-128,127")
    for x, y in ((0, 0), (4, 5), (2, 3)):
        assert image.pixels[y, x, 0] == np.clip(np.floor(expected[image.geometry.source_index(x, y)] + 128.5), 0, 255)


def test_windows_by_modality(tmp_path: Path) -> None:
    hu = np.linspace(-1000, 1500, 4 * 5 * 6).reshape(4, 5, 6).astype(np.int16)
    path = make_nifti(tmp_path / "ct.nii", hu)
    names = {
        (None, None): "guessed CT: soft tissue",
        ("CT", None): "soft tissue",
        ("CT", "lung"): "lung",
        ("MR", None): "percentile 0.5-99.5",
        (None, "percentile"): "percentile 0.5-99.5",
        (None, "-10,10"): "user",
    }
    for (modality, window), name in names.items():
        image = read_image(path, modality=modality, window=window)
        assert image.window is not None and image.window.name == name
    assert read_image(path).modality is None  # a guess is not a fact
    with pytest.raises(InputError, match="Hounsfield"):
        read_image(path, modality="MRI", window="bone")
    with pytest.raises(InputError, match="proposes no"):
        read_image(path, window="header")


def test_not_finite_voxels(tmp_path: Path) -> None:
    data = np.linspace(0, 1, 60, dtype=np.float32).reshape(3, 4, 5)
    data[0, 0, 2], data[1, 1, 2], data[2, 2, 2] = np.nan, np.inf, -np.inf
    data[..., 4] = np.nan
    path = make_nifti(tmp_path / "a.nii", data)
    image = read_image(path, slice_spec="axial:2")
    at = {image.geometry.source_index(x, y): int(image.pixels[y, x, 0]) for x in range(3) for y in range(4)}
    assert (at[0, 0, 2], at[1, 1, 2], at[2, 2, 2]) == (0, 255, 0)
    with pytest.raises(InputError, match="no finite value"):
        read_image(path, slice_spec="axial:4")
    with pytest.raises(InputError, match="not finite"):
        read_mask(path, image)


def test_shapes(tmp_path: Path) -> None:
    data = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    with pytest.raises(InputError, match="4-D"):
        read_image(make_nifti(tmp_path / "4.nii", np.stack([data, data], axis=3)))
    image = read_image(make_nifti(tmp_path / "s.nii", data[..., None]))
    assert image.geometry.volume_shape == (3, 4, 5)
    write_mask(random_mask(image), image, tmp_path / "m.nii.gz")
    assert nib.load(tmp_path / "m.nii.gz").shape == (3, 4, 5, 1)
    flat = read_image(make_nifti(tmp_path / "2.nii", data[..., 0]))
    assert flat.pixels.shape == (4, 3, 3)
    rgb = np.zeros((3, 4, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(InputError, match="voxels of type"):
        read_image(make_nifti(tmp_path / "rgb.nii", rgb))
    with pytest.raises(InputError, match="voxels of type"):
        read_image(make_nifti(tmp_path / "c.nii", data.astype(np.complex64)))


@pytest.mark.parametrize(
    "spec", ["", "57", "axial:", "axial:-1", "axial:x", "oblique:3", "axial:1:2", "axial:²", "axial 3"]
)
def test_bad_slice_specs(spec: str) -> None:
    with pytest.raises(InputError, match="axial:57"):
        read_image(BRAIN, slice_spec=spec)


def test_slice_outside() -> None:
    with pytest.raises(InputError, match="coronal:0 to coronal:255"):
        read_image(BRAIN, slice_spec="coronal:256")


def test_degenerate_affines_are_refused(tmp_path: Path) -> None:
    data = np.zeros((3, 4, 5), np.uint8)
    for bad in (np.nan, 0.0):
        image = nib.Nifti1Image(data, np.eye(4))
        image.header["sform_code"], image.header["qform_code"] = 1, 0
        image.header["srow_x"] = [bad, 0, 0, 0]
        broken = bytearray(image.to_bytes())
        broken[280:284] = np.float32(bad).tobytes()
        (tmp_path / "a.nii").write_bytes(bytes(broken))
        with pytest.raises(InputError, match="affine"):
            read_image(tmp_path / "a.nii")


def test_tiny_voxels_are_fine(tmp_path: Path) -> None:
    affine = np.diag([1e-4, 1e-4, 1e-4, 1])
    image = read_image(make_nifti(tmp_path / "a.nii", np.arange(60, dtype=np.uint8).reshape(3, 4, 5), affine))
    assert image.geometry.spacing_mm == pytest.approx((1e-4, 1e-4))


def test_pairs_are_named(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Pair(np.zeros((3, 4, 5), np.uint8), np.eye(4)), tmp_path / "a.img")
    with pytest.raises(InputError, match="pair"):
        read_image(tmp_path / "a.hdr")
