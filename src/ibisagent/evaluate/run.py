"""Play every case of a list and score it; a bad row or a failing case never stops the others.

Ground truth goes two ways only: to the scores, and to the oracle where that is the policy.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ibisagent.config import RolloutConfig
from ibisagent.engine.language.instructions import Library, Stage, draw_instruction
from ibisagent.errors import InputError
from ibisagent.evaluate.result import CaseResult
from ibisagent.io import CaseRow, RowError, load_case
from ibisagent.rle import encode_mask
from ibisagent.rollout import MAX_LIVE, iter_episodes
from ibisagent.scoring import score_episode
from ibisagent.types import Case, Image

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ibisagent.evaluate.case_list import LoadRow
    from ibisagent.evaluate.store import RunFolder
    from ibisagent.policies.protocol import Policy
    from ibisagent.segmenters.protocol import Segmenter

__all__ = ["Played", "Targets", "evaluate", "instruction_seed", "play_rows", "usual_batch"]

Targets = dict[str, "NDArray[np.bool_] | None"]
"""Target masks by case id; holds the cases that are being played, and no others."""


def instruction_seed(seed: int, case_id: str) -> int:
    """Seed of a case's drawn instruction: by run and case, so that neither order nor --limit changes it."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{case_id}".encode()).digest()[:8], "big")


@dataclass(frozen=True, eq=False)
class Played:
    """A row that has ended.

    Parameters
    ----------
    position
        Its place in the list, from 0.
    result
        Scored.
    image
        What was looked at; None where the row could not be read.
    """

    position: int
    result: CaseResult
    image: Image | None


def evaluate(
    rows: Sequence[CaseRow | RowError],
    root: str | os.PathLike[str],
    policy: Policy,
    segmenter: Segmenter,
    config: RolloutConfig | None = None,
    *,
    targets: Targets | None = None,
    on_case: Callable[[CaseResult], None] | None = None,
    max_live: int | None = None,
    library: Library = "core",
    load: LoadRow | None = None,
    record: RunFolder | None = None,
) -> list[CaseResult]:
    """Play and score a case list.

    Parameters
    ----------
    rows, root
        From :func:`ibisagent.io.read_cases`, and the folder that its paths are relative to.
    policy, segmenter
        Who plays with what; loaded once, used for all.
    config
        Budgets and seed. The seed also draws the instructions of rows without one, from the templates that are
        kept out of training.
    targets
        The mapping that an oracle was made with; it is filled and emptied as cases come and go. None keeps the
        targets from every policy.
    on_case
        Called with every result as it comes.
    max_live
        Most cases played at the same time; None is :func:`usual_batch`.
    library
        Templates of the instructions: ``"core"``, the kind that the shipped models were made with, or ``"full"``, all
        of them, with lay names of the targets.
    load
        Reads a row where that is not done by :func:`ibisagent.io.load_case`
        (:meth:`ibisagent.evaluate.case_list.CaseList.load`); `root` counts for nothing then.
    record
        Folder to keep every case in as it ends. What it has already is not played again, and `on_case` does not hear
        of it.

    Returns
    -------
    list of CaseResult
        One per row, in the rows' order.

    Raises
    ------
    InputError
        If policy and segmenter have no action in common, or `record` cannot be written.
    """
    results = dict(record.done) if record is not None else {}
    left = ((position, row) for position, row in enumerate(rows) if position not in results)
    for played in play_rows(
        left, root, policy, segmenter, config, targets=targets, max_live=max_live, library=library, load=load
    ):
        if record is not None:
            record.append(played.position, played.result, None if played.image is None else played.image.pixels)
        results[played.position] = played.result
        if on_case is not None:
            on_case(played.result)
    return [results[position] for position in range(len(rows))]


def play_rows(
    rows: Iterable[tuple[int, CaseRow | RowError]],
    root: str | os.PathLike[str],
    policy: Policy,
    segmenter: Segmenter,
    config: RolloutConfig | None = None,
    *,
    targets: Targets | None = None,
    max_live: int | None = None,
    library: Library = "core",
    load: LoadRow | None = None,
) -> Iterator[Played]:
    """Play rows and yield each as it ends; parameters and errors as for :func:`evaluate`.

    Parameters
    ----------
    rows
        With their places in the list; taken only as places become free.
    """
    yield from _Evaluation(Path(root), config or RolloutConfig(), targets, library, load).play(
        rows, policy, segmenter, usual_batch(policy) if max_live is None else max_live
    )


def usual_batch(policy: Policy) -> int:
    """Cases that a policy is best asked about at the same time.

    One, where it runs its model on the CPU: batches of nano are no faster there, and without them a reply cannot depend
    on its neighbours. In a batch its logits move by up to 1e-5, which seldom changes a word, but may. Else
    :data:`~ibisagent.rollout.MAX_LIVE`.
    """
    device = getattr(policy, "device", None)
    return 1 if device is not None and str(device).startswith("cpu") else MAX_LIVE


@dataclass(frozen=True, eq=False)
class _Live:
    """What is remembered of a case while it is played."""

    position: int
    facts: CaseResult
    target: NDArray[np.bool_] | None
    image: Image


class _Evaluation:
    def __init__(
        self, root: Path, config: RolloutConfig, targets: Targets | None, library: Library, load: LoadRow | None
    ) -> None:
        self.load: LoadRow = load or (lambda row: load_case(row, root))
        self.library: Library = library
        self.config = config
        self.targets = targets
        self.live: dict[int, _Live] = {}
        self.unplayed: list[Played] = []

    def play(
        self, rows: Iterable[tuple[int, CaseRow | RowError]], policy: Policy, segmenter: Segmenter, max_live: int
    ) -> Iterator[Played]:
        """Play and score rows; each comes as it ends."""
        for number, episode in iter_episodes(self._cases(rows), policy, segmenter, self.config, max_live=max_live):
            live = self.live.pop(number)
            if self.targets is not None:
                self.targets.pop(episode.case_id, None)
            scores = score_episode(episode, live.target)
            error = (episode.error or "failed without a message") if scores.is_error else ""
            yield from self._unplayed()
            yield Played(live.position, replace(live.facts, scores=scores, episode=episode, error=error), live.image)
        yield from self._unplayed()

    def _unplayed(self) -> Iterator[Played]:
        while self.unplayed:
            yield self.unplayed.pop(0)

    def _cases(self, rows: Iterable[tuple[int, CaseRow | RowError]]) -> Iterator[Case]:
        """Read rows as places become free; rows that cannot be used go straight to the results."""
        number = 0
        for position, row in rows:
            if isinstance(row, RowError):
                bad = CaseResult(row.case_id, row.group, row.target, row.modality, row.split, row.absent)
                bad = replace(bad, patient=row.group, line=row.line, error=row.message)
                self.unplayed.append(Played(position, bad, None))
                continue
            facts = _facts(row)
            try:
                image, target, initial = self.load(row)
            except InputError as error:
                problem = f"{row.place}: {error}" if row.place else str(error)
                bad = replace(facts, absent=row.mask is None, error=problem)
                self.unplayed.append(Played(position, bad, None))
                continue
            instruction, category = self._instruction(row, refine=initial is not None)
            case = Case(image, instruction, initial, case_id=row.case_id, target=row.target, group=row.group)
            absent = target is None or not bool(target.any())
            known = replace(
                facts,
                absent=absent,
                instruction=instruction,
                category=category,
                spacing_mm=image.geometry.spacing_mm,
                target_mask=None if target is None or absent else encode_mask(target),
            )
            self.live[number] = _Live(position, known, target, image)
            if self.targets is not None:
                self.targets[row.case_id] = target
            number += 1
            yield case

    def _instruction(self, row: CaseRow, *, refine: bool) -> tuple[str, str]:
        if row.instruction is not None and row.instruction.strip():
            category = (row.model_extra or {}).get("category")
            return row.instruction, category if isinstance(category, str) else ""
        seed = instruction_seed(self.config.seed, row.case_id)
        stage: Stage = "refine" if refine else "start"
        full = self.library == "full"
        drawn = draw_instruction(
            row.target, row.modality, seed, stage=stage, split="test", library=self.library, extended=full
        )
        return drawn.text, drawn.category


def _facts(row: CaseRow) -> CaseResult:
    """What a row says of its case; an arm's rows say their condition too (:mod:`ibisagent.evaluate.arms`)."""
    more = row.model_extra or {}
    patient, source, condition = (more.get(name) for name in ("patient", "source", "condition"))
    return CaseResult(
        row.case_id,
        row.group,
        row.target,
        row.modality,
        row.split,
        line=row.line,
        patient=patient if isinstance(patient, str) and patient else row.group,
        image=row.image,
        view=row.view,
        source=source if isinstance(source, str) else None,
        spacing_mm=row.spacing_mm,
        condition=condition if isinstance(condition, dict) else {},
    )
