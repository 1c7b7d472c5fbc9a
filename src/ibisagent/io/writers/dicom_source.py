"""What DICOM objects made from a series say about it: whose it is, and which instance each slice came from."""

from __future__ import annotations

import contextlib
import logging
import uuid
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.errors import InputError
from ibisagent.io.files import display_name, one_line, open_binary, reading
from ibisagent.io.volume import Volume

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "DicomSource",
    "Reference",
    "decimal",
    "derived_uid",
    "long_string",
    "new_uid",
    "quiet_pydicom",
    "read_source",
]

_IDENTITY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
    "StudyInstanceUID", "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber",
)  # fmt: skip
"""Attributes that every derived object must have; those the source lacks stay empty."""

_NAMES = frozenset(("PatientName", "PatientID", "StudyInstanceUID", "StudyID", "AccessionNumber"))
"""Those by which an archive files it: kept even where they break DICOM's rules."""

_COPIED = (
    "IssuerOfPatientID", "EthnicGroup", "PatientIdentityRemoved", "DeidentificationMethod",
    "DeidentificationMethodCodeSequence", "PatientSpeciesDescription", "PatientBreedDescription", "ResponsiblePerson",
    "ResponsiblePersonRole", "StudyDescription", "PatientAge", "PatientSize", "PatientWeight",
    "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod",
)  # fmt: skip
"""Optional attributes that go along where the source has valid ones."""

_SINGLE_FRAME_CLASSES = frozenset(f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("2", "4", "128"))
"""CT, MR and PET images; some writers put a number of frames into them all the same."""

_NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "NumberOfFrames")
_GEOMETRY = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")


@dataclass(frozen=True)
class Reference:
    """One slice of the source.

    Parameters
    ----------
    sop_class, instance
        SOP Class UID and SOP Instance UID of its file.
    frame
        Frame number in a multi-frame file, from 1; None for a file that is one image.
    """

    sop_class: str
    instance: str
    frame: int | None = None


@dataclass(frozen=True, eq=False)
class DicomSource:
    """The series that a mask was drawn on.

    Parameters
    ----------
    header
        pydicom data set with patient, study, SeriesInstanceUID, SeriesNumber, Modality and FrameOfReferenceUID: valid
        values only, but for the identity, which is kept as it is.
    references
        The frame of every index along the volume's third axis.
    orientation
        ImageOrientationPatient of all frames, six decimal strings.
    positions
        ImagePositionPatient (LPS mm) of every frame as its header says it.
    pixel_spacing
        Row and column spacing in mm.
    slice_spacing
        Distance between neighbouring slices along their normal in mm.
    """

    header: Any
    references: tuple[Reference, ...]
    orientation: tuple[str, ...]
    positions: tuple[tuple[str, ...], ...]
    pixel_spacing: tuple[str, ...]
    slice_spacing: float


def read_source(volume: Volume) -> DicomSource:
    """Read what a derived object must repeat; no pixels are read.

    Parameters
    ----------
    volume
        A volume of the kind ``"DICOM"``: axis 0 along the rows of the frames, axis 1 down their columns.

    Raises
    ------
    InputError
        If the volume is not from DICOM, or its files are gone, damaged or no longer those that it was read from.
    """
    if volume.kind != "DICOM" or not volume.frames:
        raise InputError(f"{display_name(volume.source)}: a {volume.kind} source; DICOM masks need a DICOM source")
    with quiet_pydicom():
        where = display_name(volume.source)
        first = _read(volume.frames[0].path, where)
        header = _clean(volume.header if volume.header is not None else first, first)
        seen: dict[str, Any] = {volume.frames[0].path: first}
        references: list[Reference] = []
        positions: list[NDArray[np.float64]] = []
        between = volume.grid.lps_matrix[:3, 2]
        orientation, spacing = _axes(volume)
        for k, frame in enumerate(volume.frames):
            ds = seen.get(frame.path)
            if ds is None:
                ds = seen[frame.path] = _read(frame.path, where)
            if (ds.StudyInstanceUID, ds.SeriesInstanceUID) != (header.StudyInstanceUID, header.SeriesInstanceUID):
                raise InputError(f"{where}: changed since the series was read; run again")
            # a multi-frame object may hold a single frame, and must then be referred to with its number all the same
            is_multi = "NumberOfFrames" in ds and ds.SOPClassUID not in _SINGLE_FRAME_CLASSES
            references.append(
                Reference(str(ds.SOPClassUID), str(ds.SOPInstanceUID), frame.number if is_multi else None)
            )
            place = _numbers(ds, "ImagePositionPatient", 3)
            if is_multi or place is None:
                place = volume.grid.lps_mm((0, 0, k))
            if k == 0 and not is_multi and (stated := _stated_axes(ds, orientation, spacing)) is not None:
                orientation, spacing = stated
            positions.append(place)
            # slices may lie a little unevenly, but each where it lay when the volume was read: above the one before it
            step = place - (positions[k - 1] if k else volume.grid.lps_mm((0, 0, -1)))
            if np.abs(step - between).max() > 0.05 * np.linalg.norm(between) + 0.02:
                raise InputError(f"{where}: changed since the series was read; run again")
    columns = volume.grid.lps_matrix[:3, :3]
    normal = np.cross(columns[:, 0], columns[:, 1])
    return DicomSource(
        header,
        tuple(references),
        tuple(decimal(v) for v in orientation),
        tuple(tuple(decimal(v) for v in place) for place in positions),
        tuple(decimal(v) for v in spacing),
        abs(float(normal @ columns[:, 2] / np.linalg.norm(normal))),
    )


def decimal(value: float) -> str:
    """A number as a DICOM decimal string (at most 16 characters)."""
    from pydicom.valuerep import format_number_as_ds

    return format_number_as_ds(float(value) + 0.0)  # no negative zero


def long_string(text: str) -> str:
    """Any text as a DICOM long string: one line, without the sign that separates values, of at most 64 bytes.

    The standard counts characters, but programs that check files count bytes.
    """
    line = one_line(text.replace("\\", "/"), 200).encode("utf-8", "replace")
    return (line if len(line) <= 64 else line[:61] + b"...").decode("utf-8", "ignore")


def new_uid() -> str:
    """A UID that nobody has used."""
    return f"2.25.{uuid.uuid4().int}"


def derived_uid(*parts: str) -> str:
    """A UID that the same parts always give."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, chr(0).join(parts)).int}"


@contextlib.contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Keep pydicom's and highdicom's remarks about values to themselves: the values may be a patient's."""
    loggers = [logging.getLogger(name) for name in ("pydicom", "highdicom")]
    was_disabled = [logger.disabled for logger in loggers]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.disabled = True
            logger.setLevel(logging.CRITICAL + 1)  # highdicom logs through loggers below its own
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, disabled, level in zip(loggers, was_disabled, levels, strict=True):
            logger.disabled = disabled
            logger.setLevel(level)


def _read(path: str, where: str) -> Any:
    """The elements that are of use. Messages name the study, `where`: its files are often named after patients."""
    import pydicom

    try:
        f = open_binary(path)
    except InputError as error:
        raise InputError(f"{where}: one of its files: {str(error).rpartition(': ')[2]}") from None
    with f, reading(where, "a DICOM series"):
        tags = [*_NEEDED, *_GEOMETRY, *_IDENTITY, *_COPIED]
        tags += [
            "SpecificCharacterSet",
            "FrameOfReferenceUID",
            "SeriesNumber",
            "Modality",
            "PositionReferenceIndicator",
        ]
        ds = pydicom.dcmread(f, stop_before_pixels=True, force=True, specific_tags=tags)
        missing = [keyword for keyword in _NEEDED[:4] if not ds.get(keyword)]
        if missing:
            raise InputError(f"{where}: the DICOM header lacks {missing[0]}; a mask cannot refer to it")
        return ds


def _clean(header: Any, first: Any) -> Any:
    """What derived objects copy: the identity as it is, optional values where they are valid."""
    from pydicom.dataset import Dataset
    from pydicom.uid import UID

    ds = Dataset()
    # UTF-8 holds whatever the source's names and the segment's need; pydicom converts names when it writes them
    ds.SpecificCharacterSet = "ISO_IR 192"
    for keyword in _IDENTITY:
        value = header.get(keyword)
        keep = value is not None and (keyword in _NAMES or _is_valid(header, keyword))
        setattr(ds, keyword, value if keep else "")
    for keyword in _COPIED:
        # nobody weighs nothing: a zero stands for what was not entered
        if header.get(keyword) not in (None, "", 0) and _is_valid(header, keyword):
            setattr(ds, keyword, header.get(keyword))
    if ds.get("PatientIdentityRemoved") == "YES" and not any(k in ds for k in _COPIED if k.startswith("Deident")):
        ds.DeidentificationMethod = "not said by the source"  # one must be there
    ds.SeriesInstanceUID, ds.StudyInstanceUID = first.SeriesInstanceUID, first.StudyInstanceUID
    ds.Modality = str(header.get("Modality") or "OT")
    try:
        ds.SeriesNumber = int(header.get("SeriesNumber") or 0)
    except (TypeError, ValueError):
        ds.SeriesNumber = 0
    frame = str(header.get("FrameOfReferenceUID") or "")
    # without one nothing would say that mask and source share a space; all masks of the series get the same
    ds.FrameOfReferenceUID = frame if UID(frame).is_valid else derived_uid(str(first.SeriesInstanceUID), "frame")
    indicator = header.get("PositionReferenceIndicator")
    ds.PositionReferenceIndicator = indicator if indicator and _is_valid(header, "PositionReferenceIndicator") else ""
    return ds


def _is_valid(header: Any, keyword: str) -> bool:
    from pydicom import config
    from pydicom.valuerep import validate_value

    element = header[keyword]
    values = element.value if element.VM > 1 else [element.value]
    try:
        for value in values:
            if isinstance(value, str):
                validate_value(element.VR, value, config.RAISE)
        if element.VR in ("DS", "IS"):
            [float(value) for value in values]
    except (ValueError, TypeError):
        return False
    return True


def _axes(volume: Volume) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Row and column directions (six cosines) and (row, column) spacing in mm of the grid."""
    columns = volume.grid.lps_matrix[:3, :2]
    sizes = np.sqrt((columns**2).sum(axis=0))
    return (columns / sizes).T.ravel(), sizes[::-1]


def _stated_axes(
    ds: Any, orientation: NDArray[np.float64], spacing: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """The header's own numbers for the grid's, which differ from them by rounding only; None if they do not agree."""
    directions, sizes = _numbers(ds, "ImageOrientationPatient", 6), _numbers(ds, "PixelSpacing", 2)
    if directions is None or sizes is None:
        return None
    agree = np.allclose(directions, orientation, atol=1e-3) and np.allclose(sizes, spacing, rtol=1e-3)
    return (directions, sizes) if agree else None


def _numbers(ds: Any, keyword: str, size: int) -> NDArray[np.float64] | None:
    value = ds.get(keyword)
    if value is None or isinstance(value, str) or len(value) != size:
        return None
    return np.array([float(v) for v in value])
