"""Studies to work on: found in a folder, or named by a list with instructions of their own."""

from __future__ import annotations

import csv
import fnmatch
import hashlib
import io
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ibisagent.errors import InputError
from ibisagent.io.files import one_line, read_bytes, sniff

__all__ = ["COLUMNS", "Study", "find_studies", "list_studies", "open_studies"]

COLUMNS = ("study", "instruction", "id", "series", "slice", "window", "modality", "label", "mask")
"""Columns of a list; ``study`` is needed, and ``instruction`` where the command gives none."""

_UNSAFE = re.compile(r"[^\w.+-]+")
_NAMES_NOTHING = ("dicomdir",)
_IMAGES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".png", ".jpg", ".jpeg", ".tif", ".tiff")


@dataclass(frozen=True)
class Study:
    """One study and what is asked of it.

    Parameters
    ----------
    id
        Its name in the output: a folder's name, unique in a batch.
    name
        How the folder or the list names it.
    path
        Where it lies.
    instruction
        What to segment.
    series, slice, window, modality, label, mask
        As the options of ``ibisagent segment``; `mask` is a path.
    """

    id: str
    name: str
    path: str
    instruction: str
    series: str | None = None
    slice: str | None = None
    window: str | None = None
    modality: str | None = None
    label: str | None = None
    mask: str | None = None


def open_studies(
    where: str | os.PathLike[str],
    instruction: str | None,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    out: Path | None = None,
) -> list[Study]:
    """Studies of a folder, or of a list (``.jsonl`` or ``.csv``). Parameters as below.

    Raises
    ------
    InputError
        If there are none, or the list is damaged.
    """
    place = Path(where)
    if place.is_dir():
        if instruction is None:
            raise InputError("INSTRUCTION is missing: a folder does not say what to segment")
        return find_studies(place, instruction, include=include, exclude=exclude, out=out)
    if include or exclude:
        raise InputError("--include and --exclude choose from a folder, and STUDIES is a list; leave them out")
    return list_studies(place, instruction)


def find_studies(
    folder: Path,
    instruction: str,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    out: Path | None = None,
) -> list[Study]:
    """Every image file below a folder, and every folder with DICOM files in it, in sorted order.

    The content says what an image is; a file that is called one and holds none (empty, cut off, unreadable) is a study
    too, so that its row says what is wrong with it and no study is lost without a word.

    Parameters
    ----------
    folder
        Where to look; hidden files and folders are passed over, links to folders not followed.
    instruction
        What to segment in each.
    include, exclude
        Patterns such as ``"*_ct.nii.gz"`` for paths below `folder`; one of the first must fit (if there are any), none
        of the second may.
    out
        Folder of the results, which is not looked into.

    Raises
    ------
    InputError
        If there is none, or a folder cannot be read.

    Notes
    -----
    A file's id is its path without the ending. The folders of DICOM files are often named after patients, so that
    theirs is made of a hash of the path; the manifest says which is which.
    """
    studies: list[Study] = []
    for relative, is_dicom in _found(folder, out):
        name = relative.as_posix()
        wanted = not include or any(fnmatch.fnmatch(name, pattern) for pattern in include)
        if wanted and not any(fnmatch.fnmatch(name, pattern) for pattern in exclude):
            made = f"study-{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:10]}"
            studies.append(Study(made if is_dicom else _plain(name), name, str(folder / relative), instruction))
    if not studies:
        raise InputError(f"{folder}: no images in it" + (" that --include and --exclude let through" * bool(include)))
    return _with_own_ids(studies)


def _found(folder: Path, out: Path | None) -> Iterator[tuple[Path, bool]]:
    """(path below the folder, whether it is a folder of DICOM files), sorted."""

    def failed(error: OSError) -> None:
        """A folder that cannot be listed ends the search: its studies would be missing without a word."""
        raise InputError(f"{error.filename}: {error.strerror or error}") from None

    skipped = out.resolve() if out is not None and out.exists() else None
    for place, folders, files in os.walk(folder, onerror=failed):
        here = Path(place)
        folders[:] = sorted(n for n in folders if not n.startswith(".") and (here / n).resolve() != skipped)
        kinds = {name: _kind(here / name) for name in sorted(files) if not name.startswith(".")}
        if "DICOM" in kinds.values():
            yield here.relative_to(folder), True
        for name, kind in kinds.items():
            if kind not in (None, "DICOM"):
                yield (here / name).relative_to(folder), False


def _kind(path: Path) -> str | None:
    if path.name.lower() in _NAMES_NOTHING or not path.is_file():
        return None
    try:
        return sniff(path)
    except InputError:
        name = path.name.lower()
        return "DICOM" if name.endswith(".dcm") else "damaged" if name.endswith(_IMAGES) else None


def _plain(name: str) -> str:
    """A path without its ending, as one name that any file system takes."""
    stem = name[: -len(".nii.gz")] if name.lower().endswith(".nii.gz") else os.path.splitext(name)[0]
    return _safe(stem.replace("/", "__")) or "study"


def _safe(text: str) -> str:
    return _UNSAFE.sub("_", text).strip("._")[:100]


def _with_own_ids(studies: Sequence[Study]) -> list[Study]:
    """Names that two files share (``a.png`` and ``a.tif``, or ``A`` and ``a``) get a piece of a hash."""
    import dataclasses

    counts: dict[str, int] = {}
    for study in studies:
        counts[study.id.lower()] = counts.get(study.id.lower(), 0) + 1
    own = []
    for study in studies:
        if counts[study.id.lower()] > 1:
            tail = hashlib.sha256(study.name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
            study = dataclasses.replace(study, id=f"{study.id}-{tail}")
        own.append(study)
    return own


# -- lists -----------------------------------------------------------------------------------------


def list_studies(path: Path, instruction: str | None) -> list[Study]:
    """Studies that a list names: JSON Lines or CSV with a heading, columns as :data:`COLUMNS`, others left alone.

    Paths are relative to the list's folder. Without ``id`` a row is called by its number.

    Raises
    ------
    InputError
        If the list cannot be read, or a row lacks something or repeats an id.
    """
    if path.suffix.lower() not in (".jsonl", ".csv"):
        raise InputError(f"{path}: STUDIES is a folder, or a list that ends in .jsonl or .csv")
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text; save the list in UTF-8") from None
    rows = _json_rows(path, text) if path.suffix.lower() == ".jsonl" else _csv_rows(path, text)
    studies, seen = [], set()
    for number, (line, row) in enumerate(rows, start=1):
        study = _row(path, number, line, row, instruction)
        if study.id.lower() in seen:
            raise InputError(f"{path} line {line}: the id '{one_line(study.id, 60)}' is there twice; give another")
        seen.add(study.id.lower())
        studies.append(study)
    if not studies:
        raise InputError(f"{path}: the list is empty")
    return studies


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for line, content in enumerate(text.splitlines(), start=1):
        if not content.strip():
            continue
        try:
            row = json.loads(content)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise InputError(f"{path} line {line}: not a JSON object")
        yield line, row


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        if "study" not in (reader.fieldnames or ()):
            raise InputError(f"{path}: the first line must name the columns, with 'study' among them")
        for row in reader:
            yield reader.line_num, {k: v for k, v in row.items() if v != ""}
    except csv.Error as error:
        raise InputError(f"{path} line {reader.line_num}: {error}") from None


def _row(path: Path, number: int, line: int, row: Mapping[str, Any], instruction: str | None) -> Study:
    given: dict[str, str] = {}
    for name in COLUMNS:
        value = row.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
            raise InputError(f"{path} line {line}: '{name}' must be text")
        given[name] = str(value)
    if "study" not in given:
        raise InputError(f"{path} line {line}: 'study' is missing")
    wanted = given.get("instruction", instruction)
    if wanted is None:
        raise InputError(f"{path} line {line}: 'instruction' is missing; add it, or give INSTRUCTION for all")
    made = _safe(given["id"]) if "id" in given else f"{number:05d}"
    if not made:
        raise InputError(f"{path} line {line}: 'id' has no letter or digit")
    root = path.parent
    return Study(
        id=made,
        name=given["study"],
        path=str(root / given["study"]),
        instruction=wanted,
        series=given.get("series"),
        slice=given.get("slice"),
        window=given.get("window"),
        modality=given.get("modality"),
        label=given.get("label"),
        mask=str(root / given["mask"]) if "mask" in given else None,
    )
