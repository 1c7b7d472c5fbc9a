"""Rows of a question-answering set, gathered into one sample an image."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ibisagent.engine.sources.options import CommonOptions
from ibisagent.engine.sources.readers import FilesReader
from ibisagent.engine.sources.sample import Fault, Question, Sample
from ibisagent.errors import InputError
from ibisagent.io.files import display_name, one_line, read_bytes

__all__ = ["QuestionRow", "inside", "question_of", "read_json_rows", "samples_of_rows"]

CLOSED_ANSWERS = ("yes", "no")
"""Answers of closed questions, where a set does not say which are."""


@dataclass(frozen=True)
class QuestionRow:
    """One question about one image.

    Parameters
    ----------
    item
        Which row, for faults: ``"train.json row 12"``.
    image
        Path of the image relative to the images' folder, with ``/``.
    question
        With its answer.
    split
        As published, or None.
    modality
        As the row says, or None.
    """

    item: str
    image: str
    question: Question
    split: str | None = None
    modality: str | None = None


def read_json_rows(path: Path) -> list[Any]:
    """Read a JSON list, or a file with one JSON object a line.

    Raises
    ------
    InputError
        If the file cannot be read, or is neither.
    """
    shown = display_name(path)
    try:
        text = read_bytes(path).decode("utf-8-sig")
        if path.suffix.lower() == ".jsonl":
            rows = [json.loads(line) for line in text.split("\n") if line.strip()]
        else:
            rows = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise InputError(f"{shown}: not JSON ({one_line(exc, 80)}); download it again") from None
    if not isinstance(rows, list):
        raise InputError(f"{shown}: not a list of questions; give the file as it was published")
    return rows


def question_of(row: Any, item: str, source: str, closed: bool | None = None) -> Question | Fault:
    """The question in a row's fields ``question`` and ``answer``.

    Parameters
    ----------
    closed
        Whether it is closed; None: it is if the answer is yes or no.
    """
    fields: Mapping[str, Any] = row if isinstance(row, Mapping) else {}
    texts = []
    for name in ("question", "answer"):
        value = fields.get(name)
        text = str(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else ""
        text = " ".join(text.split())
        if not text:
            return Fault(source, item, "bad_row", f"{item}: it has no {name}; correct or remove it")
        texts.append(text)
    return Question(texts[0], texts[1], texts[1].lower().rstrip(".") in CLOSED_ANSWERS if closed is None else closed)


def inside(root: Path, relative: str) -> Path | None:
    """A path below a folder, or None if it is absolute or leads out of it."""
    parts = PurePosixPath(relative.replace("\\", "/"))
    if not relative.strip() or parts.is_absolute() or ".." in parts.parts or "\0" in relative:
        return None
    return root / parts


def samples_of_rows(
    rows: Iterable[QuestionRow | Fault], root: Path, common: CommonOptions, licence: str
) -> Iterator[Sample | Fault]:
    """Gather rows into samples, one for each image and split, in the order of the rows.

    The group of a sample is its image, unless a pattern is given. An image that is in several splits gives a sample
    in each, whose key ends with ``#`` and the split.

    Parameters
    ----------
    root
        Folder of the images.
    licence
        Of the set, as published.
    """
    gathered: dict[tuple[str, str | None], list[QuestionRow]] = {}
    splits: dict[str, set[str | None]] = {}
    for row in rows:
        if isinstance(row, Fault):
            yield row
        else:
            gathered.setdefault((row.image, row.split), []).append(row)
            splits.setdefault(row.image, set()).add(row.split)
    for (image, split), mine in gathered.items():
        key = image if len(splits[image]) == 1 else f"{image}#{split}"
        path = inside(root, image)
        if path is None or not path.is_file():
            message = f"{one_line(image, 200)}: no such image below {display_name(root)} ({mine[0].item}); download it"
            yield Fault(common.name, key, "missing_image", message)
            continue
        modality = common.modality or mine[0].modality
        try:
            yield common.sample(
                key,
                FilesReader(common.name, key, str(path), (), modality),
                (),
                stem=str(PurePosixPath(image).with_suffix("")),
                modality=modality,
                group=image,
                split=split,
                licence=licence,
                questions=tuple(row.question for row in mine),
            )
        except InputError as exc:  # the group pattern finds nothing
            yield Fault(common.name, key, "bad_row", str(exc))
