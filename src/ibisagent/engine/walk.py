"""A walk: an expert's actions on one target, with the masks that came of them, before anything is put into words.

Walks are cheap: no thoughts, no messages. Those that pass the filters are played again in the environment and
recorded (:mod:`ibisagent.engine.record`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.actions import Action, BoxAction, ClickAction, DiscardAction, TerminateAction, UndoAction, Verdict
from ibisagent.engine.expert import Expert, best_length
from ibisagent.engine.moments import Intent
from ibisagent.metrics import iou
from ibisagent.segmenters.session import Session
from ibisagent.types import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ibisagent.engine.language.hints import Hint
    from ibisagent.segmenters.protocol import Segmenter

__all__ = ["Move", "Subject", "Walk", "expert_walk", "play_move"]


@dataclass(frozen=True, eq=False)
class Subject:
    """What a walk is about.

    Parameters
    ----------
    image
        The image.
    name
        Name of the structure.
    target
        ``bool`` (H, W) with at least one pixel, or None where the structure is absent.
    others
        Masks of other structures in the image.
    """

    image: Image
    name: str
    target: NDArray[np.bool_] | None
    others: tuple[NDArray[np.bool_], ...] = ()


@dataclass(frozen=True)
class Move:
    """One action of a walk and why it is made; ``learn`` is False for a wrong one."""

    action: Action
    intent: Intent
    learn: bool = True


@dataclass(eq=False)
class Walk:
    """Moves with their masks; the lists have one entry a move.

    Parameters
    ----------
    initial_mask
        ``bool`` (H, W) mask that the user gives, or None.
    moves
        In order; the last one is a Terminate once the walk is finished.
    masks
        ``bool`` (H, W) mask after each move, None while there is none.
    ious
        IoU of each of them with the target; 0 without a mask. Empty where the target is absent.
    hint
        What the instruction is to say falsely (see :class:`~ibisagent.engine.moments.Moment`), or None.
    place
        The false place that it names.
    tail
        (move, mask, IoU) of clicks that an expert made after its best mask, which helped no more. They are no part of
        the walk, unless it ends as uncertain: then they show why.
    """

    initial_mask: NDArray[np.bool_] | None = None
    moves: list[Move] = field(default_factory=list)
    masks: list[NDArray[np.bool_] | None] = field(default_factory=list)
    ious: list[float] = field(default_factory=list)
    hint: Hint | None = None
    place: str | None = None
    tail: list[tuple[Move, NDArray[np.bool_] | None, float]] = field(default_factory=list)

    @property
    def final_mask(self) -> NDArray[np.bool_] | None:
        """Mask at the end, the given one if nothing was done."""
        return self.masks[-1] if self.masks else self.initial_mask

    @property
    def num_clicks(self) -> int:
        """Clicks and boxes, wrong ones included."""
        return sum(isinstance(move.action, ClickAction | BoxAction) for move in self.moves)

    def with_moves(self, at: int, moves: list[Move], masks: list[Any], ious: list[float]) -> Walk:
        """A copy with some moves put in before number `at`."""
        return replace(
            self,
            moves=[*self.moves[:at], *moves, *self.moves[at:]],
            masks=[*self.masks[:at], *masks, *self.masks[at:]],
            ious=[*self.ious[:at], *ious, *self.ious[at:]],
        )

    def end(self, verdict: Verdict, intent: Intent, final_iou: float | None = None) -> Walk:
        """A copy that stops where it stands. The answer's words are the teacher's affair."""
        stop = Move(TerminateAction(verdict=verdict), intent)
        return self.with_moves(len(self.moves), [stop], [self.final_mask], [] if final_iou is None else [final_iou])


def play_move(session: Session, action: Action) -> NDArray[np.bool_] | None:
    """Carry a click, box, undo or discard out and return the mask after it.

    Raises
    ------
    ToolError
        If the segmenter fails.
    ActionError
        If the segmenter does not take such an action.
    """
    height, width = session.shape
    if isinstance(action, ClickAction):
        session.add_clicks([click.to_pixel(width, height) for click in action.clicks])
    elif isinstance(action, BoxAction):
        session.set_box(action.to_pixels(width, height))
    elif isinstance(action, UndoAction):
        session.undo()
    elif isinstance(action, DiscardAction):
        session.discard()
    return session.mask


def expert_walk(
    subject: Subject,
    expert: Expert,
    segmenter: Segmenter,
    rng: np.random.Generator,
    initial_mask: NDArray[np.bool_] | None = None,
    led: Walk | None = None,
) -> Walk:
    """Let the expert work until it has enough. The walk is not finished: no Terminate.

    Parameters
    ----------
    subject
        With a target.
    expert, segmenter
        Who clicks on what. A segmenter that remembers spares most of the work of later walks.
    rng
        Serves expert rules that draw.
    initial_mask
        ``bool`` (H, W) mask to go on from, or None.
    led
        What was done before the expert took over, for example by a policy, from the same given mask; all of it stays.

    Raises
    ------
    ToolError
        If the segmenter fails.
    ActionError
        If the segmenter cannot take the expert's actions.
    ValueError
        If the subject has no target.
    """
    target = subject.target
    if target is None:
        raise ValueError("an expert needs a target to walk to")
    session = Session(segmenter, subject.image, initial_mask, segmenter.encode(subject.image))
    walk, led = Walk(initial_mask), led or Walk(initial_mask)
    for move in led.moves:
        play_move(session, move.action)
    before = [*([] if initial_mask is None else [iou(initial_mask, target)]), *led.ious]
    while not expert.is_done([*before, *walk.ious], len(walk.moves)):
        mask = session.mask
        action = expert.next_action(mask, target, rng, len(walk.moves))
        if action is None:
            break
        positive = not isinstance(action, ClickAction) or action.clicks[0].positive
        intent = Intent.START if mask is None else Intent.MISSED if positive else Intent.EXCESS
        after = play_move(session, action)
        assert after is not None
        walk.moves.append(Move(action, intent))
        walk.masks.append(after)
        walk.ious.append(iou(after, target))
    if expert.config.keep == "best" and walk.ious:
        plateau = expert.config.plateau or 0.0
        keep = 0 if before and before[-1] >= max(walk.ious) - plateau else best_length(walk.ious, plateau)
        walk.tail = list(zip(walk.moves[keep:], walk.masks[keep:], walk.ious[keep:], strict=True))
        for rows in (walk.moves, walk.masks, walk.ious):
            del rows[keep:]
    return replace(led.with_moves(len(led.moves), walk.moves, walk.masks, walk.ious), tail=walk.tail)
