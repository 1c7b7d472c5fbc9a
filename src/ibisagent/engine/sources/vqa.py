"""Visual question answering: VQA-RAD and SLAKE as they are published, and PathVQA (:mod:`.pathvqa`).

These samples carry questions and no masks.

VQA-RAD (Lau et al., Scientific Data 2018; osf.io/89kps, CC0)::

    VQA_RAD Dataset Public.json     a list; used are question, answer, answer_type, image_name and phrase_type
    VQA_RAD Image Folder/           synpic54610.jpg …

The published test questions are those whose ``phrase_type`` begins with ``test`` (``test_freeform``, ``test_para``:
451 of 2,248). They ask about images that training questions ask about too: the published split leaks by design, and
the audit says so. ``disjoint=1`` leaves out the training questions about images of the test set, without a fault.

SLAKE (Liu et al., ISBI 2021; med-vqa.com/slake, CC BY 4.0)::

    train.json, validate.json (or validation.json), test.json
        lists; used are img_name, question, answer, q_lang, answer_type and modality
    imgs/xmlab102/source.jpg

One or two of the three lists are enough. Its masks and boxes (``mask.png``, ``detection.json``) are not used. ``lang``
is ``en`` (as it is), ``zh`` or ``all``.

The layouts were looked up in public loaders of these sets, none of whose code is used here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ibisagent.engine.sources.options import COMMON, CommonOptions, Options
from ibisagent.engine.sources.pathvqa import PathVqaSource
from ibisagent.engine.sources.questions import QuestionRow, question_of, read_json_rows, samples_of_rows
from ibisagent.engine.sources.sample import Fault, Question, Sample
from ibisagent.errors import InputError
from ibisagent.io.files import display_name
from ibisagent.io.windows import canonical_modality

__all__ = ["PathVqaSource", "SlakeSource", "VqaRadSource"]

VQA_COMMON = tuple(option for option in COMMON if option not in ("target", "split"))
"""Common options that make sense here: the splits are the published ones."""

_RAD_IMAGES = ("VQA_RAD Image Folder", "VQA_RAD_Image_Folder", "images")
_SLAKE_FILES = (
    ("train", ("train.json",)),
    ("val", ("validate.json", "validation.json", "val.json")),
    ("test", ("test.json",)),
)
_LANGUAGES = ("en", "zh", "all")


@dataclass(frozen=True)
class VqaRadSource:
    """VQA-RAD.

    Parameters
    ----------
    file
        The JSON.
    images
        Folder of the images.
    common
        Options that all sources know.
    disjoint
        Whether training questions about images of the test set are left out.
    """

    file: Path
    images: Path
    common: CommonOptions
    disjoint: bool = False

    @classmethod
    def from_spec(cls, path: str, options: dict[str, str]) -> VqaRadSource:
        """Open ``vqa-rad:PATH``, the folder or its JSON; options are ``images`` (folder) and ``disjoint`` (1 or 0).

        Raises
        ------
        InputError
            If the file or the folder of images is not there, or an option is wrong.
        """
        read = Options("vqa-rad", options, ("images", "disjoint"), VQA_COMMON)
        given = Path(path).absolute()  # workers may run in another folder
        if given.is_dir():
            found = sorted(f for f in given.glob("*.json") if "vqa" in f.name.lower() and "rad" in f.name.lower())
            if len(found) != 1:
                which = "several such files" if found else "no such file"
                raise InputError(f"{display_name(given)}: {which} as 'VQA_RAD Dataset Public.json'; give the file")
            given = found[0]
        elif not given.is_file():
            raise InputError(f"{display_name(given)}: no such file; give the folder with 'VQA_RAD Dataset Public.json'")
        return cls(
            file=given,
            images=_folder(given.parent, read.text("images"), _RAD_IMAGES),
            common=read.common("vqa-rad"),
            disjoint=read.flag("disjoint"),
        )

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.common.name

    def samples(self) -> Iterator[Sample | Fault]:
        """One sample for each image and split, in the order of the file.

        Raises
        ------
        InputError
            If the file is no such list.
        """
        rows = list(self._rows())
        if self.disjoint:
            rows = list(self._without_leaks(rows))
        yield from samples_of_rows(rows, self.images, self.common, "CC0 1.0")

    def _rows(self) -> Iterator[QuestionRow | Fault]:
        for number, row in enumerate(read_json_rows(self.file), start=1):
            item = f"{self.file.name} row {number}"
            fields = row if isinstance(row, Mapping) else {}
            split = "test" if str(fields.get("phrase_type") or "").strip().lower().startswith("test") else "train"
            yield _row(fields, item, self.name, "image_name", split, None)

    def _without_leaks(self, rows: list[QuestionRow | Fault]) -> Iterator[QuestionRow | Fault]:
        """Leave out what the user asked to leave out; that is no fault of the data set."""
        tested = {row.image for row in rows if isinstance(row, QuestionRow) and row.split == "test"}
        for row in rows:
            if not (isinstance(row, QuestionRow) and row.split == "train" and row.image in tested):
                yield row


@dataclass(frozen=True)
class SlakeSource:
    """SLAKE.

    Parameters
    ----------
    root
        Folder with the three JSON files.
    images
        Folder of the images.
    common
        Options that all sources know.
    language
        ``"en"``, ``"zh"`` or ``"all"``.
    """

    root: Path
    images: Path
    common: CommonOptions
    language: str = "en"

    @classmethod
    def from_spec(cls, path: str, options: dict[str, str]) -> SlakeSource:
        """Open ``slake:FOLDER``; options are ``images`` (folder) and ``lang`` (``en``, ``zh`` or ``all``).

        Raises
        ------
        InputError
            If no JSON or no folder of images is there, or an option is wrong.
        """
        read = Options("slake", options, ("images", "lang"), VQA_COMMON)
        root = Path(path).absolute()
        if not any((root / name).is_file() for _, names in _SLAKE_FILES for name in names):
            raise InputError(
                f"{display_name(root)}: no train.json, validate.json or test.json in it; give SLAKE's folder"
            )
        return cls(
            root=root,
            images=_folder(root, read.text("images"), ("imgs", "images")),
            common=read.common("slake"),
            language=read.choice("lang", _LANGUAGES, "en") or "en",
        )

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.common.name

    def samples(self) -> Iterator[Sample | Fault]:
        """One sample an image, training images first; a split whose file is not there has no samples.

        Raises
        ------
        InputError
            If a file is no list of questions.
        """
        yield from samples_of_rows(self._rows(), self.images, self.common, "CC BY 4.0")

    def _rows(self) -> Iterator[QuestionRow | Fault]:
        for split, names in _SLAKE_FILES:
            file = next((self.root / name for name in names if (self.root / name).is_file()), None)
            if file is None:
                continue
            for number, row in enumerate(read_json_rows(file), start=1):
                fields = row if isinstance(row, Mapping) else {}
                if self.language == "all" or fields.get("q_lang", "en") == self.language:
                    item = f"{file.name} row {number}"
                    yield _row(fields, item, self.name, "img_name", split, fields.get("modality"))


def _row(
    fields: Mapping[str, Any], item: str, source: str, image_field: str, split: str, modality: Any
) -> QuestionRow | Fault:
    image = fields.get(image_field)
    if not isinstance(image, str) or not image.strip():
        return Fault(source, item, "bad_row", f"{item}: it has no {image_field}; correct or remove it")
    kind = str(fields.get("answer_type") or "").strip().upper()
    question = question_of(fields, item, source, {"CLOSED": True, "OPEN": False}.get(kind))
    if not isinstance(question, Question):
        return question
    word = modality.strip() if isinstance(modality, str) else ""
    known = "X-ray" if word.upper() == "X-RAY" else canonical_modality(word)
    return QuestionRow(item, image.strip(), question, split, known)


def _folder(root: Path, option: str | None, names: tuple[str, ...]) -> Path:
    """The folder of the images.

    Raises
    ------
    InputError
        If it is not there.
    """
    folders = [root / option] if option is not None else [root / name for name in names]
    found = next((folder for folder in folders if folder.is_dir()), None)
    if found is None:
        raise InputError(f"{display_name(folders[0])}: no such folder; put the images there, or give images=FOLDER")
    return found
