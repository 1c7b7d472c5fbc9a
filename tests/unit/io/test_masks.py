"""Masks: what counts as foreground, sizes and grids, atomic writing."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import PIL.Image
import pytest
from io_samples import gray_ramp, make_nifti, save_png

from ibisagent.errors import InputError
from ibisagent.geometry import Geometry
from ibisagent.io import mask_filename, read_image, read_mask, write_mask
from ibisagent.types import Image

TRUTH = gray_ramp() > 120


@pytest.fixture
def image() -> Image:
    return Image(pixels=np.repeat(gray_ramp()[..., None], 3, axis=2), geometry=Geometry.plane_2d())


def test_png_round_trip(tmp_path: Path, image: Image) -> None:
    path = tmp_path / mask_filename(image)
    write_mask(TRUTH, image, path)
    stored = np.asarray(PIL.Image.open(path))
    assert stored.dtype == np.uint8 and set(np.unique(stored)) == {0, 255}
    assert np.array_equal(read_mask(path, image), TRUTH)
    assert [p.name for p in tmp_path.iterdir()] == ["mask.png"]


def test_equal_masks_are_equal_files(tmp_path: Path) -> None:
    volume = read_image(make_nifti(tmp_path / "a.nii", np.arange(120, dtype=np.int16).reshape(4, 5, 6)))
    for name in ("m.nii.gz", "m.png"):
        write_mask(volume.pixels[..., 0] > 99, volume, tmp_path / name)
        first = (tmp_path / name).read_bytes()
        write_mask(volume.pixels[..., 0] > 99, volume, tmp_path / name)
        assert (tmp_path / name).read_bytes() == first


@pytest.mark.parametrize("kind", ["one", "label 3", "16 bit", "float", "rgb", "rgba", "bilevel", "palette", "tif"])
def test_any_nonzero_is_foreground(tmp_path: Path, image: Image, kind: str) -> None:
    path = tmp_path / ("m.tif" if kind in ("tif", "float") else "m.png")
    values = TRUTH.astype(np.uint8)
    if kind == "rgb":
        save_png(path, np.stack([values * 0, values * 9, values * 0], axis=2))
    elif kind == "rgba":  # opaque black and transparent white are both background
        rgba = np.full((*TRUTH.shape, 4), 255, np.uint8)
        rgba[~TRUTH] = (0, 0, 0, 255)
        rgba[0][~TRUTH[0]] = (255, 255, 255, 0)
        save_png(path, rgba)
    elif kind == "palette":
        picture = PIL.Image.fromarray(values).convert("P")
        picture.putpalette([0, 0, 0, 200, 0, 0])
        picture.save(path)
    else:
        arrays = {
            "label 3": values * 3,
            "16 bit": values.astype(np.uint16) * 256,
            "float": values * np.float32(0.1),
            "bilevel": TRUTH,
        }
        save_png(path, arrays.get(kind, values))
    assert np.array_equal(read_mask(path, image), TRUTH)


def test_size_must_match_and_both_are_named(tmp_path: Path, image: Image) -> None:
    with pytest.raises(InputError, match=r"20 x 30 pixels.*30 x 20"):
        read_mask(save_png(tmp_path / "m.png", TRUTH.T), image)


def test_jpeg_masks_are_refused(tmp_path: Path, image: Image) -> None:
    with pytest.raises(InputError, match="JPEG blurs"):
        read_mask(save_png(tmp_path / "m.jpg", gray_ramp()), image)


def test_nifti_masks_must_lie_on_the_images_grid(tmp_path: Path, image: Image) -> None:
    data = np.arange(120, dtype=np.uint8).reshape(4, 5, 6)
    volume = read_image(make_nifti(tmp_path / "a.nii", data))
    nearly = np.eye(4)
    nearly[0, 0] += 1e-6
    assert read_mask(make_nifti(tmp_path / "m.nii", data, nearly), volume).sum() == 20
    with pytest.raises(InputError, match=r"\(4, 5, 5\).*\(4, 5, 6\)"):
        read_mask(make_nifti(tmp_path / "s.nii", data[..., :5]), volume)
    for affine in (np.diag([-1, 1, 1, 1]), np.diag([1, 1, 1.1, 1]), np.eye(4) + np.eye(4, k=3)):
        with pytest.raises(InputError, match="affine differs"):
            read_mask(make_nifti(tmp_path / "f.nii", data, affine), volume)
    with pytest.raises(InputError, match="2-D"):
        read_mask(tmp_path / "m.nii", image)


def test_a_png_mask_serves_a_volumes_slice(tmp_path: Path) -> None:
    volume = read_image(make_nifti(tmp_path / "a.nii", np.arange(120, dtype=np.uint8).reshape(4, 5, 6)))
    mask = volume.pixels[..., 0] > 100
    write_mask(mask, volume, tmp_path / "m.png")
    assert np.array_equal(read_mask(tmp_path / "m.png", volume), mask)
    assert mask_filename(volume) == "mask.nii.gz"


def test_wrong_endings_and_shapes(tmp_path: Path, image: Image) -> None:
    with pytest.raises(InputError, match="rename it"):
        write_mask(TRUTH, image, tmp_path / "m.jpg")
    with pytest.raises(InputError, match="not a slice of a volume"):
        write_mask(TRUTH, image, tmp_path / "m.nii.gz")
    with pytest.raises(ValueError, match="bool"):
        write_mask(TRUTH.T, image, tmp_path / "m.png")
    with pytest.raises(ValueError, match="bool"):
        write_mask(gray_ramp(), image, tmp_path / "m.png")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.png"
    write_mask(TRUTH, image, path)
    before = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PIL.Image.Image, "save", full)
    with pytest.raises(InputError, match="No space left on device"):
        write_mask(~TRUTH, image, path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["m.png"]
    with pytest.raises(InputError, match="cannot be written"):
        write_mask(TRUTH, image, tmp_path / "no" / "folder" / "m.png")


def test_large_volumes_are_written_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ibisagent.io import nifti
    from ibisagent.io.writers import blocks

    data = np.arange(7 * 8 * 9, dtype=np.int16).reshape(7, 8, 9)
    path = make_nifti(tmp_path / "a.nii.gz", data)
    for plane in ("axial", "coronal", "sagittal"):
        whole = read_image(path, slice_spec=plane, window="0,504")
        monkeypatch.setattr(nifti, "CHUNK_BYTES", 250)
        monkeypatch.setattr(blocks, "CHUNK_BYTES", 130)
        assert read_image(path, slice_spec=plane, window="0,504").sha256 == whole.sha256
        mask = whole.pixels[..., 0] % 3 == 0
        write_mask(mask, whole, tmp_path / "m.nii.gz")
        assert np.array_equal(read_mask(tmp_path / "m.nii.gz", whole), mask)
        assert nib.load(tmp_path / "m.nii.gz").get_fdata().sum() == mask.sum()
        monkeypatch.undo()
