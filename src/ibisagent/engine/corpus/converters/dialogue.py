"""What all converters of conversations share: which replies are learnt, cuts, placeholders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ibisagent.engine.corpus.schema import NO_MASK
from ibisagent.errors import InputError

__all__ = ["learnt_replies", "placeholder_text", "shown_masks", "turns", "vqa_messages"]

Message = Mapping[str, Any]


def learnt_replies(row: Mapping[str, Any]) -> frozenset[int]:
    """Numbers of the messages that a loss span lies in."""
    return frozenset(span["message"] for span in row["loss_spans"])


def turns(row: Mapping[str, Any]) -> Iterator[tuple[int, list[Message]]]:
    """For every reply that is learnt: its number, and the conversation up to it and with it."""
    learnt = learnt_replies(row)
    for number in range(len(row["messages"])):
        if number in learnt:
            yield number, list(row["messages"][: number + 1])


def shown_masks(messages: Sequence[Message]) -> list[int]:
    """Numbers of the masks that the images of a conversation show, in order."""
    return [part["mask"] for message in messages for part in message["content"] if part["type"] == "image"]


def placeholder_text(message: Message, placeholder: str, reserved: Sequence[str], name: str) -> str:
    """The message as one string, with a placeholder for every image.

    Nothing stands between the parts, as nothing does where a chat template renders them at inference.

    Raises
    ------
    InputError
        If a text holds one of the `reserved` words: the trainer would take it for a picture.
    """
    pieces = []
    for part in message["content"]:
        if part["type"] == "image":
            pieces.append(placeholder)
            continue
        for word in reserved:
            if word in part["text"]:
                raise InputError(f"{name}: a text holds '{word}', which this format reads as a picture; reject the row")
        pieces.append(part["text"])
    return "".join(pieces)


def vqa_messages(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A visual question as a conversation: the image and the question, then the answer."""

    def text(value: str) -> dict[str, Any]:
        return {"type": "text", "text": value, "mask": NO_MASK}

    return [
        {"role": "user", "content": [{"type": "image", "text": None, "mask": NO_MASK}, text(row["question"])]},
        {"role": "assistant", "content": [text(row["answer"])]},
    ]
