"""Who plays a list, as any process can make it: loaded once, where it is to play."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ibisagent.config import RolloutConfig
from ibisagent.evaluate.run import Played, Targets, play_rows
from ibisagent.hashing import text_hash

if TYPE_CHECKING:
    from ibisagent.engine.language.instructions import Library
    from ibisagent.evaluate.case_list import CaseList
    from ibisagent.policies.protocol import Policy
    from ibisagent.segmenters.protocol import Segmenter

__all__ = [
    "LIGHT", "Player", "SpecPlayer", "default_threads", "num_cores", "player_facts", "set_threads", "usual_workers",
]  # fmt: skip

LIGHT = ("nano", "oracle", "scripted", "clicks")
"""Policies small enough that every core may have one of its own."""

_CASES_A_WORKER = 8
_MOST_WORKERS = 8  # unless more are asked for


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_threads(policy: str, num_workers: int) -> int:
    """Threads of a worker's models on the CPU.

    One for small policies, however many workers there are: the last digits of a matrix product may depend on the
    number of threads, and results must not depend on that of workers. Large models share the cores.
    """
    return 1 if policy.partition(":")[0] in LIGHT else max(1, num_cores() // num_workers)


def usual_workers(policy: str, device: str, num_rows: int) -> int:
    """Workers where nobody says how many: one a core for a small policy on the CPU, and one for all else."""
    if policy.partition(":")[0] not in LIGHT or device != "cpu":
        return 1
    return max(1, min(num_cores(), num_rows // _CASES_A_WORKER, _MOST_WORKERS))


def player_facts(policy: Policy, segmenter: Segmenter) -> dict[str, Any]:
    """What results depend on of those who play, for the record; of a server its host, and never its key."""
    prompt = getattr(policy, "system_prompt", None)
    return {
        "policy": policy.name,
        "policy_host": getattr(policy, "host", None),
        "policy_weights_sha256": policy.weights_sha256,
        "dialect": policy.dialect.name,
        "system_prompt_sha256": text_hash(prompt) if isinstance(prompt, str) else None,
        "segmenter": segmenter.name,
        "segmenter_weights_sha256": segmenter.weights_sha256,
    }


class Player(Protocol):
    """What plays rows of a list in a process of its own. Picklable until it is loaded."""

    def load(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Load the models: facts that results depend on, and circumstances that should change no result."""
        ...

    def play(self, positions: Iterable[int]) -> Iterator[Played]:
        """Play rows by their places in the list, taken as places become free; yields each as it ends."""
        ...

    def name_of_image(self, position: int) -> str | None:
        """Rows of one image should be played by one worker, one after another."""
        ...


@dataclass
class SpecPlayer:
    """A policy and a segmenter by their specs.

    Parameters
    ----------
    cases
        The list.
    policy, segmenter, device
        See :mod:`ibisagent.registry`.
    config
        Budgets, seed, switches.
    options
        Further options of the policy's factory. They are no part of the record: one may be a key.
    library
        Templates of drawn instructions.
    batch
        Cases played at a time; None is :func:`~ibisagent.evaluate.run.usual_batch`.
    threads
        Threads of models on the CPU; None leaves them as they are.
    """

    cases: CaseList
    policy: str
    segmenter: str
    config: RolloutConfig = field(default_factory=RolloutConfig)
    device: str = "cpu"
    options: dict[str, Any] = field(default_factory=dict, repr=False)
    library: Library = "core"
    batch: int | None = None
    threads: int | None = None
    _players: tuple[Any, Any, Targets | None] | None = field(default=None, init=False, repr=False)

    def load(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Load policy and segmenter.

        Raises
        ------
        InputError
            If one cannot be made, or they have no action in common.
        """
        from ibisagent.environment import SegmentationEnv
        from ibisagent.evaluate.run import usual_batch
        from ibisagent.registry import SEES_TARGETS, make_segmenter, parse_spec, resolve_policy

        targets: Targets | None = {} if parse_spec(self.policy)[0] in SEES_TARGETS else None
        policy = resolve_policy(self.policy, device=self.device, targets=targets, **self.options)
        segmenter = make_segmenter(self.segmenter, self.device)
        if self.threads is not None:
            set_threads(self.threads)
        SegmentationEnv(segmenter, self.config, dialect=policy.dialect, policy=policy)  # fails where it must
        self._players = policy, segmenter, targets
        facts = {**player_facts(policy, segmenter), "device": self.device}
        if self.batch is None:
            self.batch = usual_batch(policy)
        return facts, {"batch": self.batch, "threads": self.threads}

    def play(self, positions: Iterable[int]) -> Iterator[Played]:
        """See :class:`Player`."""
        if self._players is None:
            self.load()
        assert self._players is not None
        policy, segmenter, targets = self._players
        rows = ((position, self.cases.rows[position]) for position in positions)
        yield from play_rows(
            rows,
            self.cases.root,
            policy,
            segmenter,
            self.config,
            targets=targets,
            max_live=self.batch,
            library=self.library,
            load=self.cases.load,
        )

    def name_of_image(self, position: int) -> str | None:
        """See :class:`Player`."""
        return getattr(self.cases.rows[position], "image", None)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_players": None}  # models do not travel


def set_threads(threads: int) -> None:
    """Of the models that are loaded, and of what is loaded later."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)
