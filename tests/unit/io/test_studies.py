"""Volumes of every array format through one door: values and places as the libraries of those formats read them."""

from __future__ import annotations

import gzip
import os
import pickle
import threading
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
from io_samples import gray_ramp, make_dicom, make_nifti, save_png

from ibisagent.errors import InputError
from ibisagent.io import lazy_voxels, read_image
from ibisagent.io.files import sniff
from ibisagent.io.lazy_voxels import LazyVoxels
from ibisagent.io.studies import open_volume
from ibisagent.io.volume import Volume

SHAPE = (5, 6, 7)


def values(dtype: str = "int16", seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random(SHAPE) * 200 + 3).astype(dtype)


def oblique(seed: int = 0) -> np.ndarray:
    """A random rotation times unequal spacings, index to LPS mm."""
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = turn * (0.7, 0.8, 2.5)
    affine[:3, 3] = rng.normal(size=3) * 50
    return affine


def itk_image(array: np.ndarray, lps: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    spacing = np.sqrt((lps[:3, :3] ** 2).sum(axis=0))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    return image


def opened(path: Path) -> Volume:
    volume = open_volume(path)
    assert volume is not None
    return volume


def refuse(path: Path, words: str) -> None:
    """One line that names the file, at opening or when the first slice is asked for."""
    with pytest.raises(InputError, match=words) as caught:
        opened(path).voxels.plane(2, 0)
    assert str(path.parent) in str(caught.value) and str(caught.value).isprintable()


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32", "int32", "float64"])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.nhdr", "a.mha", "a.mhd"])
def test_itk_agrees(tmp_path: Path, name: str, dtype: str) -> None:
    array, lps = values(dtype), oblique(len(name) + len(dtype))
    for packed in (False, True):
        path = tmp_path / f"{packed}_{name}"
        sitk.WriteImage(itk_image(array, lps), str(path), useCompression=packed)
        volume = opened(path)
        theirs = sitk.ReadImage(str(path))
        assert volume.voxels.array().dtype == np.dtype(dtype) and np.array_equal(volume.voxels.array(), array)
        for axis in range(3):
            assert np.array_equal(volume.voxels.plane(axis, 3), array.take(3, axis=axis))
        for index in ((0, 0, 0), (4, 0, 6), (1, 5, 2)):
            place = theirs.TransformIndexToPhysicalPoint(index)
            assert np.allclose(volume.grid.lps_mm(index), place, atol=1e-4)
        assert volume.kind == sniff(path) and volume.has_world and volume.notes == () and volume.hounsfield


def test_what_is_not_packed_is_mapped(tmp_path: Path) -> None:
    sitk.WriteImage(itk_image(values(), oblique()), str(tmp_path / "a.mha"))
    nrrd.write(str(tmp_path / "a.nrrd"), values(), {"encoding": "raw"})
    make_nifti(tmp_path / "a.nii", values())
    for name in ("a.mha", "a.nrrd", "a.nii"):
        volume = opened(tmp_path / name)
        assert isinstance(volume.voxels, LazyVoxels) and volume.voxels.num_bytes == 0
        base = volume.voxels.array()
        while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
            base = base.base
        assert isinstance(base, np.memmap)
    os.unlink(tmp_path / "a.nii")
    gone = opened(make_nifti(tmp_path / "b.nii", values()))
    (tmp_path / "b.nii").write_bytes((tmp_path / "b.nii").read_bytes()[:-100])
    with pytest.raises(InputError, match="truncated"):
        gone.voxels.plane(0, 0)
    (tmp_path / "b.nii").unlink()
    with pytest.raises(InputError, match="no such file"):
        gone.voxels.plane(0, 0)


# -- NIfTI -----------------------------------------------------------------------------------------


def nifti(path: Path, **fields: object) -> Path:
    image = nib.Nifti1Image(values(), oblique())
    image.header.set_xyzt_units("mm")
    for name, value in fields.items():
        image.header[name] = value
    data = image.header.binaryblock + bytes(4) + values().tobytes(order="F")
    path.write_bytes(gzip.compress(data) if path.name.endswith("gz") else data)
    return path


def test_nifti_says_where_its_place_is_from(tmp_path: Path) -> None:
    image = nib.Nifti1Image(values(), oblique())
    image.set_sform(oblique(), 1)
    image.set_qform(oblique(7), 1)
    nib.save(image, tmp_path / "a.nii.gz")
    both = opened(tmp_path / "a.nii.gz")
    assert np.allclose(both.grid.matrix, image.header.get_sform()) and "the sform was used" in both.notes[0]
    image.set_qform(oblique(), 1)
    nib.save(image, tmp_path / "b.nii.gz")
    assert opened(tmp_path / "b.nii.gz").notes == ()
    image.set_sform(None, 0)
    image.set_qform(oblique(7), 2)
    nib.save(image, tmp_path / "c.nii")
    assert np.allclose(opened(tmp_path / "c.nii").grid.matrix, image.header.get_qform(), atol=1e-5)
    nowhere = opened(nifti(tmp_path / "d.nii", sform_code=0, qform_code=0))
    assert not nowhere.has_world and "guess" in nowhere.notes[0]
    micron = opened(nifti(tmp_path / "e.nii", xyzt_units=3))
    assert "micron" in micron.notes[0] and micron.grid == opened(nifti(tmp_path / "f.nii")).grid


def test_nifti_rescaled_and_big_endian(tmp_path: Path) -> None:
    path = nifti(tmp_path / "a.nii.gz", scl_slope=2.0, scl_inter=-1024.0)
    assert np.array_equal(opened(path).voxels.plane(0, 1), values()[1] * np.float32(2) - 1024)
    image = nib.Nifti1Image(values().astype(">i2"), oblique(), nib.Nifti1Header(endianness=">"))
    nib.save(image, tmp_path / "b.nii")
    assert np.array_equal(opened(tmp_path / "b.nii").voxels.array(), values())


@pytest.mark.filterwarnings("error")
def test_nifti_scaled_beyond_numbers(tmp_path: Path) -> None:
    volume = opened(nifti(tmp_path / "a.nii", scl_slope=3e38, scl_inter=0.0))
    assert np.isinf(volume.voxels.plane(2, 0)).all()
    with pytest.raises(InputError, match="no finite value"):
        volume.window()


def test_nifti_of_four_dimensions(tmp_path: Path) -> None:
    refuse(make_nifti(tmp_path / "a.nii", np.zeros((3, 4, 5, 2), np.int16)), "4-D data")
    assert opened(make_nifti(tmp_path / "b.nii", np.zeros((3, 4, 5, 1), np.int16))).grid.shape == (3, 4, 5)
    assert opened(make_nifti(tmp_path / "c.nii", np.zeros((3, 4), np.int16))).grid.shape == (3, 4, 1)


def test_gzip_of_several_members(tmp_path: Path) -> None:
    data = gzip.decompress(nifti(tmp_path / "a.nii.gz").read_bytes())
    path = tmp_path / "b.nii.gz"
    path.write_bytes(b"".join(gzip.compress(data[i : i + 100]) for i in range(0, len(data), 100)) + bytes(64))
    assert np.array_equal(opened(path).voxels.array(), values())


# -- NRRD ------------------------------------------------------------------------------------------


def write_nrrd(path: Path, lines: str, data: bytes | None = None) -> Path:
    header = f"NRRD0004\n# a comment\n{lines}\n\n"
    path.write_bytes(header.encode() + (values().tobytes(order="F") if data is None else data))
    return path


PLAIN = "type: short\ndimension: 3\nsizes: 5 6 7\nencoding: raw\nendian: little"
WORLD = PLAIN + "\nspace directions: (0.5,0,0) (0,0.75,0) (0,0,2)\nspace origin: (10,20,30)"


@pytest.mark.parametrize(
    "space, signs",
    [
        ("right-anterior-superior", (1, 1, 1)),
        ("RAS", (1, 1, 1)),
        ("LAS", (-1, 1, 1)),
        ("left-posterior-superior", (-1, -1, 1)),
    ],
)
def test_nrrd_spaces(tmp_path: Path, space: str, signs: tuple[int, ...]) -> None:
    volume = opened(write_nrrd(tmp_path / "a.nrrd", f"{WORLD}\nspace: {space}\nkey:=value: of nobody's business"))
    assert np.allclose(volume.grid.ras_mm((1, 1, 1)), np.multiply((10.5, 20.75, 32), signs))
    assert volume.has_world and "key" not in str(volume.header) and np.array_equal(volume.voxels.array(), values())


def test_nrrd_without_a_patient(tmp_path: Path) -> None:
    for lines in (
        PLAIN,
        f"{PLAIN}\nspacings: 0.5 0.75 2",
        f"{WORLD}\nspace: scanner-xyz",
        f"{WORLD}\nspace dimension: 3",
    ):
        volume = opened(write_nrrd(tmp_path / "a.nrrd", lines))
        assert not volume.has_world and volume.grid.code == "LPS" and "guess" in volume.notes[-1]
        spacing = (1, 1, 1) if lines == PLAIN else (0.5, 0.75, 2)
        assert np.allclose(volume.grid.spacing_mm, spacing)
    noted = opened(write_nrrd(tmp_path / "b.nrrd", f'{WORLD}\nspace: LPS\nspace units: "um" "um" "um"'))
    assert "um" in noted.notes[0]
    noted = opened(write_nrrd(tmp_path / "c.nrrd", f'{WORLD}\nspace: LPS\nspace units: "Doe" "Doe" "Doe"'))
    assert "another than mm" in noted.notes[0] and "doe" not in noted.notes[0].lower()


def test_nrrd_axes_that_do_not_count(tmp_path: Path) -> None:
    four = WORLD.replace("dimension: 3", "dimension: 4").replace("sizes: 5", "sizes: 1 5").replace("(0.5", "none (0.5")
    assert opened(write_nrrd(tmp_path / "a.nrrd", f"{four}\nspace: LPS")).grid.shape == SHAPE
    refuse(
        write_nrrd(tmp_path / "b.nrrd", four.replace("sizes: 1", "sizes: 3") + "\nspace: LPS\nkinds: RGB-color"), "4-D"
    )
    flat = "type: float\ndimension: 2\nsizes: 5 6\nencoding: gzip\nendian: big\nspace: LPS\nspace origin: (1,2,3)\n"
    flat += "space directions: (0,0.5,0) (0,0,2)"
    plane = values(">f4")[:, :, 0]
    volume = opened(write_nrrd(tmp_path / "c.nrrd", flat, gzip.compress(plane.tobytes(order="F"))))
    assert volume.grid.shape == (5, 6, 1) and np.array_equal(volume.voxels.plane(2, 0), plane)
    assert volume.grid.spacing_mm == pytest.approx((0.5, 2, 1))


def test_nrrd_sheared(tmp_path: Path) -> None:
    lines = f"{WORLD}\nspace: LPS".replace("(0,0,2)", "(0,0.4,2)")
    volume = opened(write_nrrd(tmp_path / "a.nrrd", lines))
    assert not volume.grid.is_orthogonal and np.allclose(volume.grid.lps_mm((0, 0, 5)), (10, 22, 40))


def test_nrrd_bzip2_and_byte_skip(tmp_path: Path) -> None:
    nrrd.write(str(tmp_path / "a.nrrd"), values(), {"encoding": "bzip2"})
    assert np.array_equal(opened(tmp_path / "a.nrrd").voxels.array(), values())
    for skip, junk in (("-1", b"some junk"), ("9", b"some junk")):
        path = write_nrrd(tmp_path / "b.nrrd", f"{PLAIN}\nbyte skip: {skip}", junk + values().tobytes(order="F"))
        assert np.array_equal(opened(path).voxels.array(), values())


@pytest.mark.parametrize(
    "change, words",
    [
        (("short", "block"), "voxels of type block"),
        (("raw", "ascii"), "save it as raw or gzip"),
        (("sizes: 5", "sizes: 500"), "truncated"),
        (("sizes: 5 6 7", "sizes: 100000 100000 7"), "over the limit"),
        (("sizes: 5 6 7", "sizes: 5 6 99999999999999999999"), "damaged"),
        (("sizes: 5", "sizes: 0"), "shape"),
        (("endian: little", ""), "damaged"),
        (("encoding: raw", ""), "lacks 'encoding'"),
        (("dimension: 3", "dimension: 4"), "3 sizes for 4 axes"),
        (("(0,0,2)", "(0,0,0)"), "cannot be inverted"),
        (("(0,0,2)", "(0,0,nan)"), "damaged"),
        (("space origin", "data file: LIST\nspace origin"), "several files"),
        (("space origin", "data file: ../other.raw\nspace origin"), "beside the header"),
        (("space origin", "data file: /etc/passwd\nspace origin"), "beside the header"),
        (("space origin", "data file: other.raw\nspace origin"), "no such file"),
        (("space origin", "line skip: 2\nspace origin"), "line skip"),
    ],
)
def test_damaged_nrrd(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    refuse(write_nrrd(tmp_path / "a.nrrd", f"{WORLD}\nspace: LPS".replace(*change)), words)


# -- MetaImage -------------------------------------------------------------------------------------

META = "ObjectType = Image\nNDims = 3\nDimSize = 5 6 7\nElementType = MET_SHORT\nElementSpacing = 0.5 0.75 2\n"


def write_meta(path: Path, lines: str, data: bytes | None = None) -> Path:
    path.write_bytes(lines.encode() + (values().tobytes(order="F") if data is None else data))
    return path


def test_metaimage_as_itk_reads_it(tmp_path: Path) -> None:
    for extra in (
        "",
        "BinaryDataByteOrderMSB = True\n",
        "Offset = 1 2 3\nTransformMatrix = 0 1 0 0 0 1 1 0 0\nCenterOfRotation = 9 9 9\nAnatomicalOrientation = RAI\n",
        "Origin = 4 5 6\nRotation = 1 0 0 0 -1 0 0 0 1\nElementSize = 3 3 3\n",
        "HeaderSize = -1\n",
    ):
        path = write_meta(tmp_path / "a.mha", f"{META}{extra}ElementDataFile = LOCAL\n")
        volume, theirs = opened(path), sitk.ReadImage(str(path))
        assert np.array_equal(volume.voxels.array(), sitk.GetArrayFromImage(theirs).T)
        for index in ((0, 0, 0), (4, 3, 6)):
            assert np.allclose(volume.grid.lps_mm(index), theirs.TransformIndexToPhysicalPoint(index))


def test_metaimage_modality(tmp_path: Path) -> None:
    for word, modality in (("MET_MOD_MR", "MRI"), ("MET_MOD_CT", "CT"), ("MET_MOD_OTHER", None)):
        path = write_meta(tmp_path / "a.mha", f"{META}Modality = {word}\nElementDataFile = LOCAL\n")
        assert opened(path).modality == modality
    chosen = open_volume(path, modality="pt")
    assert chosen is not None and chosen.modality == "PET"


@pytest.mark.parametrize(
    "change, words",
    [
        (("NDims = 3\nDimSize = 5 6 7", "NDims = 4\nDimSize = 5 6 7 2"), "4-D data"),
        (("NDims", "ElementNumberOfChannels = 3\nNDims"), "not a PNG|several channels"),
        (("MET_SHORT", "MET_OTHER"), "voxels of type MET_OTHER"),
        (("DimSize = 5", "DimSize = 50"), "truncated"),
        (("DimSize = 5 6 7", "DimSize = 5 -6 7"), "shape"),
        (("DimSize = 5 6 7", "DimSize = 40000 40000 7"), "over the limit"),
        (("0.5", "x"), "damaged"),
        (("LOCAL", "LIST"), "several files"),
        (("LOCAL", "image%03d.raw 1 7 1"), "several files"),
        (("LOCAL", "C:\\\\data\\\\a.raw"), "beside the header"),
        (("ElementSpacing", "BinaryData = False\nElementSpacing"), "as text"),
        (("ElementSpacing", "CompressedData = True\nElementSpacing"), "damaged"),
        (("ElementSpacing", "TransformMatrix = 1 0 0 1 0 0 0 0 1\nElementSpacing"), "cannot be inverted"),
        (("ElementDataFile = LOCAL", ""), "lacks ElementDataFile"),
    ],
)
def test_damaged_metaimage(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    refuse(write_meta(tmp_path / "a.mha", f"{META}ElementDataFile = LOCAL\n".replace(*change)), words)


# -- the door --------------------------------------------------------------------------------------


def test_plain_pictures_are_no_volumes(tmp_path: Path) -> None:
    assert open_volume(save_png(tmp_path / "a.png", gray_ramp())) is None
    assert open_volume(save_png(tmp_path / "a.tif", gray_ramp())) is None
    assert open_volume(make_dicom(tmp_path / "a.dcm", gray_ramp(), Modality="DX")) is None
    with pytest.raises(InputError, match="no series to choose from"):
        open_volume(tmp_path / "a.png", series="1")


def test_slices_as_images(tmp_path: Path) -> None:
    for name in ("a.nrrd", "a.mha", "a.nii.gz"):
        path = tmp_path / name
        sitk.WriteImage(itk_image(values(), np.diag([0.7, 0.7, 2.5, 1.0])), str(path))
        image = read_image(path, slice_spec="coronal:2", window="0,255")
        assert image.geometry.plane == "coronal" and image.pixels.shape == (7, 5, 3)
        for x, y in ((0, 0), (4, 1), (2, 6)):
            assert image.pixels[y, x, 0] == values()[image.geometry.source_index(x, y)]
        with pytest.raises(InputError, match="axial:0 to axial:6"):
            read_image(path, slice_spec="axial:7")


# -- values on demand ------------------------------------------------------------------------------


def test_values_share_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy_voxels, "MAX_HELD_BYTES", 250)
    loads: list[int] = []

    def make(number: int, num_bytes: int = 100) -> LazyVoxels:
        def load() -> np.ndarray:
            loads.append(number)
            return np.full((2, 2, 2), number)

        return LazyVoxels(load, num_bytes)

    first, second, third, large = make(1), make(2), make(3), make(4, 1000)
    for voxels in (first, second, first, third):
        voxels.plane(0, 0)
    assert [v.is_held for v in (first, second, third)] == [True, False, True]  # the one not used for longest went
    assert second.plane(1, 1).tolist() == [[2, 2], [2, 2]] and loads == [1, 2, 3, 2]
    assert not first.is_held
    large.array()
    assert large.is_held and not second.is_held and not third.is_held
    with pytest.raises(ValueError, match="read-only"):
        large.array()[0] = 7
    del large
    second.plane(0, 0)
    third.plane(0, 0)
    assert second.is_held and third.is_held  # what is forgotten takes nothing of the budget


def test_values_are_loaded_once_and_travel_light(tmp_path: Path) -> None:
    volume = opened(nifti(tmp_path / "a.nii.gz"))
    assert isinstance(volume.voxels, LazyVoxels) and not volume.voxels.is_held
    threads = [threading.Thread(target=volume.voxels.plane, args=(0, 0)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert volume.voxels.is_held
    copy = pickle.loads(pickle.dumps(volume))
    assert not copy.voxels.is_held and np.array_equal(copy.voxels.array(), values()) and copy.grid == volume.grid
