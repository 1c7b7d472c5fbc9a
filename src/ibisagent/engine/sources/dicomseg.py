"""DICOM series with DICOM-SEG objects, as slices: ``dicomseg:DIR?slices=4``.

The folder may hold any number of patients, studies and series, in any folders. Each segmentation object gives slices
of the series that it was drawn on, chosen as for other volumes (:mod:`ibisagent.engine.sources.slices`) and shown as
:func:`ibisagent.io.images.read_image` shows a DICOM file. Reading is highdicom's
(``Segmentation.get_pixels_by_source_instance``), so binary, fractional (from one half on) and label map objects work;
one that does not say which image each of its frames lies on, and where, is refused.

Identifiers stay where they are: a group is a hash of the Patient ID, a key is made of hashes, and no message repeats
what a header says. Faults do name files, so name folders without identifiers.

Without ``salt_env`` the hashes are not salted: whoever can guess a Patient ID can check the guess. With
``salt_env=NAME`` the environment variable NAME holds a secret text that goes into every hash. Only the variable's name
is in the spec, which reports repeat; keep the secret, because another one makes other groups, and so other splits.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.engine.sources.dicom_files import DicomImage, hashed, index_dicom
from ibisagent.engine.sources.dicom_segments import (
    highdicom_or_fail,
    is_aligned_with,
    open_segmentation,
    planes_of,
    quietly,
    sources_of,
    structures_of,
)
from ibisagent.engine.sources.label_map import LabelMap, read_label_map
from ibisagent.engine.sources.options import COMMON, CommonOptions, Options
from ibisagent.engine.sources.sample import Fault, FaultCode, LabelledImage, Sample
from ibisagent.engine.sources.slices import choose_slices
from ibisagent.errors import InputError
from ibisagent.io.files import display_name
from ibisagent.io.images import read_image
from ibisagent.io.windows import canonical_modality, parse_window

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["DicomSegReader", "DicomSegSource"]

MIN_AREA = 64
"""Pixels from which on a segment counts as shown on a slice, where the option does not say."""

SLICES = 4
"""Slices of a segmentation object, where the option does not say."""


@dataclass(frozen=True, repr=False)
class DicomSegReader:
    """Reads one image of a series and its segments.

    Parameters
    ----------
    source, key
        Names for faults; the key also stands for the image's source, whose path may name a patient.
    image, uid
        The image file and its SOP Instance UID.
    segmentation
        File of the segmentation object.
    structures
        (name, its segment numbers) of every mask that is promised.
    is_aligned
        Whether the object's frames lie where their images lie.
    window, modality
        As :func:`ibisagent.io.images.read_image` takes them.
    """

    source: str
    key: str
    image: str
    uid: str
    segmentation: str
    structures: tuple[tuple[str, tuple[int, ...]], ...]
    is_aligned: bool = False
    window: str | None = None
    modality: str | None = None

    def __call__(self) -> LabelledImage:
        """Read the image; segments that cannot be used become faults.

        Raises
        ------
        InputError
            If the image cannot be read.
        """
        image = read_image(self.image, window=self.window, modality=self.modality)
        image = dataclasses.replace(image, source=self.key)
        numbers = tuple(sorted({number for _, mine in self.structures for number in mine}))
        shown = display_name(self.segmentation)
        code: FaultCode = "unreadable"
        masks: dict[str, NDArray[np.bool_]] = {}
        faults: list[Fault] = []
        try:
            planes = planes_of(open_segmentation(Path(self.segmentation)), self.uid, numbers, self.is_aligned, shown)
            if planes.shape[1:] != (image.height, image.width):
                code = "size_mismatch"
                raise InputError(
                    f"{shown}: its frames are {planes.shape[2]} x {planes.shape[1]} pixels, but the image is "
                    f"{image.width} x {image.height}; export it on the image's grid"
                )
        except InputError as exc:
            return LabelledImage(image, {}, tuple(self._fault(name, code, str(exc)) for name, _ in self.structures))
        for name, mine in self.structures:
            mask = np.ascontiguousarray(planes[[numbers.index(number) for number in mine]].any(axis=0))
            if mask.any():
                masks[name] = mask
            else:
                faults.append(self._fault(name, "empty_mask", f"{shown}: no pixel of '{name}' there; it has changed"))
        return LabelledImage(image, masks, tuple(faults))

    def _fault(self, name: str, code: FaultCode, message: str) -> Fault:
        return Fault(self.source, f"{self.key} {name}", code, message)


@dataclass(frozen=True)
class DicomSegSource:
    """Slices of DICOM series with segmentation objects.

    Parameters
    ----------
    root
        Folder of the files.
    common
        Options that all sources know.
    labels
        Segment number -> name, in place of the objects' own names, or None.
    num_slices, min_area
        Which slices: see :func:`ibisagent.engine.sources.slices.choose_slices`.
    exhaustive
        Whether each segment is drawn wherever its structure is, so that one that a slice does not show is absent.
    window
        As :func:`ibisagent.io.images.read_image` takes it.
    salt
        Secret text that goes into every hash; with it, nobody can try Patient IDs until a hash fits. Empty is none.
    """

    root: Path
    common: CommonOptions
    labels: LabelMap | None = None
    num_slices: int = SLICES
    min_area: int = MIN_AREA
    exhaustive: bool = True
    window: str | None = None
    salt: str = field(default="", repr=False)
    name: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.common.name)

    @classmethod
    def from_spec(cls, path: str, options: dict[str, str]) -> DicomSegSource:
        """Open a folder.

        Parameters
        ----------
        path
            The folder.
        options
            ``labels`` (file with segment number -> name), ``slices`` (of an object), ``min_area`` (pixels),
            ``exhaustive`` (1 or 0), ``window``, ``salt_env`` (environment variable with the secret of the
            hashes), and ``name``, ``modality``, ``licence``, ``split``.

        Raises
        ------
        InputError
            If an option is wrong, there is no such folder, the environment variable is not set, or highdicom is not
            installed.
        """
        extra = ("labels", "slices", "min_area", "exhaustive", "window", "salt_env")
        common_names = tuple(name for name in COMMON if name in ("name", "modality", "licence", "split"))
        read = Options("dicomseg", options, extra, common_names)
        root = Path(path).absolute()  # workers may run in another folder
        if not root.is_dir():
            raise InputError(f"{display_name(root)}: no such folder; give the one with the series and segmentations")
        highdicom_or_fail()
        window = read.text("window")
        if window is not None:
            parse_window(window)
        labels = read.path("labels")
        common = read.common(root.name or "dicomseg")
        return cls(
            root=root,
            common=dataclasses.replace(common, modality=canonical_modality(common.modality)),
            labels=None if labels is None else read_label_map(labels),
            num_slices=read.integer("slices", SLICES, least=1),
            min_area=read.integer("min_area", MIN_AREA, least=1),
            exhaustive=read.flag("exhaustive", default=True),
            window=window,
            salt=_secret(read.text("salt_env")),
        )

    def samples(self) -> Iterator[Sample | Fault]:
        """Slices, object by object in the order of their files.

        Raises
        ------
        InputError
            If the folder holds no segmentation object.
        """
        files = index_dicom(self.root, self.name)
        if not files.segmentations:
            raise InputError(f"{display_name(self.root)}: no DICOM segmentation object below it; check the folder")
        yield from files.faults
        seen: set[str] = set()
        for path in files.segmentations:
            item = path.relative_to(self.root).as_posix()
            try:
                segmentation = open_segmentation(path)
                with quietly(path):
                    own, group = self._hashes(segmentation)
                    by_series = sources_of(segmentation)
            except InputError as exc:
                yield Fault(self.name, item, "unreadable", str(exc))
                continue
            if own in seen:
                message = f"{display_name(path)}: a copy of a segmentation object that was read already; remove one"
                yield Fault(self.name, item, "duplicate_id", message)
                continue
            seen.add(own)
            images = [image for series in by_series for image in files.series.get(series, ())]
            several = set().union(*by_series.values()) & files.multiframe
            if several:
                message = f"{display_name(path)}: {len(several)} of the images that it was drawn on have several frames"
                yield Fault(self.name, item, "missing_image", f"{message}; export both frame by frame")
                by_series = {series: mine - several for series, mine in by_series.items()}
                if not any(by_series.values()):
                    continue
            yield from self._slices(path, item, segmentation, images, by_series, f"{group}/{own}")

    def _hashes(self, segmentation: Any) -> tuple[str, str]:
        patient = str(segmentation.get("PatientID") or segmentation.get("StudyInstanceUID"))
        return hashed(str(segmentation.SOPInstanceUID), self.salt), hashed(patient, self.salt)

    def _slices(
        self,
        path: Path,
        item: str,
        segmentation: Any,
        images: list[DicomImage],
        by_series: dict[str, set[str]],
        stem: str,
    ) -> Iterator[Sample | Fault]:
        """Samples of one object; `stem` is the hashes of its patient and its own."""
        shown = display_name(path)
        drawn_on = set().union(*by_series.values())
        missing = len(drawn_on - {image.uid for image in images})
        if missing:
            message = (
                f"{shown}: {missing} of the {len(drawn_on)} images that it was drawn on are not there, or unreadable"
            )
            yield Fault(self.name, item, "missing_image", f"{message}; add them below the folder")
        if not images:
            if not missing:
                message = f"{shown}: it does not say which single-frame images it was drawn on; it cannot be used"
                yield Fault(self.name, item, "missing_image", message)
            return
        try:
            with quietly(path):
                structures = structures_of(segmentation, self.labels)
                is_aligned = is_aligned_with(segmentation, images)
            numbers = tuple(sorted(number for mine in structures.values() for number in mine))
            areas = {name: np.zeros(len(images), np.int64) for name in structures}
            for place, image in enumerate(images):
                if image.uid in drawn_on:
                    planes = planes_of(segmentation, image.uid, numbers, is_aligned, shown)
                    for name, mine in structures.items():
                        areas[name][place] = planes[[numbers.index(n) for n in mine]].any(axis=0).sum()
        except InputError as exc:
            yield Fault(self.name, item, "unreadable", str(exc))
            return
        chosen = choose_slices(areas, self.num_slices, self.min_area)
        if not chosen:
            message = f"{shown}: no segment has {self.min_area} pixels on an image that is here"
            yield Fault(self.name, item, "empty_mask", message)
        for place in chosen:
            key = f"{stem}/{place:04d}"
            shown_here = {name: int(area[place]) for name, area in areas.items()}
            yield self._sample(images[place], path, key, structures, shown_here, is_aligned)

    def _sample(
        self,
        image: DicomImage,
        path: Path,
        key: str,
        structures: dict[str, tuple[int, ...]],
        areas: dict[str, int],
        is_aligned: bool,
    ) -> Sample:
        names = tuple(name for name in sorted(areas) if areas[name] >= self.min_area)
        reader = DicomSegReader(
            source=self.name,
            key=key,
            image=image.path,
            uid=image.uid,
            segmentation=str(path),
            structures=tuple((name, structures[name]) for name in names),
            is_aligned=is_aligned,
            window=self.window,
            modality=self.common.modality,
        )
        return self.common.sample(
            key,
            reader,
            names,
            stem=key,
            absent=tuple(name for name in sorted(areas) if areas[name] == 0) if self.exhaustive else (),
            modality=canonical_modality(image.modality),
            view=image.plane,
            group=key.split("/", 1)[0],
        )


def _secret(variable: str | None) -> str:
    """The text in an environment variable; empty if none is named.

    Raises
    ------
    InputError
        If the variable is not set, or empty.
    """
    if variable is None:
        return ""
    secret = os.environ.get(variable, "")
    if not secret:
        # the value may be the secret itself, given here by mistake: it is not repeated
        raise InputError(
            "dicomseg: the environment variable that salt_env= names is not set; export it with the secret"
        )
    return secret
