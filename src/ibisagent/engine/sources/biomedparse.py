"""BiomedParseData's layout: ``FOLDER`` and ``FOLDER_mask`` side by side, names that say what is shown, text in JSON.

As published::

    train/       CASE_MODALITY_SITE.png
    train_mask/  CASE_MODALITY_SITE_TARGET.png      "+" for a space in TARGET; any nonzero pixel is foreground
    train.json   images, and annotations with mask_file and sentences ("kidney tumor in abdominal CT")

and the same for ``test``. Any folder with a ``_mask`` folder beside it is read, with or without its JSON. Masks that
the JSON does not name are found too; a mask's target is what its name says. One data set, or a folder of data sets
(then keys begin with the data set's folder).

The sentences become the sample's instructions for the target. Nothing tells the patient, and the slices of one volume
are many images here: where a folder's name is no split, ``group=PATTERN`` or ``split=`` must be given.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ibisagent.engine.sources.names import clean_name
from ibisagent.engine.sources.options import CommonOptions, Options
from ibisagent.engine.sources.pairs import files_below
from ibisagent.engine.sources.readers import FilesReader
from ibisagent.engine.sources.sample import Fault, Sample
from ibisagent.errors import InputError
from ibisagent.io.files import display_name, one_line, read_bytes

__all__ = ["BiomedParseSource", "modality_of"]

_MASK = "_mask"
_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}

_MODALITIES = {
    "ct": "CT",
    "x-ray": "X-ray",
    "xray": "X-ray",
    "pathology": "Histology",
    "histology": "Histology",
    "ultrasound": "Ultrasound",
    "endoscope": "Endoscopy",
    "endoscopy": "Endoscopy",
    "fundus": "Fundus photography",
    "dermoscopy": "Dermoscopy",
    "oct": "OCT",
    "pet": "PET",
}
_SEQUENCES = ("mri", "mr-", "t1", "t2", "flair", "adc", "dwi")


def modality_of(word: str) -> str:
    """Modality as the other sources spell it: ``"MRI-T1-Gd"`` is MRI, ``"pathology"`` is Histology.

    Words that are not known pass unchanged, with ``+`` as a space.
    """
    text = word.replace("+", " ")
    lower = text.lower()
    if lower == "mr" or lower.startswith(_SEQUENCES):
        return "MRI"
    return _MODALITIES.get(lower, text)


@dataclass
class _Image:
    """What is known of one image."""

    masks: dict[str, str] = field(default_factory=dict)  # target -> mask file
    instructions: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class BiomedParseSource:
    """A data set in BiomedParseData's layout, or a folder of such.

    Parameters
    ----------
    root
        The folder.
    folders
        Image folders below it, for example ``"train"`` or ``"amos22/CT/test"``.
    options
        What the user says of all images.
    """

    root: Path
    folders: tuple[str, ...]
    options: CommonOptions

    @classmethod
    def from_spec(cls, path: str, options: dict[str, str]) -> BiomedParseSource:
        """Open ``biomedparse:ROOT``.

        Raises
        ------
        InputError
            If no folder with a ``_mask`` folder beside it is there, an option is wrong, or neither the folders nor the
            options say a split or which images are of one patient.
        """
        given = Options("biomedparse", options, common=("name", "modality", "view", "licence", "split", "group"))
        root = Path(path).absolute()
        folders = tuple(sorted(_image_folders(root))) if root.is_dir() else ()
        if not folders:
            raise InputError(f"{display_name(path)}: no folder train/ with train_mask/ beside it; check the path")
        common = given.common(root.name)
        if any(_split(folder) is None for folder in folders):
            common.check_patients()
        return cls(root, folders, common)

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.options.name

    def samples(self) -> Iterator[Sample | Fault]:
        """Samples by folder and name; an image without a mask is a fault."""
        for folder in self.folders:
            yield from self._folder(folder)

    def _folder(self, folder: str) -> Iterator[Sample | Fault]:
        images = {name: _Image() for name in files_below(self.root / folder) if "/" not in name}
        masks = [name for name in files_below(self.root / f"{folder}{_MASK}") if "/" not in name]
        by_stem: dict[str, str] = {}
        for name in images:
            if by_stem.setdefault(_stem(name), name) != name:
                yield self._fault(folder, name, "duplicate_id", f"{by_stem[_stem(name)]} has the same stem; rename one")
        placed: set[str] = set()
        file = self.root / f"{folder}.json"
        if file.is_file():
            yield from self._described(folder, file, images, set(masks), placed)
        for mask in masks:
            if mask not in placed:
                stem, _, target = _stem(mask).rpartition("_")
                owner = by_stem.get(stem)
                if owner is None:
                    yield self._fault(folder, mask, "missing_image", f"no image {stem}.png in {folder}/; restore it")
                else:
                    fault = self._place(folder, images[owner], target, mask)
                    if fault is not None:
                        yield fault
        for name, image in images.items():
            if by_stem[_stem(name)] == name:
                yield self._sample(folder, name, image)

    def _described(
        self, folder: str, file: Path, images: dict[str, _Image], masks: set[str], placed: set[str]
    ) -> Iterator[Fault]:
        """Place the masks that the JSON names, with their sentences."""
        try:
            document: Any = json.loads(read_bytes(file).decode("utf-8-sig"))
            numbered = {row["id"]: row["file_name"] for row in document["images"]}
            annotations = [dict(row) for row in document["annotations"]]
        except (InputError, ValueError, KeyError, TypeError, RecursionError) as exc:
            yield self._fault(folder, file.name, "unreadable", f"not images and annotations ({one_line(exc, 80)})")
            return
        for number, row in enumerate(annotations):
            mask, item = row.get("mask_file"), f"annotation {row.get('id', number)}"
            if not isinstance(mask, str) or "/" in mask or "\\" in mask or "_" not in mask:
                yield self._fault(
                    folder, item, "bad_row", f"{file.name}: mask_file is {one_line(mask, 60)}, no mask's name"
                )
                continue
            owner = numbered.get(row.get("image_id"), row.get("file_name")) if _hashable(row.get("image_id")) else None
            if not isinstance(owner, str) or owner not in images:
                placed.add(mask)
                yield self._fault(folder, mask, "missing_image", f"its image {one_line(owner, 80)} is not in {folder}/")
                continue
            if mask not in masks:
                yield self._fault(
                    folder, mask, "missing_mask", f"{file.name} names it, but it is not in {folder}{_MASK}/"
                )
                continue
            target = _stem(mask).rpartition("_")[2]
            placed.add(mask)
            fault = self._place(folder, images[owner], target, mask)
            if fault is not None:
                yield fault
                continue
            asked = images[owner].instructions.setdefault(_words(target), [])
            for sentence in _sentences(row.get("sentences")):
                if sentence not in asked:
                    asked.append(sentence)

    def _place(self, folder: str, image: _Image, target: str, mask: str) -> Fault | None:
        name = _words(target)
        if not name:
            return self._fault(
                folder, mask, "bad_row", "its name says no target; call it CASE_MODALITY_SITE_TARGET.png"
            )
        known = image.masks.setdefault(name, mask)
        if known != mask:
            return self._fault(folder, mask, "duplicate_id", f"{known} already shows '{name}' of this image; keep one")
        return None

    def _sample(self, folder: str, name: str, image: _Image) -> Sample | Fault:
        if not image.masks:
            return self._fault(folder, name, "missing_mask", f"no mask in {folder}{_MASK}/ belongs to it; add one")
        parts = _stem(name).split("_")
        modality = modality_of(parts[-2]) if len(parts) >= 3 else None
        key = f"{folder}/{name}"
        below = self.root / f"{folder}{_MASK}"
        targets = sorted(image.masks)
        reader = FilesReader(
            self.name,
            key,
            str(self.root / folder / name),
            tuple((target, str(below / image.masks[target])) for target in targets),
            self.options.modality or modality,
        )
        try:
            return self.options.sample(
                key,
                reader,
                tuple(targets),
                stem=_stem(name),
                modality=modality,
                split=_split(folder),
                instructions={
                    target: tuple(image.instructions[target]) for target in targets if image.instructions.get(target)
                },
            )
        except InputError as exc:
            return Fault(self.name, key, "bad_row", str(exc))

    def _fault(self, folder: str, item: str, code: Any, problem: str) -> Fault:
        item = f"{folder}/{one_line(item)}"
        return Fault(self.name, item, code, f"{item}: {one_line(problem, 400)}")


def _image_folders(root: Path) -> Iterator[str]:
    """Folders with a ``_mask`` folder beside them, as relative paths; these are not searched themselves."""
    for parent, folders, _ in os.walk(root, followlinks=True):
        here = {name for name in folders if f"{name}{_MASK}" in folders}
        for name in here:
            yield (Path(parent) / name).relative_to(root).as_posix()
        folders[:] = [n for n in folders if n not in here and n.removesuffix(_MASK) not in here and n[:1] != "."]


def _split(folder: str) -> str | None:
    return _SPLITS.get(folder.rpartition("/")[2].lower())


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _words(target: str) -> str:
    return clean_name(target.replace("+", " "))


def _hashable(value: Any) -> bool:
    return isinstance(value, int | str)


def _sentences(rows: Any) -> Iterator[str]:
    for row in rows if isinstance(rows, list) else ():
        text = (row.get("raw") or row.get("sent")) if isinstance(row, dict) else row
        if isinstance(text, str) and text.strip():
            yield " ".join(text.split())
