"""What DICOM files a folder holds: single images and segmentation objects, by their headers.

Nothing here repeats what a header says of the patient: identifiers become short hashes, and messages name files only.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ibisagent.engine.sources.sample import Fault
from ibisagent.errors import InputError
from ibisagent.io.files import display_name, reading

__all__ = ["DicomFiles", "DicomImage", "hashed", "index_dicom"]

SEGMENTATION_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""Segmentation Storage and Label Map Segmentation Storage."""

_SEGMENTATION = "a segmentation object"
"""Stands in a series' place for files that are no image."""

_TAGS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "PatientID",
    "Modality",
    "InstanceNumber",
    "NumberOfFrames",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "Rows",
)


def hashed(text: str, salt: str = "") -> str:
    """The first 12 hexadecimal digits of the SHA-256 of a salt and an identifier."""
    return hashlib.sha256(f"{salt}\0{text}".encode("utf-8", "surrogatepass")).hexdigest()[:12]


@dataclass(frozen=True, repr=False)
class DicomImage:
    """One single-frame image.

    Parameters
    ----------
    path
        The file.
    uid
        Its SOP Instance UID.
    modality
        As the header says, or empty.
    plane
        ``"axial"``, ``"coronal"``, ``"sagittal"``, or None without an orientation.
    position
        Along the slices' normal in mm, or the instance number where there is no position.
    place
        Image Position and Image Orientation (Patient), nine numbers, or None.
    """

    path: str
    uid: str
    modality: str
    plane: str | None
    position: float
    place: tuple[float, ...] | None = None


@dataclass(frozen=True, repr=False)
class DicomFiles:
    """The DICOM files of a folder.

    Parameters
    ----------
    series
        Series Instance UID -> its images in the order of their place in the stack.
    segmentations
        Files of segmentation objects, by path.
    multiframe
        SOP Instance UIDs of images with several frames, which are not read.
    faults
        Files that cannot be used.
    """

    series: dict[str, list[DicomImage]] = field(default_factory=dict)
    segmentations: list[Path] = field(default_factory=list)
    multiframe: set[str] = field(default_factory=set)
    faults: list[Fault] = field(default_factory=list)


def index_dicom(root: Path, source: str) -> DicomFiles:
    """Read the headers of all files below a folder; files that are no DICOM are passed over, unless they claim to be.

    Raises
    ------
    InputError
        If there is no such folder.
    """
    if not root.is_dir():
        raise InputError(f"{display_name(root)}: no such folder; give the folder with the series and its segmentations")
    files = DicomFiles()
    series: dict[str, dict[str, DicomImage]] = defaultdict(dict)
    for path in _paths(root):
        item = path.relative_to(root).as_posix()
        try:
            header = _header(path)
            found = None if header is None or path.name == "DICOMDIR" else _content(path, header)
        except InputError as exc:
            files.faults.append(Fault(source, item, "unreadable", str(exc)))
            continue
        if found is None:
            continue
        uid, image = found
        if uid == _SEGMENTATION:
            files.segmentations.append(path)
        elif isinstance(image, str):
            files.multiframe.add(image)
            message = f"{display_name(path)}: an image with several frames, which is not read; export it frame by frame"
            files.faults.append(Fault(source, item, "unreadable", message))
        elif image.uid in series[uid]:
            same = display_name(series[uid][image.uid].path)
            message = f"{display_name(path)}: the same image as {same}; remove one"
            files.faults.append(Fault(source, item, "duplicate_id", message))
        else:
            series[uid][image.uid] = image
    for uid, images in sorted(series.items()):
        files.series[uid] = sorted(images.values(), key=lambda image: (image.position, image.uid))
    return files


def _paths(root: Path) -> list[Path]:
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(folder) / name for name in names if not name.startswith(".")]
    return sorted(path for path in found if path.is_file())


def _header(path: Path) -> Any:
    """Elements of the header that matter; None if the file is no DICOM and does not claim to be.

    Raises
    ------
    InputError
        If it claims to be DICOM and is not.
    """
    import pydicom
    from pydicom.errors import InvalidDicomError

    claims = path.suffix.lower() in (".dcm", ".dicom")
    try:
        with reading(path, "a DICOM file"), open(path, "rb") as f:
            is_dicom = f.read(132)[128:] == b"DICM"
            if not is_dicom and not claims:
                return None
            f.seek(0)
            try:
                return pydicom.dcmread(f, stop_before_pixels=True, specific_tags=list(_TAGS), force=False)
            except InvalidDicomError:
                raise InputError(f"{display_name(path)}: no DICOM file by its content; remove or rename it") from None
    except InputError as exc:
        if exc.__cause__ is None:
            raise
        # a parser's own words may quote the header
        raise InputError(f"{display_name(path)}: damaged, or no DICOM file; export it again") from None


def _content(path: Path, header: Any) -> tuple[str, DicomImage | str] | None:
    """What a file is: (its series, the image), (its series, UID) of an image with several frames, or a segmentation.

    Values are converted when they are asked for, so it is here that a malformed one shows; what pydicom raises, or
    warns of, quotes it.

    Raises
    ------
    InputError
        If an element is malformed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if str(header.get("SOPClassUID")) in SEGMENTATION_CLASSES:
                return _SEGMENTATION, ""
            if header.get("Rows") is None:
                return None
            series = str(header.get("SeriesInstanceUID"))
            if int(header.get("NumberOfFrames") or 1) != 1:
                return series, str(header.get("SOPInstanceUID"))
            return series, _image(path, header)
        except Exception:  # whatever a malformed element makes pydicom raise
            message = f"{display_name(path)}: an element of its header is malformed; export it again"
            raise InputError(message) from None


def _image(path: Path, header: Any) -> DicomImage:
    """Describe an image; raises whatever pydicom raises for malformed elements."""
    uid, modality = str(header.get("SOPInstanceUID")), str(header.get("Modality") or "")
    cosines, origin = header.get("ImageOrientationPatient"), header.get("ImagePositionPatient")
    if cosines is None or len(cosines) != 6 or origin is None or len(origin) != 3:
        return DicomImage(str(path), uid, modality, None, float(header.get("InstanceNumber") or 0))
    place = tuple(float(v) for v in (*origin, *cosines))
    if not np.isfinite(place).all():
        raise ValueError("a place that is not finite")
    normal = np.cross(place[3:6], place[6:])
    plane = ("sagittal", "coronal", "axial")[int(np.abs(normal).argmax())]
    return DicomImage(str(path), uid, modality, plane, round(float(normal @ np.array(place[:3])), 4), place)
