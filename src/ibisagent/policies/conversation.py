"""The request that a language-model policy makes for a view: its messages, its seed, its record."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.actions import WITHOUT_THOUGHT, Dialect, dialect_for
from ibisagent.errors import InputError
from ibisagent.messages import build_messages, default_system_prompt, messages_for_record
from ibisagent.policies.protocol import View

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image as PilImage

__all__ = [
    "Conversation",
    "control_words",
    "defused",
    "folds_system",
    "known_options",
    "one_line",
    "shown_size",
    "to_pil",
    "view_seed",
    "with_folded_system",
]

Message = dict[str, Any]


class Conversation:
    """How a policy talks: its dialect, its system prompt and how much of the past it is shown.

    Parameters
    ----------
    dialect
        A dialect or its name; None takes the one whose grammar `system_prompt` quotes, else ``plain``
        (:func:`~ibisagent.actions.dialect_for`).
    system_prompt
        The fixed prompt that the policy was trained with; None writes one from the dialect and from the
        actions that the episode allows.
    history
        Whether earlier turns are shown; None does as the episode says.
    max_images
        Show at most this many images, the newest; None shows all.

    Raises
    ------
    InputError
        If the dialect is unknown, the prompt quotes another one, or `max_images` is below 1.
    """

    def __init__(
        self,
        dialect: Dialect | str | None = None,
        system_prompt: str | None = None,
        history: bool | None = None,
        max_images: int | None = None,
    ) -> None:
        if dialect is None or isinstance(dialect, str):
            dialect = dialect_for(dialect, system_prompt)
        if max_images is not None and max_images < 1:
            raise InputError(f"max_images must be at least 1, not {max_images}")
        self.dialect = dialect
        self.system_prompt = system_prompt
        self.history = history
        self.max_images = max_images

    def prompt(self, view: View) -> str:
        """The system prompt for a view."""
        if self.system_prompt is not None:
            return self.system_prompt
        kinds = view.episode.policy.action_kinds
        return default_system_prompt(self.dialect if kinds is None else self.dialect.restrict(kinds))

    def messages(self, view: View) -> list[Message]:
        """The whole conversation of a view, images as ``uint8`` (H, W, 3) arrays."""
        history = view.episode.history if self.history is None else self.history
        return build_messages(
            view,
            self.prompt(view),
            history=history,
            max_images=self.max_images,
            thoughts=view.episode.thoughts,
            overlay=view.episode.overlay,
        )

    def opening(self, view: View) -> str:
        """How the next reply begins: with an empty thought where the episode goes without, else ``""``."""
        return "" if view.episode.thoughts else WITHOUT_THOUGHT

    def record(self, view: View, messages: list[Message]) -> list[Message]:
        """What is new in `messages` since the episode's last step, images by hash.

        Replies of the model are steps of the episode already, and the system prompt stands in the first.
        """
        new = messages
        if view.episode.steps:
            last = max((i for i, m in enumerate(messages) if m["role"] == "assistant"), default=-1)
            new = [m for m in messages[last + 1 :] if m["role"] != "system"]
        return messages_for_record(new)


def view_seed(seed: int, view: View) -> int:
    """A seed in [0, 2^31) for the next reply of a view.

    It depends on `seed`, on the episode's own seed, on the case and on the step, and on nothing else: a
    reply does not change with the batch that it is sampled in, and sibling episodes differ.
    """
    episode = view.episode
    text = f"{seed}|{episode.seed}|{episode.case_id}|{episode.instruction}|{len(episode.steps)}"
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:4], "big") >> 1


def shown_size(width: int, height: int, max_pixels: int | None = None) -> tuple[int, int]:
    """Width and height of an image that is shrunk to at most `max_pixels` pixels, aspect kept."""
    area = width * height
    if max_pixels is None or area <= max_pixels:
        return width, height
    scale = (max_pixels / area) ** 0.5
    return max(1, int(width * scale)), max(1, int(height * scale))


def to_pil(pixels: NDArray[np.uint8], max_pixels: int | None = None) -> PilImage:
    """A PIL image of ``uint8`` (H, W, 3) pixels, shrunk to at most `max_pixels` pixels, aspect kept.

    Text carries coordinates as fractions, so that shrinking leaves them as they are.
    """
    from PIL import Image as pil

    image = pil.fromarray(np.ascontiguousarray(pixels))
    size = shown_size(image.width, image.height, max_pixels)
    return image if size == image.size else image.resize(size, pil.Resampling.BICUBIC)


def control_words(processor: Any) -> list[str]:
    """Words that a tokenizer reads as control tokens, sorted; no text of a conversation may hold one."""
    words = {*processor.tokenizer.all_special_tokens, getattr(processor, "image_token", None)}
    return sorted(w for w in words if isinstance(w, str) and len(w) > 2)


def defused(messages: Sequence[Message], words: Sequence[str]) -> list[Message]:
    """The messages with control words in their texts broken up, and images as they are.

    A sentence cannot pose as an image or as another speaker then. Policies and training both read
    conversations through this.
    """
    out = []
    for message in messages:
        content = []
        for part in message["content"]:
            if part["type"] == "text":
                text = part["text"]
                for word in words:
                    if word in text:
                        text = text.replace(word, f"{word[0]} {word[1:]}")
                part = {"type": "text", "text": text}
            content.append(part)
        out.append({"role": message["role"], "content": content})
    return out


def with_folded_system(chat: Sequence[Message]) -> list[Message]:
    """The chat with its system prompt at the head of the first user message, for templates that know no system."""
    if not chat or chat[0]["role"] != "system":
        return list(chat)
    system, first, *rest = chat
    head = {"type": "text", "text": system["content"][0]["text"] + "\n\n"}
    return [{**first, "content": [head, *first["content"]]}, *rest]


def folds_system(processor: Any, name: str) -> bool:
    """Try the chat template once; whether the system prompt must go into the first user message.

    Some templates reject a system message, others drop it without a word.

    Raises
    ------
    InputError
        If the template fails, or leaves images out.
    """
    user = {"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "image"}]}
    system = {"role": "system", "content": [{"type": "text", "text": "ibis-probe"}]}
    try:
        plain = processor.apply_chat_template([user], add_generation_prompt=True)
    except Exception as error:
        raise InputError(f"the chat template of {name} fails: {one_line(error)}") from error
    token = getattr(processor, "image_token", None)
    if isinstance(token, str) and token not in plain:
        raise InputError(f"the chat template of {name} leaves images out")
    try:
        return "ibis-probe" not in processor.apply_chat_template([system, user], add_generation_prompt=True)
    except Exception:  # jinja's TemplateError, raised by the template itself
        return True


def one_line(text: object, limit: int = 240) -> str:
    """`text` as one line of at most `limit` characters."""
    line = " ".join(str(text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def known_options(policy: str, cls: type, options: dict[str, Any]) -> dict[str, Any]:
    """The options that are set, for the constructor of a policy.

    Raises
    ------
    InputError
        If the constructor takes no such option.
    """
    given = {name: value for name, value in options.items() if value is not None}
    unknown = sorted(set(given) - set(inspect.signature(cls).parameters))
    if unknown:
        raise InputError(f"the policy {policy} takes no {', '.join(unknown)}")
    return given
