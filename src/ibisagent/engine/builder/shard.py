"""One shard: a journal while it is made, its files when it is whole.

Every sample that is done is a line of the shard's journal, so that a process that is killed loses the sample in work
and no more. When all are there, the tables are written (each whole or not at all), then a note of what happened, then
the journal goes. Each of these steps may be interrupted and done again with the same bytes.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibisagent import __version__
from ibisagent.engine.builder.unit import Tools, Unit, make_unit
from ibisagent.engine.corpus.schema import TABLES
from ibisagent.engine.corpus.writer import shard_path, write_table
from ibisagent.errors import InputError
from ibisagent.rendering.png import write_atomic

if TYPE_CHECKING:
    from ibisagent.engine.builder.config import SynthesisConfig
    from ibisagent.engine.builder.plan import Shard

__all__ = ["WORK", "Orphaned", "ShardJob", "journal_path", "make_shard", "note_path", "read_note", "reject_rows"]

WORK = "work"
"""Folder of journals and notes, inside the corpus's."""


class Orphaned(Exception):
    """The process that wanted this shard has gone."""


@dataclass(frozen=True)
class ShardJob:
    """What a worker needs to make one shard. Picklable.

    Parameters
    ----------
    folder
        Folder of the corpus.
    shard
        Which samples.
    config
        Settings of the build.
    names_by_modality
        See :class:`~ibisagent.engine.builder.plan.Plan`.
    rejected
        Trajectories that a person rejected.
    parent
        Process id of the one that waits for it, or None if it is on another machine.
    device
        Where the segmenter computes.
    """

    folder: str
    shard: Shard
    config: SynthesisConfig
    names_by_modality: dict[str, tuple[str, ...]]
    rejected: frozenset[str] = frozenset()
    parent: int | None = None
    device: str = "cpu"


def journal_path(folder: str | Path, name: str) -> Path:
    """Journal of a shard that is being made."""
    return Path(folder) / WORK / f"{name}.jsonl"


def note_path(folder: str | Path, name: str) -> Path:
    """Note of a shard that is whole."""
    return Path(folder) / WORK / f"{name}.json"


def read_note(folder: str | Path, shard: Shard) -> dict[str, Any] | None:
    """The note of a shard that is whole and holds these samples, else None."""
    try:
        note = json.loads(note_path(folder, shard.name).read_bytes())
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) and note.get("shard_sha256") == shard.sha256 else None


def make_shard(job: ShardJob, tools: Tools, on_sample: Callable[[bool], None] = lambda new: None) -> None:
    """Make a shard, going on from its journal if there is one.

    `on_sample` is called for every sample: with True after it was made, with False if the journal had it.

    Raises
    ------
    ToolError, TeacherError
        If the segmenter or the teacher fails; the journal keeps what was done.
    InputError
        If an item cannot be used and ``on_fault`` is ``fail``.
    Orphaned
        If the process that waits for it is gone.
    """
    folder, shard = Path(job.folder), job.shard
    path = journal_path(folder, shard.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path.with_suffix(".lock")):
        _check_parent(job)
        made_with = {"version": __version__, "segmenter_sha256": tools.segmenter.weights_sha256}
        if tools.device != "cpu":  # its rounding is another, and two roundings do not belong in one corpus
            made_with["device"] = tools.device.partition(":")[0]
        units = _read_journal(path, shard, made_with)
        for _ in units:
            on_sample(False)
        with path.open("ab") as journal:
            if not units:
                journal.write(json.dumps(made_with).encode() + b"\n")
            for sample in shard.samples[len(units) :]:
                _check_parent(job)
                unit = make_unit(sample, tools)
                if unit.faults and job.config.on_fault == "fail":
                    raise InputError(f"{unit.faults[0]['message']} (--on-fault skip leaves such items out)")
                journal.write(_to_line(unit))
                journal.flush()
                units.append(unit)
                on_sample(True)
        _finish(folder, shard, units, job, made_with)
        path.unlink(missing_ok=True)


def _check_parent(job: ShardJob) -> None:
    if job.parent is not None and os.getppid() != job.parent:
        raise Orphaned


def _finish(folder: Path, shard: Shard, units: list[Unit], job: ShardJob, made_with: dict[str, Any]) -> None:
    kept: dict[str, list[dict[str, Any]]] = {table: [] for table in TABLES}
    rejected = []
    images = set()
    for unit in units:
        for table, rows in unit.rows.items():
            for row in rows:
                if table == "images":
                    if row["image_id"] in images:
                        continue
                    images.add(row["image_id"])
                elif table == "sft" and row["trajectory_id"] in job.rejected:
                    rejected.append(row["trajectory_id"])
                    continue
                kept[table].append(row)
    config = job.config
    wanted = {
        "images": True,
        "sft": shard.split in config.sft_splits,
        "rl": shard.split in config.rl_splits,
        "test": shard.split in config.test_splits,
        "vqa": any(sample.questions for sample in shard.samples),
    }
    for table, rows in kept.items():
        if wanted[table]:
            write_table(shard_path(folder, table, shard.split, shard.index, shard.count), table, rows)
    note = {
        "shard_sha256": shard.sha256,
        "made_with": made_with,
        "trajectories": [row["trajectory_id"] for row in kept["sft"]],
        "rejected": sorted(rejected),
        "units": [{k: v for k, v in asdict(unit).items() if k != "rows"} for unit in units],
    }
    write_atomic((json.dumps(note, indent=1) + "\n").encode(), note_path(folder, shard.name))


def reject_rows(folder: str | Path, shard: Shard, note: dict[str, Any], rejected: frozenset[str]) -> None:
    """Take rejected trajectories out of a shard that is whole; the bytes are those of a build that knew them."""
    import pyarrow.parquet as pq

    path = shard_path(folder, "sft", shard.split, shard.index, shard.count)
    rows = [row for row in pq.read_table(path).to_pylist() if row["trajectory_id"] not in rejected]
    write_table(path, "sft", rows)
    now = {
        **note,
        "trajectories": [row["trajectory_id"] for row in rows],
        "rejected": sorted({*note["rejected"], *(rejected & set(note["trajectories"]))}),
    }
    write_atomic((json.dumps(now, indent=1) + "\n").encode(), note_path(folder, shard.name))


def _to_line(unit: Unit) -> bytes:
    return json.dumps(asdict(unit), default=_encode_bytes).encode() + b"\n"


def _encode_bytes(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"__bytes__": base64.b64encode(value).decode()}
    raise TypeError(f"{type(value).__name__} in a row")


def _decode_bytes(value: dict[str, Any]) -> Any:
    return base64.b64decode(value["__bytes__"]) if "__bytes__" in value else value


def _read_journal(path: Path, shard: Shard, made_with: dict[str, Any]) -> list[Unit]:
    """Units that are done with the same code and weights. What a killed process left of a line is cut off."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    units: list[Unit] = []
    head, *lines = data.splitlines(keepends=True) or [b""]
    good = len(head)
    if head != json.dumps(made_with).encode() + b"\n":
        lines, good = [], 0
    for line, sample in zip(lines, shard.samples, strict=False):
        try:
            unit = Unit(**json.loads(line, object_hook=_decode_bytes)) if line.endswith(b"\n") else None
        except (ValueError, TypeError):
            unit = None
        if unit is None or unit.sample != f"{sample.source}/{sample.key}":
            break
        units.append(unit)
        good += len(line)
    if not units:
        good = 0  # the head is written again with the first unit
    if good != len(data):
        os.truncate(path, good)
    return units


def locking() -> Any:
    """The module ``fcntl``.

    Raises
    ------
    InputError
        On a system without it.
    """
    try:
        import fcntl
    except ImportError:
        raise InputError("synthesize needs the file locks of Linux or macOS; on Windows, run it in WSL") from None
    return fcntl


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other process makes this shard: one that outlived its killed parent may still be at it."""
    fcntl = locking()
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        # The file stays: one that waits for it must not be left with a lock on a name that is gone.
        yield
