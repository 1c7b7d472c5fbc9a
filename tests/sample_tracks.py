"""A small segmenter with a memory, for tests: region growing, led from slice to slice by the last mask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from ibisagent.clicks import next_click
from ibisagent.errors import ToolError
from ibisagent.segmenters.rules import RulesSegmenter
from ibisagent.types import Image, Prediction, Prompt

__all__ = ["TrackingRules"]


class TrackingRules(RulesSegmenter):
    """``rules`` that declares ``video``; `carried` lists every image that was carried to, in order."""

    name = "tracking-rules"
    capabilities = replace(RulesSegmenter.capabilities, video=True)

    def __init__(self) -> None:
        self.carried: list[int] = []

    def track(self, images: Sequence[Image]) -> RulesTrack:
        return RulesTrack(self, images)


class RulesTrack:
    """Carries by a click on the deepest point of the neighbour's mask; what leaves that mask's box is cut off."""

    def __init__(self, segmenter: TrackingRules, images: Sequence[Image]) -> None:
        self.segmenter, self.images = segmenter, images
        self.masks: dict[int, Prediction] = {}
        self.prompted: set[int] = set()

    def prompt(self, index: int, prompt: Prompt) -> Prediction:
        self.check(index)
        image = self.images[index]
        given = prompt.prior_mask
        if given is not None and given.shape != (image.height, image.width):
            raise ToolError(f"the mask is {given.shape}")
        if given is not None and not prompt.clicks and prompt.box is None:
            found = Prediction(mask=given.copy())
        else:
            found = self.segmenter.predict(self.segmenter.encode(image), [prompt])[0]
        self.masks[index] = found
        self.prompted.add(index)
        return Prediction(mask=found.mask.copy())

    def carry(self, start: int, *, reverse: bool = False) -> Iterator[tuple[int, Prediction]]:
        self.check(start)
        if not self.prompted:
            raise ToolError("nothing to carry")
        step = -1 if reverse else 1
        for index in range(start + step, -1 if reverse else len(self.images), step):
            if index not in self.prompted:
                self.masks[index] = self.follow(self.images[index], self.masks[index - step].mask)
                self.segmenter.carried.append(index)
            yield index, Prediction(mask=self.masks[index].mask.copy())

    def follow(self, image: Image, last: np.ndarray) -> Prediction:
        click = next_click(None, last)
        if click is None:
            return Prediction(mask=np.zeros_like(last))
        found = self.segmenter.predict(self.segmenter.encode(image), [Prompt(clicks=(click,))])[0].mask
        near = np.zeros_like(last)
        rows, cols = (np.flatnonzero(last.any(axis=axis)) for axis in (1, 0))
        near[max(0, rows[0] - 2) : rows[-1] + 3, max(0, cols[0] - 2) : cols[-1] + 3] = True
        return Prediction(mask=found & near)

    def check(self, index: int) -> None:
        if not 0 <= index < len(self.images):
            raise ToolError(f"no image {index} in a stack of {len(self.images)}")
