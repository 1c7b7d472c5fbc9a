"""Who makes the shards: this process, several processes of this machine, or a Ray cluster."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

from ibisagent.engine.builder.shard import Orphaned, ShardJob, make_shard
from ibisagent.engine.builder.unit import Tools
from ibisagent.engine.ray_session import ray_session
from ibisagent.errors import IbisError, InputError, ToolError
from ibisagent.memory import keep_freed_memory

__all__ = ["Executor", "default_processes", "run_jobs"]

Executor = Literal["processes", "ray"]


def default_processes() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_jobs(
    jobs: Sequence[ShardJob],
    executor: Executor,
    num_workers: int,
    on_samples: Callable[[int, bool], None],
    address: str | None = None,
) -> None:
    """Make shards; returns when all of them are whole.

    Parameters
    ----------
    jobs
        In the order in which they are begun.
    executor
        ``processes`` (of this machine) or ``ray``.
    num_workers
        How many at a time, each with one thread on a CPU.
    on_samples
        Called with a number of samples that are done, and whether they were made now or found in a journal.
    address
        Of the Ray cluster; None uses the one of the environment, or starts one on this machine.

    Raises
    ------
    IbisError
        If a worker fails or dies; what was done stays.
    """
    if not jobs:
        return
    if executor == "ray":
        _run_on_ray(jobs, num_workers, on_samples, address)
    else:
        _run_in_processes(jobs, min(num_workers, len(jobs)), on_samples)


# -- processes -------------------------------------------------------------------------------------


def _run_in_processes(jobs: Sequence[ShardJob], num_workers: int, on_samples: Callable[[int, bool], None]) -> None:
    import multiprocessing

    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    workers, pipes = [], []
    waiting = [replace(job, parent=os.getpid()) for job in jobs][::-1]
    try:
        for number in range(num_workers):
            ours, theirs = context.Pipe(duplex=True)
            worker = context.Process(target=_serve, args=(theirs, number), daemon=True)
            worker.start()
            theirs.close()  # so that the pipe ends with the worker
            workers.append(worker)
            pipes.append(ours)
        _feed(workers, pipes, waiting, on_samples)
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.terminate()
        for worker in workers:
            worker.join()


def _feed(
    workers: list[Any], pipes: list[Any], waiting: list[ShardJob], on_samples: Callable[[int, bool], None]
) -> None:
    from multiprocessing.connection import Connection, wait

    busy = {}
    for worker, pipe in zip(workers, pipes, strict=True):
        busy[pipe] = worker
        _hand(pipe, waiting)
    while busy:
        for ready in wait(list(busy)):
            assert isinstance(ready, Connection)
            try:
                kind, content = ready.recv()
            except OSError:  # it died with a job unread
                raise ToolError("a worker process died at its start; run the same command again to go on") from None
            except EOFError:
                worker = busy.pop(ready)
                worker.join()
                if worker.exitcode:
                    raise ToolError(
                        f"a worker process died (exit code {worker.exitcode}); run the same command again to go on"
                    ) from None
                continue
            if kind == "sample":
                on_samples(1, content)
            elif kind == "done":
                _hand(ready, waiting)
            else:
                raise content


def _hand(pipe: Any, waiting: list[ShardJob]) -> None:
    """Give a worker its next job, or the end; one that died is noticed where it is listened to."""
    with contextlib.suppress(OSError):
        pipe.send(waiting.pop() if waiting else None)


def _serve(pipe: Any, number: int) -> None:
    """A worker's life: take a job, make it, ask for the next."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    tools: dict[str, Tools] = {}
    _settle()
    while True:
        try:
            job: ShardJob | None = pipe.recv()
        except EOFError:
            return
        if job is None:
            return
        try:
            make_shard(job, _tools_for(job, tools, number), lambda new: pipe.send(("sample", new)))
        except (Orphaned, BrokenPipeError):
            return
        except IbisError as error:
            pipe.send(("failed", type(error)(*error.args) if type(error) in (InputError, ToolError) else _plain(error)))
            return
        except Exception as error:
            if os.environ.get("IBISAGENT_DEBUG", "") not in ("", "0"):
                traceback.print_exc()
            pipe.send(("failed", ToolError(f"shard {job.shard.name}: unexpected {type(error).__name__}: {error}")))
            return
        pipe.send(("done", None))


def _plain(error: IbisError) -> IbisError:
    """An error of the same words that travels between processes whatever its class needs to be made."""
    return IbisError(f"{error}")


def _settle() -> None:
    """One thread a worker, and memory that is kept; before torch is loaded."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    keep_freed_memory()
    import cv2

    cv2.setNumThreads(1)


def _tools_for(job: ShardJob, made: dict[str, Tools], number: int = 0) -> Tools:
    key = job.config.sha256
    if key not in made:
        from ibisagent.segmenters.pretrained import device_of_worker

        made.clear()
        made[key] = Tools(job.config, job.names_by_modality, job.folder, device_of_worker(job.device, number))
    return made[key]


# -- Ray -------------------------------------------------------------------------------------------


def _run_on_ray(
    jobs: Sequence[ShardJob], num_workers: int, on_samples: Callable[[int, bool], None], address: str | None
) -> None:
    """Ray Data over the jobs, one actor a worker; the folder must be one that all machines see."""
    import pickle

    with ray_session(max(num_workers, default_processes()), address):
        import ray.data

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False  # ours is drawn from the rows that come back
        context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        items = [{"job": pickle.dumps(job)} for job in jobs]
        table = ray.data.from_items(items, override_num_blocks=len(items))
        worker: Any = _RayWorker
        pool = ray.data.ActorPoolStrategy(size=min(num_workers, len(jobs)))
        done = table.map(worker, num_cpus=1, compute=pool)
        for row in done.iter_rows():
            if row["error"]:
                raise (InputError if row["usage"] else ToolError)(row["error"])
            for number, new in ((row["samples"] - row["found"], True), (row["found"], False)):
                if number:
                    on_samples(int(number), new)


class _RayWorker:
    """An actor that makes shards."""

    def __init__(self) -> None:
        _settle()
        self._tools: dict[str, Tools] = {}

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        import pickle

        job: ShardJob = pickle.loads(row["job"])
        seen: list[bool] = []
        try:
            make_shard(job, _tools_for(job, self._tools), seen.append)
        except Exception as error:  # of this row alone; Ray would retry and bury it in a traceback
            usage = isinstance(error, InputError)
            text = str(error) if usage else f"shard {job.shard.name}: {type(error).__name__}: {error}"
            return {"samples": 0, "found": 0, "error": text, "usage": usage}
        return {"samples": len(seen), "found": seen.count(False), "error": "", "usage": False}
