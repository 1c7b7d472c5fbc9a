"""Which clicks and which box stand behind a mask: undone and discarded ones do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ibisagent.types import PixelBox

if TYPE_CHECKING:
    from ibisagent.episode import Episode, Step

__all__ = ["NumberedClick", "StandingPrompts", "final_prompts", "standing_prompts"]


class NumberedClick(NamedTuple):
    """A click for a reader: pixel, sign, and the number of its step, counted from 1."""

    x: int
    y: int
    positive: bool
    step: int


@dataclass(frozen=True)
class StandingPrompts:
    """The clicks and the box that count at one moment of an episode."""

    clicks: tuple[NumberedClick, ...] = ()
    box: PixelBox | None = None
    box_step: int | None = None


def standing_prompts(episode: Episode) -> list[StandingPrompts]:
    """List what counts before the first step and after every step: ``len(episode.steps) + 1`` entries."""
    stack = [StandingPrompts()]
    history = [stack[-1]]
    for step in episode.steps:
        if step.invalid is None and not step.failed:
            _apply(step, stack)
        history.append(stack[-1])
    return history


def final_prompts(episode: Episode) -> StandingPrompts:
    """What made the final mask; nothing where no step made it (a given mask, an absent target, an error)."""
    if episode.final_step is None or not 0 <= episode.final_step < len(episode.steps):
        return StandingPrompts()
    return standing_prompts(episode)[episode.final_step + 1]


def _apply(step: Step, stack: list[StandingPrompts]) -> None:
    action, top, number = step.action, stack[-1], step.index + 1
    if action is None:
        return
    if action.kind == "click":
        # A record from elsewhere may carry fewer pixels than clicks; what is there is shown.
        new = tuple(
            NumberedClick(x, y, click.positive, number)
            for (x, y), click in zip(step.pixels_xy, action.clicks, strict=False)
        )
        stack.append(StandingPrompts((*top.clicks, *new), top.box, top.box_step))
    elif action.kind == "box" and len(step.pixels_xy) == 2:
        (x0, y0), (x1, y1) = step.pixels_xy
        stack.append(StandingPrompts(top.clicks, PixelBox(x0, y0, x1, y1), number))
    elif action.kind == "undo" and len(stack) > 1:
        stack.pop()
    elif action.kind == "discard":
        stack.append(StandingPrompts())
