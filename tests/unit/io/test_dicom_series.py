"""DICOM folders as volumes: what belongs together, in which order, and what is refused."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from io_samples import gray_ramp, make_dicom

import dicom_maker
from dicom_maker import write_series
from ibisagent.errors import InputError
from ibisagent.io import dicom_voxels
from ibisagent.io.dicom_series import read_dicom_volume
from ibisagent.io.volume import Volume

VALUES = np.random.default_rng(6).integers(-1000, 1500, (7, 6, 5))
AFFINE = np.array([[0.7, 0, 0, -30], [0, 0.8, 0, 20], [0, 0, 2.5, -40], [0, 0, 0, 1.0]])
SECRETS = ("SECRET", "Secret", "1.2.826", "2.25.", "description")


def opened(path: Path, **options: Any) -> Volume:
    volume = read_dicom_volume(path, **options)
    assert volume is not None
    return volume


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        read_dicom_volume(path, **options)
    text = str(caught.value)
    assert "\n" not in text and not any(secret in text for secret in SECRETS)
    return text.removeprefix(f"{path}: ")


def test_slices_are_ordered_by_their_places(tmp_path: Path) -> None:
    paths = write_series(tmp_path, VALUES, AFFINE, instance_numbers=[3, 1, 5, 2, 4])
    volume = opened(tmp_path)
    assert np.array_equal(volume.voxels.array(), VALUES) and volume.voxels.array().dtype == np.int16
    assert np.allclose(volume.grid.lps_matrix, AFFINE, atol=1e-9) and volume.grid.code == "LPS"
    assert [frame.path for frame in volume.frames] == [str(path) for path in paths]
    for axis, index in ((0, 6), (1, 2), (2, 4)):
        assert np.array_equal(volume.voxels.plane(axis, index), VALUES.take(index, axis))
    assert (volume.kind, volume.modality, volume.body_part, volume.hounsfield) == ("DICOM", "CT", "chest", True)
    assert volume.notes == () and volume.has_world and volume.header.PatientID == dicom_maker.PATIENT_ID


def test_simpleitk_sees_the_same(tmp_path: Path) -> None:
    import SimpleITK as sitk

    turn = np.array([[0, 0, 1, 0], [0.6, 0.8, 0, 0], [-0.8, 0.6, 0, 0], [0, 0, 0, 1.0]])
    turned = turn @ AFFINE @ np.diag([1, 1, -1, 1.0])  # left-handed: slices come in the other order
    write_series(tmp_path, VALUES, turned)
    volume = opened(tmp_path)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    image = reader.Execute()
    assert np.array_equal(sitk.GetArrayFromImage(image).T, volume.voxels.array())
    assert np.array_equal(volume.voxels.array(), VALUES[:, :, ::-1])
    index = (2, 1, 3)
    assert np.allclose(image.TransformIndexToPhysicalPoint(index), volume.grid.lps_mm(index), atol=1e-6)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**6),
    spacing=st.tuples(*[st.floats(0.05, 12)] * 3),
    origin=st.tuples(*[st.floats(-400, 400)] * 3),
)
def test_any_lattice_is_found(tmp_path: Path, seed: int, spacing: Any, origin: Any) -> None:
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn * spacing, origin
    shutil.rmtree(tmp_path / "s", ignore_errors=True)
    write_series(tmp_path / "s", VALUES[:, :, :3], affine, instance_numbers=rng.permutation(3) + 1)
    volume = opened(tmp_path / "s")
    flip = np.linalg.det(turn) < 0  # slices come along row x column
    there = np.argwhere(np.ones((7, 6, 3), bool))
    ours = there * (1, 1, -1) + (0, 0, 2) if flip else there
    expected = there @ affine[:3, :3].T + affine[:3, 3]
    assert np.abs(volume.grid.lps_mm(ours) - expected).max() < 1e-3
    assert np.array_equal(volume.voxels.array()[tuple(ours.T)], VALUES[tuple(there.T)])
    assert volume.notes == () and volume.grid.is_orthogonal


def test_only_what_is_shown_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(tmp_path, VALUES, AFFINE)
    volume, reads = opened(tmp_path), []
    real = dicom_voxels.read_stored
    monkeypatch.setattr(dicom_voxels, "read_stored", lambda f, w: (reads.append(f.path), real(f, w))[1])
    copy = pickle.loads(pickle.dumps(volume.voxels))
    for _ in range(3):
        assert np.array_equal(volume.voxels.plane(2, 1), VALUES[:, :, 1])
    assert reads == [volume.frames[1].path]
    assert np.array_equal(copy.plane(2, -1), VALUES[:, :, -1])


def test_pet_keeps_stored_units_and_every_slice_its_slope(tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 900, (7, 6, 5)) * np.array([0.25, 0.5, 1.5, 2, 3])
    write_series(tmp_path, values, AFFINE, modality="PT", slope=[0.25, 0.5, 1.5, 2, 3])
    volume = opened(tmp_path)
    assert volume.modality == "PET" and volume.voxels.array().dtype == np.float32 and not volume.hounsfield
    assert np.array_equal(volume.voxels.array(), values)
    assert volume.notes == ("PET values are as stored (BQML), not SUV",)


@pytest.mark.parametrize(
    "stored, intercept, dtype",
    [
        ((0, 4095), -1024, "i2"),
        ((0, 65535), -1024, "i4"),
        ((0, 65535), 0, "u2"),
        ((0, 250), 0, "u2"),
        ((0, 9), 7, "i1"),
    ],
)
def test_the_smallest_type_that_holds_the_values(tmp_path: Path, stored: Any, intercept: int, dtype: str) -> None:
    values = VALUES[:, :, :2] * 0 + intercept + stored[0]
    values[0, 0] = intercept + stored[1]
    write_series(tmp_path, values, intercept=intercept)
    array = opened(tmp_path).voxels.array()
    assert array.dtype == np.dtype(dtype) and np.array_equal(array, values)


def test_facts_of_the_header(tmp_path: Path) -> None:
    def edit(ds: Any, k: int) -> None:
        ds.PixelPaddingValue, ds.WindowCenter, ds.WindowWidth = 5, [40, 1], [400, 2]
        ds["PixelPaddingValue"].VR, ds.BodyPartExamined = "US", "DOE JOHN 1950"

    write_series(tmp_path / "a", VALUES, AFFINE, photometric="MONOCHROME1", edit=edit)
    volume = opened(tmp_path / "a")
    assert volume.is_inverted and volume.padding == -1019 and volume.header_window == (-160, 239)
    assert volume.body_part is None  # free text where a code belongs
    write_series(tmp_path / "m", VALUES + 1000, AFFINE, modality="MR", body_part="BRAIN")
    assert (opened(tmp_path / "m").modality, opened(tmp_path / "m").body_part) == ("MRI", "brain")
    assert opened(tmp_path / "m", modality="CT").modality == "CT" and not opened(tmp_path / "m").hounsfield


def test_other_files_are_set_aside(tmp_path: Path) -> None:
    def scout(ds: Any, k: int) -> None:
        ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    def other(ds: Any, k: int) -> None:
        ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"  # a structured report
        del ds.Rows, ds.PixelData

    def spectra(ds: Any, k: int) -> None:
        ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4.2"
        del ds.PixelData

    def mosaic(ds: Any, k: int) -> None:
        ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]

    write_series(tmp_path / "spectra", VALUES, AFFINE, series="4", only=[0], edit=spectra)
    write_series(tmp_path / "mosaic", VALUES, AFFINE, modality="MR", series="5", intercept=-2000, edit=mosaic)
    assert refusal(tmp_path / "mosaic").startswith(
        f"no image among the DICOM files ({VALUES.shape[2]} mosaic pictures)"
    )
    write_series(tmp_path / "x" / "y", VALUES, AFFINE)
    write_series(tmp_path / "scout", VALUES, AFFINE[:, [1, 2, 0, 3]], series="2", only=[0, 1], edit=scout)
    write_series(tmp_path / "sr", VALUES, AFFINE, series="3", only=[0], edit=other)
    make_dicom(tmp_path / "screen.dcm", gray_ramp(), Modality="OT")
    make_dicom(tmp_path / "photo.dcm", np.stack([gray_ramp()] * 3, 2), Modality="XC")
    (tmp_path / "README.txt").write_text("DICOM viewer")
    (tmp_path / "empty").touch()
    (tmp_path / ".hidden.dcm").write_bytes(b"rubbish")
    volume = opened(tmp_path)
    assert np.array_equal(volume.voxels.array(), VALUES)
    assert volume.notes == (
        "2 scout views set aside",
        "1 image without a place in the patient set aside",
        f"1 colour picture, {VALUES.shape[2]} mosaic pictures, 2 other DICOM objects, 2 other files set aside",
    )
    assert len(opened(tmp_path / "scout").frames) == 2  # all there is


def test_several_series_are_listed_and_chosen(tmp_path: Path) -> None:
    def numbered(number: int | None) -> Any:
        return lambda ds, k: setattr(ds, "SeriesNumber", number)

    write_series(tmp_path / "a", VALUES + 1000, AFFINE, series="z", modality="MR", edit=numbered(7))
    write_series(tmp_path / "b", VALUES[:4, :, :3], AFFINE[:, [1, 2, 0, 3]], series="y", edit=numbered(2))
    text = refusal(tmp_path)
    assert text == (
        "2 series in it; choose one with --series NUMBER "
        "(1: CT, sagittal, 3 slices of 4 x 6; 2: MR, axial, 5 slices of 7 x 6)"
    )
    assert opened(tmp_path, series="1").grid.shape == (4, 6, 3)
    assert opened(tmp_path, series=dicom_maker.uid("study", "1", "series", "z")).modality == "MRI"
    for wrong in ("3", "0", "-1", "two", "٢٣٤"):
        assert refusal(tmp_path, series=wrong).startswith(
            f"no series '{wrong}' among 2 series; choose by number (1: CT"
        )


@pytest.mark.parametrize(
    "kind, words", [("orientation", "2 orientations"), ("size", "2 sizes"), ("spacing", "2 pixel")]
)
def test_one_series_of_two_kinds(tmp_path: Path, kind: str, words: str) -> None:
    other = {"orientation": AFFINE[:, [1, 2, 0, 3]], "spacing": AFFINE @ np.diag([2, 2, 1, 1.0])}.get(kind, AFFINE)
    values = VALUES[:3, :3] if kind == "size" else VALUES
    write_series(tmp_path, VALUES, AFFINE)
    write_series(tmp_path, values, other, instance_numbers=range(11, 16), only=[1, 3])
    assert refusal(tmp_path).startswith(f"slices of {words}")
    assert np.array_equal(opened(tmp_path, series="1").voxels.array(), VALUES)


@pytest.mark.parametrize(
    "keyword, values, modality, part",
    [
        ("EchoNumbers", ["1", "2"], "MR", "echo 1 of 2"),
        ("TemporalPositionIdentifier", ["9", "10"], "MR", "time 1 of 2"),
        ("DiffusionBValue", [0.0, 1000.0], "MR", "b-value 1 of 2"),
        ("KVP", ["80", "140"], "CT", "voltage 1 of 2"),
        ("AcquisitionNumber", [1, 2], "CT", "acquisition 1 of 2"),
    ],
)
def test_acquisitions_of_one_series(tmp_path: Path, keyword: str, values: Any, modality: str, part: str) -> None:
    for i in (0, 1):
        write_series(
            tmp_path,
            VALUES + 1000 + i,
            AFFINE,
            modality=modality,
            instance_numbers=range(5 * i + 1, 5 * i + 6),
            edit=lambda ds, k, i=i: setattr(ds, keyword, values[i]),
        )
    assert f"(1: {modality}, axial, 5 slices of 7 x 6, {part}; 2: " in refusal(tmp_path)
    for i in (0, 1):
        assert np.array_equal(opened(tmp_path, series=str(i + 1)).voxels.array(), VALUES + 1000 + i)


def test_passes_over_the_same_places_are_told_apart_by_the_clock(tmp_path: Path) -> None:
    for i in (0, 1):
        write_series(
            tmp_path,
            VALUES + i,
            AFFINE,
            instance_numbers=range(5 * i + 1, 5 * i + 6),
            edit=lambda ds, k, i=i: setattr(ds, "AcquisitionTime", f"{101500 + 10 * i + k}.25"),
        )
    assert "axial, 5 slices of 7 x 6, pass 2 of 2)" in refusal(tmp_path)
    assert np.array_equal(opened(tmp_path, series="2").voxels.array(), VALUES + 1)


def test_copies_are_dropped_and_contradictions_refused(tmp_path: Path) -> None:
    paths = write_series(tmp_path, VALUES, AFFINE)
    shutil.copy(paths[2], tmp_path / "copy of 3")
    write_series(tmp_path, VALUES, AFFINE, only=[4], instance_numbers=range(21, 26))  # exported again under a new UID
    volume = opened(tmp_path)
    assert volume.notes == ("2 exact copies of slices dropped",) and np.array_equal(volume.voxels.array(), VALUES)
    again = write_series(tmp_path, VALUES + 1, AFFINE, only=[4], instance_numbers=range(21, 26))
    assert refusal(tmp_path).startswith("several different images at 1 of the places of one series")
    again[0].unlink()
    write_series(tmp_path / "other", VALUES + 1, AFFINE, only=[1])
    assert refusal(tmp_path).startswith("two files claim to be the same image at z = -37.5 mm and differ")


def test_single_files(tmp_path: Path) -> None:
    path = write_series(tmp_path, VALUES, AFFINE)[3]
    volume = opened(path)
    assert volume.grid.shape == (7, 6, 1) and np.array_equal(volume.voxels.array()[..., 0], VALUES[..., 3])
    assert volume.grid.spacing_mm == pytest.approx((0.7, 0.8, 2.5)) and volume.has_world
    flat = make_dicom(tmp_path / "flat", gray_ramp(), Modality="DX")
    colour = make_dicom(tmp_path / "colour", np.stack([gray_ramp()] * 3, 2), Modality="XC")
    assert read_dicom_volume(flat) is None and read_dicom_volume(colour) is None
    assert "leave --series out" in refusal(flat, series="1")


def test_folders_without_a_volume(tmp_path: Path) -> None:
    assert refusal(tmp_path).startswith("no DICOM file in this folder")
    assert refusal(tmp_path / "none").startswith("no such file")
    for name in ("a", "b"):
        make_dicom(tmp_path / name, gray_ramp(), Modality="DX", SOPInstanceUID=f"1.2.{ord(name)}")
    assert refusal(tmp_path).startswith("2 images that do not say where they lie")
    (tmp_path / "c.dcm").write_bytes(b"rubbish " * 40)
    assert refusal(tmp_path).startswith("c.dcm: damaged, or no DICOM file in spite of its name")
    (tmp_path / "c.dcm").rename(tmp_path / "1.2.840.99.77.dcm")
    assert refusal(tmp_path).startswith("file 1 of 3 by name: damaged")
    (tmp_path / "Doe Jane").mkdir()
    (tmp_path / "1.2.840.99.77.dcm").rename(tmp_path / "Doe Jane" / "1.dcm")
    assert refusal(tmp_path).startswith("file 1 of 3 by name: damaged")


def test_malformed_elements_are_not_quoted(tmp_path: Path) -> None:
    import pydicom

    path = write_series(tmp_path, VALUES, AFFINE)[0]
    data = path.read_bytes()
    for old, new in ((b"-30", b"DOE"), (b"1.0\\0.0", b"SECRET"), (b"0.8\\0.7", b"SECRET ")):
        assert data.count(old)
        path.write_bytes(data.replace(old, new[: len(old)].ljust(len(old)), 1))
        assert "DOE" not in refusal(tmp_path)
    ds = pydicom.dcmread(write_series(tmp_path, VALUES, AFFINE)[0])
    ds.ImageOrientationPatient = [1, 0, 0, 1, 0, 0]
    ds.save_as(path)
    assert refusal(tmp_path).startswith("1-0005.dcm: damaged, or an element of its header is malformed")
