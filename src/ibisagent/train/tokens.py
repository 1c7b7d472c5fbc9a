"""One renderer: a conversation becomes token ids *and* the loss mask, from the same pass, for any processor.

Text is cut where turns begin and end, and every piece is made into tokens alone. So the ids of a reply are what a
model writes after the generation prompt, and a conversation that grew token by token (prompt, reply, observation,
reply …) is the one that :meth:`Renderer.conversation` gives for the finished messages.

Only what the model itself wrote may be learnt: system, user and image tokens never are, nor are assistant turns that
are marked as wrong (their text stays as context).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ibisagent.errors import InputError
from ibisagent.policies.conversation import (
    control_words,
    defused,
    folds_system,
    one_line,
    shown_size,
    to_pil,
    with_folded_system,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Piece", "Rendered", "Renderer", "render"]

Message = dict[str, Any]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Piece:
    """Tokens that the model did not write.

    Parameters
    ----------
    ids
        ``int64`` (T,), images as runs of placeholders.
    images
        ``uint8`` (H, W, 3) each, in reading order.
    """

    ids: NDArray[np.int64]
    images: list[Pixels]


@dataclass(frozen=True, eq=False)
class Rendered:
    """A conversation as tokens; it ends with the token that ends the last reply.

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
    images: list[Pixels]


@dataclass(frozen=True)
class _Segment:
    """Text between two cuts, its images, and the assistant turn that it is (-1: none)."""

    text: str
    images: list[Pixels]
    turn: int


class Renderer:
    """Messages to tokens and back into generation, for one processor.

    Parameters
    ----------
    processor
        A tokenizer and an image processor with a chat template, as
        :func:`~ibisagent.policies.processors.load_processor` gives them. What it does to an image is not changed here.
    max_pixels
        Images with more pixels are shown smaller, as with
        :class:`~ibisagent.policies.vlm.VlmPolicy`'s option of that name.

    Attributes
    ----------
    end_id
        Id of the token that ends a reply, the last that a model writes.
    pad_id
        Id that fills short rows.
    image_id
        Id of an image's placeholders.
    forbidden_ids
        Control tokens that no reply holds: all but the one that ends it.

    Raises
    ------
    InputError
        If the chat template fails, leaves images out, or has no token that ends a reply.
    """

    def __init__(self, processor: Any, max_pixels: int | None = None) -> None:
        self.processor, self.tokenizer, self.max_pixels = processor, processor.tokenizer, max_pixels
        self.name = type(processor).__name__
        self.image_token: str = processor.image_token
        self.image_id = int(self.tokenizer.convert_tokens_to_ids(self.image_token))
        self._words = control_words(processor)
        self._fold = folds_system(processor, self.name)
        self._stub = [_message("user", "look"), _message("assistant", "seen")]
        self._before = self._text(self._stub)
        after = self._before.rpartition("seen")[2]
        found = [(after.index(w), -len(w), w) for w in self.tokenizer.all_special_tokens if w in after]
        if not found:
            raise InputError(f"the chat template of {self.name} ends a reply with no control token")
        at, _, word = min(found)
        # What a model writes to end a reply; the rest (Qwen: a line break) belongs to what follows.
        self.end, self._rest = after[: at + len(word)], after[at + len(word) :]
        self.end_id = int(self.tokenizer.convert_tokens_to_ids(word))
        self.pad_id = int(self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.end_id)
        special = (self.tokenizer.convert_tokens_to_ids(word) for word in self._words)
        self.forbidden_ids = tuple(sorted({int(i) for i in special if i is not None} - {self.end_id}))

    # -- messages to tokens ------------------------------------------------------------------

    def conversation(self, messages: Sequence[Message], learn: Sequence[bool] | None = None) -> Rendered:
        """A whole conversation.

        Parameters
        ----------
        messages
            As :func:`ibisagent.messages.build_messages` makes them, up to and with the last reply.
        learn
            One flag for each assistant turn; None learns all.

        Raises
        ------
        ValueError
            If the last message is no reply, or the flags do not match the turns.
        InputError
            If the chat template rewrites earlier turns, so that training would not see what generation saw.
        """
        turns = sum(m["role"] == "assistant" for m in messages)
        if not turns or messages[-1]["role"] != "assistant":
            raise ValueError("a conversation to learn ends with a reply of the assistant")
        if learn is not None and len(learn) != turns:
            raise ValueError(f"{turns} assistant turns, {len(learn)} flags")
        segments = self._segments(messages)
        ids, turn = [], []
        for number, segment in enumerate(segments):
            ids.append(self._ids(segment, first=number == 0))
            turn.append(np.full(len(ids[-1]), segment.turn, np.int64))
        turn_of = np.concatenate(turn)
        learnt = np.array([*(learn if learn is not None else [True] * turns), False])  # the last is for turn -1
        return Rendered(np.concatenate(ids), learnt[turn_of], turn_of, [i for s in segments for i in s.images])

    def prompt(self, messages: Sequence[Message]) -> Piece:
        """Everything up to the model's next reply, the generation prompt included.

        Parameters
        ----------
        messages
            The conversation so far, not ending with a reply; it may hold earlier ones.

        Raises
        ------
        ValueError
            If the last message is a reply.
        InputError
            As :meth:`conversation`.
        """
        if not messages or messages[-1]["role"] == "assistant":
            raise ValueError("a prompt ends with what the user says")
        segments = self._segments(messages)
        ids = [self._ids(segment, first=number == 0) for number, segment in enumerate(segments)]
        return Piece(np.concatenate(ids), [i for s in segments for i in s.images])

    def observation(self, messages: Sequence[Message]) -> Piece:
        """What follows the end token of a reply, up to and with the next generation prompt.

        Parameters
        ----------
        messages
            What is said after the reply (one user message, as a rule).

        Raises
        ------
        InputError
            If the chat template rewrites earlier turns.
        """
        segment = self._observation(defused(messages, self._words))
        return Piece(self._ids(segment, first=False), segment.images)

    def reply(self, text: str) -> NDArray[np.int64]:
        """``int64`` (T,) ids of a reply and its end token, as a model would have written it."""
        (message,) = defused([_message("assistant", text)], self._words)
        return self._ids(_Segment(message["content"][0]["text"] + self.end, [], 0), first=False)

    def text(self, ids: Sequence[int] | NDArray[np.int64]) -> str:
        """Text of what a model wrote, as :class:`~ibisagent.policies.vlm.VlmPolicy` reads it: up to the end token."""
        tokens = [int(i) for i in ids]
        if self.end_id in tokens:
            tokens = tokens[: tokens.index(self.end_id)]
        return self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    # -- images ------------------------------------------------------------------------------

    def image_inputs(self, images: Sequence[Pixels]) -> dict[str, Tensor]:
        """What the image processor makes of images: ``pixel_values`` and, for Qwen, ``image_grid_thw`` …

        Empty where there is no image.
        """
        if not images:
            return {}
        pil = [to_pil(image, self.max_pixels) for image in images]
        return dict(self.processor.image_processor(images=pil, return_tensors="pt"))

    def pixels(self, images: Sequence[Pixels]) -> Tensor:
        """The ``pixel_values`` of :meth:`image_inputs`, alone."""
        return self.image_inputs(images)["pixel_values"]

    def image_lengths(self, images: Sequence[Pixels]) -> list[int]:
        """Placeholders of every image, by the model's own rule."""
        return [text.count(self.image_token) for text in self.placeholders(images)]

    def placeholders(self, images: Sequence[Pixels]) -> list[str]:
        """The text that stands for each image, by the model's own rule.

        Raises
        ------
        InputError
            If the processor states no rule that can be used.
        """
        constant = getattr(self.processor, "image_tokens", None)
        if constant is not None:
            return [self.image_token * int(constant)] * len(images)
        worker = self.processor.image_processor
        merge = getattr(worker, "merge_size", None)
        if merge is not None and hasattr(worker, "get_number_of_image_patches"):
            sizes = [shown_size(image.shape[1], image.shape[0], self.max_pixels) for image in images]
            # Qwen: the product of the grid (time is 1) over the square of the merge size.
            # `{}` is the default; without it transformers 5.9 (which verl 0.9 asks for) fails without torchvision.
            return [self.image_token * (worker.get_number_of_image_patches(h, w, {}) // merge**2) for w, h in sizes]
        if not images:
            return []
        try:
            made = self.image_inputs(images)
            return [self.processor.replace_image_token(made, image_idx=i) for i in range(len(images))]
        except (AttributeError, NotImplementedError) as error:
            raise InputError(f"{self.name} states no rule for the places of images: {one_line(error)}") from None

    def tensors(
        self,
        ids: Sequence[NDArray[np.int64] | Sequence[int]],
        images: Sequence[Sequence[Pixels]],
        padding: Literal["left", "right"] = "right",
    ) -> dict[str, Tensor]:
        """Rows as a model's inputs; every row's placeholders are checked against the features of its images.

        Parameters
        ----------
        ids
            Token ids of every row.
        images
            The images of every row.
        padding
            Where short rows are filled up.

        Returns
        -------
        dict
            ``input_ids`` and ``attention_mask`` (B, T); of all images, row after row, what :meth:`image_inputs` gives;
            ``mm_token_type_ids`` (B, T) where the processor names it among its outputs: without it Qwen2.5-VL places
            images as if they were text, silently.

        Raises
        ------
        ValueError
            If placeholders and features do not match; training would go on without the images, or with wrong ones.
        """
        import torch

        width = max(len(row) for row in ids)
        input_ids = torch.full((len(ids), width), self.pad_id, dtype=torch.long)
        mask = torch.zeros(len(ids), width, dtype=torch.long)
        for number, row in enumerate(ids):
            place = slice(width - len(row), width) if padding == "left" else slice(0, len(row))
            input_ids[number, place] = torch.as_tensor(np.asarray(row, np.int64))
            mask[number, place] = 1
        flat = [image for row in images for image in row]
        features = self.image_inputs(flat)
        self._check(input_ids, mask, [len(row) for row in images], features, self.image_lengths(flat))
        batch = {"input_ids": input_ids, "attention_mask": mask, **features}
        if "mm_token_type_ids" in getattr(self.processor, "model_input_names", ()):
            batch["mm_token_type_ids"] = ((input_ids == self.image_id) & (mask == 1)).long()
        return batch

    def _check(
        self, ids: Tensor, mask: Tensor, counts: Sequence[int], features: dict[str, Tensor], lengths: Sequence[int]
    ) -> None:
        if bool(sum(counts)) != ("pixel_values" in features):
            raise ValueError(f"{sum(counts)} images, but the image processor gave {sorted(features) or 'nothing'}")
        grid = features.get("image_grid_thw")
        if grid is not None:  # what the model will make of the pixels, not what we think
            lengths = (grid.prod(dim=1) // self.processor.image_processor.merge_size**2).tolist()
        if len(lengths) != sum(counts):
            raise ValueError(f"{sum(counts)} images were given, {len(lengths)} were processed")
        places = ((ids == self.image_id) & (mask == 1)).sum(1).tolist()
        start = 0
        for row, count in enumerate(counts):
            wanted = sum(lengths[start : start + count])
            start += count
            if places[row] != wanted:
                raise ValueError(f"row {row}: {places[row]} image placeholders for {wanted} features of {count} images")

    # -- pieces ------------------------------------------------------------------------------

    def _segments(self, messages: Sequence[Message]) -> list[_Segment]:
        """The conversation cut at the beginning and the end of every reply; checked against the whole rendering."""
        chat = defused(messages, self._words)
        if self._fold:
            chat = with_folded_system(chat)
        replies = [i for i, message in enumerate(chat) if message["role"] == "assistant"]
        cuts = [*replies, len(chat)]
        first = chat[: cuts[0]]
        segments = [_Segment(self._text(first, prompt=True), _images(first), -1)]
        for turn, at in enumerate(replies):
            content = "".join(part["text"] for part in chat[at]["content"])
            segments.append(_Segment(content + self.end, [], turn))
            if at + 1 < len(chat):
                segments.append(self._observation(chat[at + 1 : cuts[turn + 1]]))
        ends = chat[-1]["role"] == "assistant"
        joined = "".join(segment.text for segment in segments) + (self._rest if ends else "")
        if joined != self._text(chat, prompt=not ends):
            raise InputError(
                f"the chat template of {self.name} writes earlier turns differently from how they were generated "
                "(as templates of 'thinking' models do); take the 'instruct' model's"
            )
        return segments

    def _observation(self, chat: Sequence[Message]) -> _Segment:
        text = self._text([*self._stub, *chat], prompt=True)
        if not text.startswith(self._before):
            raise InputError(f"the chat template of {self.name} rewrites earlier turns; take the 'instruct' model's")
        return _Segment(self._rest + text[len(self._before) :], _images(chat), -1)

    def _text(self, chat: Sequence[Message], prompt: bool = False) -> str:
        places = [{**m, "content": [_place(part) for part in m["content"]]} for m in chat]
        return self.processor.apply_chat_template(places, add_generation_prompt=prompt, tokenize=False)

    def _ids(self, segment: _Segment, first: bool) -> NDArray[np.int64]:
        texts = segment.text.split(self.image_token)
        if len(texts) - 1 != len(segment.images):
            raise ValueError(f"the text names {len(texts) - 1} images, the messages hold {len(segment.images)}")
        text = texts[0]
        for place, following in zip(self.placeholders(segment.images), texts[1:], strict=True):
            text += place + following
        # As `apply_chat_template` does it: a beginning-of-text token, unless the template has written it.
        bos = self.tokenizer.bos_token
        special = first and not (bos is not None and text.startswith(bos))
        return np.asarray(self.tokenizer(text, add_special_tokens=special)["input_ids"], np.int64)


@lru_cache(maxsize=4)
def _renderer(processor: Any) -> Renderer:
    return Renderer(processor)


def render(messages: Sequence[Message], processor: Any, *, learn: Sequence[bool] | None = None) -> Rendered:
    """:meth:`Renderer.conversation` with a renderer that is made once for a processor."""
    return _renderer(processor).conversation(messages, learn)


def _message(role: str, text: str) -> Message:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def _place(part: dict[str, Any]) -> dict[str, Any]:
    return part if part["type"] == "text" else {"type": "image"}


def _images(chat: Sequence[Message]) -> list[Pixels]:
    return [part["image"] for message in chat for part in message["content"] if part["type"] == "image"]
