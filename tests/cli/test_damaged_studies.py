"""Damaged studies through the command: one line that says what is wrong and where, exit code 2, nothing written."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from cli_samples import Ran

from dicom_maker import PATIENT_ID, PATIENT_NAME, write_series

Cli = Callable[..., Ran]

SHAPE = (20, 16, 8)
RLE = "1.2.840.10008.1.2.5"


def values() -> np.ndarray:
    volume = np.random.default_rng(0).integers(-200, 200, SHAPE)
    volume[6:12, 5:11, 2:6] += 300
    return volume.astype(np.float64)


def nifti(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> None:
    nibabel.save(nibabel.Nifti1Image(array, np.diag([-1.0, -1, 2, 1]) if affine is None else affine), path)


def cut(path: Path, share: float = 0.6) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def missing_slice(study: Path) -> None:
    write_series(study, values(), only=[0, 1, 2, 4, 5, 6, 7])


def mixed_series(study: Path) -> None:
    write_series(study, values(), series="1")
    write_series(study, values(), series="2", modality="MR")


def mixed_sizes(study: Path) -> None:
    write_series(study, values(), only=[0, 1, 2, 3])
    write_series(study, values()[:10], only=[4, 5, 6, 7])


def two_orientations(study: Path) -> None:
    write_series(study, values(), only=[0, 1, 2, 3], instance_numbers=range(1, 9))
    coronal = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
    write_series(study, values(), coronal, only=[4, 5, 6, 7], instance_numbers=range(1, 9))


def truncated_slice(study: Path) -> None:
    cut(write_series(study, values())[3])


def truncated_packed_slice(study: Path) -> None:
    cut(write_series(study, values(), syntax=RLE)[3], 0.9)


def truncated_gzip(study: Path) -> None:
    nifti(study / "a.nii.gz", values())
    cut(study / "a.nii.gz", 0.9)


def flipped_gzip(study: Path) -> None:
    nifti(study / "a.nii.gz", values())
    data = bytearray((study / "a.nii.gz").read_bytes())
    data[-6] ^= 1  # its checksum
    (study / "a.nii.gz").write_bytes(data)


def truncated_nrrd(study: Path) -> None:
    header = "NRRD0004\ntype: double\ndimension: 3\nsizes: 20 16 8\nencoding: gzip\nendian: little\n\n"
    packed = gzip.compress(values().tobytes(order="F"))
    (study / "a.nrrd").write_bytes(header.encode() + packed[:-100])


def four_axes(study: Path) -> None:
    nifti(study / "a.nii.gz", np.zeros((4, 4, 4, 3), np.int16))


def truncated_stack(study: Path) -> None:
    tifffile.imwrite(study / "a.tif", values().T.astype(np.uint16), photometric="minisblack", compression="zlib")
    data = bytearray((study / "a.tif").read_bytes())
    data[-600:-300] = bytes(300)  # the pages' headers come first
    (study / "a.tif").write_bytes(data)


def bomb(study: Path) -> None:
    """100 pages of 8192 x 8192 pixels in a few kilobytes of headers and one strip of a kilobyte."""
    count, data = 100, zlib.compress(bytes(10**6), 9)
    tags = [(256, 8192), (257, 8192), (258, 8), (259, 8), (262, 1), (273, 8 + count * 114), (277, 1), (278, 8192)]
    tags.append((279, len(data)))
    entries = struct.pack("<H", 9) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    pages = [entries + struct.pack("<I", 8 + (k + 1) * 114 if k + 1 < count else 0) for k in range(count)]
    (study / "a.tif").write_bytes(b"II*\0" + struct.pack("<I", 8) + b"".join(pages) + data)


DAMAGE: dict[Callable[[Path], None], list[str]] = {
    missing_slice: ["slice", "missing", "mm"],
    mixed_series: ["2 series", "--series", "CT", "MR"],
    mixed_sizes: ["2 sizes", "20 x 16"],
    two_orientations: ["2 orientations"],
    truncated_slice: ["truncated"],
    truncated_packed_slice: ["truncated", "0005.dcm"],
    truncated_gzip: ["a.nii.gz", "damaged"],
    flipped_gzip: ["a.nii.gz", "damaged"],
    truncated_nrrd: ["a.nrrd", "damaged"],
    four_axes: ["a.nii.gz", "4-D"],
    truncated_stack: ["a.tif", "damaged"],
    bomb: ["a.tif", "over the limit of 4 GiB"],
}


def refuse(cli: Cli, folder: Path, *argv: object) -> str:
    before = sorted(folder.rglob("*"))
    ran = cli("segment", *argv, "--segmenter", "rules", "--out", "o")
    assert (ran.code, ran.out) == (2, ""), ran
    (line,) = ran.err.splitlines()  # and no notes on how the study was read
    assert line.startswith("ibisagent: error: ")
    assert sorted(folder.rglob("*")) == before, "nothing may be written"
    assert not any(secret in ran.err for secret in (PATIENT_NAME, PATIENT_ID, "SECRET", "1.2.826"))
    return line


@pytest.mark.parametrize("make", DAMAGE, ids=lambda make: make.__name__)
def test_damage_is_one_line_and_writes_nothing(cli: Cli, folder: Path, make: Callable[[Path], None]) -> None:
    study = folder / "study"
    study.mkdir()
    make(study)
    files = sorted(study.iterdir())
    given = study if files[0].suffix == ".dcm" else files[0]
    (folder / "script.json").write_text('["no reply is needed"]')
    line = refuse(cli, folder, given, "the lesion", "--policy", "scripted:script.json")
    for word in DAMAGE[make]:
        assert word in line, line


def test_labels_of_another_size_or_place(cli: Cli, folder: Path) -> None:
    study = folder / "study"
    write_series(study, values())
    inside = (values() > 250).astype(np.uint8)
    nifti(folder / "small.nii.gz", inside[:-1])
    nifti(folder / "moved.nii.gz", inside, np.array([[-1.0, 0, 0, 9], [0, -1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    for name, words in (("small.nii.gz", "(19, 16, 8)"), ("moved.nii.gz", "do not lie on the volume's")):
        for option in ("--target", "--mask"):
            policy = ["--policy", "oracle", "--target", name] if option == "--target" else ["--mask", name]
            if option == "--mask":
                (folder / "script.json").write_text('["no reply is needed"]')
                policy += ["--policy", "scripted:script.json"]
            line = refuse(cli, folder, study, "the lesion", *policy)
            assert name in line and words in line
