"""The simulated expert: the only policy that sees the target.

It clicks where :func:`ibisagent.clicks.next_click` says, stops when the mask is good enough, and
says at once when the target is absent. It measures what a segmenter can do with perfect clicks (the
ceiling of every other policy), and its episodes teach.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.actions import DIALECTS, Click, ClickAction, Dialect, TerminateAction, Turn
from ibisagent.clicks import next_click
from ibisagent.errors import InputError, PolicyError
from ibisagent.metrics import iou
from ibisagent.policies.protocol import Reply, View

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PAPER_STOP_IOU", "STOP_IOU", "OraclePolicy", "make"]

STOP_IOU = 0.90
"""IoU at which our expert is content."""

PAPER_STOP_IOU = 0.80
"""IoU at which the published data engine stops."""


class OraclePolicy:
    """Expert clicks.

    Parameters
    ----------
    targets
        Target mask, ``bool`` (H, W), by case id. None or an empty mask says that it is absent.
    stop_iou
        IoU at which it stops; :data:`PAPER_STOP_IOU` for the published recipe.
    dialect
        Dialect it writes, by name or itself.
    """

    name = "oracle"
    weights_sha256: str | None = None

    def __init__(
        self,
        targets: Mapping[str, NDArray[np.bool_] | None],
        stop_iou: float = STOP_IOU,
        dialect: Dialect | str = "plain",
    ) -> None:
        if not 0.0 < stop_iou <= 1.0:
            raise InputError(f"stop_iou must lie in (0, 1], not {stop_iou}")
        self.targets = targets
        self.stop_iou = stop_iou
        self.dialect = DIALECTS[dialect] if isinstance(dialect, str) else dialect

    def act(self, views: Sequence[View], seed: int) -> list[Reply]:
        """The expert's reply for every view; `seed` changes nothing.

        Raises
        ------
        PolicyError
            If a case has no entry in `targets`, or its target has another shape than the image.
        """
        return [Reply(self.dialect.format(self.turn(view))) for view in views]

    def turn(self, view: View) -> Turn:
        """The expert's next turn. Raises as :meth:`act`."""
        case = view.case
        if case.case_id not in self.targets:
            raise PolicyError(f"the oracle was given no target for the case '{case.case_id}'")
        target = self.targets[case.case_id]
        # A target's name is a user's text: a tag of the grammar in it would break the turn.
        noun = " ".join((case.target or "target").replace("<", "(").split())[:80]
        if target is None or not target.any():
            stop = TerminateAction(verdict="absent", answer=f"the {noun} is not in this image")
            return Turn(thought=f"I see no {noun} in this image.", action=stop)
        if target.dtype != np.bool_ or target.shape != (case.image.height, case.image.width):
            raise PolicyError(f"the oracle's target for '{case.case_id}' is {target.dtype} {target.shape}")
        click = next_click(view.mask, target)
        if click is None or (view.mask is not None and iou(view.mask, target) >= self.stop_iou):
            stop = TerminateAction(verdict="found", answer=f"the {noun} is outlined")
            return Turn(thought=f"The mask fits the {noun}.", action=stop)
        if view.mask is None or not view.mask.any():
            thought = f"There is no mask yet. I click inside the {noun}."
        elif click.positive:
            thought = f"The mask misses a part of the {noun}. I add it."
        else:
            thought = f"The mask covers too much beside the {noun}. I take it away."
        written = Click.at_pixel(click, case.image.width, case.image.height)
        return Turn(thought=thought, action=ClickAction(clicks=(written,)))


def make(
    arg: str | None = None,
    targets: Mapping[str, NDArray[np.bool_] | None] | None = None,
    stop_iou: float = STOP_IOU,
    dialect: Dialect | str = "plain",
    **options: Any,
) -> OraclePolicy:
    """``--policy oracle``. Options of other policies (a device, a system prompt) mean nothing to it.

    Raises
    ------
    InputError
        If an argument is given or no targets are.
    """
    if arg is not None:
        raise InputError(f"the policy 'oracle' takes no argument, not {arg!r}")
    if targets is None:
        raise InputError("the policy 'oracle' needs the target's mask: give --target MASK")
    return OraclePolicy(targets, stop_iou, dialect)
