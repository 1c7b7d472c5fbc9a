"""The rows of an arm, and how they are read: the case list's own files, with the masks that the arm gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ibisagent.evaluate.arms.conditions import apply_condition
from ibisagent.evaluate.arms.scene import Scene
from ibisagent.evaluate.arms.subset import subset
from ibisagent.evaluate.case_list import CaseList, Loaded, rows_hash
from ibisagent.io import CaseRow, RowError, read_mask

if TYPE_CHECKING:
    from ibisagent.engine.language.instructions import Library
    from ibisagent.evaluate.arms.arm import Arm

__all__ = ["GIVEN", "ArmRows", "arm_rows"]

GIVEN = "given"
"""Folder of an arm's given masks, in the arm's own."""


@dataclass(frozen=True)
class ArmRows:
    """What an arm plays.

    Parameters
    ----------
    rows
        As they are played.
    cases
        The list that they are of.
    folder
        Where their given masks are.
    left_out
        How many cases the condition cannot be set for, by reason.
    """

    rows: tuple[CaseRow | RowError, ...]
    cases: CaseList
    folder: Path
    left_out: dict[str, int]
    _own: Mapping[str, CaseRow] = field(repr=False, default_factory=dict)

    @property
    def sha256(self) -> str:
        """Hash of what the rows say, conditions included."""
        return rows_hash(self.rows)

    def load(self, row: CaseRow) -> Loaded:
        """Image, target, mask to start from.

        Raises
        ------
        InputError
            If they cannot be read.
        """
        own = self._own[self._case_of(row)]
        image, target, initial = self.cases.load(own)
        if row.mask is None:
            target = None
        if row.initial_mask != own.initial_mask:
            initial = None if row.initial_mask is None else read_mask(self.folder / row.initial_mask, image)
        return image, target, initial

    @staticmethod
    def _case_of(row: CaseRow) -> str:
        condition = (row.model_extra or {}).get("condition")
        of = condition.get("of") if isinstance(condition, dict) else None
        return of if isinstance(of, str) else row.case_id


def arm_rows(
    arm: Arm, cases: CaseList, number: int | None, folder: Path, seed: int, library: Library, wordings: int
) -> ArmRows:
    """The rows of an arm; deterministic, so that a lab that goes on plays the same.

    Parameters
    ----------
    arm
        Which.
    cases
        The lab's list, or the arm's own.
    number
        Size of the subset; None plays all.
    folder
        The arm's folder; given masks are written there.
    seed, library, wordings
        The lab's.
    """
    chosen = list(cases.rows) if number is None else list(subset(cases.rows, number))
    given = folder / GIVEN
    own = {row.case_id: row for row in cases.rows if isinstance(row, CaseRow)}
    if arm.condition is None:
        return ArmRows(tuple(chosen), cases, given, {}, own)
    scene = Scene(cases, given, seed, library)
    usable = [row for row in chosen if isinstance(row, CaseRow)]
    rows, left_out = apply_condition(arm.condition, scene, usable, wordings)
    return ArmRows(tuple(rows), cases, given, left_out, own)
