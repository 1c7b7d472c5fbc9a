"""Workers on a Ray cluster, for :mod:`ibisagent.evaluate.workers`."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ibisagent.engine.ray_session import ray_session
from ibisagent.errors import ToolError
from ibisagent.evaluate.player import num_cores
from ibisagent.evaluate.workers import Ended, agreed, chunks, loaded, packed, portable, settle

if TYPE_CHECKING:
    from ibisagent.evaluate.player import Player

__all__ = ["gpus_of", "on_ray"]


@contextlib.contextmanager
def on_ray(player: Player, num_workers: int, address: str | None) -> Iterator[_Actors]:
    """Actors that have loaded their models; a cluster that was started for them ends with the context.

    Raises
    ------
    MissingExtraError
        Without Ray.
    ToolError
        If the cluster cannot be reached.
    """
    with ray_session(max(num_workers, num_cores()), address):
        yield _Actors(player, num_workers)


def gpus_of(device: str | None, cluster: Mapping[str, float]) -> int:
    """GPUs that an actor has to itself, of a cluster with these resources: without one, ``auto`` would see none."""
    if device is None or device == "auto":
        return int(device == "auto" and cluster.get("GPU", 0) > 0)
    return int(device.startswith("cuda"))


class _Actors:
    def __init__(self, player: Player, num_workers: int) -> None:
        import ray

        self.player = player
        gpus = gpus_of(getattr(player, "device", None), ray.cluster_resources())
        make: Any = ray.remote(num_cpus=1, num_gpus=gpus)(_Worker)
        data = ray.put(pickle.dumps(player))
        self.actors = [make.remote(data) for _ in range(num_workers)]
        told = [_heard(one) for one in ray.get([actor.load.remote() for actor in self.actors])]
        self.facts, self.circumstances = agreed(told)

    def play(self, positions: Sequence[int]) -> Iterator[Ended]:
        """See :class:`ibisagent.evaluate.workers.Crew`."""
        import ray

        waiting = chunks(self.player, positions, self.circumstances.get("batch") or 1)[::-1]
        busy: dict[Any, Any] = {}

        def hand(actor: Any) -> None:
            """Give an actor the next rows, if any are left."""
            if waiting:
                busy[actor.play.options(num_returns="streaming").remote(waiting.pop())] = actor

        for actor in self.actors:
            hand(actor)
        while busy:
            stream: Any = ray.wait(list(busy), num_returns=1)[0][0]
            try:
                told: Any = ray.get(next(stream))
            except StopIteration:
                hand(busy.pop(stream))
                continue
            except ray.exceptions.RayError as error:
                raise ToolError(
                    f"a worker died ({type(error).__name__}); run the same command again to go on"
                ) from None
            yield _heard(told)


class _Worker:
    """An actor."""

    def __init__(self, data: bytes) -> None:
        settle()
        self.player: Player = pickle.loads(data)
        self.seen: set[str] = set()

    def load(self) -> tuple[str, Any]:
        """("ready", what the models say of themselves), or ("failed", the error)."""
        try:
            return "ready", loaded(self.player)
        except Exception as error:
            return "failed", portable(error)

    def play(self, positions: Sequence[int]) -> Iterator[tuple[str, Any]]:
        """("ended", a case) for each, or ("failed", the error), which ends it."""
        try:
            for played in self.player.play(positions):
                yield "ended", packed(played, self.seen)
        except Exception as error:  # Ray would bury it in a traceback
            yield "failed", portable(error)


def _heard(told: tuple[str, Any]) -> Any:
    kind, content = told
    if kind == "failed":
        raise content
    return content
