"""A segmenter that answers from a list, for tests of everything around a segmenter.

It raises or returns just what it is told, right or wrong, and remembers what it was asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ibisagent.segmenters.protocol import Capabilities
from ibisagent.types import Image, Prompt

__all__ = ["FakeSegmenter"]


class FakeSegmenter:
    """Answers one entry of `answers` per prompt, in order; an exception is raised in place of an answer.

    Parameters
    ----------
    answers
        Predictions, exceptions, or anything that a faulty backend might return.
    capabilities
        What it declares.
    encode_error
        Raised by :meth:`encode` if given.

    Attributes
    ----------
    prompts
        Every prompt that it was asked, oldest first.
    encoded
        Hashes of the images that it encoded, in order.
    """

    name = "fake"
    weights_sha256: str | None = None

    def __init__(
        self,
        answers: Sequence[Any] = (),
        capabilities: Capabilities | None = None,
        encode_error: Exception | None = None,
    ) -> None:
        self.answers = list(answers)
        self.capabilities = (
            capabilities
            if capabilities is not None
            else Capabilities(clicks=True, negative_clicks=True, boxes=True, prior_mask=True)
        )
        self.encode_error = encode_error
        self.prompts: list[Prompt] = []
        self.encoded: list[str] = []

    def encode(self, image: Image) -> Any:
        """Note the image; raise `encode_error` if there is one."""
        if self.encode_error is not None:
            raise self.encode_error
        self.encoded.append(image.sha256)
        return image

    def predict(self, embedding: Any, prompts: Sequence[Prompt]) -> Any:
        """The next answers, one a prompt."""
        found = []
        for prompt in prompts:
            self.prompts.append(prompt)
            answer = self.answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            found.append(answer)
        return found
