"""TIFF stacks as volumes, and files that only claim to be one: nothing of a claimed size is allocated."""

from __future__ import annotations

import random
import struct
import time
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from io_samples import gray_ramp, save_png

from ibisagent.errors import InputError
from ibisagent.io import read_image, tiff_stack
from ibisagent.io.studies import open_volume
from ibisagent.io.tiff_stack import count_pages
from ibisagent.io.volume import Volume

SHAPE = (7, 6, 5)  # columns, rows, pages
GRAY = {"photometric": "minisblack"}


def values(dtype: str = "uint16") -> np.ndarray:
    return (np.random.default_rng(0).random(SHAPE) * 200 + 3).astype(dtype)


def write(path: Path, array: np.ndarray | None = None, **options: Any) -> Path:
    """Pages along the last axis of (columns, rows, pages)."""
    tifffile.imwrite(path, (values() if array is None else array).T, **({} if "imagej" in options else GRAY) | options)
    return path


def opened(path: Path) -> Volume:
    volume = open_volume(path)
    assert volume is not None
    return volume


def refuse(path: Path, words: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=words) as caught:
            opened(path).voxels.plane(2, 0)
        assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    finally:
        tracemalloc.stop()
    assert str(caught.value).startswith(str(path)) and str(caught.value).isprintable()


def test_bytes_with_a_sign(tmp_path: Path) -> None:
    stored = (values("int16") - 100).astype(np.int8)
    volume = opened(write(tmp_path / "a.tif", stored))
    assert np.array_equal(volume.voxels.array(), stored) and volume.window().name.startswith("percentile")


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "int32", "uint32"])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"bigtiff": True}, {"tile": (16, 16)}])
def test_pages_are_slices_as_they_are_stored(tmp_path: Path, dtype: str, options: dict[str, Any]) -> None:
    volume = opened(write(tmp_path / "a.tif", values(dtype), **options))
    assert volume.kind == "TIFF" and not volume.has_world and "1 mm was assumed" in volume.notes[0]
    assert volume.voxels.array().dtype == np.dtype(dtype) and np.array_equal(volume.voxels.array(), values(dtype))
    image = volume.image("axial", 3, volume.window("0,255"))
    assert np.array_equal(image.pixels[..., 0], np.floor(values(dtype)[:, :, 3].T.astype(float) + 0.5))


def test_big_endian_one_bit_and_white_is_zero(tmp_path: Path) -> None:
    assert np.array_equal(opened(write(tmp_path / "a.tif", byteorder=">")).voxels.array(), values())
    bits = values() > 100
    assert np.array_equal(opened(write(tmp_path / "b.tif", bits)).voxels.array() > 0, bits)
    white = opened(write(tmp_path / "c.tif", photometric="miniswhite"))
    assert white.is_inverted and np.array_equal(white.voxels.array(), values())


def test_spacings_of_ome_and_imagej(tmp_path: Path) -> None:
    sizes = {"axes": "ZYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25, "PhysicalSizeZ": 2.0}
    volume = opened(write(tmp_path / "a.ome.tif", metadata=sizes))
    assert volume.grid.spacing_mm == pytest.approx((0.0005, 0.00025, 0.002)) and volume.notes == ()
    millimetres = sizes | {f"PhysicalSize{axis}Unit": "mm" for axis in "XYZ"}
    assert opened(write(tmp_path / "b.ome.tif", metadata=millimetres)).grid.spacing_mm == (0.5, 0.25, 2.0)
    facts = {"axes": "ZYX", "spacing": 3.0, "unit": "um"}
    imagej = opened(write(tmp_path / "c.tif", imagej=True, resolution=(10, 20), metadata=facts))
    assert imagej.grid.spacing_mm == pytest.approx((1e-4, 5e-5, 3e-3))
    # print resolution is no size of a voxel
    assert opened(write(tmp_path / "d.tif", resolution=(300, 300))).grid.spacing_mm == (1, 1, 1)


def test_spacings_that_no_display_could_show(tmp_path: Path) -> None:
    sizes = {"PhysicalSizeX": 1e-5, "PhysicalSizeY": 1e6, "PhysicalSizeZ": 1}
    refuse(write(tmp_path / "a.ome.tif", ome=True, metadata={"axes": "ZYX", **sizes}), "differ too much")


def test_axes_of_pages(tmp_path: Path) -> None:
    refuse(write(tmp_path / "a.ome.tif", metadata={"axes": "CYX"}), "5 channels")
    refuse(write(tmp_path / "b.tif", imagej=True, metadata={"axes": "CYX"}), "5 channels")
    four = np.zeros((2, 3, 6, 7), np.uint16)
    tifffile.imwrite(tmp_path / "c.ome.tif", four, metadata={"axes": "TZYX"}, **GRAY)
    refuse(tmp_path / "c.ome.tif", "2 times of 3 slices")
    assert "points in time" in opened(write(tmp_path / "d.ome.tif", metadata={"axes": "TYX"})).notes[0]


def test_a_stack_without_headers_is_no_picture(tmp_path: Path) -> None:
    refuse(write(tmp_path / "a.tif", imagej=True, metadata={"axes": "ZYX"}, truncate=True), "save it as OME-TIFF")


def pages(path: Path, *arrays: np.ndarray, **options: Any) -> Path:
    with tifffile.TiffWriter(path) as writer:
        for array in arrays:
            writer.write(array, contiguous=False, metadata=None, **options)
    return path


def test_what_is_no_stack(tmp_path: Path) -> None:
    large, small = gray_ramp(40, 60), gray_ramp(20, 30)
    assert open_volume(pages(tmp_path / "pyramid.tif", large, small, gray_ramp(10, 15))) is None
    refuse(pages(tmp_path / "a.tif", large, large, small), "page 3 is 30 x 20 pixels, but page 1 is 60 x 40")
    refuse(pages(tmp_path / "b.tif", small, large), "page 2 is 60 x 40")
    refuse(pages(tmp_path / "c.tif", large, large.astype(np.uint16)), "page 2 has another type")
    refuse(pages(tmp_path / "d.tif", *[np.zeros((8, 8, 3), np.uint8)] * 2, photometric="rgb"), "colour pages")
    refuse(pages(tmp_path / "e.tif", *[large] * 2, extratags=[(274, 3, 1, 6, True)]), "orientation tag")
    refuse(pages(tmp_path / "f.tif", *[large.astype(np.float64)] * 2), "type that is not read")


def test_a_slice_on_request_only(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif")
    image = read_image(path, slice_spec="axial:2", window="0,255")
    assert np.array_equal(image.pixels[..., 0], values()[:, :, 2].T)
    with pytest.raises(InputError, match="5 pages in one TIFF"):
        read_image(path)
    with pytest.raises(InputError, match="no slices to choose from"):
        read_image(save_png(tmp_path / "b.tif", gray_ramp()), slice_spec="axial:0")


# -- hostile files ---------------------------------------------------------------------------------


def chain(offsets: list[int], entries: bytes = b"", count: int = 0) -> bytes:
    """A classic TIFF whose page headers lie one after another and point to `offsets`."""
    body = b"".join(struct.pack("<H", count) + entries + struct.pack("<I", offset) for offset in offsets)
    return b"II*\0" + struct.pack("<I", 8) + body


def header(width: int, height: int, compression: int, start: int, size: int) -> tuple[bytes, int]:
    tags = [(256, width), (257, height), (258, 8), (259, compression), (262, 1), (273, start), (277, 1), (278, height)]
    tags.append((279, size))
    return b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags), len(tags)


def bomb(path: Path, width: int, height: int, num_pages: int, compression: int = 8) -> Path:
    """Pages that share one small strip."""
    data = zlib.compress(bytes(10**6), 9)
    entry, count = header(width, height, compression, 8 + num_pages * (6 + 9 * 12), len(data))
    offsets = [8 + (k + 1) * (6 + 9 * 12) for k in range(num_pages - 1)]
    path.write_bytes(chain([*offsets, 0], entry, count) + data)
    return path


def test_bombs_are_refused_by_their_claims(tmp_path: Path) -> None:
    refuse(bomb(tmp_path / "wide.tif", 10**6, 10**6, 2), "too many pixels|over the limit")
    refuse(bomb(tmp_path / "deep.tif", 8192, 8192, 100), "over the limit of 4 GiB")
    refuse(bomb(tmp_path / "dense.tif", 4096, 4096, 20), "more pixels than its bytes can hold")
    refuse(bomb(tmp_path / "plain.tif", 1000, 1000, 20, compression=1), "truncated")
    # a strip that unpacks to more than its page needs is read to the page's size only
    small = opened(bomb(tmp_path / "strip.tif", 10, 10, 2))
    tracemalloc.start()
    assert not small.voxels.array().any()
    assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    tracemalloc.stop()


def test_decoders_keep_quiet(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "a.tif")
    data = path.read_bytes()
    samples = struct.pack("<HHIH", 277, 3, 1, 1)
    path.write_bytes(data.replace(samples, struct.pack("<HHIH", 277, 3, 1, 255)))
    refuse(path, "damaged")
    assert caplog.records == []


def test_chains_of_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(chain([14, 8]))
    refuse(path, "circle")
    path.write_bytes(chain([14, 10**9]))
    refuse(path, "damaged")
    monkeypatch.setattr(tiff_stack, "MAX_PAGES", 4)
    refuse(write(tmp_path / "b.tif"), "more than 4 pages")
    monkeypatch.setattr(tiff_stack, "MAX_PAGES", 5)
    assert count_pages(tmp_path / "b.tif") == 5
    assert count_pages(write(tmp_path / "c.tif", bigtiff=True)) == 5


def test_many_empty_pages_take_no_time(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(chain([8 + 6 * (k + 1) for k in range(10**6)]))
    start = time.process_time()
    refuse(path, "more than 10000 pages")
    assert time.process_time() - start < 2


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}])
def test_cut_off_and_flipped_bytes(tmp_path: Path, options: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.tif", **options)
    good = path.read_bytes()
    rng = random.Random(0)
    refused = 0
    for number in range(80):
        data = bytearray(good)
        if number % 2:
            del data[rng.randrange(8, len(data)) :]
        else:
            for _ in range(3):
                data[rng.randrange(len(data))] = rng.choice((0, 1, 127, 255, rng.randrange(256)))
        path.write_bytes(data)
        try:
            volume = open_volume(path)
            array = None if volume is None else volume.voxels.array()
        except InputError as error:
            refused += 1
            assert str(error).isprintable()
        else:
            # a cut may lose what carries no picture, but never a part of it
            assert number % 2 == 0 or array is None or np.array_equal(array, values())
    assert refused > 25
    out, err = capfd.readouterr()
    assert out == "" and err == ""
