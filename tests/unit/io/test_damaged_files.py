"""Untrusted bytes: whatever a file holds, a reader returns an image or raises one InputError with one line."""

from __future__ import annotations

import contextlib
import gzip
import os
import random
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import PIL.Image
import pytest
from io_samples import gray_ramp, make_dicom, make_nifti, save_png

from ibisagent.errors import InputError
from ibisagent.io import files as io_files
from ibisagent.io import read_image, read_mask

MUTATIONS = 120


def _deep_colour(path: Path) -> Path:
    import cv2

    cv2.imwrite(str(path), np.arange(20 * 30 * 3, dtype=np.uint16).reshape(20, 30, 3) * 30)
    return path


def _dicom(path: Path) -> Path:
    return make_dicom(path, np.arange(600, dtype=np.int16).reshape(20, 30), WindowCenter=40, PixelSpacing=[1, 2])


def _rle_dicom(path: Path) -> Path:
    import pydicom
    from pydicom.uid import RLELossless

    ds = pydicom.dcmread(_dicom(path))
    ds.compress(RLELossless, generate_instance_uid=False)
    ds.save_as(path)
    return path


def _volume(path: Path) -> Path:
    return make_nifti(path, np.arange(6 * 7 * 8, dtype=np.int16).reshape(6, 7, 8))


def _nifti2(path: Path) -> Path:
    nib.save(nib.Nifti2Image(np.arange(6 * 7 * 8, dtype=np.float32).reshape(6, 7, 8), np.eye(4)), path)
    return path


def _itk(path: Path) -> Path:
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(np.arange(6 * 7 * 8, dtype=np.int16).reshape(8, 7, 6))
    sitk.WriteImage(image, str(path), useCompression=path.name.startswith("packed"))
    return path


SAMPLES: dict[str, Callable[[Path], Path]] = {
    "gray.png": lambda p: save_png(p, gray_ramp()),
    "deep.png": lambda p: save_png(p, gray_ramp().astype(np.uint16) * 200),
    "a.jpg": lambda p: save_png(p, np.repeat(gray_ramp()[..., None], 3, axis=2)),
    "raw.tif": lambda p: save_png(p, gray_ramp()),
    "lzw.tif": lambda p: save_png(p, gray_ramp(), compression="tiff_lzw"),
    "deep.tif": lambda p: save_png(p, gray_ramp().astype(np.uint16) * 200),
    "colour.tif": _deep_colour,
    "colour.png": _deep_colour,
    "a.dcm": _dicom,
    "rle.dcm": _rle_dicom,
    "old.dcm": lambda p: make_dicom(p, gray_ramp().astype(np.uint16), preamble=False),
    "a.nii": _volume,
    "a.nii.gz": _volume,
    "2.nii": _nifti2,
    "raw.nrrd": _itk,
    "packed.nrrd": _itk,
    "raw.mha": _itk,
    "packed.mha": _itk,
}


def attempt(read: Callable[[], object], capfd: pytest.CaptureFixture[str]) -> str | None:
    """Read; return the error's line, or None if it could be read. Anything but InputError fails the test."""
    try:
        read()
        message = None
    except InputError as error:
        message = str(error)
        assert message and message.isprintable() and len(message) < 1500
    out, err = capfd.readouterr()
    assert out == "" and err == ""
    return message


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", SAMPLES)
def test_mutations_and_truncations(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = SAMPLES[name](tmp_path / name)
    good = path.read_bytes()
    image = read_image(path)
    rng = random.Random(name)
    refused = 0
    for number in range(MUTATIONS):
        data = bytearray(good)
        if number % 4 == 0:
            del data[rng.randrange(len(data)) :]
        elif number % 4 == 1:  # headers matter most
            for _ in range(rng.randint(1, 4)):
                data[rng.randrange(min(len(data), 400))] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
        elif number % 4 == 2:
            start = rng.randrange(len(data))
            data[start : start + rng.randint(1, 8)] = rng.randbytes(rng.randint(0, 8))
        else:
            start = rng.randrange(max(1, len(data) - 4))
            data[start : start + 4] = rng.choice(
                (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", bytes(4))
            )
        path.write_bytes(data)
        refused += attempt(lambda: read_image(path), capfd) is not None
        attempt(lambda: read_mask(path, image), capfd)
    assert refused > MUTATIONS // 8


@pytest.mark.parametrize("name", [n for n in SAMPLES if n not in ("a.jpg",)])
def test_every_truncation_is_noticed(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = SAMPLES[name](tmp_path / name)
    good = path.read_bytes()
    expected = read_image(path).sha256
    for length in sorted({*range(1, len(good), max(1, len(good) // 40)), len(good) - 1}):
        path.write_bytes(good[:length])
        with contextlib.suppress(InputError):
            # a file may lose bytes that carry no picture (PNG's end mark), but never a part of the picture
            assert read_image(path).sha256 == expected
    path.write_bytes(good[: len(good) // 2])
    assert attempt(lambda: read_image(path), capfd) is not None


def test_truncated_jpeg(tmp_path: Path) -> None:
    path = SAMPLES["a.jpg"](tmp_path / "a.jpg")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match="damaged or not a JPEG"):
        read_image(path)


def test_random_bytes_behind_every_magic(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(0)
    path = tmp_path / "x"
    for name, make in SAMPLES.items():
        head = make(tmp_path / name).read_bytes()[:12]
        for size in (0, 1, 50, 700):
            path.write_bytes(head + rng.randbytes(size))
            assert attempt(lambda: read_image(path), capfd) is not None


def png_header(width: int, height: int, depth: int = 8) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(100))
    chunks = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (body, data, b"IEND"))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def tiff_header(width: int, height: int) -> bytes:
    entries = [
        (256, width),
        (257, height),
        (258, 8),
        (259, 1),
        (262, 1),
        (273, 200),
        (277, 1),
        (278, height),
        (279, 100),
    ]
    packed = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\x00" + struct.pack("<IH", 8, len(entries)) + packed + bytes(200)


def nifti_header(shape: tuple[int, ...], cls: type = nib.Nifti2Header) -> bytes:
    header = cls()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(shape)
    header["magic"] = header.single_magic
    header["vox_offset"] = header.single_vox_offset
    header.set_sform(np.eye(4), 1)
    return header.binaryblock + bytes(2000)


HUGE = {
    "png": png_header(10**9, 10**9),
    "deep png": png_header(10**9, 10**9, 16),
    "wide png": png_header(2**31 - 1, 1),
    "just too large png": png_header(8192, 8193),
    "tiff": tiff_header(10**9, 10**9),
    "just too large tiff": tiff_header(8193, 8192),
    "jpeg": b"\xff\xd8\xff\xc0\x00\x0b\x08\xff\xff\xff\xff\x01\x01\x11\x00\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00"
    + bytes(50),
    "nifti2": nifti_header((10**9, 10**9, 10)),
    "nifti2 long": nifti_header((1, 1, 2**62)),
    "nifti1": nifti_header((32767, 32767, 32767), nib.Nifti1Header),
    "nifti.gz": gzip.compress(nifti_header((10**9, 10**9, 10)), mtime=0),
    "nifti1.gz": gzip.compress(nifti_header((1000, 1000, 1000), nib.Nifti1Header), mtime=0),
}


@pytest.mark.parametrize("name", HUGE)
def test_huge_claims_are_refused_before_allocating(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(HUGE[name])
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"pixels|limit|truncated|damaged"):
            read_image(path)
        assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
    finally:
        tracemalloc.stop()


def test_huge_dicom(tmp_path: Path) -> None:
    path = make_dicom(tmp_path / "a.dcm", gray_ramp(), Rows=65535, Columns=65535)
    with pytest.raises(InputError, match="over the limit"):
        read_image(path)
    # pixel data of 4 GiB, says the element: what is there is read, nothing of that size is allocated
    data = bytearray(make_dicom(tmp_path / "b.dcm", gray_ramp().astype(np.uint16), Modality="MR").read_bytes())
    data[-gray_ramp().size * 2 - 4 : -gray_ramp().size * 2] = b"\xfe\xff\xff\xff"
    path.write_bytes(data)
    tracemalloc.start()
    try:
        read_image(path)
        assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
    finally:
        tracemalloc.stop()


def test_gzip_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(io_files, "MAX_VOLUME_BYTES", 2**22)
    from ibisagent.io import nifti

    monkeypatch.setattr(nifti, "MAX_VOLUME_BYTES", 2**22)
    path = tmp_path / "bomb.nii.gz"
    # more voxels than allowed, truly there
    path.write_bytes(gzip.compress(nifti_header((2048, 2048, 2), nib.Nifti1Header) + bytes(2**23)))
    with pytest.raises(InputError, match="over the limit"):
        read_image(path)
    # a small volume with very much behind it: only a little of the tail is unpacked
    head = nifti_header((10, 10, 3), nib.Nifti1Header)
    path.write_bytes(gzip.compress(head + bytes(2**26)))
    tracemalloc.start()
    read_image(path, window="0,1")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**25


def test_damage_behind_the_slice_in_a_gzip_is_noticed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = make_nifti(tmp_path / "a.nii.gz", rng.integers(0, 9999, (30, 30, 30)).astype(np.int16))
    data = bytearray(path.read_bytes())
    data[-6] ^= 1  # the checksum
    path.write_bytes(data)
    with pytest.raises(InputError, match="NIfTI"):
        read_image(path, slice_spec="axial:0")


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "empty"),
        (b"hello", "not a PNG, JPEG, TIFF, DICOM, NIfTI, NRRD or MetaImage file"),
        (b"GIF89a" + bytes(100), "GIF"),
        (b"NRRD0004\n", "NRRD"),
        (b"ObjectType = Image\nNDims = 3\n", "MetaImage"),
        (b"%PDF-1.7", "PDF"),
        (bytes(2000), "not a PNG"),
        (gzip.compress(b"hello", mtime=0), "gunzip"),
        (b"\x1f\x8b\x08", "gzip"),
    ],
)
def test_wrong_types(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        read_image(path)
    assert str(caught.value).startswith(str(path))


def test_paths_that_are_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    cases = {
        str(tmp_path): "is a directory",
        str(tmp_path / "gone.png"): "no such file",
        str(tmp_path / "pipe"): "not a regular file",
        "/dev/zero": "not a regular file",
        "a\x00b": "cannot be opened",
        "x" * 5000: "cannot be opened",
        "": "no such file",
    }
    for path, words in cases.items():
        with pytest.raises(InputError, match=words) as caught:
            read_image(path)
        assert str(caught.value).isprintable()

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = save_png(tmp_path / "a.png", gray_ramp())
    monkeypatch.setattr("builtins.open", denied)
    with pytest.raises(InputError, match="permission denied"):
        read_image(path)


def test_odd_names_stay_one_line(tmp_path: Path) -> None:
    path = tmp_path / "two\nlines\x1b[31m.png"
    path.write_bytes(b"hello")
    with pytest.raises(InputError) as caught:
        read_image(path)
    assert str(caught.value).isprintable()


def test_file_size_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_png(tmp_path / "a.png", gray_ramp())
    monkeypatch.setattr(io_files, "MAX_FILE_BYTES", 100)
    with pytest.raises(InputError, match="over the limit"):
        read_image(path)


def test_decoders_start_up_settings_are_left_alone(tmp_path: Path) -> None:
    before = PIL.Image.MAX_IMAGE_PIXELS
    read_image(save_png(tmp_path / "a.png", gray_ramp()))
    assert before == PIL.Image.MAX_IMAGE_PIXELS
