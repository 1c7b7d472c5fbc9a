"""A segmenter that remembers: what it was asked before on the same image is not computed again.

The trajectories of one target share most of their states: a wrong click that is taken back leads to where the run was
before, a given mask that is dropped to its beginning. One image is kept at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ibisagent.hashing import pixel_hash
from ibisagent.segmenters.protocol import Segmenter
from ibisagent.types import Image, Prediction, Prompt

__all__ = ["MemoSegmenter"]


class MemoSegmenter:
    """Answers as the segmenter that it wraps, which must be deterministic.

    Parameters
    ----------
    segmenter
        Any backend.

    Attributes
    ----------
    num_encoded, num_predicted, num_remembered
        Images encoded, prompts answered by the segmenter, prompts answered from memory.
    """

    def __init__(self, segmenter: Segmenter) -> None:
        self._inner = segmenter
        self.name = segmenter.name
        self.capabilities = replace(segmenter.capabilities, video=False)  # one image is kept, no stack
        self.weights_sha256 = segmenter.weights_sha256
        self.num_encoded = self.num_predicted = self.num_remembered = 0
        self._sha256: str | None = None
        self._embedding: Any = None
        self._answers: dict[Any, Prediction] = {}
        # Numbers of the logits that were handed out; they stay alive in `_answers`, so that no id is used twice.
        self._states: dict[int, int] = {}

    def encode(self, image: Image) -> Any:
        """Encode an image, unless it is the one that is kept. Raises as the segmenter does."""
        if image.sha256 != self._sha256:
            self._sha256, self._embedding = None, None
            self._answers.clear()
            self._states.clear()
            self._embedding = self._inner.encode(image)
            self._sha256 = image.sha256
            self.num_encoded += 1
        return self._embedding

    def predict(self, embedding: Any, prompts: Sequence[Prompt]) -> list[Prediction]:
        """Answer prompts on one embedding, in order; those that are new in one call. Raises as the segmenter does."""
        if embedding is not self._embedding:
            return self._inner.predict(embedding, prompts)
        keys = [self._key(prompt) for prompt in prompts]
        new = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in self._answers}
        if new:
            answers = self._inner.predict(embedding, list(new.values()))
            for key, answer in zip(new, answers, strict=True):
                self._answers[key] = answer
                if answer.state is not None:
                    self._states[id(answer.state)] = len(self._states)
        self.num_predicted += len(new)
        self.num_remembered += len(prompts) - len(new)
        return [self._answers[key] for key in keys]

    def _key(self, prompt: Prompt) -> Any:
        logits, mask = prompt.prior_logits, prompt.prior_mask
        before: Any = None
        if logits is not None:
            before = self._states.get(id(logits))
            if before is None:
                before = pixel_hash(logits)
        return prompt.clicks, prompt.box, before, None if mask is None else pixel_hash(mask)
