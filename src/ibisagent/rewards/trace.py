"""The facts of an episode that rewards are made of: every reply held against the target, computed once.

Rewards read parsed actions and masks from here, never text: what the parser accepts and what a reward accepts
cannot differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ibisagent.actions import ClickAction, TerminateAction
from ibisagent.episode import Episode, Outcome
from ibisagent.rle import Rle, decode_mask

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ibisagent.actions import Verdict
    from ibisagent.episode import Step

__all__ = ["ReplyFacts", "Trace", "trace_episode"]


@dataclass(frozen=True)
class ReplyFacts:
    """What one reply did.

    Attributes
    ----------
    valid
        Whether it was a legal action and was carried out (a failing tool is no fault of the reply).
    kind
        Kind of its action, of a rejected one too; None where the reply was no action.
    counts
        Whether it is a step: all replies but a Terminate that was carried out.
    failed
        Whether the segmenter failed on it; such an episode is not trained on.
    clicks_right
        For a valid click action, one entry a click: whether a positive click lies in a false-negative pixel, or a
        negative one in a false-positive pixel, of the mask before the action. Empty for everything else.
    changed
        Whether a pixel of the mask changed; having no mask and an empty one are the same.
    verdict
        Of a Terminate that was carried out, else None.
    iou_before, iou_after
        IoU of the mask before and after it, 0.0 while there is no mask. What was not carried out and a Terminate
        change nothing. None for an absent target; `iou_after` is None too where the tool failed.
    """

    valid: bool
    kind: str | None
    counts: bool
    failed: bool
    clicks_right: tuple[bool, ...]
    changed: bool
    verdict: Verdict | None
    iou_before: float | None
    iou_after: float | None


@dataclass(frozen=True)
class Trace:
    """The facts of one ended episode.

    Attributes
    ----------
    replies
        One entry for every reply in ``episode.steps``.
    absent
        Whether the target is not in the image (None, or a mask without pixels).
    outcome
        How the run ended.
    initial_iou, final_iou
        IoU of the given mask (0.0 without one) and of the final mask; None for an absent target, and the final one
        after an error.
    final_empty
        Whether the final mask has no pixel.
    excluded
        Why the episode may not be trained on: ``"tool_error"``, ``"policy_error"``, ``"error"`` (neither is named in
        the record) or ``"stopped"`` (a person ended it, so that its end is not the policy's doing); None if it may.
    """

    replies: tuple[ReplyFacts, ...]
    absent: bool
    outcome: Outcome
    initial_iou: float | None
    final_iou: float | None
    final_empty: bool
    excluded: str | None

    @property
    def num_steps(self) -> int:
        """Steps taken: invalid replies count, Terminate does not."""
        return sum(reply.counts for reply in self.replies)

    @property
    def num_invalid(self) -> int:
        """Replies that were not carried out."""
        return sum(not reply.valid for reply in self.replies)

    @property
    def refused(self) -> bool:
        """Whether the run ended by saying that the target is absent."""
        return self.outcome is Outcome.ABSENT

    @property
    def best_iou(self) -> float | None:
        """Highest IoU of all masks that were there in the run, the given one included; None for an absent target."""
        if self.initial_iou is None:
            return None
        return max(self.initial_iou, *(r.iou_after for r in self.replies if r.iou_after is not None), 0.0)


def trace_episode(episode: Episode, target: NDArray[np.bool_] | None) -> Trace:
    """Hold every reply of an ended episode against the target.

    Parameters
    ----------
    episode
        The run.
    target
        ``bool`` (H, W) reference mask; None or an empty one if the target is absent.

    Raises
    ------
    ValueError
        If the run has not ended, or the target or a mask has another size than the image.
    InputError
        If a mask of the episode is damaged.
    """
    if episode.outcome is None:
        raise ValueError("the run has not ended")
    size = (episode.image.height, episode.image.width)
    if target is not None and (target.dtype != np.bool_ or target.shape != size):
        raise ValueError(f"the target is {target.dtype} {target.shape}, the image {size}")
    states = _States(size, target if target is not None and target.any() else None)
    before = initial = states.of(episode.initial_mask)
    replies = []
    for step in episode.steps:
        moved = step.counts and step.invalid is None and not step.failed
        after = states.of(step.mask) if moved else before
        replies.append(_facts(step, before, after, states, size))
        before = after
    final = states.of(episode.final_mask)
    return Trace(
        replies=tuple(replies),
        absent=states.target is None,
        outcome=episode.outcome,
        initial_iou=initial.iou,
        final_iou=None if episode.outcome is Outcome.ERROR else final.iou,
        final_empty=not final.mask.any(),
        excluded=_excluded(episode),
    )


@dataclass(frozen=True, eq=False)
class _State:
    """One mask, ``bool`` (H, W), and its IoU with the target (None for an absent one)."""

    mask: NDArray[np.bool_]
    iou: float | None


class _States:
    """Masks of one episode; each is decoded and held against the target once, however often it is recorded."""

    def __init__(self, size: tuple[int, int], target: NDArray[np.bool_] | None) -> None:
        self.size = size
        self.target = target
        self._area = int(np.count_nonzero(target)) if target is not None else 0
        self._known: dict[str | None, _State] = {}

    def of(self, rle: Rle | None) -> _State:
        """The state that a mask is; None is no mask. Every mask is decoded once."""
        key = rle.counts if rle is not None else None
        if rle is not None and rle.size != self.size:
            raise ValueError(f"a mask is {rle.size}, the image {self.size}")
        if key not in self._known:
            mask = decode_mask(rle) if rle is not None else np.zeros(self.size, bool)
            self._known[key] = _State(mask, self._iou(mask))
        return self._known[key]

    def _iou(self, mask: NDArray[np.bool_]) -> float | None:
        """As :func:`ibisagent.metrics.iou`, which would count the target anew for every mask."""
        if self.target is None:
            return None
        both = int(np.count_nonzero(mask & self.target))
        return both / (int(np.count_nonzero(mask)) + self._area - both)  # the target has pixels, so there is a union


def _facts(step: Step, before: _State, after: _State, states: _States, size: tuple[int, int]) -> ReplyFacts:
    action, valid = step.action, step.invalid is None and step.action is not None
    right: tuple[bool, ...] = ()
    if valid and isinstance(action, ClickAction):
        height, width = size
        pixels = [click.to_pixel(width, height) for click in action.clicks]
        right = tuple(_is_right(before.mask, states.target, p.x, p.y, p.positive) for p in pixels)
    return ReplyFacts(
        valid=valid,
        kind=action.kind if action is not None else None,
        counts=step.counts,
        failed=step.failed,
        clicks_right=right,
        changed=after is not before and not np.array_equal(before.mask, after.mask),
        verdict=action.verdict if valid and isinstance(action, TerminateAction) else None,
        iou_before=before.iou,
        iou_after=None if step.failed else after.iou,
    )


def _is_right(mask: NDArray[np.bool_], target: NDArray[np.bool_] | None, x: int, y: int, positive: bool) -> bool:
    wanted = target is not None and bool(target[y, x])
    covered = bool(mask[y, x])
    return (wanted and not covered) if positive else (covered and not wanted)


def _excluded(episode: Episode) -> str | None:
    error = episode.error or ""
    if any(step.failed for step in episode.steps) or error.startswith("ToolError"):
        return "tool_error"
    if episode.outcome is Outcome.ERROR:
        return "policy_error" if error.startswith("PolicyError") else "error"
    return "stopped" if episode.outcome is Outcome.STOPPED else None
