"""A session: one image, one embedding, and a stack of prompts with the masks they gave.

Clicks and boxes push, undo pops, discard pushes a fresh start. Every prediction is asked with all
clicks so far and with the logits of the one before, so that the segmenter refines its own mask; a
mask that the user gave goes along as a prior until it is discarded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.errors import ActionError, ToolError
from ibisagent.segmenters.protocol import Capabilities, Segmenter
from ibisagent.types import Image, PixelBox, PixelClick, Prediction, Prompt

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Session", "check_prediction", "encode_image", "supported_kinds"]


def supported_kinds(capabilities: Capabilities) -> frozenset[str]:
    """The action kinds that make sense with a segmenter; undo, discard and terminate need none of it."""
    kinds = {"undo", "discard", "terminate"}
    if capabilities.clicks:
        kinds.add("click")
    if capabilities.boxes:
        kinds.add("box")
    return frozenset(kinds)


def encode_image(segmenter: Segmenter, image: Image) -> Any:
    """Encode, with every failure of the segmenter as a ToolError."""
    try:
        return segmenter.encode(image)
    except Exception as error:
        raise _tool_error(segmenter, "could not encode the image", error) from error


@dataclass(frozen=True, eq=False)
class _State:
    """One entry of the stack."""

    clicks: tuple[PixelClick, ...] = ()
    box: PixelBox | None = None
    given_mask: NDArray[np.bool_] | None = None
    prediction: Prediction | None = None

    @property
    def mask(self) -> NDArray[np.bool_] | None:
        return self.prediction.mask if self.prediction is not None else self.given_mask


class Session:
    """Prompt one image step by step.

    Parameters
    ----------
    segmenter
        Any backend.
    image
        The image.
    initial_mask
        ``bool`` (H, W) mask to refine, or None.
    embedding
        What ``segmenter.encode(image)`` gave, if it was done already; None encodes now.

    Raises
    ------
    ToolError
        If encoding fails.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        image: Image,
        initial_mask: NDArray[np.bool_] | None = None,
        embedding: Any = None,
    ) -> None:
        self.segmenter = segmenter
        self.shape = (image.height, image.width)
        self._embedding = encode_image(segmenter, image) if embedding is None else embedding
        self._stack = [_State(given_mask=initial_mask)]

    @property
    def mask(self) -> NDArray[np.bool_] | None:
        """The current ``bool`` (H, W) mask, or None while there is none."""
        return self._stack[-1].mask

    @property
    def clicks(self) -> tuple[PixelClick, ...]:
        """All clicks that count now, oldest first."""
        return self._stack[-1].clicks

    @property
    def box(self) -> PixelBox | None:
        """The box that counts now, or None."""
        return self._stack[-1].box

    def add_clicks(self, clicks: Sequence[PixelClick]) -> Prediction:
        """Add clicks and predict.

        Raises
        ------
        ActionError
            If the segmenter takes no such clicks, or no more of them.
        ToolError
            If the segmenter fails; the session stays as it was.
        """
        return self._predict(self._with_clicks(clicks))

    def set_box(self, box: PixelBox) -> Prediction:
        """Set the box, in place of an earlier one, and predict. Raises as :meth:`add_clicks`."""
        return self._predict(self._with_box(box))

    def foresee(self, clicks: Sequence[PixelClick] = (), box: PixelBox | None = None) -> tuple[Any, Prompt]:
        """What :meth:`add_clicks`, or :meth:`set_box` if a box is given, would ask the segmenter: embedding and prompt.

        Raises
        ------
        ActionError
            As they do.
        """
        return self._embedding, self._prompt(self._with_clicks(clicks) if box is None else self._with_box(box))

    def _with_clicks(self, clicks: Sequence[PixelClick]) -> _State:
        can = self.segmenter.capabilities
        if not can.clicks:
            raise ActionError("not_supported", "the segmenter does not understand clicks")
        if not can.negative_clicks and not all(click.positive for click in clicks):
            raise ActionError("not_supported", "the segmenter does not understand negative points")
        state = self._stack[-1]
        state = replace(state, clicks=(*state.clicks, *clicks))
        if can.max_clicks is not None and len(state.clicks) > can.max_clicks:
            raise ActionError("too_many_clicks", f"the segmenter takes at most {can.max_clicks} points")
        return state

    def _with_box(self, box: PixelBox) -> _State:
        if not self.segmenter.capabilities.boxes:
            raise ActionError("not_supported", "the segmenter does not understand boxes")
        return replace(self._stack[-1], box=box)

    def undo(self) -> None:
        """Take back the last click action, box or discard.

        Raises
        ------
        ActionError
            If there is nothing to take back.
        """
        if len(self._stack) == 1:
            raise ActionError("nothing_to_undo", "there is no action to undo")
        self._stack.pop()

    def discard(self) -> None:
        """Drop the given mask, and with it every click and box made on it.

        Raises
        ------
        ActionError
            If no mask was given, or it was dropped before.
        """
        if self._stack[-1].given_mask is None:
            raise ActionError("nothing_to_discard", "there is no given mask to discard")
        self._stack.append(_State())

    def _prompt(self, state: _State) -> Prompt:
        before = state.prediction
        return Prompt(
            clicks=state.clicks,
            box=state.box,
            prior_logits=before.state if before is not None else None,
            prior_mask=state.given_mask if self.segmenter.capabilities.prior_mask else None,
        )

    def _predict(self, state: _State) -> Prediction:
        try:
            answers = self.segmenter.predict(self._embedding, [self._prompt(state)])
        except Exception as error:
            raise _tool_error(self.segmenter, "failed", error) from error
        if not isinstance(answers, list) or len(answers) != 1:
            raise ToolError(f"the segmenter {self.segmenter.name} did not return one prediction")
        prediction = check_prediction(answers[0], self.shape, self.segmenter.name)
        self._stack.append(replace(state, prediction=prediction))
        return prediction


def check_prediction(prediction: Any, shape: tuple[int, int], name: str) -> Prediction:
    """Return `prediction` if it is a mask of `shape` (height, width) with sound companions.

    Raises
    ------
    ToolError
        If it is not: a wrong answer of a tool must never pass for a mask.
    """
    if not isinstance(prediction, Prediction):
        raise ToolError(f"the segmenter {name} returned {type(prediction).__name__}, not a Prediction")
    mask: Any = prediction.mask
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != shape:
        found = f"{mask.dtype} {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
        raise ToolError(f"the segmenter {name} returned a mask of {found}, not bool {shape}")
    if prediction.score is not None and not np.isfinite(prediction.score):
        raise ToolError(f"the segmenter {name} returned the score {prediction.score}")
    for field in ("state", "probability"):
        value = getattr(prediction, field)
        if value is not None and not np.isfinite(value).all():
            raise ToolError(f"the segmenter {name} returned a {field} that is not finite")
    return prediction


def _tool_error(segmenter: Segmenter, what: str, error: Exception) -> ToolError:
    if isinstance(error, ToolError):
        return error
    return ToolError(f"the segmenter {segmenter.name} {what}: {type(error).__name__}: {error}")
