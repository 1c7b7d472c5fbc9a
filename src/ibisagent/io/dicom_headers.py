"""DICOM headers as frames: which files of a folder are images, and what is known of every frame before its pixels.

Nothing that a header says of the patient leaves this module but UIDs, which :class:`DicomFrame` does not show.
"""

from __future__ import annotations

import logging
import math
import os
import re
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import numpy as np

from ibisagent.errors import InputError
from ibisagent.io.dicom_elements import first_item, header_window, is_deflated, number, vector, words
from ibisagent.io.dicom_frames import DicomFrame, PixelFormat, Truncated, decoder_name, find_pixels
from ibisagent.io.files import MAX_VOLUME_BYTES, check_pixels, display_name, open_binary

__all__ = ["MAX_FILES", "Contents", "read_contents"]

MAX_FILES = 50_000
"""Most files of a folder that are looked at."""
MAX_FRAMES = 50_000
"""Most frames of one file: each costs a record, however few pixels it has."""

_NAMES = (".dcm", ".dicom", ".ima")
_DIRECTORY = "1.2.840.10008.1.3.10"
_NO_PICTURES = (
    "1.2.840.10008.5.1.4.1.1.66.4",  # Segmentation
    "1.2.840.10008.5.1.4.1.1.66.7",  # Label Map Segmentation
    "1.2.840.10008.5.1.4.1.1.4.2",  # MR Spectroscopy
    "1.2.840.10008.5.1.4.1.1.30",  # Parametric Map
    "1.2.840.10008.5.1.4.1.1.481.2",  # RT Dose
)
_TAGS = """
SOPClassUID SOPInstanceUID SeriesInstanceUID FrameOfReferenceUID SeriesNumber Modality NumberOfFrames Rows Columns
SamplesPerPixel PhotometricInterpretation BitsAllocated BitsStored HighBit PixelRepresentation PixelSpacing
ImagePositionPatient ImageOrientationPatient SliceThickness SpacingBetweenSlices RescaleSlope RescaleIntercept
RescaleType ModalityLUTSequence PixelPaddingValue WindowCenter WindowWidth VOILUTFunction BodyPartExamined EchoNumbers
EchoTime ImageType AcquisitionNumber TemporalPositionIdentifier TriggerTime DiffusionBValue AcquisitionTime KVP Units
FrameTime FrameTimeVector FrameIncrementPointer DetectorInformationSequence SharedFunctionalGroupsSequence
PerFrameFunctionalGroupsSequence AnatomicRegionSequence
""".split()
_UID_LIKE = re.compile(r"\d+(\.\d+){3,}|\^")


@dataclass(repr=False)
class Contents:
    """What a folder (or one file) holds.

    Parameters
    ----------
    frames
        Frames of gray images, in the order of the files' names.
    colour
        How many colour pictures there are.
    films
        How many files hold frames over time rather than slices.
    others
        Number of files that are no images, by kind (``"segmentation"``, ``"other DICOM object"``, ``"other file"``).
    labels
        What messages call each file.
    """

    frames: list[DicomFrame] = field(default_factory=list)
    colour: int = 0
    films: int = 0
    others: Counter[str] = field(default_factory=Counter)
    labels: dict[str, str] = field(default_factory=dict)


def read_contents(path: str | os.PathLike[str]) -> Contents:
    """Read the headers of a file, or of all files below a folder; no pixel is read.

    Raises
    ------
    InputError
        If there is no such path, a file that is DICOM by its content or name is damaged, truncated or compressed in a
        way that nothing installed reads, or nothing in a folder is DICOM.
    """
    root = Path(path)
    found = Contents()
    if not root.is_dir():
        found.labels[os.fspath(path)] = display_name(path)
        if not _read_file(os.fspath(path), display_name(path), True, found):
            raise InputError(f"{display_name(path)}: not a DICOM file by its content; check it or export it again")
        return found
    files = _paths(root)
    for ordinal, file in enumerate(files, 1):
        name = file.relative_to(root).as_posix()
        # folders in a study, and files named by UIDs, are named after patients
        if "/" in name or _UID_LIKE.search(name):
            name = f"file {ordinal} of {len(files)} by name"
        found.labels[os.fspath(file)] = f"{display_name(root)}: {display_name(name)}"
        _read_file(os.fspath(file), found.labels[os.fspath(file)], False, found)
    if not (found.frames or found.colour or found.films) and set(found.others) <= {"other file"}:
        raise InputError(f"{display_name(path)}: no DICOM file in this folder; give the folder of one study or series")
    return found


def _paths(root: Path) -> list[Path]:
    """All files below a folder in the order of their names, hidden ones left out."""
    found: list[Path] = []

    def fail(error: OSError) -> None:
        """A folder that cannot be listed may hold slices: it is no study without them."""
        raise InputError(f"{display_name(root)}: a folder in it cannot be read; make it readable") from error

    for folder, folders, names in os.walk(root, onerror=fail):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(folder) / name for name in names if not name.startswith(".")]
        if len(found) > MAX_FILES:
            raise InputError(f"{display_name(root)}: more than {MAX_FILES} files; give the folder of one study")
    return sorted(path for path in found if path.is_file())


def _read_file(path: str, label: str, alone: bool, found: Contents) -> bool:
    """Add one file; False if it is no DICOM and does not claim to be."""
    claims = path.lower().endswith(_NAMES) or alone
    try:
        handle = open_binary(path)
    except InputError as error:
        if alone or claims or not str(error).endswith("check where it came from"):
            raise InputError(f"{label}: {str(error).split(': ', 1)[-1]}") from None
        found.others["other file"] += 1  # an empty file that claims nothing
        return False
    with handle as f:
        head = f.read(132)
        has_preamble = head[128:] == b"DICM"
        # files without the preamble start with an element of group 2 or 8
        if not has_preamble and not (head[:2] in (b"\x02\x00", b"\x08\x00") and head[3:4] == b"\x00"):
            if claims and not alone:
                raise InputError(f"{label}: damaged, or no DICOM file in spite of its name; export or remove it")
            found.others["other file"] += 1
            return False
        log = logging.getLogger("pydicom")
        was_disabled, log.disabled = log.disabled, True
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                _read_open(f, path, label, has_preamble, found)
        except Truncated as error:
            raise InputError(f"{label}: {error}; copy or export it again") from None
        except InputError:
            raise
        except Exception:  # what malformed elements make pydicom raise quotes them
            if not has_preamble and not claims:
                found.others["other file"] += 1
                return False
            raise InputError(f"{label}: damaged, or an element of its header is malformed; export it again") from None
        finally:
            log.disabled = was_disabled
    return True


def _read_open(f: IO[bytes], path: str, label: str, has_preamble: bool, found: Contents) -> None:
    import pydicom

    if has_preamble and is_deflated(cast(BinaryIO, f)):
        raise InputError(f"{label}: a deflated DICOM file, which is not supported; unpack it with dcmconv +te")
    f.seek(0)
    ds = pydicom.dcmread(f, stop_before_pixels=True, specific_tags=list(_TAGS), force=not has_preamble)
    meta = getattr(ds, "file_meta", None)
    sop_class = ds.get("SOPClassUID") or (meta.get("MediaStorageSOPClassUID") if meta is not None else None)
    if sop_class is None:
        if has_preamble:
            raise Truncated("truncated or damaged: its header ends early")
        raise ValueError("no class")
    if str(sop_class) in _NO_PICTURES or str(sop_class) == _DIRECTORY or ds.get("Rows") is None:
        if str(sop_class) not in _NO_PICTURES and "Image Storage" in getattr(sop_class, "name", ""):
            raise Truncated("truncated or damaged: its header ends early")
        kind = "segmentation" if str(sop_class) in _NO_PICTURES[:2] else "other DICOM object"
        found.others[kind] += 1
        return
    if int(ds.get("SamplesPerPixel") or 1) != 1 or ds.get("PhotometricInterpretation") == "PALETTE COLOR":
        found.colour += max(int(ds.get("NumberOfFrames") or 1), 1)
        return
    if "MOSAIC" in words(ds, "ImageType") and not ds.get("PerFrameFunctionalGroupsSequence"):
        found.others["mosaic picture"] += 1  # Siemens: its place is that of no slice
        return
    pixels = _pixel_format(ds, meta, label)
    count = int(ds.get("NumberOfFrames") or 1)
    if not 0 < count <= MAX_FRAMES or count * pixels.num_bytes > MAX_VOLUME_BYTES:
        raise InputError(
            f"{label}: the header says {count} frames of {pixels.columns} x {pixels.rows} pixels, over the limit of "
            f"{MAX_FRAMES} frames or {MAX_VOLUME_BYTES / 2**30:g} GiB; export fewer frames"
        )
    undecodable = decoder_name(pixels.syntax)
    if undecodable is not None:
        raise InputError(
            f"{label}: its pixels are compressed ({undecodable}), and no decoder for that is installed; "
            "decompress the files first (gdcmconv --raw)"
        )
    pieces = find_pixels(f, pixels, count, bool(ds.original_encoding[0]))
    if ds.get("ModalityLUTSequence"):
        raise InputError(f"{label}: values by a look-up table, not by a slope, are not read as a volume; convert it")
    if count > 1 and _is_film(ds):
        found.films += 1
        return
    found.frames += _frames(ds, path, pixels, pieces)


def _pixel_format(ds: Any, meta: Any, label: str) -> PixelFormat:
    rows, columns = int(ds.Rows), int(ds.get("Columns") or 0)
    try:
        check_pixels(label, columns, rows)
    except InputError as error:
        raise InputError(f"{label}: {str(error).removeprefix(display_name(label) + ': ')}") from None
    allocated = int(ds.get("BitsAllocated") or 0)
    stored = int(ds.get("BitsStored") or allocated)
    if allocated not in (8, 16, 32) or not 1 <= stored <= allocated:
        raise InputError(f"{label}: {allocated} bits a pixel, not 8, 16 or 32; convert it")
    if int(number(ds, "HighBit", stored - 1)) != stored - 1:
        raise InputError(f"{label}: pixels whose bits are not the lowest ones (old DICOM) are not read; convert it")
    syntax = str(meta.get("TransferSyntaxUID") or "") if meta is not None else ""
    if not syntax:  # without file meta there is nothing but the raw defaults to assume
        is_implicit, is_little = ds.original_encoding
        syntax = "1.2.840.10008.1.2" if is_implicit else "1.2.840.10008.1.2.1" if is_little else "1.2.840.10008.1.2.2"
    return PixelFormat(
        rows=rows,
        columns=columns,
        allocated=allocated,
        stored=stored,
        is_signed=bool(int(ds.get("PixelRepresentation") or 0)),
        is_inverted=words(ds, "PhotometricInterpretation")[:1] == ("MONOCHROME1",),
        syntax=syntax,
    )


def _frames(ds: Any, path: str, pixels: PixelFormat, pieces: list[tuple[tuple[int, int], ...]]) -> list[DicomFrame]:
    """One record a frame; an element of a frame's own group counts before the shared one, and that before the file's.

    Raises whatever pydicom raises for malformed elements.
    """
    groups = ds.get("PerFrameFunctionalGroupsSequence") or []
    if groups and len(groups) < len(pieces):
        raise Truncated(f"truncated: {len(groups)} of {len(pieces)} frames are described")
    shared = first_item(ds, "SharedFunctionalGroupsSequence")
    detector = first_item(ds, "DetectorInformationSequence")  # nuclear medicine says it there
    between = number(ds, "SpacingBetweenSlices")
    thickness = number(ds, "SliceThickness")
    frames = []
    for index, piece in enumerate(pieces):
        own = groups[index] if groups else first_item(ds, "")

        def group(keyword: str, own: Any = own) -> Any:
            """The first item of a frame's own functional group, else of the shared one."""
            return first_item(own if own.get(keyword) else shared, keyword)

        measures, transformation = group("PixelMeasuresSequence"), group("PixelValueTransformationSequence")
        position = vector(group("PlanePositionSequence"), "ImagePositionPatient", 3)
        position = position or vector(ds, "ImagePositionPatient", 3) or vector(detector, "ImagePositionPatient", 3)
        orientation = vector(group("PlaneOrientationSequence"), "ImageOrientationPatient", 6)
        orientation = orientation or vector(ds, "ImageOrientationPatient", 6)
        orientation = _checked(orientation or vector(detector, "ImageOrientationPatient", 6))
        if len(pieces) > 1 and not groups:
            position = _counted_position(position, orientation, index, between or thickness)
        values = transformation if transformation.get("RescaleSlope") is not None else ds
        spacing = vector(measures, "PixelSpacing", 2) or vector(ds, "PixelSpacing", 2)
        slope, intercept = number(values, "RescaleSlope", 1.0), number(values, "RescaleIntercept", 0.0)
        if not (math.isfinite(slope) and math.isfinite(intercept) and slope != 0):
            raise ValueError("a rescale slope of zero")
        window = header_window(group("FrameVOILUTSequence")) or header_window(ds)
        between_frames = number(measures, "SpacingBetweenSlices", between)
        frames.append(
            DicomFrame(
                path=path,
                number=index + 1,
                instance=str(ds.get("SOPInstanceUID") or ""),
                series=str(ds.get("SeriesInstanceUID") or ""),
                space=str(ds.get("FrameOfReferenceUID") or ""),
                series_number=number(ds, "SeriesNumber", math.inf),
                modality="".join(words(ds, "Modality")[:1]),
                pixels=pixels,
                pieces=piece,
                slope=slope,
                intercept=intercept,
                position=position,
                orientation=orientation,
                spacing=spacing if spacing is not None and min(spacing) > 0 else None,
                thickness=_positive(number(measures, "SliceThickness", thickness)),
                between=between_frames if between_frames and math.isfinite(between_frames) else None,
                units="".join((words(ds, "Units") or words(values, "RescaleType"))[:1]),
                window=window,
                padding=_padding(ds, pixels),
                body_part=_body_part(ds, group("FrameAnatomySequence")),
                is_localizer="LOCALIZER" in words(ds, "ImageType"),
                parts=_parts(ds, group, len(pieces) > 1),
            )
        )
    return frames


def _is_film(ds: Any) -> bool:
    """Whether the frames of a file follow each other in time, and nothing says where each lies."""
    if ds.get("PerFrameFunctionalGroupsSequence"):
        return False
    pointers = ds.get("FrameIncrementPointer")
    tags = [] if pointers is None else [int(t) for t in (pointers if hasattr(pointers, "__iter__") else [pointers])]
    return any(tag in (0x00181063, 0x00181065) for tag in tags) or bool(ds.get("FrameTime") and not tags)


def _counted_position(
    first: tuple[float, ...] | None, orientation: tuple[float, ...] | None, index: int, step: float | None
) -> tuple[float, ...] | None:
    """Place of a frame of an older multi-frame file, which tells that of the first and the distance.

    Without an orientation it is counted along a third axis of its own; None without a distance.
    """
    if not step or not math.isfinite(step):
        return None
    if first is None or orientation is None:
        return 0.0, 0.0, index * abs(step)
    normal = np.cross(orientation[:3], orientation[3:])
    return tuple(float(v) for v in np.array(first) + index * step * normal / np.linalg.norm(normal))


def _checked(orientation: tuple[float, ...] | None) -> tuple[float, ...] | None:
    """Cosines as unit vectors; an orientation of zeros counts as none."""
    if orientation is None or not any(orientation):
        return None
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if max(abs(n - 1) for n in lengths) > 0.01 or abs(row @ column) > 0.01:
        raise ValueError("an orientation that is none")
    return tuple(float(v) for v in (*(row / lengths[0]), *(column / lengths[1])))


def _positive(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) and value > 0 else None


def _padding(ds: Any, pixels: PixelFormat) -> float | None:
    value = number(ds, "PixelPaddingValue")
    if value is None:
        return None
    low, high = pixels.limits
    # written as the other signedness by some
    for candidate in (value, value - 2**pixels.allocated, value + 2**pixels.allocated):
        if low <= candidate <= high:
            return float(candidate)
    return None


def _body_part(ds: Any, anatomy: Any) -> str:
    """Body part or anatomic region; free text that is no plain word is dropped."""
    region = first_item(anatomy if anatomy.get("AnatomicRegionSequence") else ds, "AnatomicRegionSequence")
    text = " ".join((words(ds, "BodyPartExamined") or words(region, "CodeMeaning"))[:1])
    return text.lower() if re.fullmatch(r"[A-Z][A-Z ,/_-]{0,39}", text) else ""


def _parts(ds: Any, group: Any, is_multiframe: bool) -> tuple[tuple[str, str], ...]:
    """What may tell the acquisitions of one series apart, in the order in which a user would name them."""
    content, echo = group("FrameContentSequence"), group("MREchoSequence")
    diffusion, heart = group("MRDiffusionSequence"), group("CardiacSynchronizationSequence")
    kinds = group("CTImageFrameTypeSequence"), group("MRImageFrameTypeSequence")
    kind = words(kinds[0], "FrameType") or words(kinds[1], "FrameType") or words(ds, "ImageType")
    values = {
        "echo": (echo.get("EffectiveEchoTime"), ds.get("EchoNumbers"), ds.get("EchoTime")),
        "time": (content.get("TemporalPositionIndex"), ds.get("TemporalPositionIdentifier")),
        "b-value": (diffusion.get("DiffusionBValue"), ds.get("DiffusionBValue")),
        "direction": (first_item(diffusion, "DiffusionGradientDirectionSequence").get("DiffusionGradientOrientation"),),
        "phase": (heart.get("NominalCardiacTriggerDelayTime"), ds.get("TriggerTime")),
        "voltage": (ds.get("KVP"),),
        "type": ("/".join((*kind, *words(kinds[1], "ComplexImageComponent"))),),
        "stack": (content.get("StackID"),),
        "acquisition": (content.get("FrameAcquisitionNumber"), ds.get("AcquisitionNumber")),
        "start": (ds.get("AcquisitionTime"),),
        "object": (ds.get("SOPInstanceUID") if is_multiframe else None,),
    }
    chosen = {name: next((v for v in found if v not in (None, "")), "") for name, found in values.items()}
    return tuple((name, str(value)) for name, value in chosen.items())
