"""Simulated clicks of a published protocol as a policy, so that the segmenter alone is played by the usual rollout.

It sees the target, as the oracle does, and differs from it in the rule of its clicks, in the box it may begin with, and
in when it stops: after a number of clicks, or at an IoU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ibisagent.actions import DIALECTS, Action, BoxAction, Click, ClickAction, Dialect, TerminateAction, Turn
from ibisagent.error_clicks import ErrorClick, deepest_error_click, largest_component_click
from ibisagent.errors import InputError, PolicyError
from ibisagent.metrics import iou
from ibisagent.policies.protocol import Reply, View
from ibisagent.types import Case, PixelBox, PixelClick

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ERROR_CLICK_RULES", "ClickerPolicy"]

ErrorClickRule = Callable[
    ["NDArray[np.bool_] | None", "NDArray[np.bool_]", Sequence[tuple[int, ...]]], ErrorClick | None
]

ERROR_CLICK_RULES: dict[str, ErrorClickRule] = {
    "largest-component": lambda current, target, clicked: largest_component_click(current, target),
    "deepest-error": deepest_error_click,
}
"""By name: (mask so far, target, indices of earlier clicks) to the next click, or None if nothing is wrong."""


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
        Whether a case begins with the target's box; None never. It is left out where the segmenter takes no boxes.
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
        box: Callable[[Case], bool] | None = None,
        stop_iou: float | None = None,
        dialect: Dialect | str = "plain",
    ) -> None:
        if rule not in ERROR_CLICK_RULES:
            raise InputError(f"there is no rule of clicks '{rule}'; there are {', '.join(ERROR_CLICK_RULES)}")
        if num_clicks < 1:
            raise InputError(f"num_clicks must be at least 1, not {num_clicks}")
        if stop_iou is not None and not 0.0 < stop_iou <= 1.0:
            raise InputError(f"stop_iou must lie in (0, 1], not {stop_iou}")
        self.targets, self.rule, self.num_clicks, self.box, self.stop_iou = targets, rule, num_clicks, box, stop_iou
        self.dialect = DIALECTS[dialect] if isinstance(dialect, str) else dialect
        self.name = f"clicks:{rule}"

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
        may_box = self.box is not None and "box" in (view.episode.policy.action_kinds or ()) and self.box(view.case)
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
