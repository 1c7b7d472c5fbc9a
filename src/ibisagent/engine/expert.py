"""The simulated expert: which click comes next, and when it has clicked enough.

The preset ``paper`` is the paper's expert as its code has it: the deepest point of the larger error region, until the
IoU reaches 0.80, at most 20 clicks. The others are named variants; ``ibis`` (ours, the default) clicks as the paper
does but goes on to a better mask, gives up where clicks no longer help, and forgets what came after the best mask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ibisagent.actions import Action, BoxAction, Click, ClickAction
from ibisagent.clicks import CLICK_RULES
from ibisagent.types import PixelBox, PixelClick

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["EXPERTS", "Expert", "ExpertConfig", "best_length", "box_around"]


class ExpertConfig(BaseModel):
    """How an expert acts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: Literal["paper", "component", "jittered", "human"] = "paper"
    """Where it clicks; see :data:`ibisagent.clicks.CLICK_RULES`."""
    box_first: bool = False
    """Whether the first action is a box around the target."""
    stop_iou: float = Field(default=0.80, gt=0.0, le=1.0)
    """It makes no more clicks from this IoU on."""
    max_clicks: int = Field(default=20, ge=1, le=100)
    """Right clicks at most; a first box is one of them."""
    plateau: float | None = Field(default=None, ge=0.0, lt=1.0)
    """It gives up after `patience` clicks that did not raise the best IoU by more than this; None never gives up."""
    patience: int = Field(default=2, ge=1)
    """See `plateau`."""
    keep: Literal["last", "best"] = "last"
    """Whether all clicks are kept, or those up to the first mask that no later one beats by more than `plateau`."""


EXPERTS: dict[str, ExpertConfig] = {
    "paper": ExpertConfig(),
    "component": ExpertConfig(rule="component"),
    "jittered": ExpertConfig(rule="jittered"),
    "human": ExpertConfig(rule="human", plateau=0.01, patience=3),
    "box_first": ExpertConfig(box_first=True),
    "plateau": ExpertConfig(plateau=0.01, patience=2),
    "ibis": ExpertConfig(stop_iou=0.92, max_clicks=10, plateau=0.01, patience=3, keep="best"),
}
"""Presets by name. ``component`` is the 2-D form of the CVPR 2025 challenge's interactive protocol."""


class Expert:
    """Says what to do next, given the mask so far and the target.

    Parameters
    ----------
    config
        How it acts.
    """

    def __init__(self, config: ExpertConfig) -> None:
        self.config = config
        self._rule = CLICK_RULES[config.rule]

    def next_action(
        self, mask: NDArray[np.bool_] | None, target: NDArray[np.bool_], rng: np.random.Generator, num_made: int
    ) -> Action | None:
        """The next click or box, or None where nothing is wrong.

        Parameters
        ----------
        mask
            ``bool`` (H, W) mask so far, None while there is none.
        target
            ``bool`` (H, W) reference mask.
        rng
            Serves the rules that draw.
        num_made
            Right clicks and boxes that it has made in this run.
        """
        if self.config.box_first and num_made == 0 and mask is None:
            return box_around(target)
        click = self._rule(mask, target, rng)
        if click is None:
            return None
        height, width = target.shape
        return self.click_at(click, width, height)

    def click_at(self, click: PixelClick, width: int, height: int) -> ClickAction:
        """The action of a click on a pixel of an image of `width` x `height`, here and in the scenarios."""
        return ClickAction(clicks=(Click.at_pixel(click, width, height),))

    def is_done(self, ious: Sequence[float], num_made: int) -> bool:
        """Whether it makes no more clicks.

        Parameters
        ----------
        ious
            IoU of every mask of this run since the expert took over, oldest first; the given mask's first if there
            was one.
        num_made
            Right clicks and boxes so far.
        """
        c = self.config
        if num_made >= c.max_clicks or (ious and ious[-1] >= c.stop_iou):
            return True
        if c.plateau is None or num_made < c.patience or len(ious) <= c.patience:
            return False
        return max(ious[-c.patience :]) <= max(ious[: -c.patience]) + c.plateau


def best_length(ious: Sequence[float], plateau: float) -> int:
    """How many steps to keep: up to the first mask that no later one beats by more than `plateau`; 0 if there is none.

    Parameters
    ----------
    ious
        IoU after each step.
    plateau
        Gain in IoU that is not worth a step.
    """
    if not ious:
        return 0
    values = np.asarray(ious)
    best_later = np.maximum.accumulate(values[::-1])[::-1]
    return int(np.flatnonzero(values >= best_later - plateau)[0]) + 1


def box_around(target: NDArray[np.bool_]) -> BoxAction:
    """The smallest box that holds a ``bool`` (H, W) mask with at least one pixel."""
    height, width = target.shape
    rows, columns = np.flatnonzero(target.any(axis=1)), np.flatnonzero(target.any(axis=0))
    box = PixelBox(int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1]))
    return BoxAction.at_pixels(box, width, height)
