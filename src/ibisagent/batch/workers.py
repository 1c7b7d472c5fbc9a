"""Where studies are worked on: in this process, in several of this machine, or on a Ray cluster.

Workers load their models once and take one study at a time. Each writes the folders of its studies; nobody but this
process writes the manifest. A process that dies takes its study with it, and no other.
"""

from __future__ import annotations

import contextlib
import pickle
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ibisagent.errors import ToolError
from ibisagent.evaluate.workers import portable, settle

if TYPE_CHECKING:
    from ibisagent.batch.job import Job
    from ibisagent.batch.study import Study

__all__ = ["Crew", "Executor", "crew"]

Executor = Literal["processes", "ray"]
Ended = tuple["Study", dict[str, Any]]


class Crew(Protocol):
    """Workers that have loaded their models.

    Attributes
    ----------
    facts
        See :meth:`ibisagent.batch.job.Job.load`.
    """

    facts: dict[str, Any]

    def work(self, studies: Sequence[Study]) -> Iterator[Ended]:
        """Work on studies and yield each with its row as it ends, in any order."""
        ...


def crew(
    job: Job, executor: Executor = "processes", num_workers: int = 1, address: str | None = None
) -> contextlib.AbstractContextManager[Crew]:
    """Workers, for as long as the context lasts.

    Parameters
    ----------
    job
        What each of them loads and does.
    executor
        ``processes`` of this machine (with one worker: this process itself), or ``ray``.
    num_workers
        How many.
    address
        Of the Ray cluster; None uses the one of the environment, or starts one on this machine. Its machines must see
        the same files.

    Raises
    ------
    InputError
        If policy or segmenter cannot be made.
    """
    if executor == "ray":
        return _on_ray(job, num_workers, address)
    return _Here(job) if num_workers == 1 else _Processes(job, num_workers)


class _Here:
    """This process."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def __enter__(self) -> _Here:
        self.facts = self.job.load()
        return self

    def __exit__(self, *raised: object) -> None:
        return None

    def work(self, studies: Sequence[Study]) -> Iterator[Ended]:
        """As :meth:`Crew.work`."""
        for study in studies:
            yield study, self.job.do(study)


# -- processes -------------------------------------------------------------------------------------


class _Worker:
    """One process and the pipe to it."""

    def __init__(self, context: Any, job: Job) -> None:
        self.pipe, theirs = context.Pipe(duplex=True)
        self.process = context.Process(target=_serve, args=(theirs, job), daemon=True)
        self.process.start()
        theirs.close()  # so that the pipe ends with the process
        self.study: Study | None = None

    def hear(self) -> Any:
        """What it says next; a failure to load is raised, its death an EOFError."""
        kind, content = self.pipe.recv()
        if kind == "failed":
            raise content
        return content

    def end(self) -> None:
        """Stop the process, gently first, and close its pipe."""
        if self.process.is_alive():
            self.process.terminate()
            self.process.join(10)  # it tidies up, unless it is deep in a library
            self.process.kill()
        self.process.join()
        self.pipe.close()


class _Processes:
    """Processes of this machine."""

    def __init__(self, job: Job, num_workers: int) -> None:
        import multiprocessing

        self.job, self.num_workers = job, num_workers
        self.context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
        self.workers: list[_Worker] = []

    def __enter__(self) -> _Processes:
        try:
            self.workers = [_Worker(self.context, self.job) for _ in range(self.num_workers)]
            told = [self._ready(worker) for worker in self.workers]
            self.facts = told[0]
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *raised: object) -> None:
        for worker in self.workers:
            worker.end()

    def _ready(self, worker: _Worker) -> dict[str, Any]:
        try:
            facts: dict[str, Any] = worker.hear()
        except (EOFError, OSError):
            worker.process.join()
            raise ToolError(f"a worker process died while it loaded (exit code {worker.process.exitcode})") from None
        return facts

    def work(self, studies: Sequence[Study]) -> Iterator[Ended]:
        """As :meth:`Crew.work`."""
        from multiprocessing.connection import wait

        waiting = list(studies)[::-1]
        while True:
            for worker in self.workers:
                if worker.study is None and waiting:
                    worker.study = waiting.pop()
                    with contextlib.suppress(OSError):  # one that died is noticed where it is listened to
                        worker.pipe.send(worker.study)
            busy = {worker.pipe: worker for worker in self.workers if worker.study is not None}
            if not busy:
                return
            for ready in wait(list(busy)):
                worker = busy[ready]
                study, worker.study = worker.study, None
                assert study is not None
                try:
                    row = worker.hear()
                except (EOFError, OSError):
                    row = self._died(worker, is_needed=bool(waiting))
                yield study, row

    def _died(self, worker: _Worker, *, is_needed: bool) -> dict[str, Any]:
        """The row of the study that a process died on; another takes its place."""
        worker.end()
        self.workers.remove(worker)
        if is_needed or not self.workers:
            another = _Worker(self.context, self.job)
            self._ready(another)
            self.workers.append(another)
        code = worker.process.exitcode
        why = f"the worker process died (exit code {code}); too little memory?"
        return {"outcome": "error", "error": why, "files": {}}


def _serve(pipe: Any, job: Job) -> None:
    """A worker's life: load, then work on what it is given."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ended by the parent: half a result is tidied up first
    settle()
    try:
        pipe.send(("ready", job.load()))
        while True:
            pipe.send(("ended", job.do(pipe.recv())))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent has gone
    except Exception as error:
        with contextlib.suppress(OSError):
            pipe.send(("failed", portable(error)))


# -- Ray -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _on_ray(job: Job, num_workers: int, address: str | None) -> Iterator[_Actors]:
    from ibisagent.engine.ray_session import ray_session
    from ibisagent.evaluate.player import num_cores

    with ray_session(max(num_workers, num_cores()), address):
        yield _Actors(job, num_workers)


class _Actors:
    def __init__(self, job: Job, num_workers: int) -> None:
        import ray

        from ibisagent.evaluate.ray_workers import gpus_of

        make: Any = ray.remote(num_cpus=1, num_gpus=gpus_of(job.device, ray.cluster_resources()))(_Actor)
        data = ray.put(pickle.dumps(job))
        self.actors = [make.remote(data) for _ in range(num_workers)]
        told = ray.get([actor.load.remote() for actor in self.actors])
        for kind, content in told:
            if kind == "failed":
                raise content
        self.facts: dict[str, Any] = told[0][1]

    def work(self, studies: Sequence[Study]) -> Iterator[Ended]:
        """As :meth:`Crew.work`."""
        import ray

        waiting, free = list(studies)[::-1], list(self.actors)
        busy: dict[Any, tuple[Any, Study]] = {}
        while waiting or busy:
            while waiting and free:
                actor, study = free.pop(), waiting.pop()
                busy[actor.do.remote(study)] = (actor, study)
            if not busy:
                raise ToolError("all workers died; run the same command again to go on")
            done = ray.wait(list(busy), num_returns=1)[0][0]
            actor, study = busy.pop(done)
            try:
                row: Any = ray.get(done)
            except ray.exceptions.RayError as error:
                row = {"outcome": "error", "error": f"the worker died ({type(error).__name__})", "files": {}}
            else:
                free.append(actor)
            yield study, row


class _Actor:
    """A worker on the cluster."""

    def __init__(self, data: bytes) -> None:
        settle()
        self.job: Job = pickle.loads(data)

    def load(self) -> tuple[str, Any]:
        """("ready", facts), or ("failed", the error)."""
        try:
            return "ready", self.job.load()
        except Exception as error:
            return "failed", portable(error)

    def do(self, study: Study) -> dict[str, Any]:
        """See :meth:`ibisagent.batch.job.Job.do`."""
        return self.job.do(study)
