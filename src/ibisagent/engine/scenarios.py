"""What happens in a trajectory: the plain run, and the situations that teach reflection and refusal.

All of them start from the plain walk of a target, so that a segmenter that remembers answers most of their prompts
from memory:

- ``plain``            click until the mask is good, stop.
- ``self_correction``  a wrong click, seen and taken back, then the better one (paper, reflection data 1).
- ``mismatched_mask``  the given mask shows something else: discard it, start again (paper, reflection data 2).
- ``corrupted_mask``   the given mask is damaged: refine it, or discard it where too little is right.
- ``right_stop``       the given mask is good: stop at once (fault 5 of the public code: stopping was never taught).
- ``absent``           the target is not there: look, then refuse (fault 7). Sometimes a mask of another thing is given.
- ``deceptive``        the instruction says something false: a wrong place, an error that is none, a mask that is none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ibisagent.actions import ClickAction, DiscardAction, UndoAction
from ibisagent.clicks import squared_depth
from ibisagent.engine.damage import damaged_mask, other_mask
from ibisagent.engine.expert import Expert
from ibisagent.engine.language.hints import HINTS
from ibisagent.engine.moments import Intent
from ibisagent.engine.walk import Move, Subject, Walk, expert_walk, play_move
from ibisagent.metrics import dice, iou
from ibisagent.segmenters.session import Session
from ibisagent.types import PixelClick

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ibisagent.segmenters.protocol import Segmenter

__all__ = [
    "SCENARIOS",
    "Dropped",
    "Filters",
    "Scenario",
    "Stage",
    "false_place",
    "keep_or_drop",
    "make_walk",
    "starting_mask",
]

Scenario = Literal[
    "plain", "self_correction", "mismatched_mask", "corrupted_mask", "right_stop", "absent", "deceptive"
]
SCENARIOS: tuple[Scenario, ...] = get_args(Scenario)

HARM = 0.05
"""A wrong click is worth showing where it lowers the IoU by more than this."""

WORTHLESS = 0.1
"""A damaged mask below this IoU as good as shows something else: it is discarded, not refined."""

SPOILT = 0.05
"""Clicks that lower the IoU by more than this are no sign that clicks help no more: they are bad clicks."""

GOOD = 0.92
"""A given mask from this IoU on is one to stop at."""

_TRIES = 4


class Filters(BaseModel):
    """Which walks are kept (paper: over-long and low-final-Dice trajectories are dropped)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_final_dice: float = Field(default=0.85, ge=0.0, le=1.0)
    """Least Dice of the final mask with the target."""
    max_clicks: int = Field(default=20, ge=1)
    """Most clicks and boxes, wrong ones included."""
    max_fall: float | None = Field(default=0.15, gt=0.0, le=1.0)
    """Largest fall of the IoU that a learnt action may cause; None allows any."""
    uncertain_share: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of the walks with too low a Dice that are kept all the same, ending with "uncertain"."""
    show_plateau: int = Field(default=0, ge=0)
    """Clicks after the best mask, which helped no more, that an uncertain walk must show."""


class Dropped(Exception):
    """A walk is not worth keeping.

    Parameters
    ----------
    reason
        A word for the statistics.
    value
        What was measured, where something was.
    """

    def __init__(self, reason: str, value: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.value = reason, value


@dataclass(frozen=True, eq=False)
class Stage:
    """What scenarios work with.

    Parameters
    ----------
    subject
        The image and what is asked for.
    expert, segmenter
        Who clicks, on what.
    expert_rng
        Makes the generator of the expert's draws; each call the same one, so that all walks begin alike.
    worthless
        IoU below which a damaged mask is discarded.
    """

    subject: Subject
    expert: Expert
    segmenter: Segmenter
    expert_rng: Callable[[], np.random.Generator]
    worthless: float = WORTHLESS

    def walk(self, initial_mask: NDArray[np.bool_] | None = None) -> Walk:
        """The expert's walk from a mask, or from nothing."""
        return expert_walk(self.subject, self.expert, self.segmenter, self.expert_rng(), initial_mask)


def make_walk(scenario: Scenario, stage: Stage, filters: Filters, rng: np.random.Generator) -> Walk:
    """Make the walk of one scenario, finished and filtered.

    Parameters
    ----------
    scenario
        Which.
    stage
        On what; without a target for ``absent``, with one for all others.
    filters
        What is kept.
    rng
        Draws what the scenario leaves open.

    Raises
    ------
    Dropped
        If the walk is not worth keeping, or the scenario is not possible here.
    ToolError
        If the segmenter fails.
    """
    walk = _MAKERS[scenario](stage, rng)
    if stage.subject.target is None:
        return walk.end("absent", Intent.ABSENT)
    return keep_or_drop(walk, stage.subject.target, filters, rng)


def keep_or_drop(walk: Walk, target: NDArray[np.bool_], filters: Filters, rng: np.random.Generator) -> Walk:
    """Finish a walk with the Terminate that it deserves.

    Raises
    ------
    Dropped
        ``no_mask``, ``too_long``, ``not_monotonic``, ``repeated_click``, ``low_final_dice`` or ``no_visible_plateau``.
    """
    final = walk.final_mask
    if final is None or not final.any():
        raise Dropped("no_mask")
    if walk.num_clicks > filters.max_clicks:
        raise Dropped("too_long", walk.num_clicks)
    start = 0.0 if walk.initial_mask is None else iou(walk.initial_mask, target)
    falls = [
        before - after
        for before, after, move in zip([start, *walk.ious], walk.ious, walk.moves, strict=False)
        if move.learn and isinstance(move.action, ClickAction)
    ]
    if filters.max_fall is not None and falls and max(falls) > filters.max_fall:
        raise Dropped("not_monotonic", round(max(falls), 4))
    actions = [move.action for move in walk.moves]
    if any(actions[i] == actions[i + 1] == actions[i + 2] for i in range(len(actions) - 2)):
        # The environment ends a run at the third identical action: it cannot be an example.
        raise Dropped("repeated_click")
    score = dice(final, target)
    if score >= filters.min_final_dice:
        return walk.end("found", Intent.FITS, iou(final, target))
    if filters.uncertain_share and rng.random() < filters.uncertain_share:
        walk = _with_plateau(walk, filters) if walk.tail or filters.show_plateau else walk
        return walk.end("uncertain", Intent.ROUGH, walk.ious[-1] if walk.ious else iou(final, target))
    raise Dropped("low_final_dice", round(score, 4))


def _with_plateau(walk: Walk, filters: Filters) -> Walk:
    """The walk with some of the clicks that helped no more: without them, nothing would speak for giving up."""
    if not filters.show_plateau:
        return walk
    best = walk.ious[-1] if walk.ious else 0.0
    shown = walk.tail[: filters.show_plateau]
    ious = [value for _, _, value in shown]
    falls = [before - after for before, after in zip([best, *ious], ious, strict=False)]
    if len(shown) < filters.show_plateau or min(ious) < best - SPOILT or max(falls) > (filters.max_fall or 1.0):
        raise Dropped("no_visible_plateau")
    moves, masks = [move for move, _, _ in shown], [mask for _, mask, _ in shown]
    return walk.with_moves(len(walk.moves), moves, masks, ious)


def starting_mask(
    scenario: Scenario, subject: Subject, rng: np.random.Generator, good: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_] | None:
    """The mask that a scenario gives to start from, or None where it gives none.

    Parameters
    ----------
    scenario, subject, rng
        As for :func:`make_walk`.
    good
        ``bool`` (H, W) mask to stop at for ``right_stop``; None takes the target itself, its border a little worn.

    Raises
    ------
    Dropped
        If there is no such mask: no other structure, or no damage that leaves enough and changes enough.
    """
    target = subject.target
    if scenario == "mismatched_mask":
        assert target is not None
        other = other_mask(subject.others, target, rng)
        if other is None:
            raise Dropped("no_other_structure")
        return other
    if scenario == "corrupted_mask":
        assert target is not None
        for _ in range(_TRIES):
            mask = damaged_mask(target, rng)
            if mask.any() and iou(mask, target) < 0.8:
                return mask
        raise Dropped("too_little_damage")
    if scenario == "right_stop":
        assert target is not None
        mask = _worn(target, rng) if good is None else good
        return mask if iou(mask, target) >= GOOD else target
    if scenario == "absent" and subject.others and rng.random() < 0.25:
        return subject.others[int(rng.integers(len(subject.others)))]
    return None


def _plain(stage: Stage, rng: np.random.Generator) -> Walk:
    return stage.walk()


def _self_correction(stage: Stage, rng: np.random.Generator) -> Walk:
    plain, target = stage.walk(), stage.subject.target
    assert target is not None
    if not plain.moves:
        raise Dropped("no_mask")
    at = int(rng.integers(len(plain.moves)))
    session = Session(stage.segmenter, stage.subject.image, None, stage.segmenter.encode(stage.subject.image))
    for move in plain.moves[:at]:
        play_move(session, move.action)
    mask = session.mask
    before = plain.ious[at - 1] if at else 0.0
    for _ in range(_TRIES):
        click = _wrong_click(mask, target, rng)
        if click is None:
            break
        wrong = stage.expert.click_at(click, *target.shape[::-1])
        after = play_move(session, wrong)
        assert after is not None
        score = iou(after, target)
        # Without a mask, one of something else is harm enough.
        if after.any() and (score < before - HARM if mask is not None else score < 0.1):
            moves = [Move(wrong, Intent.WRONG, learn=False), Move(UndoAction(), Intent.UNDO)]
            return plain.with_moves(at, moves, [after, mask], [score, before])
        session.undo()
    raise Dropped("no_harmful_click")


def _mismatched_mask(stage: Stage, rng: np.random.Generator) -> Walk:
    return _discarded(stage, starting_mask("mismatched_mask", stage.subject, rng))


def _discarded(stage: Stage, given: NDArray[np.bool_] | None) -> Walk:
    walk = stage.walk().with_moves(0, [Move(DiscardAction(), Intent.DISCARD)], [None], [0.0])
    return replace(walk, initial_mask=given)


def _corrupted_mask(stage: Stage, rng: np.random.Generator) -> Walk:
    target = stage.subject.target
    given = starting_mask("corrupted_mask", stage.subject, rng)
    assert target is not None and given is not None
    if iou(given, target) < stage.worthless:
        return _discarded(stage, given)
    if not stage.segmenter.capabilities.prior_mask:
        raise Dropped("no_prior_mask")  # it could only start anew, and the mask is not so wrong
    walk = stage.walk(given)
    if not walk.moves:
        raise Dropped("no_gain")
    return walk


def _right_stop(stage: Stage, rng: np.random.Generator) -> Walk:
    target = stage.subject.target
    assert target is not None
    own = stage.walk().final_mask
    good = own if own is not None and iou(own, target) >= GOOD else None
    return Walk(starting_mask("right_stop", stage.subject, rng, good))


def _absent(stage: Stage, rng: np.random.Generator) -> Walk:
    return Walk(starting_mask("absent", stage.subject, rng))


def _deceptive(stage: Stage, rng: np.random.Generator) -> Walk:
    target = stage.subject.target
    assert target is not None
    hint = HINTS[int(rng.integers(len(HINTS)))]
    if hint == "false_error":
        return replace(_right_stop(stage, rng), hint=hint)
    if hint == "wrong_place":
        place = false_place(target, rng)
        if place is not None:
            return replace(stage.walk(), hint=hint, place=place)
    return replace(stage.walk(), hint="false_mask")


_MAKERS: dict[Scenario, Callable[[Stage, np.random.Generator], Walk]] = {
    "plain": _plain,
    "self_correction": _self_correction,
    "mismatched_mask": _mismatched_mask,
    "corrupted_mask": _corrupted_mask,
    "right_stop": _right_stop,
    "absent": _absent,
    "deceptive": _deceptive,
}


def _wrong_click(
    mask: NDArray[np.bool_] | None, target: NDArray[np.bool_], rng: np.random.Generator
) -> PixelClick | None:
    """A click of the wrong sign for its place: positive well outside the target, or negative well inside it."""
    positive = mask is None or not (mask & target).any() or rng.random() < 0.6
    if positive:
        reach = max(3, target.shape[0] // 28)
        region = ~cv2.dilate(target.astype(np.uint8), np.ones((2 * reach + 1,) * 2, np.uint8)).astype(bool)
        region = region if mask is None else region & ~mask
    else:
        assert mask is not None
        region = target & mask
    inside = np.flatnonzero(squared_depth(region) > 2**2)
    if not inside.size:
        return None
    at = int(inside[int(rng.integers(inside.size))])
    width = target.shape[1]
    return PixelClick(at % width, at // width, positive)


def _worn(target: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """The target with a little of its border gained or lost."""
    kernel = np.ones((3, 3), np.uint8)
    change = cv2.dilate if rng.random() < 0.5 else cv2.erode
    worn = change(target.astype(np.uint8), kernel).astype(bool)
    some = cv2.resize(rng.random((8, 8)), target.shape[::-1], interpolation=cv2.INTER_LINEAR) < 0.5
    return np.where(some, worn, target)


PLACES = ("upper left", "upper right", "lower left", "lower right")
"""Quarters of the picture that a false hint may name."""


def false_place(target: NDArray[np.bool_], rng: np.random.Generator) -> str | None:
    """A quarter of the picture (see :data:`PLACES`) with nothing of a ``bool`` (H, W) target in it, or None."""
    height, width = target.shape
    rows = {"upper": slice(0, height // 2), "lower": slice(height // 2, None)}
    columns = {"left": slice(0, width // 2), "right": slice(width // 2, None)}
    free = [p for p in PLACES if not target[rows[p.split()[0]], columns[p.split()[1]]].any()]
    return free[int(rng.integers(len(free)))] if free else None
