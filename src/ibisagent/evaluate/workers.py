"""Where a list is played: in this process, in several of this machine, or on a Ray cluster.

All give the same results. Workers load their models once, take the rows of one image together, and send what has ended
back; nobody but this process writes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ibisagent.errors import IbisError, InputError, ToolError
from ibisagent.evaluate.environment import package_versions
from ibisagent.evaluate.records import shown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ibisagent.evaluate.player import Player
    from ibisagent.evaluate.result import CaseResult
    from ibisagent.evaluate.run import Played

__all__ = ["Crew", "Ended", "Executor", "chunks", "crew"]

Executor = Literal["processes", "ray"]

_MOST_ROWS = 16  # that a worker takes at a time, so that none is left with many at the end


@dataclass(frozen=True, eq=False)
class Ended:
    """A row that a worker has played.

    Parameters
    ----------
    position
        Its place in the list.
    result
        Scored.
    picture
        ``uint8`` (H, W, 3) pixels, or a PNG file's bytes; None where the row could not be read, or this worker has
        sent the same picture before.
    """

    position: int
    result: CaseResult
    picture: NDArray[np.uint8] | bytes | None


class Crew(Protocol):
    """Workers that have loaded their models.

    Attributes
    ----------
    facts, circumstances
        See :meth:`ibisagent.evaluate.player.Player.load`.
    """

    facts: dict[str, Any]
    circumstances: dict[str, Any]

    def play(self, positions: Sequence[int]) -> Iterator[Ended]:
        """Play rows and yield each as it ends, in any order.

        Raises
        ------
        IbisError
            If a worker fails or dies; what had ended was yielded.
        """
        ...


def crew(
    player: Player, executor: Executor = "processes", num_workers: int = 1, address: str | None = None
) -> contextlib.AbstractContextManager[Crew]:
    """Workers, for as long as the context lasts.

    Parameters
    ----------
    player
        What each of them loads.
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
        from ibisagent.evaluate.ray_workers import on_ray

        return on_ray(player, num_workers, address)
    return _Here(player) if num_workers == 1 else _Processes(player, num_workers)


def chunks(player: Player, positions: Iterable[int], least: int) -> list[list[int]]:
    """Rows that are handed out together: those of one image, and enough to fill a batch."""
    made: list[list[int]] = []
    last: str | None = None
    for position in positions:
        image = player.name_of_image(position)
        same = image is not None and image == last
        if made and len(made[-1]) < max(least, _MOST_ROWS) and (same or len(made[-1]) < least):
            made[-1].append(position)
        else:
            made.append([position])
        last = image
    return made


class _Here:
    """This process."""

    def __init__(self, player: Player) -> None:
        self.player = player

    def __enter__(self) -> _Here:
        self.facts, self.circumstances = self.player.load()
        return self

    def __exit__(self, *raised: object) -> None:
        return None

    def play(self, positions: Sequence[int]) -> Iterator[Ended]:
        """As :meth:`Crew.play`, in this process."""
        for played in self.player.play(positions):
            yield Ended(
                played.position, played.result, None if played.image is None else played.image.pixels
            )  # fmt: skip


# -- processes -------------------------------------------------------------------------------------


class _Processes:
    """Processes of this machine."""

    def __init__(self, player: Player, num_workers: int) -> None:
        self.player, self.num_workers = player, num_workers
        self.workers: list[Any] = []
        self.pipes: list[Any] = []

    def __enter__(self) -> _Processes:
        import multiprocessing

        context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
        try:
            for _ in range(self.num_workers):
                ours, theirs = context.Pipe(duplex=True)
                worker = context.Process(target=_serve, args=(theirs, self.player), daemon=True)
                worker.start()
                theirs.close()  # so that the pipe ends with the worker
                self.workers.append(worker)
                self.pipes.append(ours)
            told = [self._hear(pipe) for pipe in self.pipes]
            self.facts, self.circumstances = agreed(told)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *raised: object) -> None:
        for worker in self.workers:
            if worker.is_alive():
                worker.terminate()
        for worker in self.workers:
            worker.join()

    def _hear(self, pipe: Any) -> Any:
        """What a worker says next; its failure is raised."""
        try:
            kind, content = pipe.recv()
        except (EOFError, OSError):
            worker = self.workers[self.pipes.index(pipe)]
            worker.join()
            raise ToolError(
                f"a worker process died (exit code {worker.exitcode}); run the same command again to go on"
            ) from None
        if kind == "failed":
            raise content
        return content

    def play(self, positions: Sequence[int]) -> Iterator[Ended]:
        """As :meth:`Crew.play`, in processes of this machine."""
        from multiprocessing.connection import Connection, wait

        waiting = chunks(self.player, positions, self.circumstances.get("batch") or 1)[::-1]
        busy = set(self.pipes)
        for pipe in self.pipes:
            pipe.send("play")
        while busy:
            for ready in wait(list(busy)):
                assert isinstance(ready, Connection)
                said = self._hear(ready)
                if isinstance(said, Ended):
                    yield said
                elif said == "next":
                    with contextlib.suppress(OSError):  # one that died is noticed where it is listened to
                        ready.send(waiting.pop() if waiting else None)
                else:
                    busy.discard(ready)


def agreed(told: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Facts and circumstances of all workers.

    Raises
    ------
    InputError
        If facts or versions of packages are not the same: another machine may have other weights behind the same path.
    """
    first, *others = [{**facts, "packages": circumstances.get("packages")} for facts, circumstances in told]
    for other in others:
        for name in sorted({*first, *other}):
            if first.get(name) != other.get(name):
                values = f"{shown(first.get(name))} and {shown(other.get(name))}"
                raise InputError(f"the workers differ in {name}: {values}; give all machines the same files")
    return told[0]


def _serve(pipe: Any, player: Player) -> None:
    """A worker's life: load, then play what it is given."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    settle()
    seen: set[str] = set()
    try:
        pipe.send(("ready", loaded(player)))
        while pipe.recv() == "play":
            for played in player.play(_asked_for(pipe)):
                pipe.send(("ended", packed(played, seen)))
            pipe.send(("done", "done"))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent has gone
    except Exception as error:
        with contextlib.suppress(OSError):
            pipe.send(("failed", portable(error)))


def _asked_for(pipe: Any) -> Iterator[int]:
    while True:
        pipe.send(("next", "next"))
        chunk = pipe.recv()
        if chunk is None:
            return
        yield from chunk


def loaded(player: Player) -> tuple[dict[str, Any], dict[str, Any]]:
    """What :meth:`Player.load` tells; beside the circumstances the versions of what computes, of this very process."""
    facts, circumstances = player.load()
    return facts, {**circumstances, "packages": package_versions()}


def settle() -> None:
    """What a process does before it loads models."""
    from ibisagent.memory import keep_freed_memory

    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    keep_freed_memory()


def packed(played: Played, seen: set[str]) -> Ended:
    """What travels: the picture as PNG, once."""
    from ibisagent.rendering.png import png_bytes

    picture = None
    if played.image is not None and played.image.sha256 not in seen:
        seen.add(played.image.sha256)
        picture = png_bytes(played.image.pixels)
    return Ended(played.position, played.result, picture)


def portable(error: Exception) -> IbisError:
    """An error of the same words that travels between processes, whatever its class needs to be made."""
    if os.environ.get("IBISAGENT_DEBUG", "") not in ("", "0"):
        traceback.print_exception(error)
    if isinstance(error, InputError):
        return InputError(str(error))
    return ToolError(str(error) if isinstance(error, IbisError) else f"unexpected {type(error).__name__}: {error}")
