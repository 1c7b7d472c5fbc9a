"""One row of a case list, played: what happened and everything that scoring it again needs."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from ibisagent.episode import Episode
from ibisagent.errors import InputError
from ibisagent.rle import Rle
from ibisagent.scoring import Scores

__all__ = ["CaseResult"]

_STORED_APART = ("scores", "episode", "target_mask")


@dataclass(frozen=True)
class CaseResult:
    """What one row of the list came to.

    Parameters
    ----------
    case_id, group, target, modality, split
        From the row; None where it could not be read.
    absent
        Whether the target is absent (null or empty mask); None where that is not known.
    instruction, category
        What the agent was told, and the template's category if it was drawn.
    scores
        Derived from `episode` and `target_mask`; None where there was no run.
    episode
        The run without its scores; None where there was none.
    error
        One line: why the row could not be read or the run failed; empty if all went well.
    line
        Line of the list, from 1; None if the row did not come from a file.
    patient
        Whose image it is: the row's ``patient``, else its ``group``. Cases of one patient are not independent.
    image
        The row's image path; cases of one image are not independent either.
    view, source
        From the row: plane, and data set.
    spacing_mm
        (row, column) distance of pixel centres in mm; None where nothing says so.
    target_mask
        The reference, so that the run can be scored again without the data; None for an absent target and where the
        row could not be read.
    condition
        Facts of the condition that the case was played under (:mod:`ibisagent.evaluate.arms`); empty for the plain
        one.
    """

    case_id: str | None
    group: str | None = None
    target: str | None = None
    modality: str | None = None
    split: str | None = None
    absent: bool | None = None
    instruction: str = ""
    category: str = ""
    scores: Scores | None = None
    episode: Episode | None = field(default=None, repr=False)
    error: str = ""
    line: int | None = None
    patient: str | None = None
    image: str | None = None
    view: str | None = None
    source: str | None = None
    spacing_mm: tuple[float, float] | None = None
    target_mask: Rle | None = field(default=None, repr=False)
    condition: dict[str, Any] = field(default_factory=dict)

    @property
    def iou(self) -> float | None:
        """IoU of the result: 0.0 after an error, None only for an absent target."""
        return self._overlap("iou")

    @property
    def dice(self) -> float | None:
        """Dice of the result: 0.0 after an error, None only for an absent target."""
        return self._overlap("dice")

    @property
    def pair(self) -> str:
        """``group/target``, which ``target_mean`` and ``per_target`` count by; nothing stands for an unknown group."""
        return f"{self.group or ''}/{self.target or 'unknown'}"

    def _overlap(self, name: str) -> float | None:
        if self.absent:
            return None
        return 0.0 if self.scores is None or self.error else getattr(self.scores, name)

    def to_json(self) -> dict[str, Any]:
        """Everything but scores, which are derived, and the episode, which has a file of its own."""
        kept = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _STORED_APART}
        return {**kept, "target_mask": None if self.target_mask is None else self.target_mask.model_dump()}

    @classmethod
    def from_json(cls, data: dict[str, Any], episode: Episode | None = None) -> CaseResult:
        """What :meth:`to_json` gave, with its episode; not yet scored.

        Raises
        ------
        InputError
            If `data` is no such record.
        """
        try:
            known = {f.name: data[f.name] for f in fields(cls) if f.name in data and f.name not in _STORED_APART}
            mask = data.get("target_mask")
            known["target_mask"] = None if mask is None else Rle.model_validate(mask)
            if known.get("spacing_mm") is not None:
                row, column = known["spacing_mm"]
                known["spacing_mm"] = (float(row), float(column))
            return cls(**known, episode=episode)
        except (TypeError, ValueError, AttributeError) as error:
            raise InputError(f"not a case's record: {error}") from None
