"""PathVQA (He et al., 2020; arXiv 2003.10286): questions about pathology images.

Its authors publish pickle files::

    images/train/train_0001.jpg           and the same for val and test
    qas/train/train_qa.pkl                 a list of {image, question, answer}; image without folder and ending

A pickle runs whatever program is in it when it is loaded, so it is refused here. Read are the same lists as
``train_qa.json``, ``train_qa.jsonl`` or ``train_qa.csv`` in the same places (or in ``qas/``), and the parquet files
of its Hugging Face copy (``flaviagiammarino/path-vqa``, MIT): ``train-….parquet``, ``validation-….parquet`` and
``test-….parquet`` in the folder or in ``data/``, with the columns image (bytes), question and answer.

Questions that are answered with yes or no are closed; a modality is not stated (micrographs and photographs are mixed).
The group is the image: PathVQA does not say which images are
of one patient. The layouts were looked up in public loaders and the card of that copy.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import hashlib
import io
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ibisagent.engine.sources.options import COMMON, CommonOptions, Options
from ibisagent.engine.sources.questions import QuestionRow, question_of, read_json_rows, samples_of_rows
from ibisagent.engine.sources.sample import Fault, LabelledImage, Question, Sample
from ibisagent.errors import InputError
from ibisagent.io.files import display_name, one_line, read_bytes, reading
from ibisagent.io.images import read_image

__all__ = ["ParquetReader", "PathVqaSource"]

LICENCE = "MIT (as its Hugging Face copy states)"
_SPLITS = (("train", ("train",)), ("val", ("val", "validation")), ("test", ("test",)))
_ENDINGS = (".json", ".jsonl", ".csv")
_REFUSED = (
    "is a pickle, which runs as a program when it is loaded, and is not read; give the parquet files of "
    "flaviagiammarino/path-vqa, or save the list as JSON on a machine that you trust"
)


@dataclass(frozen=True)
class ParquetReader:
    """Reads one image out of a parquet file.

    Parameters
    ----------
    key
        Stands for the image's source.
    file
        The parquet file.
    row_group, row
        Where the image is.
    modality
        Of the image, or None.
    """

    key: str
    file: str
    row_group: int
    row: int
    modality: str | None = None

    def __call__(self) -> LabelledImage:
        """Read the image; see :class:`ibisagent.engine.sources.sample.Reader`."""
        try:
            state = os.stat(self.file)
        except OSError:
            raise InputError(f"{display_name(self.file)}: no such file; check the path") from None
        images = _images(self.file, state.st_mtime_ns, self.row_group)
        data = images[self.row] if self.row < len(images) else None
        if not data:
            raise InputError(f"{display_name(self.file)}: no image in row {self.row} of part {self.row_group}")
        with tempfile.TemporaryDirectory() as folder:  # so that every check of the image readers holds here too
            path = Path(folder) / "image"
            path.write_bytes(data)
            try:
                image = read_image(path, modality=self.modality)
            except InputError as exc:
                raise InputError(str(exc).replace(display_name(path), self.key)) from None
        return LabelledImage(dataclasses.replace(image, source=self.key), {})


@functools.lru_cache(maxsize=1)  # the questions of one part are read one after another
def _images(file: str, _changed: int, row_group: int) -> list[bytes | None]:
    return [_bytes_of(value) for value in _columns(file, row_group, ["image"])["image"]]


def _columns(file: str, row_group: int, names: list[str]) -> dict[str, list[Any]]:
    import pyarrow.parquet as pq

    with reading(file, "a parquet file of images and questions"):
        table = pq.ParquetFile(file).read_row_group(row_group, columns=names)
        return {name: table.column(name).to_pylist() for name in names}


def _bytes_of(value: Any) -> bytes | None:
    data = value.get("bytes") if isinstance(value, Mapping) else value
    return data if isinstance(data, bytes) and data else None


@dataclass(frozen=True)
class PathVqaSource:
    """PathVQA.

    Parameters
    ----------
    root
        Its folder.
    common
        Options that all sources know.
    """

    root: Path
    common: CommonOptions

    @classmethod
    def from_spec(cls, path: str, options: dict[str, str]) -> PathVqaSource:
        """Open ``pathvqa:FOLDER``.

        Raises
        ------
        InputError
            If nothing of it is there in a form that is read, or an option is wrong.
        """
        common = tuple(option for option in COMMON if option not in ("target", "split"))
        read = Options("pathvqa", options, (), common)
        root = Path(path).absolute()
        source = cls(root, read.common("pathvqa"))
        if not root.is_dir():
            raise InputError(f"{display_name(root)}: no such folder; give PathVQA's folder")
        if not any(source._list_of(split) or source._parquets(split) for split, _ in _SPLITS):
            pickles = source._pickles()
            if pickles:
                raise InputError(f"{display_name(pickles[0])}: {_REFUSED}")
            raise InputError(
                f"{display_name(root)}: no qas/train/train_qa.json and no parquet file; give PathVQA's folder"
            )
        return source

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.common.name

    def samples(self) -> Iterator[Sample | Fault]:
        """One sample an image, training images first.

        Raises
        ------
        InputError
            If a list of questions cannot be read.
        """
        for split, _ in _SPLITS:
            if self._list_of(split) is not None:
                yield from samples_of_rows(self._rows(split), self.root / "images", self.common, LICENCE)
            elif self._parquets(split):
                yield from self._from_parquet(split)
            else:
                refused = [path for path in self._pickles() if path.name.startswith(split)]
                message = (
                    f"{display_name(refused[0])}: {_REFUSED}" if refused else f"no questions for {split}; add them"
                )
                yield Fault(self.name, split, "unreadable" if refused else "bad_row", message)

    def _list_of(self, split: str) -> Path | None:
        folders = (self.root / "qas" / split, self.root / "qas", self.root)
        paths = (folder / f"{split}_qa{ending}" for folder in folders for ending in _ENDINGS)
        return next((path for path in paths if path.is_file()), None)

    def _parquets(self, split: str) -> list[Path]:
        words = dict(_SPLITS)[split]
        return sorted(
            path
            for folder in (self.root, self.root / "data")
            for path in folder.glob("*.parquet")
            if path.name.split("-")[0].split(".")[0] in words
        )

    def _pickles(self) -> list[Path]:
        return sorted((self.root / "qas").rglob("*_qa.pkl")) or sorted(self.root.rglob("*.pkl"))

    def _rows(self, split: str) -> Iterator[QuestionRow | Fault]:
        file = self._list_of(split)
        assert file is not None
        rows = _csv_rows(file) if file.suffix == ".csv" else read_json_rows(file)
        for number, row in enumerate(rows, start=1):
            item = f"{file.name} row {number}"
            image = row.get("image") if isinstance(row, Mapping) else None
            question = question_of(row, item, self.name)
            if isinstance(question, Fault):
                yield question
            elif not isinstance(image, str) or not image.strip():
                yield Fault(self.name, item, "bad_row", f"{item}: it has no image; correct or remove it")
            else:
                yield QuestionRow(item, self._image(split, image.strip()), question, split)

    def _image(self, split: str, name: str) -> str:
        """Path of an image below ``images/``; the lists leave folder and ending out."""
        stem = name if "/" in name else f"{split}/{name}"
        endings = ("", ".jpg", ".jpeg", ".png")
        return next((stem + e for e in endings if (self.root / "images" / (stem + e)).is_file()), f"{stem}.jpg")

    def _from_parquet(self, split: str) -> Iterator[Sample | Fault]:
        """Rows with the same bytes are one image."""
        import pyarrow.parquet as pq

        places: dict[str, ParquetReader] = {}
        questions: dict[str, list[Question]] = {}
        for file in self._parquets(split):
            try:
                with reading(file, "a parquet file"):
                    num_parts = pq.ParquetFile(file).num_row_groups
                for part in range(num_parts):
                    columns = _columns(str(file), part, ["image", "question", "answer"])
                    for row, (value, *texts) in enumerate(zip(*columns.values(), strict=True)):
                        item = f"{file.name} part {part} row {row}"
                        question = question_of(dict(zip(("question", "answer"), texts, strict=True)), item, self.name)
                        data = _bytes_of(value)
                        if isinstance(question, Fault):
                            yield question
                        elif data is None:
                            yield Fault(
                                self.name, item, "missing_image", f"{item}: no image in it; download the file again"
                            )
                        else:
                            name = hashlib.sha256(data).hexdigest()[:16]
                            reader = ParquetReader(f"{split}/{name}", str(file), part, row, self.common.modality)
                            places.setdefault(name, reader)
                            questions.setdefault(name, []).append(question)
            except InputError as exc:
                yield Fault(self.name, file.name, "unreadable", str(exc))
        for name, reader in places.items():
            try:
                yield self.common.sample(
                    reader.key,
                    reader,
                    (),
                    stem=name,
                    modality=reader.modality,
                    group=name,
                    split=split,
                    licence=LICENCE,
                    questions=tuple(questions[name]),
                )
            except InputError as exc:  # the group pattern finds nothing
                yield Fault(self.name, reader.key, "bad_row", str(exc))


def _csv_rows(path: Path) -> list[dict[str, str]]:
    try:
        text = read_bytes(path).decode("utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    except (ValueError, csv.Error) as exc:
        raise InputError(f"{display_name(path)}: not a CSV table ({one_line(exc, 80)}); save it again") from None
    return rows
