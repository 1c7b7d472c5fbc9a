"""The one place that turns an episode into chat messages.

Trajectories, training, evaluation and inference all read from here, so that a model never meets
another wording or another overlay than the one that it was trained on.

A message is ``{"role": "system" | "user" | "assistant", "content": [part, …]}``; a part is
``{"type": "text", "text": str}`` or ``{"type": "image", "image": uint8 (H, W, 3)}``. The order is:
system; user (instruction and image, with the given mask on it if there is one); then for every step
the assistant's raw text and the user's observation (text and the image with the new mask on it, or
the reason why the reply was not carried out).

What a policy depends on can be taken away: the earlier turns (``history``), the thoughts in them (``thoughts``), the
mask on the image (``overlay``; the texts then say that it is not shown, so that nobody takes a bare image for an empty
mask).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ibisagent.actions import DIALECTS, Dialect
from ibisagent.episode import Episode, Step
from ibisagent.hashing import pixel_hash
from ibisagent.rle import Rle, decode_mask
from ibisagent.types import Case

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "SIDES",
    "RunSoFar",
    "build_messages",
    "default_system_prompt",
    "instruction_text",
    "messages_for_record",
    "new_messages",
    "observation_text",
    "question_messages",
    "system_prompt_for_weights",
]

Message = dict[str, Any]

SIDES = (
    "In slices and radiographs of the body, left and right in the instruction are the patient's: "
    "the patient's left is on the right of the image in axial and coronal views, as radiologists look at them."
)
"""What models are told of left and right. It holds for every slice of a volume, however its file stores it
(:meth:`ibisagent.grid.Grid.view`); models whose prompt came with their weights are told what they were trained with."""

_THOUGHT = re.compile(r"<think>(?:.*?</think>|.*?(?=<action>)|.*)", re.DOTALL)
"""A thought; one that was never closed goes on to the action, or to the end."""

Draw = Callable[[Any, Any], dict[str, Any]]
"""(``uint8`` (H, W, 3) pixels, mask as ``bool`` (H, W) or Rle or None) -> an image part."""


class RunSoFar(Protocol):
    """What messages are made of; :class:`ibisagent.policies.protocol.View` is one."""

    @property
    def case(self) -> Case:
        """Image, instruction, given mask."""
        ...

    @property
    def episode(self) -> Episode:
        """The record so far."""
        ...


def default_system_prompt(dialect: Dialect) -> str:
    """The system prompt of a dialect: the role, the loop, whose left is meant, and the dialect's own grammar."""
    lines = [
        "You segment medical images by steering an interactive segmentation tool.",
        "First you see the image and the instruction, with the given mask in green if there is one. "
        "After every action you see the image again with the new mask in green. "
        "Look at where the mask is wrong and correct it, one action at a time.",
        SIDES,
    ]
    if "terminate" in dialect.kinds:
        lines.append("Stop when the mask fits the target, or when the target is not in the image.")
    return "\n".join([*lines, dialect.describe()])


def system_prompt_for_weights() -> str:
    """Our wording of the fixed prompt that the published weights were trained with.

    It has the same parts (role, first step against refinement step, strict tags, coordinates) in the
    ``ibis-paper`` dialect. The original is not ours to ship: give it as a file for the best results.
    """
    return "\n".join(
        [
            "You are a medical image segmentation expert who steers an interactive segmentation tool.",
            "First step: no mask is shown. Find the target in the image and place a positive point inside it.",
            "Refinement step: the current mask is shown in half-transparent green. Compare it with the target: place a "
            "positive point where it misses the target, a negative point where it covers too much, or terminate when "
            "it fits.",
            DIALECTS["ibis-paper"].describe(),
        ]
    )


def instruction_text(case: Case, overlay: bool = True) -> str:
    """Text of the first user message; without `overlay` a given mask is not shown."""
    if case.initial_mask is None:
        return case.instruction
    return f"{case.instruction}\nThe given mask is {'shown in green' if overlay else 'not shown'}."


def observation_text(step: Step, overlay: bool = True) -> str:
    """What the user side says after a step: the new state in words, or why nothing was carried out."""
    if step.invalid is not None:
        return f"The reply was not carried out: {step.invalid.reason}."
    if step.mask is None:
        return "There is no mask now."
    if not decode_mask(step.mask).any():
        return "The mask is empty now."
    if step.changed_pixels == 0:
        return "The mask did not change."
    return "The new mask is shown in green." if overlay else "The new mask is not shown."


def build_messages(
    view: RunSoFar,
    system_prompt: str,
    history: bool = True,
    max_images: int | None = None,
    draw: Draw | None = None,
    *,
    thoughts: bool = True,
    overlay: bool = True,
) -> list[Message]:
    """The whole conversation up to the policy's next reply.

    Parameters
    ----------
    view
        The case and the episode so far.
    system_prompt
        Text of the system message; no such message if it is empty.
    history
        Whether all earlier turns are shown. Without it, there is one user message: the instruction, the
        newest observation's text and the image with the newest mask.
    max_images
        Keep only the newest so many images; a text says where an older one was. None keeps all.
    draw
        Makes an image part from pixels and mask, for those who store the mask and draw later. None draws the overlay.
    thoughts
        Whether earlier replies are shown with their thoughts; without, between empty tags.
    overlay
        Whether the images show the masks.

    Returns
    -------
    list of dict
        Messages as the module's docstring describes them.
    """
    draw = _drawer(draw, overlay)
    pixels, steps = view.case.image.pixels, view.episode.steps
    messages: list[Message] = []
    if system_prompt:
        messages.append({"role": "system", "content": [_text(system_prompt)]})
    if not history:
        content = [_text(instruction_text(view.case, overlay) if not steps else view.case.instruction)]
        if steps:
            content.append(_text(observation_text(steps[-1], overlay)))
        current = view.episode.current_mask_rle if steps else _initial(view)
        messages.append({"role": "user", "content": [*content, draw(pixels, current)]})
        return messages
    first = instruction_text(view.case, overlay)
    messages.append({"role": "user", "content": [_text(first), draw(pixels, _initial(view))]})
    for step in steps:
        said = step.raw_text if thoughts else _THOUGHT.sub("<think></think>", step.raw_text)
        messages.append({"role": "assistant", "content": [_text(said)]})
        messages.append(_observation(pixels, step, draw, overlay))
    if max_images is not None:
        _drop_old_images(messages, max_images)
    return messages


def new_messages(
    view: RunSoFar, system_prompt: str, history: bool = True, *, thoughts: bool = True, overlay: bool = True
) -> list[Message]:
    """The messages that this request adds to the one before: all at first, then the newest observation."""
    steps = view.episode.steps
    if not steps:
        return build_messages(view, system_prompt, history, thoughts=thoughts, overlay=overlay)
    if history:
        return [_observation(view.case.image.pixels, steps[-1], _drawer(None, overlay), overlay)]
    return build_messages(view, "", history=False, overlay=overlay)


def question_messages(pixels: NDArray[np.uint8], question: str) -> list[Message]:
    """A visual question: the bare image ``uint8`` (H, W, 3), then the question. No system prompt and no tool.

    Corpora tell it in the same way (:func:`ibisagent.engine.corpus.converters.dialogue.vqa_messages`), so that what
    is learnt is what is asked.
    """
    return [{"role": "user", "content": [_image(pixels, None), _text(question)]}]


def messages_for_record(messages: Sequence[Message]) -> list[Message]:
    """The same messages with every image replaced by ``{"type": "image", "sha256": …}``."""
    return [{**message, "content": [_recorded(part) for part in message["content"]]} for message in messages]


def _drawer(draw: Draw | None, overlay: bool) -> Draw:
    """What makes the image parts; without `overlay` it is given no mask."""
    draw = draw if draw is not None else _image
    if overlay:
        return draw
    return lambda pixels, mask: draw(pixels, None)


def _observation(pixels: NDArray[np.uint8], step: Step, draw: Draw, overlay: bool) -> Message:
    content = [_text(observation_text(step, overlay))]
    if step.invalid is None:
        content.append(draw(pixels, step.mask))
    return {"role": "user", "content": content}


def _recorded(part: dict[str, Any]) -> dict[str, Any]:
    if part["type"] == "image" and "image" in part:
        return {"type": "image", "sha256": pixel_hash(np.asarray(part["image"]))}
    return dict(part)


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _image(pixels: NDArray[np.uint8], mask: Rle | NDArray[np.bool_] | None) -> dict[str, Any]:
    from ibisagent.rendering import agent_overlay

    return {"type": "image", "image": agent_overlay(pixels, decode_mask(mask) if isinstance(mask, Rle) else mask)}


def _initial(view: RunSoFar) -> NDArray[np.bool_] | None:
    return view.case.initial_mask


def _drop_old_images(messages: list[Message], keep: int) -> None:
    places = [(m, i) for m in messages for i, part in enumerate(m["content"]) if part["type"] == "image"]
    for message, index in places[: max(0, len(places) - keep)]:
        message["content"][index] = _text("[an earlier image]")
