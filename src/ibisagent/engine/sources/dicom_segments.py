"""One DICOM segmentation object: what it was drawn on, its structures by name, and their masks.

What highdicom and pydicom would say of a header is kept out of messages and logs.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.engine.sources.dicom_files import DicomImage
from ibisagent.engine.sources.label_map import LabelMap
from ibisagent.engine.sources.names import clean_name
from ibisagent.errors import InputError, MissingExtraError
from ibisagent.io.files import display_name, one_line, reading

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "highdicom_or_fail",
    "is_aligned_with",
    "open_segmentation",
    "planes_of",
    "quietly",
    "sources_of",
    "structures_of",
]


def highdicom_or_fail() -> Any:
    """The highdicom package.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    try:
        import highdicom
    except ImportError:
        raise MissingExtraError("reading DICOM-SEG", "data") from None
    return highdicom


@contextlib.contextmanager
def quietly(path: Path | str) -> Iterator[None]:
    """Turn what a decoder raises into one line, and keep it from logging and warning: none may repeat a header."""
    log = logging.getLogger("highdicom")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings(), reading(path, "a DICOM segmentation object"):
            warnings.simplefilter("ignore")
            yield
    except InputError as exc:
        if exc.__cause__ is None:  # our own words
            raise
        raise InputError(
            f"{display_name(path)}: damaged, or a kind of segmentation object that is not read; export it again"
        ) from None
    finally:
        log.setLevel(level)


def open_segmentation(path: Path) -> Any:
    """Open an object; its frames stay in the file.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    with quietly(path):
        try:
            state = path.stat()
        except OSError:
            raise InputError(f"{display_name(path)}: no such file; check the path") from None
        return _opened(str(path), state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=1)  # the slices of one object are read one after another
def _opened(path: str, _changed: int, _size: int) -> Any:
    return highdicom_or_fail().seg.segread(path, lazy_frame_retrieval=True)


def sources_of(segmentation: Any) -> dict[str, set[str]]:
    """Series Instance UID -> SOP Instance UIDs of the images that the object was drawn on."""
    found: dict[str, set[str]] = {}
    for _, series, image in segmentation.get_source_image_uids():
        found.setdefault(str(series), set()).add(str(image))
    return dict(sorted(found.items()))


def structures_of(segmentation: Any, labels: LabelMap | None) -> dict[str, tuple[int, ...]]:
    """Name -> segment numbers, by name; segments of one name are one structure."""
    numbers = [int(number) for number in segmentation.segment_numbers if int(number) != 0]
    if labels is not None:
        mine = {name: tuple(n for n in wanted if n in numbers) for name, wanted in labels.structures.items()}
        return {name: found for name, found in mine.items() if found}
    structures: dict[str, list[int]] = {}
    for number in numbers:
        structures.setdefault(_name(segmentation.get_segment_description(number)), []).append(number)
    return {name: tuple(found) for name, found in sorted(structures.items())}


def _name(segment: Any) -> str:
    """A segment's label, or where that says nothing ("Segment 1") the kind of structure that is coded for it."""
    label = one_line(str(segment.get("SegmentLabel") or "").replace("_", " "), 80)
    if not re.fullmatch(r"(?:(?:segment(?:ation)?|seg|label|region|roi|mask) ?)?[#\d .-]*", label, re.IGNORECASE):
        return clean_name(label)
    kind = segment.get("SegmentedPropertyTypeCodeSequence") or []
    if not kind:
        return clean_name(label) or f"segment {segment.SegmentNumber}"
    modifiers = kind[0].get("SegmentedPropertyTypeModifierCodeSequence") or []
    words = [str(item.get("CodeMeaning") or "") for item in (*modifiers, kind[0])]
    return clean_name(one_line(" ".join(words), 80)) or clean_name(label)


def is_aligned_with(segmentation: Any, images: list[DicomImage]) -> bool:
    """Whether every frame lies where the image lies that it was drawn on.

    Many objects do not say that pixels stayed where they were (SpatialLocationsPreserved); positions say it too.
    """
    places = {image.uid: image.place for image in images}
    shared = segmentation.get("SharedFunctionalGroupsSequence") or [{}]
    for frame in segmentation.get("PerFrameFunctionalGroupsSequence") or []:
        used = [
            source.ReferencedSOPInstanceUID
            for derivation in frame.get("DerivationImageSequence") or []
            for source in derivation.get("SourceImageSequence") or []
        ]
        position = frame.get("PlanePositionSequence")
        orientation = frame.get("PlaneOrientationSequence") or shared[0].get("PlaneOrientationSequence")
        if not position or not orientation:
            return False
        place = (*position[0].ImagePositionPatient, *orientation[0].ImageOrientationPatient)
        for uid in used:
            known = places.get(str(uid), ())
            if known is None or (known and not np.allclose([float(v) for v in place], known, rtol=0, atol=1e-2)):
                return False
    return True


def planes_of(segmentation: Any, uid: str, numbers: tuple[int, ...], is_aligned: bool, shown: str) -> NDArray[np.bool_]:
    """Masks (segments, H, W) of one image; segments without a frame there are empty.

    Raises
    ------
    InputError
        If the object does not say what lies where, or is damaged.
    """
    with quietly(shown):
        try:
            planes = segmentation.get_pixels_by_source_instance(
                [uid],
                segment_numbers=numbers,
                assert_missing_frames_are_empty=True,
                ignore_spatial_locations=is_aligned,
                skip_overlap_checks=True,
            )
        except RuntimeError:
            raise InputError(
                f"{shown}: it does not say which pixel of which image its frames lie on; export it with references "
                "to its source images"
            ) from None
    return np.ascontiguousarray(np.moveaxis(np.asarray(planes)[0] >= 0.5, -1, 0))
