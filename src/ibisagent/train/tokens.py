"""One renderer: a conversation becomes token ids *and* the loss mask, from the same pass.

Only what the model itself wrote may be learnt: system, user and image tokens never are, nor are
assistant turns that are marked as wrong (their text stays as context).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Rendered", "render"]


@dataclass(frozen=True, eq=False)
class Rendered:
    """A conversation as tokens.

    Parameters
    ----------
    ids
        ``int64`` (T,), images as runs of placeholders.
    loss_mask
        ``bool`` (T,), True where the token is to be predicted.
    turn
        ``int64`` (T,), index of the assistant turn a token belongs to, -1 outside.
    images
        The images in reading order.
    """

    ids: NDArray[np.int64]
    loss_mask: NDArray[np.bool_]
    turn: NDArray[np.int64]
    images: list[NDArray[np.uint8]]


def render(
    messages: Sequence[dict[str, Any]],
    processor: Any,
    *,
    learn: Sequence[bool] | None = None,
    assistant: str = "<|assistant|>",
    end: str = "<|end|>",
) -> Rendered:
    """Render a whole conversation.

    Parameters
    ----------
    messages
        As :func:`ibisagent.messages.build_messages` makes them, the last assistant turn included.
    processor
        Anything with ``apply_chat_template``, ``tokenizer``, ``image_token`` and ``image_tokens``.
    learn
        One flag for each assistant turn; None learns all.
    assistant, end
        The tokens that open an assistant's turn and close any turn. The first is not learnt, the second is.

    Raises
    ------
    ValueError
        If the flags do not match the turns, or the template lost a turn.
    """
    text = processor.apply_chat_template(list(messages), add_generation_prompt=False, tokenize=False)
    images = [part["image"] for m in messages for part in m["content"] if part["type"] == "image"]
    if text.count(processor.image_token) != len(images):
        raise ValueError(f"the text names {text.count(processor.image_token)} images, the messages hold {len(images)}")
    text = text.replace(processor.image_token, processor.image_token * processor.image_tokens)
    ids = np.asarray(processor.tokenizer(text, add_special_tokens=False)["input_ids"], np.int64)
    start, stop = (processor.tokenizer.convert_tokens_to_ids(t) for t in (assistant, end))
    starts = np.flatnonzero(ids == start)
    turns = sum(m["role"] == "assistant" for m in messages)
    if len(starts) != turns or (learn is not None and len(learn) != turns):
        raise ValueError(f"{turns} assistant turns, {len(starts)} rendered, {len(learn or [])} flags")
    loss_mask, turn = np.zeros(len(ids), bool), np.full(len(ids), -1, np.int64)
    for k, at in enumerate(starts):
        close = at + 1 + int(np.flatnonzero(ids[at + 1 :] == stop)[0])
        turn[at + 1 : close + 1] = k
        loss_mask[at + 1 : close + 1] = learn is None or learn[k]
    return Rendered(ids, loss_mask, turn, images)
