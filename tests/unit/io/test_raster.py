"""PNG, JPEG and TIFF: every mode comes out as the right 8-bit RGB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from io_samples import gray_ramp, save_png

from ibisagent.errors import InputError
from ibisagent.io import read_image
from ibisagent.types import Window


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_gray_8_bit_is_kept_as_it_is(tmp_path: Path, ending: str) -> None:
    ramp = gray_ramp()
    image = read_image(save_png(tmp_path / f"a.{ending}", ramp))
    assert image.is_gray and np.array_equal(image.pixels[..., 0], ramp)
    assert image.window is None and image.modality is None
    assert image.geometry.source_index(3, 5) == (3, 5, 0)
    assert image.source == str(tmp_path / f"a.{ending}")


def test_content_decides_not_the_name(tmp_path: Path) -> None:
    ramp = gray_ramp()
    save_png(tmp_path / "a.png", ramp).rename(tmp_path / "a.dcm")
    assert np.array_equal(read_image(tmp_path / "a.dcm").pixels[..., 1], ramp)


def test_colour_order_is_rgb(tmp_path: Path) -> None:
    rgb = np.stack([gray_ramp(), gray_ramp() // 2, 255 - gray_ramp()], axis=2)
    for ending in ("png", "tif"):
        assert np.array_equal(read_image(save_png(tmp_path / f"a.{ending}", rgb)).pixels, rgb)


def test_jpeg(tmp_path: Path) -> None:
    flat = np.full((16, 24, 3), (200, 40, 90), np.uint8)
    pixels = read_image(save_png(tmp_path / "a.jpg", flat, quality=95)).pixels
    assert pixels.shape == (16, 24, 3)
    assert np.abs(pixels.astype(int) - flat).max() <= 4


def test_transparency_is_composited_on_black(tmp_path: Path) -> None:
    rgba = np.zeros((2, 3, 4), np.uint8)
    rgba[..., :3] = 200
    rgba[0, :, 3] = (0, 128, 255)
    pixels = read_image(save_png(tmp_path / "a.png", rgba)).pixels
    assert pixels[0, :, 0].tolist() == [0, 100, 200]
    assert not pixels[1].any()


def test_palette_and_bilevel(tmp_path: Path) -> None:
    palette = PIL.Image.fromarray((gray_ramp() % 2).astype(np.uint8)).convert("P")
    palette.putpalette([10, 20, 30, 250, 240, 230])
    palette.save(tmp_path / "p.png")
    pixels = read_image(tmp_path / "p.png").pixels
    assert np.array_equal(pixels[gray_ramp() % 2 == 1][0], (250, 240, 230))
    assert np.array_equal(pixels[gray_ramp() % 2 == 0][0], (10, 20, 30))
    bits = gray_ramp() > 99
    for ending in ("png", "tif"):
        PIL.Image.fromarray(bits).save(tmp_path / f"b.{ending}")
        assert np.array_equal(read_image(tmp_path / f"b.{ending}").pixels[..., 2], bits * 255)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_16_bit_gray_goes_through_a_recorded_percentile_window(tmp_path: Path, ending: str) -> None:
    deep = np.arange(10000, dtype=np.uint16).reshape(100, 100)
    deep[0, 0] = 60000  # one hot pixel must not darken the rest
    image = read_image(save_png(tmp_path / f"a.{ending}", deep))
    assert image.window is not None and image.window.name == "percentile 0.5-99.5"
    low, high = np.percentile(deep, [0.5, 99.5])
    assert (image.window.low, image.window.high) == (low, high)
    middle = np.floor((deep[50, 50] - low) / (high - low) * 255 + 0.5)
    assert image.pixels[50, 50].tolist() == [middle] * 3
    assert image.pixels[0, 0, 0] == 255


def test_signed_float_and_big_endian_tiff(tmp_path: Path) -> None:
    import cv2

    signed = np.linspace(-1000, 1000, 400).reshape(20, 20)
    cv2.imwrite(str(tmp_path / "f.tif"), signed.astype(np.float32))
    image = read_image(tmp_path / "f.tif", window="-1000,1000")
    assert image.window == Window(-1000.0, 1000.0, "user")
    assert image.pixels[0, 0, 0] == 0 and image.pixels[-1, -1, 0] == 255 and abs(int(image.pixels[10, 0, 0]) - 128) <= 1
    PIL.Image.fromarray(signed.astype(np.int32)).save(tmp_path / "i.tif")
    assert read_image(tmp_path / "i.tif", window="-1000,1000").pixels[10, 0, 0] == image.pixels[10, 0, 0]


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_16_bit_colour_keeps_its_low_bits(tmp_path: Path, ending: str) -> None:
    import cv2

    deep = np.zeros((40, 50, 3), np.uint16)
    deep[..., 0] = np.arange(50) * 4  # a 12-bit camera in a 16-bit file: high bytes are all zero
    deep[..., 2] = 255 - np.arange(40)[:, None]
    cv2.imwrite(str(tmp_path / f"a.{ending}"), deep[..., ::-1])
    image = read_image(tmp_path / f"a.{ending}")
    assert image.window is not None and image.window.name.startswith("percentile")
    assert image.pixels[0, -1, 0] > 150 and image.pixels[0, 0, 0] == 0
    assert image.pixels[0, 0, 2] == 255 and image.pixels[0, 0, 1] == 0


def test_not_finite_pixels_become_black_and_an_image_of_them_is_refused(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 100, dtype=np.float32).reshape(10, 10)
    values[3, 3], values[4, 4], values[5, 5] = np.nan, np.inf, -np.inf
    PIL.Image.fromarray(values).save(tmp_path / "a.tif")
    image = read_image(tmp_path / "a.tif")
    assert [image.pixels[i, i, 0] for i in (3, 4, 5)] == [0, 255, 0]
    PIL.Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(tmp_path / "n.tif")
    with pytest.raises(InputError, match="no finite value"):
        read_image(tmp_path / "n.tif")


@pytest.mark.parametrize("tag", range(1, 9))
def test_orientation_tags_are_applied(tmp_path: Path, tag: int) -> None:
    import PIL.ImageOps

    from ibisagent.io.raster import _orient

    picture = PIL.Image.fromarray(gray_ramp())
    exif = picture.getexif()
    exif[0x0112] = tag
    picture.save(tmp_path / "a.png", exif=exif)
    picture.save(tmp_path / "a.tif", tiffinfo={0x0112: tag})
    shown = np.asarray(PIL.ImageOps.exif_transpose(PIL.Image.open(tmp_path / "a.png")))
    assert np.array_equal(read_image(tmp_path / "a.png").pixels[..., 0], shown)
    assert np.array_equal(read_image(tmp_path / "a.tif").pixels[..., 0], shown)
    assert np.array_equal(_orient(gray_ramp(), PIL.Image.open(tmp_path / "a.png")), shown)


def test_min_is_white_16_bit_tiff_is_inverted(tmp_path: Path) -> None:
    deep = np.arange(400, dtype=np.uint16).reshape(20, 20) * 50
    PIL.Image.fromarray(deep).save(tmp_path / "a.tif", tiffinfo={262: 0})
    image = read_image(tmp_path / "a.tif")
    assert image.window is not None and image.window.low > image.window.high and image.window.name.endswith("inverted")
    assert image.pixels[0, 0, 0] == 255 and image.pixels[-1, -1, 0] == 0


def test_several_pages_are_refused(tmp_path: Path) -> None:
    pages = [PIL.Image.fromarray(gray_ramp()) for _ in range(3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(InputError, match="3 pages"):
        read_image(tmp_path / "a.tif")


def test_windows_on_8_bit_pictures(tmp_path: Path) -> None:
    path = save_png(tmp_path / "a.png", gray_ramp())
    image = read_image(path, window="50,100")
    assert image.window == Window(50.0, 100.0, "user")
    assert np.array_equal(image.pixels[..., 0] == 255, gray_ramp() >= 100)
    for name in ("lung", "header"):
        with pytest.raises(InputError, match=f"'{name}'"):
            read_image(path, window=name)
    with pytest.raises(InputError, match="unknown"):
        read_image(path, window="liver")
    with pytest.raises(InputError, match="no slices"):
        read_image(path, slice_spec="axial:3")


def test_modality_is_what_the_user_says(tmp_path: Path) -> None:
    path = save_png(tmp_path / "a.png", gray_ramp())
    assert read_image(path, modality="mr").modality == "MRI"
    assert read_image(path, modality="Histology").modality == "Histology"


def test_sixteen_bits_take_three_windows_and_colours_do_not(tmp_path: Path) -> None:
    deep = np.linspace(0, 60_000, 600).reshape(20, 30).astype(np.uint16)
    image = read_image(save_png(tmp_path / "deep.png", deep), window="0,30000+percentile+30000,60000")
    assert image.window is not None and [c.name for c in image.window.channels] == [
        "user",
        "percentile 0.5-99.5",
        "user",
    ]
    assert image.pixels[0, 0].tolist() == [0, 0, 0] and image.pixels[10, 0, 0] == 255 > image.pixels[10, 0, 2]
    colour = save_png(tmp_path / "colour.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(InputError, match="takes one window"):
        read_image(colour, window="0,1+2,3+4,5")
    with pytest.raises(InputError, match="window 'bone' means nothing"):
        read_image(colour, window="0,1+bone+4,5")
