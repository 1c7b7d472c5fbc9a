"""Scores of an episode against its target. What is undefined is None, never zero.

Errors and false refusals score IoU 0. A case whose target is absent (None or an empty mask) has no
IoU: it counts in the refusals only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ibisagent.episode import Episode, Outcome
from ibisagent.metrics import dice, iou
from ibisagent.rle import decode_mask

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ibisagent.rle import Rle

__all__ = ["Scores", "score_episode"]


@dataclass(frozen=True)
class Scores:
    """What one episode is worth, and what it did.

    Attributes
    ----------
    iou, dice
        Of the final mask; None for an absent target, 0.0 after an error.
    iou_by_step
        IoU after k steps, from k = 0 (the given mask, or none); invalid replies carry the value on, a
        failed step is 0.0. None for an absent target. The Terminate adds nothing.
    outcome
        How the run ended.
    is_error
        Whether it ended by a failing segmenter or policy.
    right_refusal
        For an absent target: whether the run said so. None where the target is present.
    false_refusal
        For a present target: whether the run called it absent. None where the target is absent.
    num_steps
        Steps taken (invalid replies count, Terminate does not).
    num_replies, num_valid
        Replies that were taken, and those of them that were legal actions.
    num_refinements, num_improvements
        Steps after the first that gave a mask (with a given mask: all of them), and those of them that
        raised the IoU; a rejected reply raised nothing. None for an absent target.
    """

    iou: float | None
    dice: float | None
    iou_by_step: tuple[float, ...] | None
    outcome: Outcome | None
    is_error: bool
    right_refusal: bool | None
    false_refusal: bool | None
    num_steps: int
    num_replies: int
    num_valid: int
    num_refinements: int | None
    num_improvements: int | None

    @property
    def action_validity(self) -> float | None:
        """Share of replies that were legal actions; None without replies."""
        return self.num_valid / self.num_replies if self.num_replies else None

    @property
    def refinement_success(self) -> float | None:
        """Share of refinements that raised the IoU; None without refinements."""
        if not self.num_refinements or self.num_improvements is None:
            return None
        return self.num_improvements / self.num_refinements


def score_episode(episode: Episode, target: NDArray[np.bool_] | None) -> Scores:
    """Score a finished episode.

    Parameters
    ----------
    episode
        The run.
    target
        ``bool`` (H, W) reference mask; None or an empty one if the target is absent.

    Raises
    ------
    ValueError
        If the target's shape is not the image's, or the run has not ended.
    """
    if episode.outcome is None:
        raise ValueError("the run has not ended")
    is_error = episode.outcome is Outcome.ERROR
    valid = sum(step.invalid is None for step in episode.steps)
    absent = target is None or not target.any()
    refused = episode.outcome is Outcome.ABSENT
    final_iou = final_dice = None
    curve, refinements, improvements = None, None, None
    if target is not None and not absent:
        size = (episode.image.height, episode.image.width)
        if target.shape != size:
            raise ValueError(f"the target is {target.shape}, the image {size}")
        final = _mask(None if is_error else episode.final_mask, target)
        final_iou, final_dice = (0.0, 0.0) if is_error else (iou(final, target), dice(final, target))
        curve, refinements, improvements = _trace(episode, target)
    return Scores(
        iou=final_iou,
        dice=final_dice,
        iou_by_step=curve,
        outcome=episode.outcome,
        is_error=is_error,
        right_refusal=refused if absent else None,
        false_refusal=None if absent else refused,
        num_steps=episode.num_steps,
        num_replies=len(episode.steps),
        num_valid=valid,
        num_refinements=refinements,
        num_improvements=improvements,
    )


def _trace(episode: Episode, target: NDArray[np.bool_]) -> tuple[tuple[float, ...], int, int]:
    """IoU after every counted step; refinements and how many of them raised it."""
    value = iou(_mask(episode.initial_mask, target), target)
    curve, has_mask = [value], episode.initial_mask is not None
    refinements = improvements = 0
    for step in episode.steps:
        if not step.counts:
            continue
        before = value
        if step.failed:
            value = 0.0
        elif step.invalid is None:
            value = iou(_mask(step.mask, target), target)
        if has_mask and not step.failed:
            refinements += 1
            improvements += value > before
        has_mask = has_mask or step.mask is not None
        curve.append(value)
    return tuple(curve), refinements, improvements


def _mask(rle: Rle | None, target: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return decode_mask(rle) if rle is not None else np.zeros_like(target)
