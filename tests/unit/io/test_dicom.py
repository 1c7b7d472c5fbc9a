"""Single DICOM files: rescaling, windows, photometric interpretations, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from io_samples import gray_ramp, make_dicom

from ibisagent.errors import InputError
from ibisagent.io import mask_filename, read_image, read_mask, write_mask
from ibisagent.types import Window

STORED = np.arange(600, dtype=np.int16).reshape(20, 30) * 4  # 0 … 2396
RESCALE: dict[str, Any] = {"RescaleSlope": 1, "RescaleIntercept": -1024}


def test_ct_is_shown_in_hounsfield_units_and_soft_tissue(tmp_path: Path) -> None:
    image = read_image(make_dicom(tmp_path / "DOE^JANE.dcm", STORED, **RESCALE))
    assert image.source == ""  # records and pages take names of files from there
    assert image.modality == "CT" and image.window == Window(-160, 240, "soft tissue")
    expected = np.floor(np.clip((STORED - 1024.0 + 160) / 400, 0, 1) * 255 + 0.5)
    assert np.array_equal(image.pixels[..., 0], expected)


def test_malformed_elements_are_not_quoted(tmp_path: Path) -> None:
    path = make_dicom(tmp_path / "a.dcm", STORED, **RESCALE)
    path.write_bytes(path.read_bytes().replace(b"-1024", b"DOE^J"))
    with pytest.raises(InputError, match=r"a.dcm: damaged or not a DICOM file \(ValueError\)"):
        read_image(path)


def test_windows(tmp_path: Path) -> None:
    path = make_dicom(tmp_path / "a.dcm", STORED, WindowCenter=[50, 300], WindowWidth=[400, 1500], **RESCALE)
    windows = {name: read_image(path, window=name).window for name in ("lung", "header", "-5,5")}
    assert windows == {
        "lung": Window(-910, 590, "lung"),
        "header": Window(-150, 249, "header"),
        "-5,5": Window(-5, 5, "user"),
    }
    exact = make_dicom(tmp_path / "e.dcm", STORED, WindowCenter=50, WindowWidth=400, VOILUTFunction="LINEAR_EXACT")
    assert read_image(exact, window="header").window == Window(-150, 250, "header")
    with pytest.raises(InputError, match="proposes no"):
        read_image(make_dicom(tmp_path / "n.dcm", STORED), window="header")


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    plain = read_image(make_dicom(tmp_path / "2.dcm", STORED, Modality="DX"))
    inverted = read_image(
        make_dicom(tmp_path / "1.dcm", STORED, Modality="DX", PhotometricInterpretation="MONOCHROME1")
    )
    assert plain.modality == "X-ray" and plain.window is not None and inverted.window is not None
    assert (inverted.window.low, inverted.window.high) == (plain.window.high, plain.window.low)
    assert np.abs(255 - plain.pixels.astype(int) - inverted.pixels).max() <= 1
    eight = make_dicom(tmp_path / "8.dcm", gray_ramp(), Modality="OT", PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(read_image(eight).pixels[..., 0], 255 - gray_ramp())


def test_other_modalities_use_percentiles_and_8_bit_stays(tmp_path: Path) -> None:
    image = read_image(make_dicom(tmp_path / "a.dcm", STORED, Modality="MR"))
    assert image.modality == "MRI" and image.window is not None and image.window.name == "percentile 0.5-99.5"
    eight = read_image(make_dicom(tmp_path / "8.dcm", gray_ramp(), Modality="US"))
    assert eight.window is None and np.array_equal(eight.pixels[..., 2], gray_ramp())
    assert read_image(tmp_path / "8.dcm", modality="CT").modality == "CT"


def test_padding_does_not_count(tmp_path: Path) -> None:
    padded = STORED.copy()
    padded[:10] = -32768
    image = read_image(make_dicom(tmp_path / "a.dcm", padded, Modality="MR", PixelPaddingValue=-32768))
    assert image.window is not None and image.window.low > 1000
    assert not image.pixels[:10].any()


def test_colour_and_palette(tmp_path: Path) -> None:
    rgb = np.stack([gray_ramp(), gray_ramp() // 2, 255 - gray_ramp()], axis=2)
    path = make_dicom(tmp_path / "a.dcm", rgb, Modality="XC")
    assert np.array_equal(read_image(path).pixels, rgb)
    with pytest.raises(InputError, match="no window"):
        read_image(path, window="lung")
    tables = {}
    for channel, step in (("Red", 1), ("Green", 128), ("Blue", 257)):
        tables[f"{channel}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        tables[f"{channel}PaletteColorLookupTableData"] = (np.arange(256) * step).astype("<u2").tobytes()
    palette = make_dicom(tmp_path / "p.dcm", gray_ramp(), PhotometricInterpretation="PALETTE COLOR", **tables)
    pixels = read_image(palette).pixels
    assert np.array_equal(pixels[..., 2], gray_ramp()) and np.array_equal(pixels[..., 1], gray_ramp() // 2)
    assert not pixels[..., 0].any()


def test_geometry_in_the_patient(tmp_path: Path) -> None:
    path = make_dicom(
        tmp_path / "a.dcm",
        STORED,
        PixelSpacing=[0.5, 0.75],
        ImagePositionPatient=[-100, -120, 40],
        ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        SliceThickness=3,
    )
    geometry = read_image(path).geometry
    assert geometry.spacing_mm == (0.5, 0.75) and geometry.plane == "axial" and geometry.volume_shape is None
    assert geometry.world_mm(0, 0) == (100, 120, 40)
    assert geometry.world_mm(4, 2) == (97, 119, 40)  # LPS x grows to the left, RAS to the right
    assert read_image(make_dicom(tmp_path / "b.dcm", STORED)).geometry.affine is None


def test_without_preamble(tmp_path: Path) -> None:
    with_it = read_image(make_dicom(tmp_path / "a.dcm", STORED, **RESCALE))
    without = read_image(make_dicom(tmp_path / "b.dcm", STORED, preamble=False, **RESCALE))
    assert with_it.sha256 == without.sha256


def test_run_length_compression(tmp_path: Path) -> None:
    import pydicom
    from pydicom.uid import RLELossless

    ds = pydicom.dcmread(make_dicom(tmp_path / "a.dcm", STORED, **RESCALE))
    ds.compress(RLELossless, generate_instance_uid=False)
    ds.save_as(tmp_path / "rle.dcm")
    assert read_image(tmp_path / "rle.dcm").sha256 == read_image(tmp_path / "a.dcm").sha256


def test_jpeg_compression(tmp_path: Path) -> None:
    import io

    import PIL.Image
    import pydicom
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEGBaseline8Bit

    smooth = np.repeat(np.arange(100, 180, 4, dtype=np.uint8)[:, None], 30, axis=1)
    buffer = io.BytesIO()
    PIL.Image.fromarray(smooth).save(buffer, format="JPEG", quality=95)
    ds = pydicom.dcmread(make_dicom(tmp_path / "a.dcm", smooth, Modality="US"))
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    ds.PixelData = encapsulate([buffer.getvalue()])
    ds["PixelData"].is_undefined_length = True
    ds.save_as(tmp_path / "jpeg.dcm")
    assert np.abs(read_image(tmp_path / "jpeg.dcm").pixels[..., 0].astype(int) - smooth).max() <= 4


def test_compression_without_decoder_is_named(tmp_path: Path) -> None:
    import pydicom
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEGLSLossless

    ds = pydicom.dcmread(make_dicom(tmp_path / "a.dcm", STORED))
    ds.file_meta.TransferSyntaxUID = JPEGLSLossless
    ds.PixelData = encapsulate([b"\xff\xd8\xff\xf7" + bytes(60)])
    ds["PixelData"].is_undefined_length = True
    ds.save_as(tmp_path / "jls.dcm")
    with pytest.raises(InputError, match=r"JPEG-LS.*decompress"):
        read_image(tmp_path / "jls.dcm")


def test_deflated_files_are_refused_before_inflating(tmp_path: Path) -> None:
    import pydicom
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    ds = pydicom.dcmread(make_dicom(tmp_path / "a.dcm", STORED))
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    ds.save_as(tmp_path / "d.dcm")
    with pytest.raises(InputError, match="deflated"):
        read_image(tmp_path / "d.dcm")


@pytest.mark.parametrize(
    "elements, words",
    [
        ({"PixelData": None}, "no pixel data.*CT Image Storage"),
        ({"NumberOfFrames": 7}, "7 frames"),
        ({"Rows": None}, "lacks Rows"),
        ({"Rows": 65535, "Columns": 65535}, "over the limit"),
        ({"Rows": 40}, "damaged"),
        ({"SamplesPerPixel": 4}, "samples per pixel"),
        ({"BitsAllocated": 12}, "damaged"),
    ],
)
def test_what_is_refused(tmp_path: Path, elements: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_image(make_dicom(tmp_path / "a.dcm", STORED, **elements))


def test_empty_rescale_elements_mean_none(tmp_path: Path) -> None:
    path = make_dicom(tmp_path / "a.dcm", STORED, RescaleSlope="", RescaleIntercept="", Modality="MR")
    assert read_image(path, window="0,2396").pixels[-1, -1, 0] == 255


def test_masks_of_dicom_images_are_png_on_the_stored_grid(tmp_path: Path) -> None:
    image = read_image(make_dicom(tmp_path / "a.dcm", STORED))
    mask = STORED > 900
    assert mask_filename(image) == "mask.png"
    write_mask(mask, image, tmp_path / "m.png")
    assert np.array_equal(read_mask(tmp_path / "m.png", image), mask)
    with pytest.raises(InputError, match="DICOM masks"):
        read_mask(tmp_path / "a.dcm", image)


def test_a_ct_is_shown_by_target_and_body_part(tmp_path: Path) -> None:
    stored = np.arange(600, dtype=np.uint16).reshape(20, 30)
    path = make_dicom(tmp_path / "ct.dcm", stored, BodyPartExamined="HEAD", RescaleSlope=1, RescaleIntercept=-100)
    assert read_image(path).window == Window(0, 80, "brain (body part)")
    assert read_image(path, target="the left rib").window == Window(-500, 1300, "bone (target)")
    inverted = make_dicom(tmp_path / "inverted.dcm", stored, PhotometricInterpretation="MONOCHROME1")
    window = read_image(inverted, window="lung+brain+0,100").window
    assert window is not None and window.name == "lung + brain + user, inverted"
    assert [(c.low, c.high) for c in window.channels] == [(590, -910), (80, 0), (100, 0)]
