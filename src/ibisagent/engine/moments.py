"""One step of an expert's run as a teacher sees it: the state, the right action, and why it is right."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from ibisagent.actions import Action

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Intent", "Moment"]


class Intent(StrEnum):
    """Why an expert acts as it does."""

    START = "start"
    """First click or box on an image without a mask."""
    MISSED = "missed"
    """A positive click where the mask misses a part of the target."""
    EXCESS = "excess"
    """A negative click where the mask covers too much."""
    WRONG = "wrong"
    """A wrong click on purpose: written, shown, never learnt."""
    UNDO = "undo"
    """The last click made the mask worse; it is taken back."""
    DISCARD = "discard"
    """The given mask shows something else; it is dropped."""
    FITS = "fits"
    """The mask fits; stop with found."""
    ROUGH = "rough"
    """More clicks do not help; stop with uncertain."""
    ABSENT = "absent"
    """The target is not in the image; refuse."""


@dataclass(frozen=True, eq=False)
class Moment:
    """What a teacher is told of one step.

    The *Agent view* is ``pixels`` with ``mask`` in green: all that a thought may speak of. The *Oracle view* adds
    ``target`` and the right ``action`` (paper: reasoning generation).

    Parameters
    ----------
    pixels
        ``uint8`` (H, W, 3) image without an overlay.
    mask
        ``bool`` (H, W) mask that is shown before the action, None while there is none.
    target
        ``bool`` (H, W) reference mask, None where the target is absent. Oracle view only.
    name
        Name of the target as the case list has it, for example ``"left lung"``.
    modality
        ``"CT"`` …, or None.
    instruction
        What the user asked.
    action
        The action that is taken now.
    intent
        Why.
    index
        Number of the step, from 0.
    previous_mask
        ``bool`` (H, W) mask before the last step, None if there was none or this is the first step.
    previous_action
        The last step's action, None at the first step.
    previous_intent
        The last step's intent, None at the first step.
    given
        Whether the user gave the mask that the run began with.
    hint
        What the instruction says falsely, where it deceives: ``"wrong_place"``, ``"false_error"`` or ``"false_mask"``
        (:mod:`ibisagent.engine.language.hints`); else None.
    thoughts
        Thoughts of the run so far, oldest first.
    """

    pixels: NDArray[np.uint8]
    mask: NDArray[np.bool_] | None
    target: NDArray[np.bool_] | None
    name: str
    modality: str | None
    instruction: str
    action: Action
    intent: Intent
    index: int = 0
    previous_mask: NDArray[np.bool_] | None = None
    previous_action: Action | None = None
    previous_intent: Intent | None = None
    given: bool = False
    hint: str | None = None
    thoughts: tuple[str, ...] = ()
