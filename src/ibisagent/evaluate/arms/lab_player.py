"""The player of a lab: the rows of many arms, by one set of models, in this process or in several."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibisagent.config import RolloutConfig
from ibisagent.errors import InputError
from ibisagent.evaluate.arms.arm import Arm
from ibisagent.evaluate.arms.players import KNOWS_TARGETS, CannotPlay, Players
from ibisagent.evaluate.arms.rows import ArmRows
from ibisagent.evaluate.baselines import NoLookPolicy, Positions, mean_positions
from ibisagent.evaluate.case_list import CaseList, open_case_list
from ibisagent.evaluate.player import player_facts, set_threads
from ibisagent.evaluate.run import Played, Targets, play_rows, usual_batch

if TYPE_CHECKING:
    from ibisagent.engine.language.instructions import Library

__all__ = ["LabPlayer", "Maker", "Plan", "SpecMaker"]


@dataclass(frozen=True)
class Plan:
    """An arm that is to be played: its rows and its settings."""

    arm: Arm
    rows: ArmRows
    config: RolloutConfig


class Maker:
    """Makes the players, in every process that plays; picklable."""

    def __call__(self) -> Players:
        """Load the lab's policy and segmenter.

        Raises
        ------
        InputError
            If one cannot be made.
        """
        raise NotImplementedError


@dataclass
class SpecMaker(Maker):
    """Players by their specs.

    Parameters
    ----------
    policy, segmenter, device
        See :mod:`ibisagent.registry`.
    options
        Further options of the policy's factory; address and key of a server serve every ``api:`` policy.
    cases
        What the no-look baseline learns its positions from: the whole list, with its training split.
    """

    policy: str
    segmenter: str
    device: str
    options: Mapping[str, Any] = field(repr=False)
    cases: str

    def __call__(self) -> Players:
        """See :class:`Maker`."""
        from ibisagent.registry import make_segmenter, resolve_policy

        policy = resolve_policy(self.policy, device=self.device, **self.options)
        return Players(
            policy,
            make_segmenter(self.segmenter, self.device),
            self._other_policy,
            lambda spec: make_segmenter(spec, self.device),
            self._positions,
        )

    def _other_policy(self, spec: str) -> Any:
        from ibisagent.registry import resolve_policy

        served = ("base_url", "api_key", "prefill") if spec.startswith("api:") else ()
        # Prompt and dialect are what the lab's own policy was trained with, so they are no one else's.
        own = {name: self.options[name] for name in served if name in self.options}
        return resolve_policy(spec, device=self.device, **own)

    def _positions(self) -> Positions:
        whole: CaseList = open_case_list(Path(self.cases) if Path(self.cases).exists() else self.cases)
        return mean_positions(whole)


@dataclass
class LabPlayer:
    """Plays the rows of several arms (a :class:`~ibisagent.evaluate.player.Player`).

    A row's position counts through all plans, in their order (:meth:`positions_of`).

    Parameters
    ----------
    plans
        What is played.
    make
        Makes the players.
    library, batch, threads, device
        As for :class:`~ibisagent.evaluate.player.SpecPlayer`.
    loaded
        Players that this process has loaded already; filled by :meth:`load`.
    """

    plans: tuple[Plan, ...]
    make: Maker
    library: Library = "core"
    batch: int | None = None
    threads: int | None = None
    device: str | None = None
    loaded: list[Players] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self._starts = [0]
        for plan in self.plans:
            self._starts.append(self._starts[-1] + len(plan.rows.rows))

    def positions_of(self, plan: int) -> range:
        """Positions of a plan's rows."""
        return range(self._starts[plan], self._starts[plan + 1])

    def load(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Load the players.

        Returns
        -------
        facts
            ``arms``: by name, either what results depend on and ``notes``, or ``skipped``: why it cannot be played.
        circumstances
            ``batch``, ``threads``.

        Raises
        ------
        InputError
            If the lab's own policy or segmenter cannot be made.
        """
        if not self.loaded:
            self.loaded.append(self.make())
        if self.threads is not None:
            set_threads(self.threads)
        arms: dict[str, Any] = {}
        batch = self.batch
        for plan in self.plans:
            try:
                policy, segmenter, notes = self.loaded[0].of(plan.arm, plan.config, {})
            except CannotPlay as reason:
                arms[plan.arm.name] = {"skipped": str(reason)}
                continue
            if isinstance(policy, NoLookPolicy):
                notes = [*notes, policy.coverage(plan.rows.rows)]
            if batch is None and plan.arm.policy not in KNOWS_TARGETS:
                batch = usual_batch(policy)
            arms[plan.arm.name] = {**player_facts(policy, segmenter), "notes": notes}
        self.batch = batch
        return {"arms": arms}, {"batch": batch, "threads": self.threads}

    def play(self, positions: Iterable[int]) -> Iterator[Played]:
        """Play rows by their positions, taken as places become free; yields each as it ends."""
        if not self.loaded:
            self.load()
        for index, some in groupby(positions, self._plan_of):
            plan, start = self.plans[index], self._starts[index]
            targets: Targets = {}
            try:
                policy, segmenter, _ = self.loaded[0].of(plan.arm, plan.config, targets)
            except CannotPlay as reason:  # it was played when the lab asked
                raise InputError(f"the arm {plan.arm.name}: {reason}") from None
            yield from play_rows(
                ((position, plan.rows.rows[position - start]) for position in some),
                plan.rows.cases.root,
                policy,
                segmenter,
                plan.config,
                targets=targets if plan.arm.policy in KNOWS_TARGETS else None,
                max_live=self.batch,
                library=self.library,
                load=plan.rows.load,
            )

    def name_of_image(self, position: int) -> str | None:
        """Image of a row: rows of one image that follow one another are played by one worker."""
        index = self._plan_of(position)
        row = self.plans[index].rows.rows[position - self._starts[index]]
        return getattr(row, "image", None)

    def _plan_of(self, position: int) -> int:
        return next(i for i in range(len(self.plans)) if position < self._starts[i + 1])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "loaded": []}  # models do not travel
