"""The manifest of a batch: what came of each study, written as it ends.

- ``batch.json``: schema version and settings, everything that results depend on.
- ``manifest.jsonl``: one line a study as it ends; the last line of an id counts, a line that was cut off does not.
- ``manifest.csv``: the same for people, in the order of the studies, written at the end.

A folder with them can be gone on with by the same settings.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ibisagent import __version__
from ibisagent.errors import InputError
from ibisagent.io.files import claim_file
from ibisagent.rendering.png import write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ibisagent.batch.study import Study

__all__ = ["BROKEN", "Manifest"]

SCHEMA_VERSION = 1
SETTINGS, JOURNAL, TABLE = "batch.json", "manifest.jsonl", "manifest.csv"
BROKEN = ("failed", "error")
"""Outcomes that ``--retry`` tries again."""

_COLUMNS = (
    "id", "study", "instruction", "outcome", "answer", "volume_ml", "voxels", "visits", "clicked_slices", "seconds",
    "mask", "error",
)  # fmt: skip


class Manifest:
    """A manifest that is being written. Made by :meth:`open`.

    Attributes
    ----------
    path
        Folder of the batch.
    rows
        What has ended, by id.
    """

    def __init__(self, path: Path, rows: dict[str, dict[str, Any]], journal: IO[bytes]) -> None:
        self.path, self.rows, self._journal = path, rows, journal

    @classmethod
    def open(cls, out: Path, settings: dict[str, Any]) -> Manifest:
        """Begin, or go on with a batch of the same settings.

        Raises
        ------
        InputError
            If the folder holds a batch with other settings, another process is writing it, or it cannot be written.
        """
        settings = json.loads(
            json.dumps({"schema_version": SCHEMA_VERSION, "ibisagent_version": __version__, **settings})
        )
        _check(out, settings)
        with _writing(out):
            out.mkdir(parents=True, exist_ok=True)
            journal = (out / JOURNAL).open("ab")
        try:
            claim_file(journal.fileno(), out)
            with _writing(out):
                rows, good = _read(out / JOURNAL)
                os.truncate(out / JOURNAL, good)
                write_atomic((json.dumps(settings, indent=1) + "\n").encode(), out / SETTINGS)
        except BaseException:
            journal.close()
            raise
        return cls(out, rows, journal)

    def left(self, studies: Sequence[Study], *, retry: bool = False) -> list[Study]:
        """Studies that have not ended yet, or were asked something else then; with `retry` those that failed, too."""

        def is_done(study: Study) -> bool:
            """Whether a study has ended, was asked the same thing, and is not to be tried again."""
            row = self.rows.get(study.id)
            asked = row is not None and (row.get("study"), row.get("instruction")) == (study.name, study.instruction)
            return asked and row is not None and not (retry and row.get("outcome") in BROKEN)

        return [study for study in studies if not is_done(study)]

    def add(self, study: Study, row: dict[str, Any]) -> dict[str, Any]:
        """Keep what came of a study; on return it is on the disk.

        Raises
        ------
        InputError
            If the disk is full or the folder has gone.
        """
        whole = {"id": study.id, "study": study.name, "instruction": study.instruction, **row}
        with _writing(self.path):
            self._journal.write(json.dumps(whole).encode() + b"\n")
            self._journal.flush()
            os.fsync(self._journal.fileno())
        self.rows[study.id] = whole
        return whole

    def finish(self, studies: Sequence[Study]) -> list[dict[str, Any]]:
        """Write both files in the order of the studies; rows of studies that are no longer there stay at the end."""
        order = {study.id: number for number, study in enumerate(studies)}
        rows = sorted(self.rows.values(), key=lambda row: order.get(row["id"], len(order)))
        buffer = io.StringIO(newline="")
        writer = csv.DictWriter(buffer, _COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            cells = {name: "" if row.get(name) is None else row[name] for name in _COLUMNS}
            writer.writerow({**cells, "mask": (row.get("files") or {}).get("mask", "")})
        with _writing(self.path):
            text = "".join(json.dumps(row) + "\n" for row in rows)
            write_atomic(text.encode(), self.path / JOURNAL)
            write_atomic(buffer.getvalue().encode("utf-8", "replace"), self.path / TABLE)
        return rows

    def __enter__(self) -> Manifest:
        return self

    def __exit__(self, *raised: object) -> None:
        self._journal.close()


def _check(out: Path, settings: dict[str, Any]) -> None:
    try:
        known = json.loads((out / SETTINGS).read_bytes())
    except FileNotFoundError:
        if (out / JOURNAL).exists():
            raise InputError(f"{out} has a {JOURNAL} and no {SETTINGS}; choose another --out") from None
        return
    except OSError as error:
        raise InputError(f"cannot read {out / SETTINGS}: {error.strerror or error}") from None
    except ValueError:
        known = None
    if not isinstance(known, dict):
        raise InputError(f"{out / SETTINGS} is damaged; choose another --out")
    was, now = _leaves(known), _leaves(settings)
    for name in {**now, **was}:
        if now.get(name) != was.get(name):
            before, asked = json.dumps(was.get(name)), json.dumps(now.get(name))
            raise InputError(f"{out} holds a batch with {name} {before}, not {asked}; choose another --out")


def _leaves(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings without folds: ``config.rollout.max_steps``."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found.update(
            {f"{name}.{k}": v for k, v in _leaves(value).items()} if isinstance(value, dict) else {name: value}
        )
    return found


def _read(path: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """Rows by id, and how many bytes of the journal are whole lines."""
    rows: dict[str, dict[str, Any]] = {}
    good = 0
    lines = path.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line) if line.endswith(b"\n") else None
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict) or not isinstance(row.get("id"), str):
            if number == len(lines):
                break
            raise InputError(f"{path} line {number} is damaged; choose another --out")
        rows[row["id"]] = row
        good += len(line)
    return rows, good


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"--out {path}: {error.strerror or error}") from None
