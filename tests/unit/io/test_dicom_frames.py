"""Pixels of DICOM frames: every transfer syntax, multi-frame objects, and files that end early."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from io_samples import gray_ramp, make_dicom

from dicom_maker import write_multiframe, write_series
from ibisagent.errors import InputError
from ibisagent.io.dicom_series import read_dicom_volume
from ibisagent.io.volume import Volume

VALUES = np.random.default_rng(6).integers(-1000, 1500, (9, 8, 4))
AFFINE = np.array([[0.7, 0, 0, -30], [0, 0.8, 0, 20], [0, 0, 2.5, -40], [0, 0, 0, 1.0]])
COMPRESSED = {
    "RLE": "1.2.840.10008.1.2.5",
    "JPEG lossless": "1.2.840.10008.1.2.4.57",
    "JPEG lossless SV1": "1.2.840.10008.1.2.4.70",
    "JPEG-LS": "1.2.840.10008.1.2.4.80",
    "JPEG 2000": "1.2.840.10008.1.2.4.90",
}
IMPLICIT = "1.2.840.10008.1.2"


def opened(path: Path) -> Volume:
    volume = read_dicom_volume(path)
    assert volume is not None
    return volume


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        opened(path).voxels.array()
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize("syntax", [IMPLICIT, *COMPRESSED.values()])
@pytest.mark.parametrize("intercept", [-1024, 0])
def test_transfer_syntaxes(tmp_path: Path, syntax: str, intercept: int) -> None:
    write_series(tmp_path / "s", VALUES, AFFINE, syntax=syntax, intercept=intercept)
    path = write_multiframe(tmp_path / "m", VALUES, AFFINE, syntax=syntax, intercept=intercept, order=[2, 0, 3, 1])
    for volume in (opened(tmp_path / "s"), opened(path)):
        assert np.array_equal(volume.voxels.array(), VALUES)
        assert np.allclose(volume.grid.lps_matrix, AFFINE)
    assert [frame.number for frame in volume.frames] == [2, 4, 1, 3]


@pytest.mark.parametrize("cut", [1, 700])
@pytest.mark.parametrize("syntax", [None, IMPLICIT, *COMPRESSED.values()])
def test_truncated_files(tmp_path: Path, syntax: str | None, cut: int) -> None:
    values = np.random.default_rng(0).integers(-1000, 3000, (40, 30, 3))
    paths = write_series(tmp_path / "s", values, syntax=syntax)
    paths.append(write_multiframe(tmp_path / "m", values, syntax=syntax))
    for path in paths[1::2]:
        data = path.read_bytes()
        tail = 8 if data.endswith(b"\xfe\xff\xdd\xe0\0\0\0\0") else 0  # the end of a sequence may be left out
        path.write_bytes(data[: len(data) - tail - cut])
    assert refusal(tmp_path / "s").startswith("1-0002.dcm: truncated: ")
    assert "truncated: " in refusal(tmp_path / "m")


def test_headers_that_end_early(tmp_path: Path) -> None:
    path = write_series(tmp_path, VALUES, AFFINE)[0]
    data = path.read_bytes()
    for size in (400, 700, 1000, len(data) - VALUES[..., 0].size * 2 - 6):
        path.write_bytes(data[:size])
        assert refusal(tmp_path).startswith("1-0004.dcm: ")
    path.write_bytes(b"")
    assert refusal(tmp_path).startswith("1-0004.dcm: the file is empty")


def test_code_streams_without_an_end(tmp_path: Path) -> None:
    path = write_series(tmp_path, VALUES, AFFINE, syntax=COMPRESSED["JPEG 2000"])[0]
    data = path.read_bytes()
    at = data.rindex(b"\xff\xd9")
    path.write_bytes(data[:at] + b"\0\0" + data[at + 2 :])
    assert "compressed pixels of frame 1 have no end" in refusal(tmp_path)


def test_damaged_code_streams_are_refused_when_read(tmp_path: Path) -> None:
    path = write_series(tmp_path, VALUES, AFFINE, syntax=COMPRESSED["JPEG lossless"])[0]
    data = bytearray(path.read_bytes())
    at = data.rindex(b"\xff\xd8")
    data[at + 2 : at + 30] = bytes(28)
    path.write_bytes(data)
    assert refusal(tmp_path).startswith("1-0004.dcm: its pixels are damaged or cannot be decoded")


def test_a_frame_in_several_fragments(tmp_path: Path) -> None:
    path = write_multiframe(tmp_path / "m", VALUES, AFFINE, syntax=COMPRESSED["JPEG 2000"])
    data = path.read_bytes()
    start = data.index(b"\xe0\x7f\x10\x00OB") + 12
    (table,) = struct.unpack("<I", data[start + 4 : start + 8])
    offset, out = start + 8 + table, [data[:start], b"\xfe\xff\x00\xe0" + bytes(4)]
    while data[offset : offset + 4] == b"\xfe\xff\x00\xe0":
        (length,) = struct.unpack("<I", data[offset + 4 : offset + 8])
        body = data[offset + 8 : offset + 8 + length]
        for part in (body[:20], body[20:]):
            out.append(b"\xfe\xff\x00\xe0" + struct.pack("<I", len(part)) + part)
        offset += 8 + length
    path.write_bytes(b"".join([*out, data[offset:]]))
    assert np.array_equal(opened(path).voxels.array(), VALUES)
    path.write_bytes(b"".join([*out[:-2], data[offset:]]))
    assert "truncated: 3 of 4 frames are there" in refusal(path)


@pytest.mark.parametrize(
    "syntax, words",
    [
        ("1.2.840.10008.1.2.4.201", "(High-Throughput JPEG 2000 Image Compression (Lossless Only)), and no decoder"),
        ("1.2.840.10008.1.2.4.100", "(MPEG2 Main Profile / Main Level), and no decoder"),
        ("1.2.840.99.5.6.7.89", "(an unknown transfer syntax), and no decoder"),
        ("1.2.840.10008.1.2.1.99", "a deflated DICOM file, which is not supported"),
    ],
)
def test_syntaxes_that_nothing_reads_are_named(tmp_path: Path, syntax: str, words: str) -> None:
    import pydicom

    deflated = syntax.endswith(".1.99")
    path = write_series(tmp_path, VALUES, AFFINE, syntax=None if deflated else COMPRESSED["JPEG 2000"])[0]
    ds = pydicom.dcmread(path)
    ds.file_meta.TransferSyntaxUID = syntax
    ds.save_as(path)
    assert words in refusal(tmp_path)


def test_big_endian_and_unused_bits(tmp_path: Path) -> None:
    import pydicom

    def junk(ds: Any, k: int) -> None:
        stored = np.frombuffer(ds.PixelData, "<u2") + 0x1000 * (k % 3 + 1)  # overlays once lay in the high bits
        ds.BitsStored, ds.HighBit, ds.PixelData = 12, 11, stored.astype("<u2").tobytes()

    paths = write_series(tmp_path, VALUES, AFFINE, edit=junk)
    assert np.array_equal(opened(tmp_path).voxels.array(), VALUES)
    ds = pydicom.dcmread(paths[0])
    ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.2"
    pydicom.dcmwrite(paths[0], ds)
    assert np.array_equal(opened(tmp_path).voxels.array(), VALUES)


def test_signed_values_of_12_bits(tmp_path: Path) -> None:
    def cut(ds: Any, k: int) -> None:
        stored = np.frombuffer(ds.PixelData, "<i2").astype("<u2") & 0x0FFF
        ds.BitsStored, ds.HighBit, ds.PixelData = 12, 11, stored.astype("<u2").tobytes()

    write_series(tmp_path, VALUES, AFFINE, intercept=0, edit=cut)
    assert np.array_equal(opened(tmp_path).voxels.array(), VALUES)


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_enhanced_objects(tmp_path: Path, modality: str) -> None:
    values = VALUES if modality == "CT" else VALUES + 1000
    path = write_multiframe(tmp_path / "a", values, AFFINE, modality=modality)
    volume = opened(tmp_path)
    assert np.array_equal(volume.voxels.array(), values) and volume.body_part == "thorax"
    assert volume.header_window == (-160, 239) and volume.hounsfield == (modality == "CT")
    write_multiframe(tmp_path / "b", values[:, :, ::-1] + 1, AFFINE, modality=modality, edit=_renamed)
    text = refusal(tmp_path)
    assert f"2: {modality}, axial, 4 slices of 9 x 8, object 2 of 2" in text
    assert {frame.path for frame in volume.frames} == {str(path)}


def _renamed(ds: Any) -> None:
    ds.SOPInstanceUID = "1.2.3.9"


def test_enhanced_objects_with_a_frame_missing(tmp_path: Path) -> None:
    write_multiframe(tmp_path / "a", VALUES, AFFINE, order=[0, 1, 3])
    assert "1 slice is missing of 4, 2.5 mm apart (1 between z = -37.5 and z = -32.5 mm)" in refusal(tmp_path)


def test_older_multi_frame_objects(tmp_path: Path) -> None:
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    stack = np.stack([gray_ramp() + k for k in range(3)])
    plain: dict[str, Any] = {"NumberOfFrames": 3, "Rows": 20, "Columns": 30, "SamplesPerPixel": 1, "Modality": "NM"}
    plain |= {"PhotometricInterpretation": "MONOCHROME2", "PixelSpacing": [2, 3], "PlanarConfiguration": None}
    detector = Dataset()
    detector.ImagePositionPatient, detector.ImageOrientationPatient = [5, 6, 7], [1, 0, 0, 0, 1, 0]
    path = tmp_path / "nm"
    make_dicom(path, stack, **plain, SpacingBetweenSlices=-4, DetectorInformationSequence=Sequence([detector]))
    volume = opened(path)
    assert np.array_equal(volume.voxels.array(), stack.T[:, :, ::-1])  # a negative distance runs against the normal
    assert np.allclose(volume.grid.lps_matrix, [[3, 0, 0, 5], [0, 2, 0, 6], [0, 0, 4, -1], [0, 0, 0, 1]])
    volume = opened(make_dicom(path, stack, **plain, SliceThickness=4))
    assert not volume.has_world and "not say where in the patient" in volume.notes[0]
    assert np.array_equal(volume.voxels.array(), stack.T) and volume.grid.spacing_mm == (3, 2, 4)
    make_dicom(path, stack, **plain)
    assert refusal(path).startswith("3 images that do not say where they lie")
    make_dicom(path, stack, **plain, SliceThickness=4, FrameTime=40, FrameIncrementPointer=0x00181063)
    assert refusal(path).startswith("a film (frames over time)")


@pytest.mark.parametrize(
    "elements, words",
    [
        ({"Rows": 65535, "Columns": 65535}, "65535 x 65535 pixels, over the limit"),
        ({"NumberOfFrames": 2**31 - 1}, "2147483647 frames of 9 x 8 pixels, over the limit of 50000 frames or 4 GiB"),
        ({"NumberOfFrames": 60_000, "Rows": 1, "Columns": 1}, "60000 frames of 1 x 1 pixels, over the limit of 50000"),
        ({"NumberOfFrames": 40}, "truncated: 144 of 5760 bytes"),
        ({"Rows": 0}, "9 x 0 pixels; export it again"),
        ({"BitsAllocated": 12}, "12 bits a pixel"),
        ({"HighBit": 14}, "bits are not the lowest"),
        ({"RescaleSlope": 0}, "malformed"),
        ({"PixelSpacing": None}, ""),
    ],
)
def test_headers_that_cannot_be_true(tmp_path: Path, elements: dict[str, Any], words: str) -> None:
    def edit(ds: Any, k: int) -> None:
        for keyword, value in elements.items():
            setattr(ds, keyword, value)

    write_series(tmp_path, VALUES, AFFINE, only=[1], edit=edit)
    if words:
        text = refusal(tmp_path)
        assert text.startswith("1-0003.dcm: ") and words in text
    else:
        volume = opened(tmp_path)
        assert "1 mm is assumed" in volume.notes[0] and not volume.has_world


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy (Debian: dicom3tools)")
def test_the_samples_are_valid(tmp_path: Path) -> None:
    paths = [write_series(tmp_path / m, VALUES + 1000, AFFINE, modality=m)[0] for m in ("CT", "MR", "PT")]
    paths += [write_multiframe(tmp_path / f"{m}.dcm", VALUES + 1000, AFFINE, modality=m) for m in ("CT", "MR")]
    for path in paths:
        done = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False)
        assert done.returncode == 0 and "Error" not in done.stderr, done.stderr


def test_saved_without_preamble(tmp_path: Path) -> None:
    import pydicom

    for path in write_series(tmp_path, VALUES, AFFINE):
        ds = pydicom.dcmread(path)
        del ds.file_meta
        ds.save_as(path, implicit_vr=True, little_endian=True)
        path.rename(path.with_suffix(""))
    assert np.array_equal(opened(tmp_path).voxels.array(), VALUES)
