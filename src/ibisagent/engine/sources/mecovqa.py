"""MeCoVQA's grounding part and MeCOVQA-G+: sentences that ask for a mask, on images of SA-Med2D-20M.

MeCoVQA comes from MedPLIB (Huang et al., AAAI 2025; github.com/ShawnHuang497/MedPLIB), MeCOVQA-G+ is its grounding
test set cleaned by the authors of Citrus-V (``jdh-algo/MeCoVQA-G-Plus``; the IBISAgent paper tests on 3,157 cases of
it). As published::

    train/MeCoVQA-Grounding.json, test/MeCoVQA_Grounding_test.json, MeCoVQA_Grounding_test_merged_modified_v3.json
        [{"id": "ct_00--AMOS2022--amos_0001--x_0020", "image": "images/ct_00--AMOS2022--amos_0001--x_0020.png",
          "conversations": [{"from": "human", "value": "<image>\\n…"},
                            {"from": "gpt", "value": "<SEG><mask>masks/….png</mask>"}]}]
    SAMed2Dv1/images, SAMed2Dv1/masks        SA-Med2D-20M (CC BY-NC-SA 4.0)
    SAMed2Dv1/SAMed2D_v1_class_mapping_id.json       {data set: {class: number}}

File names say modality, data set, case and slice, a mask's also class and instance:
``ct_00--AMOS2022--amos_0001--x_0020--0003_000.png``. So the group is the case of its data set, the modality is known,
and with the class mapping a mask has its name. Without the mapping (or where the mask's name has no number) the name
is looked for in the sentence: "Can you segment the left kidney in this image?". A sentence that does not name exactly
one structure that the ontology knows is a fault.

The sentences become the sample's instructions. Masks of one name on one image are instances of it, and are united.
Turns without a mask become questions. Turns about a marked region (``<region>``) are no part of the task and left out.

The layout was looked up in the loaders of MedPLIB and Citrus-V, none of whose code is used here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ibisagent.engine.sources.names import clean_name, named_phrase
from ibisagent.engine.sources.options import COMMON, CommonOptions, Options
from ibisagent.engine.sources.questions import CLOSED_ANSWERS, inside, read_json_rows
from ibisagent.engine.sources.readers import FilesReader
from ibisagent.engine.sources.sample import Fault, Question, Sample
from ibisagent.errors import InputError
from ibisagent.io.files import display_name, one_line, read_bytes
from ibisagent.io.windows import canonical_modality

__all__ = ["MecoVqaSource"]

LICENCE = "CC BY-NC-SA 4.0 (SA-Med2D-20M)"
_MAPPING = "SAMed2D_v1_class_mapping_id.json"
_MASK = re.compile(r"<mask>(.*?)</mask>", re.DOTALL)
_MODALITIES = {
    "ct": "CT",
    "mr": "MRI",
    "pet": "PET",
    "x": "X-ray",
    "ultrasound": "Ultrasound",
    "dermoscopy": "Dermoscopy",
    "endoscopy": "Endoscopy",
    "fundus": "Fundus photography",
    "microscopy": "Microscopy",
    "histopathology": "Histology",
}


@dataclass
class _Gathered:
    """What the file asks of one image."""

    item: str
    masks: list[tuple[str, str]] = field(default_factory=list)
    instructions: dict[str, list[str]] = field(default_factory=dict)
    questions: list[Question] = field(default_factory=list)


@dataclass(frozen=True)
class MecoVqaSource:
    """MeCoVQA-G or MeCOVQA-G+.

    Parameters
    ----------
    file
        The JSON.
    images
        Folder that its paths start from (``SAMed2Dv1``).
    classes
        Data set -> class number -> name; empty without the class mapping.
    common
        Options that all sources know.
    """

    file: Path
    images: Path
    classes: Mapping[str, Mapping[int, str]]
    common: CommonOptions

    @classmethod
    def from_spec(cls, path: str, options: dict[str, str]) -> MecoVqaSource:
        """Open ``mecovqa:FILE.json``.

        Parameters
        ----------
        path
            The JSON.
        options
            ``images`` (folder of SA-Med2D; else the JSON's folder, one above, or ``SAMed2Dv1`` in one of them),
            ``classes`` (the class mapping; else the one in that folder), and the common ones but ``target``.

        Raises
        ------
        InputError
            If the file or the folder is not there, or an option is wrong.
        """
        common = tuple(option for option in COMMON if option != "target")
        read = Options("mecovqa", options, ("images", "classes"), common)
        file = Path(path).absolute()
        if not file.is_file():
            raise InputError(f"{display_name(file)}: no such file; give a JSON of MeCoVQA's grounding part")
        images = _images_folder(file, read.path("images"))
        mapping = read.path("classes") or (images / _MAPPING if (images / _MAPPING).is_file() else None)
        return cls(
            file=file,
            images=images,
            classes={} if mapping is None else _read_classes(mapping),
            common=read.common(file.stem),
        )

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.common.name

    def samples(self) -> Iterator[Sample | Fault]:
        """One sample an image, in the order of the file; first what is wrong with its rows.

        Raises
        ------
        InputError
            If the file is no list, or nothing in it asks for a mask or anything else.
        """
        gathered: dict[str, _Gathered] = {}
        for number, row in enumerate(read_json_rows(self.file), start=1):
            yield from self._gather(row, f"{self.file.name} row {number}", gathered)
        if not any(g.masks or g.questions for g in gathered.values()):
            raise InputError(f"{display_name(self.file)}: no turn with <mask>…</mask> in it; give the grounding part")
        for image, mine in gathered.items():
            if mine.masks or mine.questions:
                yield self._sample(image, mine)

    def _gather(self, row: Any, item: str, gathered: dict[str, _Gathered]) -> Iterator[Fault]:
        """Add the turns of a row to its image."""
        image = row.get("image") if isinstance(row, Mapping) else None
        turns = row.get("conversations") if isinstance(row, Mapping) else None
        if not isinstance(image, str) or not isinstance(turns, list):
            yield Fault(self.name, item, "bad_row", f"{item}: no image and conversations in it; correct or remove it")
            return
        mine = gathered.setdefault(image.strip().removeprefix("./"), _Gathered(item))
        spoken = [turn for turn in turns if isinstance(turn, Mapping) and isinstance(turn.get("value"), str)]
        for asked, said in zip(spoken[::2], spoken[1::2], strict=False):
            sentence = " ".join(re.sub(r"<image>|<SEG>", " ", asked["value"]).split())
            masks = [mask.strip().removeprefix("./") for mask in _MASK.findall(said["value"])]
            answer = " ".join(said["value"].replace("<SEG>", " ").split())
            if "<region>" in sentence:  # only a drawn mask shows what it asks about
                continue
            if masks:
                yield from self._add_masks(mine, masks, sentence, item)
            elif sentence and answer:
                mine.questions.append(Question(sentence, answer, answer.lower().rstrip(".") in CLOSED_ANSWERS))

    def _add_masks(self, mine: _Gathered, masks: list[str], sentence: str, item: str) -> Iterator[Fault]:
        for mask in masks:
            name = self._class_of(mask) or named_phrase(sentence)
            if name is None:
                shown = one_line(sentence, 120)
                message = (
                    f"{item}: not exactly one known structure in '{shown}'; give SA-Med2D's class mapping, classes=FILE"
                )
                yield Fault(self.name, item, "bad_row", message)
                continue
            if (name, mask) not in mine.masks:
                mine.masks.append((name, mask))
            said = mine.instructions.setdefault(name, [])
            if sentence and sentence not in said:
                said.append(sentence)

    def _class_of(self, mask: str) -> str | None:
        """Name of a mask's class by the number in its file's name."""
        parts = PurePosixPath(mask).stem.split("--")
        number = parts[-1].split("_")[0]
        if len(parts) < 5 or not number.isdecimal():
            return None
        return self.classes.get(parts[1], {}).get(int(number))

    def _sample(self, image: str, mine: _Gathered) -> Sample | Fault:
        path = inside(self.images, image)
        if path is None or not path.is_file():
            message = f"{one_line(image, 200)}: no such image below {display_name(self.images)} ({mine.item})"
            return Fault(self.name, image, "missing_image", f"{message}; download SA-Med2D-20M, or give images=FOLDER")
        masks = [(name, inside(self.images, mask)) for name, mask in mine.masks]
        if any(mask is None for _, mask in masks):
            return Fault(self.name, image, "bad_row", f"{mine.item}: a mask's path leads out of the folder; correct it")
        parts = PurePosixPath(image).stem.split("--")
        modality = self.common.modality or (_modality(parts[0]) if len(parts) >= 4 else None)
        reader = FilesReader(self.name, image, str(path), tuple((name, str(mask)) for name, mask in masks), modality)
        try:
            return self.common.sample(
                image,
                reader,
                tuple(dict.fromkeys(name for name, _ in masks)),
                stem=PurePosixPath(image).stem,
                modality=modality,
                group=f"{parts[1]}--{parts[2]}" if len(parts) >= 4 else image,
                split=_split(self.file),
                licence=LICENCE,
                instructions={name: tuple(said) for name, said in mine.instructions.items()},
                questions=tuple(mine.questions),
            )
        except InputError as exc:  # the group pattern finds nothing
            return Fault(self.name, image, "bad_row", str(exc))


def _modality(prefix: str) -> str | None:
    """``"mr_t1"`` is MRI, ``"x_ray"`` X-ray."""
    word = prefix.split("_")[0].lower()
    return _MODALITIES.get(word) or canonical_modality(word)


def _split(file: Path) -> str | None:
    """The split that the file's name or folder says."""
    words = re.split(r"[^a-z]+", f"{file.parent.name} {file.stem}".lower())
    return next((split for split in ("test", "val", "train") if split in words), None)


def _images_folder(file: Path, option: Path | None) -> Path:
    """The folder that the JSON's paths start from.

    Raises
    ------
    InputError
        If it is not there.
    """
    above = (file.parent, file.parent.parent, file.parent.parent.parent)
    likely = (folder for up in above for folder in (up / "SAMed2Dv1", up) if (folder / "images").is_dir())
    found = next(likely, None) if option is None else option.absolute()
    if found is None or not found.is_dir():
        shown = display_name(file.parent if found is None else found)
        raise InputError(f"{shown}: no images there; give images=FOLDER, the SAMed2Dv1 folder of SA-Med2D-20M")
    return found


def _read_classes(path: Path) -> dict[str, dict[int, str]]:
    """Class mapping, data set by data set; which way round an entry is written does not matter."""
    shown = display_name(path)
    try:
        document: Any = json.loads(read_bytes(path).decode("utf-8-sig"))
    except (ValueError, RecursionError) as exc:
        raise InputError(f"{shown}: not JSON ({one_line(exc, 80)}); download it again") from None
    if not isinstance(document, dict):
        raise InputError(f"{shown}: no class mapping; it is an object: data set -> class -> number")
    classes: dict[str, dict[int, str]] = {}
    for dataset, table in document.items():
        for name, number in table.items() if isinstance(table, dict) else ():
            if str(name).isdecimal() and isinstance(number, str):
                name, number = number, name
            if str(number).isdecimal():
                classes.setdefault(dataset, {})[int(number)] = clean_name(str(name))
    return classes
