"""MedSAM's and the CVPR challenges' ``.npz`` files: ``imgs`` with ``gts``, 2-D or 3-D.

2-D files have ``imgs`` (H, W) or (H, W, 3) and ``gts`` (H, W); 3-D ones ``imgs`` and ``gts`` (D, H, W) and usually
``spacing``, as SimpleITK orders it: (x, y, z) in millimetres. Of a volume several slices are taken, chosen by area.
``gts`` holds labels, which a labels file names (``labels=labels.json``), or a single structure (``target=NAME``), or
the file's own ``text_prompts`` (the text-guided challenge of 2025: label -> sentence; ``instance_label`` 1 means that
the labels count objects of one kind, which are then one structure). A sentence that names exactly one structure
that the ontology knows gives its name, and stays as the sample's instruction; for others there must be a labels file.

A volume is a group of its own; nothing says which 2-D files are of one patient, so they need ``group=`` or ``split=``.

``text_prompts`` is pickled, and unpickling can run code that a file brings. So it is read only with ``allow_pickle=1``,
and even then by a reader that makes plain values and NumPy arrays and nothing else.

The labels are decompressed while listing, because nothing else says what a file shows; the images are not.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.engine.sources.label_map import LabelMap, read_label_map
from ibisagent.engine.sources.names import named_phrase
from ibisagent.engine.sources.npz_file import NpzFile
from ibisagent.engine.sources.options import CommonOptions, Options
from ibisagent.engine.sources.pairs import files_below
from ibisagent.engine.sources.readers import Tray, named_masks, unknown_labels
from ibisagent.engine.sources.sample import Fault, FaultCode, LabelledImage, Sample
from ibisagent.engine.sources.slices import choose_slices
from ibisagent.errors import InputError
from ibisagent.geometry import Geometry
from ibisagent.io.files import display_name, one_line
from ibisagent.io.raster import gray_to_rgb
from ibisagent.io.windows import apply_window, choose_window
from ibisagent.types import Image, Window

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["NpzReader", "NpzSource"]

_PREFIXES = {
    "ct": "CT",
    "mr": "MRI",
    "mri": "MRI",
    "pet": "PET",
    "us": "Ultrasound",
    "ultrasound": "Ultrasound",
    "xray": "X-ray",
    "x-ray": "X-ray",
    "cxr": "X-ray",
    "dermoscopy": "Dermoscopy",
    "endoscopy": "Endoscopy",
    "fundus": "Fundus photography",
    "oct": "OCT",
    "mammo": "Mammography",
    "mammography": "Mammography",
    "microscopy": "Microscopy",
    "microscope": "Microscopy",
}
"""First word of a file's name -> modality, as the challenges name their files (``CT_AMOS_0018.npz``)."""


@dataclass(frozen=True)
class NpzReader:
    """Reads one image, or one slice of a volume, with its masks.

    Parameters
    ----------
    source, key
        Data set and sample, for the faults.
    images, labels
        Files with ``imgs`` and ``gts``, as a rule the same one.
    index
        The slice, or None for a 2-D file.
    structures
        (name, its labels) of every structure.
    modality
        Of the image, or None.
    spacing_mm
        (row, column), or None.
    """

    source: str
    key: str
    images: str
    labels: str
    index: int | None
    structures: tuple[tuple[str, tuple[int, ...]], ...]
    modality: str | None = None
    spacing_mm: tuple[float, float] | None = None

    def __call__(self) -> LabelledImage:
        """Read image and masks; see :class:`ibisagent.engine.sources.sample.Reader`."""
        values = NpzFile(self.images).plane("imgs", self.index)
        where = display_name(self.images)
        window: Window | None = None
        if values.dtype != np.uint8:
            window = choose_window(values, None, self.modality, where=where)
            values = apply_window(values, window)
        geometry = dataclasses.replace(Geometry.plane_2d(), spacing_mm=self.spacing_mm)
        image = Image(gray_to_rgb(values), geometry, modality=self.modality, window=window, source=self.images)
        tray = Tray(self.source, self.key)
        try:
            labels = NpzFile(self.labels).plane("gts", self.index)
        except InputError as exc:
            tray.fault("unreadable", str(exc))
            return tray.done(image)
        for name, mask in named_masks(labels, self.structures).items():
            tray.add(name, mask)
        return tray.done(image)


@dataclass(frozen=True)
class NpzSource:
    """One ``.npz`` file or a folder of them.

    Parameters
    ----------
    root
        The folder (the file's own for one file).
    files
        Paths below it.
    options
        What the user says of all files.
    labels
        What the numbers mean, or None.
    label_folder
        Where files with the ``gts`` lie that the files themselves lack, or None.
    slices, min_area
        How many slices of a volume, and the fewest pixels with which a structure counts on a slice.
    allow_pickle
        Whether ``text_prompts`` may be read.
    exhaustive
        Whether a structure of `labels` without a pixel is absent.
    """

    root: Path
    files: tuple[str, ...]
    options: CommonOptions
    labels: LabelMap | None = None
    label_folder: Path | None = None
    slices: int = 3
    min_area: int = 50
    allow_pickle: bool = False
    exhaustive: bool = False

    @classmethod
    def from_spec(cls, path: str, options: dict[str, str]) -> NpzSource:
        """Open ``npz:PATH?labels=FILE&slices=3&min_area=50&gts=FOLDER&allow_pickle=0&exhaustive=0``.

        Raises
        ------
        InputError
            If there is no ``.npz`` file, or an option is wrong.
        """
        extra = ("labels", "slices", "min_area", "gts", "allow_pickle", "exhaustive")
        given = Options("npz", options, extra=extra)
        start = Path(path).absolute()
        root, files = (start.parent, [start.name]) if start.is_file() else (start, files_below(start, (".npz",)))
        if not files:
            raise InputError(f"{display_name(path)}: no .npz file in it; check the path")
        file = given.path("labels")
        folder = given.path("gts")
        if folder is not None and not folder.is_dir():
            raise InputError(f"{display_name(folder)}: no such folder; give the one whose .npz files have gts")
        return cls(
            root,
            tuple(files),
            given.common(start.stem if start.is_file() else start.name),
            None if file is None else read_label_map(file),
            None if folder is None else folder.absolute(),
            given.integer("slices", 3, least=1),
            given.integer("min_area", 50, least=1),
            given.flag("allow_pickle"),
            given.flag("exhaustive"),
        )

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.options.name

    def samples(self) -> Iterator[Sample | Fault]:
        """Samples by file and slice; keys are ``CT_0018.npz`` or ``CT_0018.npz#57``.

        Raises
        ------
        InputError
            At the first 2-D file, if neither a group pattern nor a split is given.
        """
        for file in self.files:
            try:
                yield from self._file(file)
            except _NoPatientsError:
                self.options.check_patients()
            except _Unusable as exc:
                yield Fault(self.name, file, exc.code, one_line(exc, 1000))
            except InputError as exc:
                yield Fault(self.name, file, "unreadable", str(exc))

    def _file(self, file: str) -> Iterator[Sample | Fault]:
        path = self.root / file
        npz = NpzFile(path)
        if "imgs" not in npz.names:
            raise _Unusable("missing_image", f"{file}: no imgs in it; keys are {one_line(sorted(npz.names), 100)}")
        with_labels = npz
        if "gts" not in npz.names and self.label_folder is not None and (self.label_folder / file).is_file():
            with_labels = NpzFile(self.label_folder / file)
        if "gts" not in with_labels.names:
            raise _Unusable("missing_mask", f"{file}: no gts in it; say with gts=FOLDER where the files with gts lie")
        shape, labels_shape = npz.shape("imgs"), with_labels.shape("gts")
        colour = len(labels_shape) == 2 and len(shape) == 3 and shape[2] == 3
        if len(labels_shape) not in (2, 3) or (shape[:2] if colour else shape) != labels_shape:
            raise _Unusable(
                "size_mismatch", f"{file}: gts is {labels_shape}, but imgs is {shape}; both must be of one size"
            )
        if len(labels_shape) == 2 and self.options.group is None and self.options.split is None:
            raise _NoPatientsError
        labels = with_labels.array("gts")
        if labels.dtype.kind not in "iub":
            raise _Unusable("unreadable", f"{file}: gts holds {labels.dtype}, not whole numbers; save it as integers")
        structures, sentences = self._structures(file, npz, labels)
        yield from self._planes(file, path, with_labels.path, labels, structures, sentences, npz.spacing_mm())

    def _planes(
        self,
        file: str,
        path: Path,
        labels_path: Path,
        labels: NDArray[np.integer[Any]],
        structures: dict[str, tuple[int, ...]],
        sentences: dict[str, tuple[str, ...]],
        spacing_mm: tuple[float, float] | None,
    ) -> Iterator[Sample | Fault]:
        stem = file.rpartition(".")[0]
        word = re.sub(r"^[23]DBox_", "", Path(stem).name).split("_")[0]  # as the box-prompted validation sets begin
        modality = _PREFIXES.get(word.lower())
        volume = labels if labels.ndim == 3 else labels[None]
        areas = _areas(volume, structures)
        if labels.ndim == 3:
            chosen = choose_slices(areas, self.slices, self.min_area)
            if not chosen:
                raise _Unusable("empty_mask", f"{file}: no slice has {self.min_area} pixels of a named structure")
        else:
            chosen = [0]
            if not any(area[0] for area in areas.values()) and not self.exhaustive:
                raise _Unusable("empty_mask", f"{file}: no pixel of a named structure in gts; take the file out")
        for index in chosen:
            least = self.min_area if labels.ndim == 3 else 1
            names = tuple(name for name, area in areas.items() if area[index] >= least)
            none = tuple(name for name, area in areas.items() if not area[index])
            key = f"{file}#{index}" if labels.ndim == 3 else file
            reader = NpzReader(
                self.name,
                key,
                str(path),
                str(labels_path),
                index if labels.ndim == 3 else None,
                tuple((name, structures[name]) for name in names),
                self.options.modality or modality,
                spacing_mm,
            )
            yield self.options.sample(
                key,
                reader,
                names,
                stem=stem,
                absent=none if self.exhaustive else (),
                modality=modality,
                group=stem if labels.ndim == 3 else None,
                licence=None if self.labels is None else self.labels.licence,
                instructions={name: sentences[name] for name in names if name in sentences},
            )

    def _structures(
        self, file: str, npz: NpzFile, labels: NDArray[np.integer[Any]]
    ) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[str, ...]]]:
        """(name -> its labels, name -> sentences that ask for it) of one file."""
        shown = tuple(int(v) for v in np.unique(labels) if v > 0)
        prompts: dict[int, str] = {}
        united = False
        if "text_prompts" in npz.names and (self.allow_pickle or not npz.is_pickled("text_prompts")):
            prompts, united = npz.text_prompts()
        if self.labels is not None:
            unknown = unknown_labels(shown, self.labels)
            if unknown:
                raise _Unusable("bad_row", f"{file}: {unknown}")
            asked = {
                name: tuple(prompts[label] for label in numbers if label in prompts)
                for name, numbers in self.labels.structures.items()
                if not united
            }
            return dict(self.labels.structures), {name: texts for name, texts in asked.items() if texts}
        if self.options.target is not None:
            return {self.options.target: shown}, {}
        if not prompts:
            hint = ""
            if "text_prompts" in npz.names and not self.allow_pickle:
                hint = "; its text_prompts are pickled, which allow_pickle=1 reads if you trust the file"
            raise _Unusable("bad_row", f"{file}: its labels have no names; give labels=FILE or target=NAME{hint}")
        if united:
            text = prompts[min(prompts)]
            name = _name(file, min(prompts), text)
            return {name: shown}, {name: (text,)}
        missing = [label for label in shown if label not in prompts]
        if missing:
            raise _Unusable("bad_row", f"{file}: labels {missing[:8]} have no text prompt; give labels=FILE")
        named: dict[str, tuple[int, ...]] = {}
        said: dict[str, tuple[str, ...]] = {}
        for label, text in sorted(prompts.items()):
            name = _name(file, label, text)
            named[name] = (*named.get(name, ()), label)
            said[name] = tuple(dict.fromkeys((*said.get(name, ()), text)))
        # a sentence may mean one of two labels of a name only ("the larger cyst"): then it does not ask for both
        return named, {name: texts for name, texts in said.items() if len(named[name]) == 1 or len(texts) == 1}


class _NoPatientsError(Exception):
    """A 2-D file, where nothing says which files are of one patient."""


class _Unusable(InputError):
    """A file that gives no sample, and which fault that is."""

    def __init__(self, code: FaultCode, message: str) -> None:
        super().__init__(message)
        self.code: FaultCode = code


def _name(file: str, label: int, text: str) -> str:
    """The structure that a text prompt names.

    Raises
    ------
    _Unusable
        If it does not name exactly one that is known.
    """
    name = named_phrase(text)
    if name is None:
        message = f"{file}: the text prompt of label {label} names no structure that is known, or several"
        raise _Unusable("bad_row", f"{message} ('{one_line(text, 80)}'); give labels=FILE")
    return name


def _areas(volume: NDArray[np.integer[Any]], structures: dict[str, tuple[int, ...]]) -> dict[str, NDArray[np.int64]]:
    """Pixels of each structure on each slice of labels (D, H, W)."""
    areas = {name: np.zeros(len(volume), np.int64) for name in structures}
    for index, plane in enumerate(volume):
        numbers, counts = np.unique(plane, return_counts=True)
        count = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
        for name, labels in structures.items():
            areas[name][index] = sum(count.get(label, 0) for label in labels)
    return areas
