"""Simulated clicks of a published protocol as a policy, so that the segmenter alone is played by the usual rollout.

Its spec is ``clicks:RULE?clicks=5&box=auto&stop=0.9``, for example ``clicks:largest-component?box=never``. It sees the
target, as the oracle does, and differs from it in the rule of its clicks, in the box it may begin with, and in when it
stops: after a number of clicks, or at an IoU.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ibisagent.actions import DIALECTS, Action, BoxAction, Click, ClickAction, Dialect, TerminateAction, Turn
from ibisagent.error_clicks import ErrorClick, deepest_error_click, largest_component_click
from ibisagent.errors import InputError, PolicyError
from ibisagent.metrics import iou
from ibisagent.policies.protocol import Reply, View
from ibisagent.types import PixelBox, PixelClick

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BOXES", "ERROR_CLICK_RULES", "ClickerPolicy", "make", "wants_box"]

ErrorClickRule = Callable[
    ["NDArray[np.bool_] | None", "NDArray[np.bool_]", Sequence[tuple[int, ...]]], ErrorClick | None
]

ERROR_CLICK_RULES: dict[str, ErrorClickRule] = {
    "largest-component": lambda current, target, clicked: largest_component_click(current, target),
    "deepest-error": deepest_error_click,
}
"""By name: (mask so far, target, indices of earlier clicks) to the next click, or None if nothing is wrong."""

BOXES = ("auto", "always", "never")
"""When a case begins with a box; ``auto`` is always but for vessels and airways, of which a box says little."""

_NO_BOX = frozenset("vessel vessels vasculature artery arteries vein veins airway airways".split())


class ClickerPolicy:
    """Clicks by rule.

    Parameters
    ----------
    targets
        Target mask, ``bool`` (H, W), by case id. None or an empty mask says that it is absent.
    rule
        One of :data:`ERROR_CLICK_RULES`.
    num_clicks
        Most clicks; then it stops.
    box
        One of :data:`BOXES`. It is left out where the segmenter takes no boxes.
    stop_iou
        IoU at which it stops before; None only stops before where nothing is wrong any more.
    dialect
        Dialect it writes, by name or itself.

    Raises
    ------
    InputError
        If an argument is out of its range.
    """

    name = "clicks"
    weights_sha256: str | None = None

    def __init__(
        self,
        targets: Mapping[str, NDArray[np.bool_] | None],
        rule: str,
        num_clicks: int,
        *,
        box: Literal["auto", "always", "never"] = "never",
        stop_iou: float | None = None,
        dialect: Dialect | str = "plain",
    ) -> None:
        if rule not in ERROR_CLICK_RULES:
            raise InputError(f"there is no rule of clicks '{rule}'; there are {', '.join(ERROR_CLICK_RULES)}")
        if num_clicks < 1:
            raise InputError(f"num_clicks must be at least 1, not {num_clicks}")
        if box not in BOXES:
            raise InputError(f"box must be one of {', '.join(BOXES)}, not '{box}'")
        if stop_iou is not None and not 0.0 < stop_iou <= 1.0:
            raise InputError(f"stop_iou must lie in (0, 1], not {stop_iou}")
        self.targets, self.rule, self.num_clicks, self.box, self.stop_iou = targets, rule, num_clicks, box, stop_iou
        self.dialect = DIALECTS[dialect] if isinstance(dialect, str) else dialect
        # With all that its replies depend on, as a policy without weights is known by its name alone.
        stop = "" if stop_iou is None else f"&stop={stop_iou:g}"
        self.name = f"clicks:{rule}?clicks={num_clicks}&box={box}{stop}"

    def act(self, views: Sequence[View], seed: int) -> list[Reply]:
        """The next reply for every view; `seed` changes nothing.

        Raises
        ------
        PolicyError
            If a case has no entry in `targets`, or its target has another shape than the image.
        """
        return [Reply(self.dialect.format(self.turn(view))) for view in views]

    def turn(self, view: View) -> Turn:
        """The next turn. Raises as :meth:`act`."""
        case = view.case
        if case.case_id not in self.targets:
            raise PolicyError(f"the clicks were given no target for the case '{case.case_id}'")
        target = self.targets[case.case_id]
        if target is None or not target.any():
            return Turn(thought="There is nothing to click.", action=TerminateAction(verdict="absent", answer="absent"))
        if target.dtype != np.bool_ or target.shape != (case.image.height, case.image.width):
            raise PolicyError(f"the target of clicks for '{case.case_id}' is {target.dtype} {target.shape}")
        action = self._action(view, target)
        if action is None:
            return Turn(thought="The clicks end.", action=TerminateAction(verdict="found", answer="outlined"))
        return Turn(thought="The rule says so.", action=action)

    def _action(self, view: View, target: NDArray[np.bool_]) -> Action | None:
        width, height = view.case.image.width, view.case.image.height
        steps = view.episode.steps
        may_box = "box" in (view.episode.policy.action_kinds or ()) and wants_box(self.box, view.case.target or "")
        if may_box and not steps:
            rows, columns = np.flatnonzero(target.any(axis=1)), np.flatnonzero(target.any(axis=0))
            box = PixelBox(int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1]))
            return BoxAction.at_pixels(box, width, height)
        # Rejected clicks count too: a segmenter that takes no negative ones must not be asked for ever.
        if len(steps) - may_box >= self.num_clicks:
            return None
        if self.stop_iou is not None and view.mask is not None and iou(view.mask, target) >= self.stop_iou:
            return None
        clicked = [(y, x) for step in steps if isinstance(step.action, ClickAction) for x, y in step.pixels_xy]
        click = ERROR_CLICK_RULES[self.rule](view.mask, target, clicked)
        if click is None:
            return None
        row, column = click.index
        return ClickAction(clicks=(Click.at_pixel(PixelClick(column, row, click.positive), width, height),))


def wants_box(box: str, target: str) -> bool:
    """Whether a target of this name begins with a box, where the segmenter takes one; `box` is one of :data:`BOXES`."""
    return box == "always" or (box == "auto" and not _NO_BOX & set(re.findall(r"[a-z]+", target.lower())))


def make(
    arg: str | None = None, targets: Mapping[str, NDArray[np.bool_] | None] | None = None, **options: Any
) -> ClickerPolicy:
    """``--policy clicks:RULE?clicks=5&box=never``. Options of other policies mean nothing to it.

    Raises
    ------
    InputError
        If the rule or an option of it is wrong, or no targets are given.
    """
    rule, _, query = (arg or "").partition("?")
    found = dict(part.partition("=")[::2] for part in query.split("&") if part)
    if unknown := set(found) - {"clicks", "box", "stop"}:
        raise InputError(f"the policy 'clicks' has no option '{sorted(unknown)[0]}'; there are clicks, box and stop")
    if targets is None:
        raise InputError("the policy 'clicks' needs the target's mask: it plays case lists, in 'ibisagent evaluate'")
    try:
        num_clicks, stop = int(found.get("clicks", "5")), found.get("stop")
        stop_iou = None if stop is None else float(stop)
    except ValueError:
        raise InputError(f"the policy 'clicks': {arg!r} needs numbers for clicks and stop") from None
    box: Any = found.get("box", "never")
    return ClickerPolicy(targets, rule, num_clicks, box=box, stop_iou=stop_iou)
