"""The build from beginning to end: plan, check, make what is missing, add up.

What is in the folder afterwards depends on the settings and the data alone: not on the number of workers, nor on how
often it was interrupted; with ``cuda`` or ``mps``, on the device, too. Only ``run.json`` (seconds, rate, device) is of
one run.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ibisagent.engine.builder.config import SynthesisConfig
from ibisagent.engine.builder.plan import Plan, Shard, make_plan
from ibisagent.engine.builder.report import Report, write_lines
from ibisagent.engine.builder.shard import WORK, ShardJob, locking, read_note, reject_rows
from ibisagent.engine.builder.unit import teacher_options
from ibisagent.engine.builder.workers import Executor, default_processes, run_jobs
from ibisagent.engine.corpus.card import write_card
from ibisagent.engine.corpus.decisions import Decisions
from ibisagent.engine.corpus.writer import shard_path, write_table
from ibisagent.engine.reasoning.teacher import make_teacher
from ibisagent.engine.sources.audit import ImageRecord, audit_groups, audit_records
from ibisagent.engine.splits import split_of
from ibisagent.errors import InputError, ToolError
from ibisagent.rendering.png import write_atomic

__all__ = ["Progress", "Result", "synthesize"]

Progress = Callable[[int, int], None]
"""(samples done now, samples in all)."""


@dataclass(frozen=True)
class Result:
    """What a build came to.

    Parameters
    ----------
    report
        Counts, faults, drops.
    num_made
        Samples that this run worked on; the others were there already.
    seconds
        Wall clock of that work.
    spent
        What a chat teacher used in all, or None.
    """

    report: Report
    num_made: int
    seconds: float
    spent: dict[str, Any] | None = None


def synthesize(
    config: SynthesisConfig,
    out: str | Path,
    *,
    executor: Executor = "processes",
    num_workers: int | None = None,
    ray_address: str | None = None,
    device: str = "cpu",
    decisions: str | Path | None = None,
    on_progress: Progress = lambda done, total: None,
) -> Result:
    """Make the corpora, or go on with a build that was interrupted.

    Parameters
    ----------
    config
        What they hold.
    out
        Folder; a new one, or that of the same build.
    executor, num_workers, ray_address
        Who works; see :func:`ibisagent.engine.builder.workers.run_jobs`. By default one process a core.
    device
        Where the segmenter computes: ``cpu``, ``cuda`` (workers take turns at the GPUs), ``cuda:1``, ``mps``, ``auto``.
    decisions
        File of a person's decisions; rejected trajectories are left out. None looks for ``decisions.jsonl`` in `out`.
    on_progress
        Called with the samples done and all samples.

    Returns
    -------
    Result
        The report, which is also in ``report.json``, ``faults.jsonl`` and ``drops.jsonl``.

    Raises
    ------
    InputError
        If a setting or data set cannot be used, Ray is to use another device than CPUs, the folder belongs to another
        build, another process works in it, splits leak into each other, or ``on_fault`` is ``fail`` and there is a
        fault.
    ToolError, TeacherError
        If the segmenter or the teacher fails; what was done stays, and the same call goes on.
    """
    if executor == "ray" and device != "cpu":
        raise InputError(f"Ray's workers have CPUs alone; for --device {device} use --executor processes")
    folder = Path(out)
    rejected = _rejected(folder, decisions)
    plan = make_plan(config)
    if config.on_fault == "fail" and plan.faults:
        first = plan.faults[0].message
        number = len(plan.faults)
        raise InputError(f"{number} items cannot be used (--on-fault skip leaves them out); the first: {first}")
    if config.audit == "fail":
        named = ((s.source, s.key, s.group, split_of(s)) for s in plan.samples)
        audit_groups(named, allow_groups=config.allow_groups).raise_if_leaking()
    with _claimed(folder, config, plan):
        todo = []
        for shard in plan.shards:
            note = read_note(folder, shard)
            if note is None or not set(note["rejected"]) <= rejected:
                todo.append(shard)
            elif not rejected.isdisjoint(note["trajectories"]):
                reject_rows(folder, shard, note, rejected)
        total, made = len(plan.samples), sum(len(shard.samples) for shard in todo)
        done = total - made
        on_progress(done, total)

        def count(number: int, new: bool) -> None:
            """Note `number` samples as done; those that are not `new` were found in a journal."""
            nonlocal done, made
            done += number
            made -= 0 if new else number
            on_progress(done, total)

        started = time.perf_counter()
        jobs = [ShardJob(str(folder), shard, config, plan.names_by_modality, rejected, device=device) for shard in todo]
        run_jobs(jobs, executor, num_workers or default_processes(), count, ray_address)
        seconds = time.perf_counter() - started
        result = Result(_add_up(folder, config, plan), made, seconds, _spent(config, folder))
        if made:
            run = {"samples": made, "seconds": round(seconds, 2), "executor": executor, "device": device}
            _write_json(folder / "run.json", {**run, "teacher": result.spent})
    return result


def _spent(config: SynthesisConfig, folder: Path) -> dict[str, Any] | None:
    """What a chat teacher used in all, this run and those before it; None for teachers that cost nothing."""
    teacher = make_teacher(config.teacher, **teacher_options(config, folder))
    client = getattr(teacher, "client", None)
    return None if client is None else dataclasses.asdict(client.spent())


def _add_up(folder: Path, config: SynthesisConfig, plan: Plan) -> Report:
    notes = []
    for shard in plan.shards:
        note = read_note(folder, shard)
        if note is None:
            raise ToolError(f"the shard {shard.name} is not in {folder}: do all workers see the same folder?")
        notes.append(note)
    made_with = {json.dumps(note["made_with"], sort_keys=True) for note in notes}
    if len(made_with) > 1:
        what = " and ".join(sorted(made_with))
        raise InputError(
            f"{folder} was made in parts with different code, weights or devices ({what}); choose another --out"
        )
    report = Report(config, plan, notes)
    _keep_images_once(folder, plan.shards, notes)
    records = (ImageRecord(**record) for record in report.records)
    audit = audit_records(records, allow_groups=config.allow_groups, unread=report.unread)
    facts = {**report.facts(), "audit": audit.to_json()}
    write_lines(folder / "faults.jsonl", report.faults)
    write_lines(folder / "drops.jsonl", report.drops)
    _write_json(folder / "report.json", facts)
    if config.audit == "fail":
        audit.raise_if_leaking()
    write_card(folder, facts)
    return report


def _keep_images_once(folder: Path, shards: Sequence[Shard], notes: Sequence[dict[str, Any]]) -> None:
    """Equal images of different samples stand in the first shard that has them, and nowhere else."""
    import pyarrow.parquet as pq

    seen: set[str] = set()
    for shard, note in zip(shards, notes, strict=True):
        here = {unit["record"]["sha256"] for unit in note["units"] if unit["record"] is not None}
        again = here & seen
        seen |= here
        if again:
            path = shard_path(folder, "images", shard.split, shard.index, shard.count)
            rows = pq.read_table(path).to_pylist()
            kept = [row for row in rows if row["image_id"] not in again]
            if len(kept) < len(rows):
                write_table(path, "images", kept)


def _rejected(folder: Path, decisions: str | Path | None) -> frozenset[str]:
    path = Path(decisions) if decisions is not None else folder / "decisions.jsonl"
    if decisions is None and not path.is_file():
        return frozenset()
    return frozenset(Decisions.read(path).rejected_ids)


@contextmanager
def _claimed(folder: Path, config: SynthesisConfig, plan: Plan) -> Iterator[None]:
    """Hold a folder for one build, which must be the one that it was begun with."""
    fcntl = locking()
    work = folder / WORK
    mine = {"config": config.content, "shards": {s.name: s.sha256 for s in plan.shards}}
    note = work / "build.json"
    try:
        if folder.exists() and not note.is_file() and any(folder.iterdir()) and not work.is_dir():
            raise InputError(f"{folder} is not empty and holds no build; choose another --out")
        work.mkdir(parents=True, exist_ok=True)
        lock = (work / "build.lock").open("ab")
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror or error}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"another process is building {folder}; wait for it, or stop it") from None
        if note.is_file():
            before = json.loads(note.read_bytes())
            if before != json.loads(json.dumps(mine)):
                raise InputError(f"{folder} belongs to a build {_difference(before, mine)}; choose another --out")
        else:
            _write_json(note, mine)
        for left in (*folder.glob(".*.tmp"), *work.glob(".*.tmp")):
            left.unlink(missing_ok=True)  # what a killed run did not come to rename
        yield


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    new = json.loads(json.dumps(now["config"]))
    names = [name for name in new if before["config"].get(name) != new[name]]
    if names:
        return f"with another {names[0]} ({before['config'].get(names[0])} and not {new[names[0]]})"
    return "of other data: files were added or taken away since it began"


def _write_json(path: Path, content: Any) -> None:
    write_atomic((json.dumps(content, indent=1) + "\n").encode(), path)
