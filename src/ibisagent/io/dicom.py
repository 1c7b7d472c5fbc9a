"""One single-frame DICOM file, shown as it is stored.

Values are rescaled (slope and intercept, or the modality look-up table) before windowing, so CT is in
Hounsfield units. ``MONOCHROME1`` is shown inverted: its recorded window has ``low > high``. Padding
pixels do not count for percentiles. The source index is (column, row, 0), and masks are written as PNG
on the stored grid.
"""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.errors import InputError
from ibisagent.geometry import Geometry
from ibisagent.io.code_streams import check_data_set
from ibisagent.io.dicom_elements import header_window, is_deflated, number, vector
from ibisagent.io.files import check_pixels, display_name, one_line, read_bytes, reading
from ibisagent.io.raster import gray_to_rgb
from ibisagent.io.windows import apply_window, canonical_modality, choose_window
from ibisagent.types import Image, Window

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["read_dicom"]

_NOUN = "a DICOM file"
_PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


def read_dicom(
    path: str | os.PathLike[str],
    *,
    window: str | None = None,
    modality: str | None = None,
    target: str | None = None,
    preferred_window: str | None = None,
) -> Image:
    """Read one DICOM file with one frame.

    Parameters
    ----------
    path
        The file, with or without the 128-byte preamble.
    window
        ``--window`` option (``header``: the file's first WindowCenter and WindowWidth), or None for the rule:
        for CT the target's, the body part's or soft tissue, none for plain 8-bit values, else the 0.5 to 99.5
        percentile.
    modality
        Overrides the file's Modality.
    target, preferred_window
        For the rule on CT: what is asked for, and what a policy wants instead.

    Raises
    ------
    InputError
        If the file is damaged, holds no picture or several, is too large, or is compressed in a way that no installed
        decoder reads.
    """
    where = display_name(path)
    data = read_bytes(path)
    with reading(path, _NOUN):
        ds = _parse(data, where)
        _check(ds, path)
        name = canonical_modality(modality) or canonical_modality(str(ds.get("Modality") or ""))
        geometry = _geometry(ds)
        photometric = str(ds.get("PhotometricInterpretation") or "MONOCHROME2").upper()
        stored = _decode(ds, where)
        record: Window | None
        if stored.ndim == 3 or photometric == "PALETTE COLOR":
            pixels, record = _colour(ds, stored, photometric, window, name, where)
        else:
            gray, record = _gray(ds, stored, photometric, window, name, where, target, preferred_window)
            pixels = gray_to_rgb(gray)
        # without its file's name, which often is a patient's: records take the last part of a source
        return Image(pixels=pixels, geometry=geometry, modality=name, window=record)


def _parse(data: bytes, where: str) -> Any:
    import pydicom

    has_preamble = data[128:132] == b"DICM"
    if has_preamble and is_deflated(io.BytesIO(data)):
        raise InputError(f"{where}: a deflated DICOM file, which is not supported; unpack it with dcmconv +te")
    return pydicom.dcmread(io.BytesIO(data), force=not has_preamble)


def _check(ds: Any, path: str | os.PathLike[str]) -> None:
    where = display_name(path)
    if not any(keyword in ds for keyword in _PIXEL_KEYWORDS):
        what = getattr(ds.get("SOPClassUID"), "name", None) or "no known class"
        raise InputError(f"{where}: no pixel data in this DICOM file ({one_line(what, 80)}); give an image file")
    frames = int(ds.get("NumberOfFrames") or 1)
    if frames != 1:
        raise InputError(f"{where}: {frames} frames in one DICOM file; export the frame you mean as a file of its own")
    if ds.get("Rows") is None or ds.get("Columns") is None:
        raise InputError(f"{where}: the DICOM header lacks Rows or Columns; export the image again")
    check_pixels(path, int(ds.Columns), int(ds.Rows))
    if int(ds.get("SamplesPerPixel") or 1) not in (1, 3):
        raise InputError(f"{where}: {ds.SamplesPerPixel} samples per pixel, not 1 or 3; export it as RGB or gray")


def _decode(ds: Any, where: str) -> NDArray[Any]:
    """Stored values (rows, columns) or RGB (rows, columns, 3)."""
    from pydicom.pixels.utils import pixel_array

    syntax = getattr(getattr(ds, "file_meta", None), "TransferSyntaxUID", None)
    if syntax is None:  # without file meta there is nothing but the raw default to assume
        from pydicom.dataset import FileMetaDataset
        from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

        if not hasattr(ds, "file_meta"):
            ds.file_meta = FileMetaDataset()
        implicit = ds.original_encoding[0]
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    try:
        check_data_set(ds)
        values = pixel_array(ds)
    except Exception as exc:
        if syntax is not None and getattr(syntax, "is_compressed", False):
            raise InputError(
                f"{where}: its pixels are compressed ({one_line(syntax.name, 80)}), and are damaged or no decoder for "
                "that is installed; decompress the file (gdcmconv --raw)"
            ) from exc
        raise
    if values.shape[:2] != (int(ds.Rows), int(ds.Columns)) or values.ndim > 3:
        raise ValueError(f"decoded to shape {values.shape}")
    return np.asarray(values)


def _gray(
    ds: Any,
    stored: NDArray[Any],
    photometric: str,
    window: str | None,
    modality: str | None,
    where: str,
    target: str | None,
    preferred_window: str | None,
) -> tuple[NDArray[np.uint8], Window | None]:
    from pydicom.pixels.processing import apply_modality_lut

    inverted = photometric == "MONOCHROME1"
    has_lut = bool(ds.get("ModalityLUTSequence"))
    slope, intercept = number(ds, "RescaleSlope", 1.0), number(ds, "RescaleIntercept", 0.0)
    if stored.dtype == np.uint8 and not has_lut and (slope, intercept) == (1.0, 0.0) and window is None:
        gray = 255 - stored if inverted else stored
        return gray, Window(255.0, 0.0, "none, inverted") if inverted else None
    values = np.asarray(apply_modality_lut(stored, ds)) if has_lut else stored * slope + intercept
    padding = number(ds, "PixelPaddingValue")
    counted = values if padding is None else values[stored != padding]
    chosen = choose_window(
        counted if counted.size else values,
        window,
        modality,
        header=header_window(ds),
        hounsfield=True,
        target=target,
        body_part=str(ds.get("BodyPartExamined") or ""),
        preferred=preferred_window,
        where=where,
    )
    if inverted:
        chosen = chosen.inverted()
    return apply_window(values, chosen), chosen


def _colour(
    ds: Any, stored: NDArray[Any], photometric: str, window: str | None, modality: str | None, where: str
) -> tuple[NDArray[np.uint8], Window | None]:
    from pydicom.pixels.processing import apply_color_lut

    if window is not None:
        raise InputError(f"{where}: a colour DICOM image takes no window; leave --window out")
    if photometric == "PALETTE COLOR":
        stored = np.asarray(apply_color_lut(stored, ds))[..., :3]
        if stored.dtype == np.uint16:  # the tables span 16 bits by definition
            return np.ascontiguousarray((stored >> 8).astype(np.uint8)), None
    if stored.dtype == np.uint8:
        return np.ascontiguousarray(stored), None
    chosen = choose_window(stored, "percentile", modality, where=where)
    return apply_window(stored, chosen), chosen


def _geometry(ds: Any) -> Geometry:
    """Stored grid, with its place in the patient where position, orientation and spacing are all given."""
    spacing = vector(ds, "PixelSpacing", 2)
    if spacing is not None and min(spacing) <= 0:
        spacing = None
    flat = Geometry.plane_2d(None if spacing is None else (spacing[0], spacing[1]))
    origin, cosines = vector(ds, "ImagePositionPatient", 3), vector(ds, "ImageOrientationPatient", 6)
    if spacing is None or origin is None or cosines is None:
        return flat
    along_row, along_column = np.array(cosines[:3]), np.array(cosines[3:])
    normal = np.cross(along_row, along_column)
    if np.linalg.norm(normal) < 0.5:
        return flat
    thickness = number(ds, "SliceThickness") or 1.0
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1] = along_row * spacing[1], along_column * spacing[0]
    lps[:3, 2], lps[:3, 3] = normal * thickness, origin
    ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps
    plane = ("sagittal", "coronal", "axial")[int(np.abs(normal).argmax())]
    return Geometry(
        spacing_mm=flat.spacing_mm,
        index_from_pixel=flat.index_from_pixel,
        affine=tuple(tuple(float(v) for v in row) for row in ras),
        plane=plane,
    )
