"""Regions of whole slides: pixels, and where they lie on level 0."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from ibisagent.errors import InputError, MissingExtraError
from ibisagent.io import read_image
from ibisagent.io.slide import SlideRegion, parse_region, read_slide_region
from ibisagent.io.writers import SegmentLabel, write_image_mask

pytest.importorskip("openslide")
import tifffile

WIDTH, HEIGHT = 600, 400


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """Slow ramps, so that a pixel's colour says where it lies, and one dark rectangle."""
    ys, xs = np.mgrid[:HEIGHT, :WIDTH]
    rgb = np.stack([xs * 250 / WIDTH, ys * 250 / HEIGHT, np.full(xs.shape, 200.0)], axis=2)
    rgb[120:200, 240:400, 2] = 0
    return rgb.astype(np.uint8)


def smaller(picture: np.ndarray, step: int) -> np.ndarray:
    height, width, _ = picture.shape
    return picture.reshape(height // step, step, width // step, step, 3).mean(axis=(1, 3)).astype(np.uint8)


def write_slide(path: Path, picture: np.ndarray, steps: tuple[int, ...] = (2, 4), mpp: float | None = 0.5) -> Path:
    unit = {} if mpp is None else {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    how = {"tile": (64, 64), "photometric": "rgb", "compression": "zlib", "metadata": None}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(picture, **how, **unit)
        for step in steps:
            tiff.write(smaller(picture, step), subfiletype=1, **how)
    return path


@pytest.fixture(scope="module")
def slide(picture: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slide(tmp_path_factory.mktemp("slide") / "s.tif", picture)


def test_level_0_is_the_picture(slide: Path, picture: np.ndarray) -> None:
    image = read_slide_region(slide, "100, 50,70,30")
    assert np.array_equal(image.pixels, picture[50:80, 100:170])
    assert image.geometry.source_index(3, 4) == (103, 54, 0) and image.geometry.spacing_mm == (0.0005, 0.0005)
    assert image.modality == "Histology" and image.geometry.volume_shape is None


@pytest.mark.parametrize("x, y", [(240, 120), (241, 123)])
def test_coarser_levels_lie_where_they_say(slide: Path, picture: np.ndarray, x: int, y: int) -> None:
    image = read_slide_region(slide, f"{x},{y},81,40", level=2)
    left, top, right, bottom = x // 4, y // 4, -(-(x + 81) // 4), -(-(y + 40) // 4)
    assert np.array_equal(image.pixels, smaller(picture, 4)[top:bottom, left:right])
    # the middle of the four by four pixels that the first one is made of
    a = np.asarray(image.geometry.index_from_pixel)
    assert a[:2, 2].tolist() == [left * 4 + 1.5, top * 4 + 1.5] and a[0, 0] == a[1, 1] == 4.0
    assert image.geometry.spacing_mm == pytest.approx((0.002, 0.002))


def test_a_resolution_is_averaged_down_from_the_next_finer_level(slide: Path) -> None:
    image = read_slide_region(slide, "0,0,600,400", mpp=1.5)  # level 1 has 1.0
    assert (image.width, image.height) == (200, 133)
    assert image.geometry.spacing_mm == pytest.approx((0.0015, 0.0015), rel=0.01)
    for x, y in ((0, 0), (150, 60), (199, 132)):  # the ramps say where a pixel lies
        i, j, _ = image.geometry.source_index(x, y)
        assert abs(int(image.pixels[y, x, 0]) - i * 250 / WIDTH) < 2 and abs(int(image.pixels[y, x, 1]) - j * 0.625) < 2
    same = read_slide_region(slide, "0,0,600,400", mpp=1.001)
    assert (same.width, same.height) == (300, 200)


def test_without_a_wish_the_finest_level_that_is_small_enough(
    slide: Path, picture: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ibisagent.io import slide as module

    monkeypatch.setattr(module, "MAX_SIDE", 300)
    whole = read_slide_region(slide)
    assert np.array_equal(whole.pixels, smaller(picture, 2))
    monkeypatch.setattr(module, "MAX_SIDE", 100)
    whole = read_slide_region(slide)
    assert (whole.width, whole.height) == (100, 67)
    assert read_slide_region(slide, "0,0,90,90").width == 90


def test_a_mask_of_a_region_opens_on_the_slide(slide: Path, tmp_path: Path) -> None:
    image = read_slide_region(slide, "200,100,300,160", level=1)
    mask = image.pixels[..., 2] < 100
    write_image_mask(mask, image, tmp_path / "m.geojson", "geojson", SegmentLabel("dark"))
    (feature,) = json.loads((tmp_path / "m.geojson").read_text())["features"]
    assert feature["geometry"]["coordinates"][0][:-1] == [[240, 120], [400, 120], [400, 200], [240, 200]]


def test_regions_are_four_whole_numbers() -> None:
    assert parse_region(" 1,2, 3 ,4") == SlideRegion(1, 2, 3, 4)
    for text in ("", "1,2,3", "1,2,0,4", "-1,2,3,4", "1.5,2,3,4", "1,2,3,4,5", "1,2,3,99999999999"):
        with pytest.raises(InputError, match="X,Y,W,H"):
            parse_region(text)


def test_one_clear_line_for_what_cannot_be_read(slide: Path, picture: np.ndarray, tmp_path: Path) -> None:
    junk = tmp_path / "junk.svs"
    junk.write_bytes(b"no slide at all" * 100)
    cut = tmp_path / "cut.tif"
    cut.write_bytes(slide.read_bytes()[:9000])
    silent = write_slide(tmp_path / "silent.tif", picture, (), mpp=None)
    cases = [
        (slide, "590,0,20,20", {}, "beyond the slide, which has 600 x 400"),
        (slide, "0,0,9,9", {"level": 3}, r"no level 3 on this slide; use 0 \(finest\) to 2"),
        (slide, "0,0,9,9", {"mpp": 0.1}, "finer than the slide's 0.5"),
        (slide, "0,0,9,9", {"mpp": float("nan")}, "not possible"),
        (slide, "0,0,9,9", {"mpp": 1.0, "level": 1}, "exclude each other"),
        (silent, "0,0,9,9", {"mpp": 1.0}, "does not say its resolution"),
        (junk, "0,0,9,9", {}, "not a whole-slide image"),
        (cut, "0,0,600,400", {"level": 0}, "not a whole-slide image"),
        (tmp_path / "none.svs", "0,0,9,9", {}, "no such file"),
        (tmp_path, "0,0,9,9", {}, "is a directory"),
    ]
    for path, region, options, words in cases:
        with pytest.raises(InputError, match=words) as caught:
            read_slide_region(path, region, **options)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
    assert read_slide_region(silent, "0,0,9,9").geometry.spacing_mm is None


def test_without_openslide_the_extra_is_named(slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openslide", None)
    with pytest.raises(MissingExtraError, match=r"ibisagent\[slides\]"):
        read_slide_region(slide, "0,0,9,9")


def test_read_image_takes_regions_and_shows_pyramids_whole(slide: Path, picture: np.ndarray, tmp_path: Path) -> None:
    assert np.array_equal(read_image(slide, region="10,20,30,40").pixels, picture[20:60, 10:40])
    assert read_image(slide, mpp=2.0).width == 150
    assert np.array_equal(read_image(slide, modality="Fundus").pixels, picture)
    with pytest.raises(InputError, match="neither --slice nor --window"):
        read_image(slide, region="0,0,9,9", window="0,9")
    # one page is a picture, and pages of one size are no slide
    flat = write_slide(tmp_path / "flat.tif", picture, ())
    assert read_image(flat).modality is None
    tifffile.imwrite(tmp_path / "stack.tif", np.zeros((3, 64, 64), np.uint8), photometric="minisblack")
    with pytest.raises(InputError, match="3 pages"):
        read_image(tmp_path / "stack.tif")
