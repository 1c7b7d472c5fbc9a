"""The same case in other words: each of the 13 categories of instructions, spread over the cases.

Starting categories are told about the plain case, refining ones about a case with a damaged mask to refine. The phrase
for the target stays the same in all of them; only the sentence around it changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ibisagent.engine.language.instructions import CATEGORIES, Stage, draw_instruction
from ibisagent.evaluate.arms.scene import NotPossible, Scene, changed
from ibisagent.evaluate.run import instruction_seed
from ibisagent.io import CaseRow
from ibisagent.metrics import iou

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["is_told", "wording_row"]


def is_told(rank: int, category: str, stage: Stage, wordings: int) -> bool:
    """Whether a case is told in a category.

    Each case is told in `wordings` categories of a stage, neighbours in rank in neighbouring ones, so that every
    category gets the same number of cases, give or take one.

    Parameters
    ----------
    rank
        Of the case among those that the lab plays, by ``case_id``.
    category, stage
        Of :data:`~ibisagent.engine.language.instructions.CATEGORIES`.
    wordings
        Categories a case.
    """
    names = CATEGORIES[stage]
    return (names.index(category) - rank * wordings) % len(names) < wordings


def wording_row(
    scene: Scene,
    row: CaseRow,
    condition: str,
    rank: int,
    wordings: int,
    damaged: Callable[[CaseRow], NDArray[np.bool_]],
) -> CaseRow | None:
    """A case as it is told in a category, or None where another case is.

    Parameters
    ----------
    scene, row
        The list and the case.
    condition
        ``"wording:STAGE:CATEGORY"``.
    rank, wordings
        See :func:`is_told`.
    damaged
        Makes the mask that a refining category speaks of, ``bool`` (H, W).

    Raises
    ------
    NotPossible
        If the target is absent, there is no such mask, or the stage is to start and the case begins with a mask.
    """
    _, stage_name, category = condition.split(":")
    stage: Stage = "refine" if stage_name == "refine" else "start"
    if not is_told(rank, category, stage, wordings):
        return None
    if stage == "start" and row.initial_mask is not None:
        raise NotPossible("the case begins with a mask")
    _, target = scene.load(row)
    # The plain run's own seed: where it was told in this category, the two are the same run.
    drawn = draw_instruction(
        row.target,
        row.modality,
        instruction_seed(scene.seed, row.case_id),
        stage=stage,
        category=category,
        split="test",
        library=scene.library,
        extended=scene.library == "full",
    )
    facts = {"name": condition}
    if stage == "start":
        return changed(row, facts, instruction=drawn.text, category=category)
    mask = damaged(row)
    about = {**facts, "given_iou": round(float(iou(mask, target)), 6)}
    return changed(row, about, instruction=drawn.text, category=category, initial_mask=scene.give(row, mask))
