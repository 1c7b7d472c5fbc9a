"""The actions themselves, independent of how any dialect writes them.

Coordinates are normalised (x, y) in [0, 1] and carry exactly four decimals, as text does, so that an
action read from a record is the action that the policy wrote.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from ibisagent.geometry import norm_to_pixel, pixel_to_norm
from ibisagent.types import PixelBox, PixelClick

__all__ = [
    "KINDS",
    "MAX_ANSWER_CHARS",
    "MAX_TARGET_CHARS",
    "MAX_THOUGHT_CHARS",
    "Action",
    "BoxAction",
    "Click",
    "ClickAction",
    "DiscardAction",
    "TerminateAction",
    "Turn",
    "UndoAction",
    "Verdict",
]

KINDS: tuple[str, ...] = ("click", "box", "undo", "discard", "terminate")
"""Every kind of action, in the order that grammars list them."""

MAX_THOUGHT_CHARS = 8000
MAX_ANSWER_CHARS = 2000
MAX_TARGET_CHARS = 200

Verdict = Literal["found", "absent", "uncertain"]

TAG = re.compile(r"</?(?:think|action|answer)>")
"""The tags of the grammar; no text of a turn may contain one, or parsing would not be the inverse."""


def _four_decimals(value: float) -> float:
    if not 0.0 <= value <= 1.0:
        raise ValueError("a coordinate must lie in [0, 1]")
    if round(value, 4) != value:
        raise ValueError("a coordinate has exactly four decimals; use round(value, 4)")
    return value + 0.0  # -0.0 becomes 0.0, which is how text writes it


def _clean(value: str) -> str:
    value = value.strip()
    if TAG.search(value):
        raise ValueError("text may not contain the tags of the grammar")
    return value


Coordinate = Annotated[float, AfterValidator(_four_decimals)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Click(_Frozen):
    """One click at normalised (x, y), positive (inside the target) or negative (outside)."""

    x: Coordinate
    y: Coordinate
    positive: bool

    @classmethod
    def at_pixel(cls, click: PixelClick, width: int, height: int) -> Click:
        """Write a pixel click as its centre on an image of `width` x `height`."""
        return cls(x=pixel_to_norm(click.x, width), y=pixel_to_norm(click.y, height), positive=click.positive)

    def to_pixel(self, width: int, height: int) -> PixelClick:
        """The pixel under this click on an image of `width` x `height`."""
        return PixelClick(norm_to_pixel(self.x, width), norm_to_pixel(self.y, height), self.positive)


class ClickAction(_Frozen):
    """One or more clicks, given to the segmenter together with all earlier ones.

    `target` is what the model says that it clicks on; only the ``json`` dialect can write it.
    """

    kind: Literal["click"] = "click"
    clicks: tuple[Click, ...] = Field(min_length=1)
    target: Annotated[str, Field(max_length=MAX_TARGET_CHARS), AfterValidator(_clean)] = ""


class BoxAction(_Frozen):
    """A box with corners (x0, y0) top-left and (x1, y1) bottom-right; it replaces an earlier box."""

    kind: Literal["box"] = "box"
    x0: Coordinate
    y0: Coordinate
    x1: Coordinate
    y1: Coordinate

    @model_validator(mode="after")
    def _ordered(self) -> BoxAction:
        if self.x0 > self.x1 or self.y0 > self.y1:
            raise ValueError("a box needs x0 <= x1 and y0 <= y1")
        return self

    @classmethod
    def at_pixels(cls, box: PixelBox, width: int, height: int) -> BoxAction:
        """Write a pixel box by the centres of its corner pixels."""
        return cls(
            x0=pixel_to_norm(box.x0, width),
            y0=pixel_to_norm(box.y0, height),
            x1=pixel_to_norm(box.x1, width),
            y1=pixel_to_norm(box.y1, height),
        )

    def to_pixels(self, width: int, height: int) -> PixelBox:
        """The pixels under the two corners."""
        return PixelBox(
            norm_to_pixel(self.x0, width),
            norm_to_pixel(self.y0, height),
            norm_to_pixel(self.x1, width),
            norm_to_pixel(self.y1, height),
        )


class UndoAction(_Frozen):
    """Take back the last click, box or discard."""

    kind: Literal["undo"] = "undo"


class DiscardAction(_Frozen):
    """Drop the mask that the user gave and start from nothing."""

    kind: Literal["discard"] = "discard"


class TerminateAction(_Frozen):
    """Stop, saying whether the target was found, is absent, or that it stays uncertain."""

    kind: Literal["terminate"] = "terminate"
    verdict: Verdict = "found"
    answer: Annotated[str, Field(max_length=MAX_ANSWER_CHARS), AfterValidator(_clean)] = ""


Action = Annotated[ClickAction | BoxAction | UndoAction | DiscardAction | TerminateAction, Field(discriminator="kind")]


class Turn(_Frozen):
    """What a policy says in one reply: a thought and an action.

    The thought is stripped of surrounding white space and may not contain the tags of the grammar.
    """

    thought: Annotated[str, Field(max_length=MAX_THOUGHT_CHARS), AfterValidator(_clean)]
    action: Action
