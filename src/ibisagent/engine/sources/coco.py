"""COCO instance files: ``coco:annotations.json?images=FOLDER``.

Objects of one category in an image are one structure. With ``instances=1`` single objects get names besides,
``largest nucleus`` of the category ``nucleus`` (:mod:`ibisagent.engine.sources.referring`); which ones fit is known
only once the masks are drawn, so ``Sample.names`` is empty then. With ``exhaustive=1`` the file is taken to mark every
object of its categories, so an image without one lacks that structure; otherwise a missing annotation says nothing.
A category with an annotation that cannot be used is left out of its image: it is neither absent nor known in full.
``iscrowd`` regions are part of the structure but never single objects, and an image with one has no single objects of
that category.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.engine.sources.names import clean_name
from ibisagent.engine.sources.options import CommonOptions, Options
from ibisagent.engine.sources.polygons import segmentation_mask
from ibisagent.engine.sources.readers import Tray
from ibisagent.engine.sources.referring import WORDS, measure, refer
from ibisagent.engine.sources.sample import Fault, FaultCode, LabelledImage, Sample
from ibisagent.errors import InputError
from ibisagent.io.files import display_name, one_line, read_bytes
from ibisagent.io.images import read_image

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CocoObject", "CocoReader", "CocoSource"]


@dataclass(frozen=True)
class CocoObject:
    """One annotation.

    Parameters
    ----------
    number
        Its id, for faults.
    name
        Its category.
    segmentation
        As the file has it.
    crowd
        Whether it is a region of many objects.
    """

    number: str
    name: str
    segmentation: Any
    crowd: bool


@dataclass(frozen=True)
class CocoReader:
    """Reads an image file and draws its objects.

    Parameters
    ----------
    source, key
        Data set and sample, for the faults.
    image
        The file.
    size
        (height, width) that the annotations are made for, or None if the file does not say.
    objects
        Its annotations.
    instances
        Whether single objects get names.
    modality
        Of the image, or None.
    """

    source: str
    key: str
    image: str
    size: tuple[int, int] | None
    objects: tuple[CocoObject, ...]
    instances: bool = False
    modality: str | None = None

    def __call__(self) -> LabelledImage:
        """Read image and masks; see :class:`ibisagent.engine.sources.sample.Reader`."""
        image = read_image(self.image, modality=self.modality)
        tray = Tray(self.source, self.key)
        shape = (image.height, image.width)
        if self.size is not None and self.size != shape:
            said = f"{self.size[1]} x {self.size[0]}"
            tray.fault(
                "size_mismatch",
                f"{self.key}: its annotations are for {said} pixels, but the image is {image.width} x {image.height}",
            )
            return tray.done(image)
        drawn: dict[str, list[NDArray[np.bool_]]] = {}
        broken: set[str] = set()
        for item in self.objects:
            try:
                mask = segmentation_mask(item.segmentation, *shape)
            except InputError as exc:
                other = isinstance(item.segmentation, dict) and item.segmentation.get("size") != list(shape)
                tray.fault("size_mismatch" if other else "unreadable", f"annotation {item.number}: {exc}")
                broken.add(item.name)
                continue
            if mask.any():
                drawn.setdefault(item.name, []).append(mask)
            else:
                tray.fault("empty_mask", f"annotation {item.number}: its segmentation covers no pixel; remove it")
                broken.add(item.name)
        gray = image.pixels.mean(axis=2, dtype=np.float32)
        crowds = {item.name for item in self.objects if item.crowd}
        for name, masks in drawn.items():
            if name in broken:  # a part of a structure would be a wrong mask of it
                continue
            tray.add(name, np.logical_or.reduce(masks))
            if self.instances and name not in crowds:
                self._refer(tray, name, masks, gray)
        return tray.done(image)

    def _refer(self, tray: Tray, name: str, masks: list[NDArray[np.bool_]], gray: NDArray[np.float32]) -> None:
        labels = np.zeros(gray.shape, np.int32)
        for number, mask in enumerate(masks, start=1):
            labels[mask] = number
        overlap = np.sum([mask.sum() for mask in masks]) - np.count_nonzero(labels)
        if overlap > 0.02 * np.count_nonzero(labels):
            return  # objects that cover each other have no clear size or place of their own
        for word, number in refer(measure(labels, gray), gray.shape).items():
            tray.add(f"{word} {name}", masks[number - 1])


@dataclass(frozen=True)
class CocoSource:
    """A COCO instance file.

    Parameters
    ----------
    path
        The JSON.
    images
        Folder of the image files.
    options
        What the user says of all images.
    instances, exhaustive
        See the module.
    """

    path: Path
    images: Path
    options: CommonOptions
    instances: bool = False
    exhaustive: bool = False

    @classmethod
    def from_spec(cls, path: str, options: dict[str, str]) -> CocoSource:
        """Open ``coco:FILE?images=FOLDER&instances=0&exhaustive=0``; images lie beside the file where none is given.

        Raises
        ------
        InputError
            If the file or the folder is missing, an option is wrong, or there is neither ``group=`` nor ``split=``.
        """
        common = ("name", "modality", "view", "licence", "split", "group")
        given = Options("coco", options, extra=("images", "instances", "exhaustive"), common=common)
        file = Path(path).absolute()
        if not file.is_file():
            raise InputError(f"{display_name(path)}: no such file; give the JSON with the annotations")
        folder = given.path("images")
        images = file.parent if folder is None else folder.absolute()
        if not images.is_dir():
            raise InputError(f"{display_name(images)}: no such folder; say with images=FOLDER where the images lie")
        name = f"{file.parent.name}-{file.stem}" if file.parent.name else file.stem
        described = given.common(name)
        described.check_patients()
        return cls(file, images, described, given.flag("instances"), given.flag("exhaustive"))

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.options.name

    def vocabulary(self) -> dict[str, tuple[str, ...]]:
        """Structures by modality that its images may show; empty where no modality is given or the samples say it.

        Raises
        ------
        InputError
            If the file is no COCO instance file.
        """
        if self.options.modality is None or not self.instances:
            return {}
        nouns = list(dict.fromkeys(self._load()[2].values()))
        return {self.options.modality: (*nouns, *(f"{word} {noun}" for noun in nouns for word in WORDS))}

    def samples(self) -> Iterator[Sample | Fault]:
        """Samples in the order of the file's images, after the faults of its annotations.

        Raises
        ------
        InputError
            If the file is no COCO instance file.
        """
        images, annotations, categories = self._load()
        by_id: dict[Any, tuple[str, tuple[int, int] | None]] = {}
        files: set[str] = set()
        for row in images:
            file, number = row.get("file_name"), row.get("id")
            if not isinstance(file, str) or not isinstance(number, int | str) or not _stays_below(file):
                yield self._fault(f"image {number}", "bad_row", "it has no id, or no file_name below the images folder")
            elif number in by_id or file in files:
                yield self._fault(
                    f"image {number}", "duplicate_id", f"its id or its file {file} stands twice; keep one"
                )
            else:
                height, width = row.get("height"), row.get("width")
                size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
                by_id[number] = (file, size)
                files.add(file)
        objects: dict[Any, list[CocoObject]] = {number: [] for number in by_id}
        unsure: dict[Any, set[str]] = {number: set() for number in by_id}
        for problem in _objects(annotations, categories, objects, unsure):
            yield self._fault(*problem)
        names = list(dict.fromkeys(categories.values()))
        for number, (file, size) in by_id.items():
            yield self._sample(file, size, tuple(objects[number]), names, unsure[number])

    def _sample(
        self,
        file: str,
        size: tuple[int, int] | None,
        objects: tuple[CocoObject, ...],
        categories: list[str],
        unsure: set[str],
    ) -> Sample | Fault:
        path = self.images / file
        if not path.is_file():
            return self._fault(file, "missing_image", f"no such file in {display_name(self.images)}; restore it")
        objects = tuple(item for item in objects if item.name not in unsure)  # a part would be a wrong mask
        found = tuple(name for name in categories if any(item.name == name for item in objects))
        known = {*found, *unsure}
        absent = tuple(name for name in categories if name not in known) if self.exhaustive else ()
        if not found and not absent and unsure:
            return self._fault(file, "missing_mask", "its annotations cannot be used; correct them")
        if not found and not absent:
            return self._fault(file, "missing_mask", "no annotation says anything of it; take it out, or exhaustive=1")
        reader = CocoReader(self.name, file, str(path), size, objects, self.instances, self.options.modality)
        try:
            names = () if self.instances and found else found
            return self.options.sample(file, reader, names, stem=file.rpartition(".")[0], absent=absent)
        except InputError as exc:
            return Fault(self.name, file, "bad_row", str(exc))

    def _load(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[Any, str]]:
        shown = display_name(self.path)
        try:
            document: Any = json.loads(read_bytes(self.path).decode("utf-8-sig"))
            images, annotations = ([dict(row) for row in document[key]] for key in ("images", "annotations"))
            categories = {row["id"]: clean_name(str(row["name"])) for row in document["categories"]}
        except (ValueError, KeyError, TypeError, RecursionError) as exc:
            raise InputError(
                f"{shown}: not a COCO instance file ({one_line(exc, 80)}); it needs images, annotations and categories"
            ) from None
        if not images or not categories or not all(categories.values()):
            raise InputError(f"{shown}: it has no image, no category, or a category without a name")
        return images, annotations, categories

    def _fault(self, item: str, code: FaultCode, problem: str) -> Fault:
        return Fault(self.name, item, code, one_line(f"{self.path.name}, {item}: {problem}", 1000))


def _objects(
    annotations: list[dict[str, Any]],
    categories: dict[Any, str],
    objects: dict[Any, list[CocoObject]],
    unsure: dict[Any, set[str]],
) -> Iterator[tuple[str, FaultCode, str]]:
    """Give every annotation to its image; what cannot be given is (item, code, problem).

    The category of what cannot be given is added to the image's in `unsure`; all are where it cannot be told.
    """
    seen: set[Any] = set()
    for index, row in enumerate(annotations):
        number, image, category = row.get("id", f"#{index}"), row.get("image_id"), row.get("category_id")
        item = f"annotation {one_line(number, 40)}"
        is_given = False
        if not all(isinstance(value, int | str) for value in (number, image, category)):
            yield item, "bad_row", "its id, image_id or category_id is no number"
        elif number in seen:
            yield item, "duplicate_id", "its id stands twice; give every annotation its own"
        elif image not in objects:
            yield item, "missing_image", f"there is no image {image} in the file"
        elif category not in categories:
            yield item, "bad_row", f"there is no category {category} in the file"
        elif not row.get("segmentation"):
            yield item, "missing_mask", "it has no segmentation; a box alone is no mask"
        else:
            crowd = bool(row.get("iscrowd", 0))
            objects[image].append(CocoObject(str(number), categories[category], row["segmentation"], crowd))
            is_given = True
        if not is_given and isinstance(image, int | str) and image in unsure:
            is_known = isinstance(category, int | str) and category in categories
            unsure[image].update([categories[category]] if is_known else categories.values())
        if isinstance(number, int | str):
            seen.add(number)


def _stays_below(file: str) -> bool:
    path = PurePosixPath(file.replace("\\", "/"))
    return bool(path.name) and not path.is_absolute() and ".." not in path.parts
