"""The cases of an evaluation: a JSONL file, or the data sets that the data engine reads, one row a target.

So whatever ``ibisagent synthesize`` takes for training, ``ibisagent evaluate`` takes for testing: ``biomedparse:DIR``,
``mecovqa:FILE``, ``phantoms:200?seed=7``, ``nifti:DIR?labels=labels.json``. Nothing is written: a row is a key, and its
image is read when it is played. Items that cannot be used become :class:`~ibisagent.io.RowError`, as bad lines do.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ibisagent.engine.sources.registry import SOURCES, open_source
from ibisagent.engine.sources.sample import Fault, LabelledImage, Sample
from ibisagent.engine.splits import split_of
from ibisagent.errors import InputError
from ibisagent.hashing import file_hash
from ibisagent.io import CaseRow, RowError, load_case, read_cases
from ibisagent.io.datasets import RowCode
from ibisagent.io.files import one_line
from ibisagent.types import Image

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["CaseList", "LoadRow", "Loaded", "Sentences", "is_source", "open_case_list", "rows_hash"]

Loaded = tuple[Image, "NDArray[np.bool_] | None", "NDArray[np.bool_] | None"]
"""Image, target mask (None: absent), mask to start from (None: nothing)."""

LoadRow = Callable[[CaseRow], Loaded]
"""What :func:`ibisagent.evaluate.evaluate` reads rows with."""

Sentences = Literal["first", "all", "none"]
"""Which of a data set's own sentences are instructions: the first of each target, all (a case each), or none."""

_CODES: dict[str, RowCode] = {
    "missing_image": "missing_image",
    "missing_mask": "missing_mask",
    "duplicate_id": "duplicate_id",
}
_KEPT_IMAGES = 2
_IN_SAMPLE = "in its data set"  # what a row of a sample has for a mask's path


@dataclass(frozen=True)
class CaseList:
    """Rows, and how to read them. Can be pickled, for workers.

    Parameters
    ----------
    name
        For the record: the file's name, or the specs.
    sha256
        Of the file; of a data set that of its rows, for its files are not read before they are played.
    rows
        In order; faults where they stand.
    root
        Folder that paths of a JSONL file's rows are relative to.
    samples
        The sample of each row of a data set, by case id.
    files
        Where several lists are joined: the row of each case of a JSONL file as it stands there, and its folder.
    """

    name: str
    sha256: str
    rows: tuple[CaseRow | RowError, ...]
    root: Path
    samples: dict[str, Sample] = field(default_factory=dict, repr=False)
    files: dict[str, tuple[CaseRow, Path]] = field(default_factory=dict, repr=False)
    _recent: OrderedDict[str, LabelledImage] = field(default_factory=OrderedDict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.rows)

    def load(self, row: CaseRow) -> Loaded:
        """Read a row's image and masks.

        Raises
        ------
        InputError
            If they cannot be read, or the data set promised a mask that is not there.
        """
        sample = self.samples.get(row.case_id)
        if sample is None:
            stands, root = self.files.get(row.case_id, (row, self.root))
            # whoever plays may have taken the mask to start from away
            return load_case(stands if row.initial_mask else stands.model_copy(update={"initial_mask": None}), root)
        read = self._read(sample)
        if row.mask is None:
            return read.image, None, None
        mask = read.masks.get(row.target)
        if mask is None:
            told = next((fault.message for fault in read.faults), f"{sample.key}: no mask of '{row.target}' in it")
            raise InputError(one_line(told, 400))
        return read.image, mask, None

    def _read(self, sample: Sample) -> LabelledImage:
        """Rows of one image follow one another, so it is read once for them."""
        key = f"{sample.source}/{sample.key}"
        if key not in self._recent:
            self._recent[key] = sample.reader()
            while len(self._recent) > _KEPT_IMAGES:
                self._recent.popitem(last=False)
        self._recent.move_to_end(key)
        return self._recent[key]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_recent": OrderedDict()}  # pictures do not travel


def is_source(cases: str) -> bool:
    """Whether `cases` is a spec of a data set (``KIND:PATH``), and no file."""
    kind, colon, _ = cases.partition(":")
    return bool(colon) and kind in SOURCES and not Path(cases).exists()


def open_case_list(
    cases: str | os.PathLike[str] | Sequence[str],
    *,
    split: str | None = None,
    limit: int | None = None,
    sentences: Sentences = "first",
) -> CaseList:
    """Open what is to be evaluated.

    Parameters
    ----------
    cases
        A ``cases.jsonl`` or the folder with it, a spec of a data set, or several of them: then ids begin with the data
        set's name.
    split
        Only rows of this split. A data set that states none is divided by patient as the data engine does it
        (:func:`ibisagent.engine.splits.split_of`). Faults that say no split stay: they must not go unseen.
    limit
        Only the first so many rows of the split, of all of `cases` together.
    sentences
        For data sets that bring sentences.

    Raises
    ------
    InputError
        If a file or a data set is not there, a spec is wrong, two lists share an id, or there is no row of the split.
    """
    given = [cases] if isinstance(cases, str | os.PathLike) else cases
    many = [_as_file(str(one)) for one in given]
    if not many:
        raise InputError("no cases are given; give a JSONL file or a data set such as phantoms:100")
    if len(many) == 1 and not is_source(many[0]):
        path = Path(many[0])
        rows = tuple(_of_split(read_cases(path), split, many)[:limit])
        return CaseList(path.name, file_hash(path), rows, path.parent)
    found: list[CaseRow | RowError] = []
    samples: dict[str, Sample] = {}
    files: dict[str, tuple[CaseRow, Path]] = {}
    splits: set[str] = set()
    for one in many:
        for row, made_of in _joined(one, _rows_of(one, sentences) if is_source(one) else _rows_in(one), len(many) > 1):
            if row.split is not None:
                splits.add(row.split)
            if split is not None and row.split != split and not (row.split is None and isinstance(row, RowError)):
                continue
            if limit is not None and len(found) >= limit:
                break
            if isinstance(row, CaseRow):
                if row.case_id in samples or row.case_id in files:
                    message = (
                        f"case_id '{row.case_id}' stands twice in {' '.join(many)}; give the data sets other names"
                    )
                    facts = {name: getattr(row, name) for name in ("group", "target", "modality", "split")}
                    found.append(RowError(len(found) + 1, row.case_id, message, code="duplicate_id", **facts))
                    continue
                if isinstance(made_of, Sample):
                    samples[row.case_id] = made_of
                elif isinstance(made_of, CaseRow):
                    files[row.case_id] = made_of, Path(one).parent
            found.append(row)
    if not any(isinstance(row, CaseRow) for row in found):
        raise _nothing(found, split, splits, many)
    return CaseList(" ".join(many), rows_hash(found, many), tuple(found), Path(), samples, files)


_Rows = Iterator[tuple[CaseRow | RowError, Sample | CaseRow | None]]
"""Rows, and what each was made of; None for faults."""


def _rows_in(path: str) -> _Rows:
    """Rows of a JSONL file among other lists."""
    if not Path(path).is_file():
        raise InputError(f"{one_line(path)}: no such file, and no data set KIND:PATH; kinds: {', '.join(SOURCES)}")
    for row in read_cases(path):
        yield row, row if isinstance(row, CaseRow) else None


def _joined(cases: str, rows: _Rows, several: bool) -> _Rows:
    """Where there are several lists, ids, images and patients of one must not be taken for those of another."""
    for row, made_of in rows:
        if several and isinstance(row, CaseRow):
            more = row.model_extra or {}
            name = more.get("source") if isinstance(made_of, Sample) else Path(cases).parent.name or Path(cases).stem
            told = {"case_id": f"{name}/{row.case_id}", "image": f"{name}/{row.image}"}
            patient = more.get("patient") or row.group
            row = row.model_copy(update={**told, **({"patient": f"{name}/{patient}"} if patient else {})})
        yield row, made_of


def _as_file(cases: str) -> str:
    """A folder stands for the list in it."""
    return str(Path(cases) / "cases.jsonl") if not is_source(cases) and Path(cases).is_dir() else cases


def _rows_of(spec: str, sentences: Sentences) -> _Rows:
    """Rows of a data set. Where it does not know whose an image is, they have no group."""
    source = open_source(spec)
    place = 0
    for item in source.samples():
        place += 1
        if isinstance(item, Fault):
            yield _row_error(place, item), None
            continue
        if spec.startswith("phantoms:"):
            item = replace(item, group=item.key)  # nobody else's picture, and that is known
        names, absent = item.names, item.absent
        if not names:  # only reading tells; the picture is forgotten and read again when it is played
            try:
                read = item.reader()
            except InputError as error:
                fault = Fault(item.source, item.key, "unreadable", str(error))
                yield _row_error(place, fault, item), None
                continue
            names, absent = tuple(read.masks), tuple(dict.fromkeys((*absent, *read.absent)))
            for fault in read.faults:
                yield _row_error(place, fault, item), None
        for target in (*names, *(name for name in absent if name not in names)):
            for case in _cases_of(item, target, target not in names, sentences):
                yield case, item


def _cases_of(sample: Sample, target: str, absent: bool, sentences: Sentences) -> Iterator[CaseRow]:
    asked: Sequence[str | None] = [text for text in sample.instructions.get(target, ()) if text.strip()]
    if not asked or sentences == "none":
        asked = (None,)
    elif sentences == "first":
        asked = asked[:1]
    for number, instruction in enumerate(asked):
        more = f"__{number + 1}" if number else ""
        facts: dict[str, Any] = {
            "case_id": f"{sample.key}__{target}{more}",
            "image": sample.key,
            "mask": None if absent else _IN_SAMPLE,
            "target": target,
            "modality": sample.modality,
            "view": sample.view,
            "group": sample.group,
            "split": split_of(sample),
            "source": sample.source,
            "instruction": instruction,
        }
        yield CaseRow(**facts)


def _row_error(place: int, fault: Fault, sample: Sample | None = None) -> RowError:
    """A data set has no lines: the item's place in its listing stands for it, and the message names the item."""
    message = one_line(fault.message, 1000)
    if one_line(fault.item) not in message:
        message = f"{fault.source}/{one_line(fault.item)}: {message}"
    code = _CODES.get(fault.code, "bad_row")
    item = one_line(fault.item)
    if sample is None:
        return RowError(place, item, message, code=code)
    return RowError(
        place, item, message, group=sample.group, modality=sample.modality, split=split_of(sample), code=code
    )


def _of_split(rows: list[CaseRow | RowError], split: str | None, names: Iterable[str]) -> list[CaseRow | RowError]:
    if split is None:
        return rows
    kept = [row for row in rows if row.split == split or (row.split is None and isinstance(row, RowError))]
    splits = {row.split for row in rows if row.split is not None}
    if split not in splits:
        raise _nothing([], split, splits, names)
    return kept


def _nothing(
    faults: Sequence[CaseRow | RowError], split: str | None, splits: Iterable[str], names: Iterable[str]
) -> InputError:
    where = one_line(" ".join(names))
    known = ", ".join(sorted(splits))
    if split is not None and split not in splits:
        return InputError(f"{where}: no row of the split '{split}'; there is {known or 'no split at all'}")
    told = next((f": {row.message}" for row in faults if isinstance(row, RowError)), "")
    return InputError(f"{where}: not one case can be used{told}")


def rows_hash(rows: Iterable[CaseRow | RowError], specs: Sequence[str] = ()) -> str:
    """Of what the rows say, and of the kinds of data sets that they are from; places of files are no part of it."""
    digest = hashlib.sha256()
    for row in rows:
        facts = row.model_dump(mode="json") if isinstance(row, CaseRow) else {"error": row.message}
        digest.update(json.dumps(facts, sort_keys=True).encode() + b"\n")
    digest.update("\n".join(spec.partition(":")[0] for spec in specs).encode())
    return digest.hexdigest()
