"""Who carries a mask to the next slice: prompts made from the neighbour's mask, or a segmenter's video memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ibisagent.errors import ToolError
from ibisagent.segmenters.cache import EmbeddingCache
from ibisagent.segmenters.protocol import Segmenter, VideoSegmenter
from ibisagent.segmenters.session import check_prediction
from ibisagent.types import Prediction, Prompt
from ibisagent.volume.carrying import Look, carried_prompt

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ibisagent.volume.slices_seen import SliceImages

__all__ = ["Carrier", "PromptCarrier", "VideoCarrier"]


class Carrier(Protocol):
    """Carries one key slice's mask in one direction."""

    def predict(self, index: int, former: int, mask: NDArray[np.bool_], look: Look) -> Prediction:
        """The mask of slice `index`, whose neighbour `former` has `mask` (``bool`` (H, W), not empty) and `look`.

        Raises
        ------
        ToolError
            If the segmenter fails.
        """
        ...

    def corrected(self, index: int, mask: NDArray[np.bool_]) -> None:
        """Hear that the policy made `mask` of slice `index`. Raises as :meth:`predict`."""
        ...


class PromptCarrier:
    """Asks for every slice by itself, with what the neighbour's mask implies.

    Parameters
    ----------
    segmenter, cache
        The segmenter, and its embeddings.
    images
        The plane's slices.
    """

    def __init__(self, segmenter: Segmenter, cache: EmbeddingCache, images: SliceImages) -> None:
        self.segmenter, self.cache, self.images = segmenter, cache, images

    def predict(self, index: int, former: int, mask: NDArray[np.bool_], look: Look) -> Prediction:
        """See :meth:`Carrier.predict`."""
        image = self.images[index]
        prompt = carried_prompt(mask, look, image.pixels, self.segmenter.capabilities)
        try:
            answers = self.segmenter.predict(self.cache.get(image), [prompt])
        except ToolError:
            raise
        except Exception as error:
            raise ToolError(f"the segmenter {self.segmenter.name} failed: {type(error).__name__}: {error}") from error
        if not isinstance(answers, list) or len(answers) != 1:
            raise ToolError(f"the segmenter {self.segmenter.name} did not return one prediction")
        return check_prediction(answers[0], (image.height, image.width), self.segmenter.name)

    def corrected(self, index: int, mask: NDArray[np.bool_]) -> None:
        """Nothing is remembered: the next slice is asked for with the corrected mask."""


class VideoCarrier:
    """Asks a segmenter's memory of the slices that came before.

    Parameters
    ----------
    segmenter
        The segmenter.
    images
        The plane's slices.
    key, mask
        The key slice and its mask, ``bool`` (H, W).
    """

    def __init__(self, segmenter: VideoSegmenter, images: SliceImages, key: int, mask: NDArray[np.bool_]) -> None:
        self.segmenter, self.images = segmenter, images
        self._track = segmenter.track(images)
        self._track.prompt(key, Prompt(prior_mask=mask))
        self._known = key
        self._stream: Iterator[tuple[int, Prediction]] | None = None

    def predict(self, index: int, former: int, mask: NDArray[np.bool_], look: Look) -> Prediction:
        """See :meth:`Carrier.predict`; the memory may be rebuilt first, where a run was taken up again."""
        if former != self._known:  # visits of an earlier start: their masks stand for what the memory had seen
            self.corrected(former, mask)
        if self._stream is None:
            self._stream = self._track.carry(former, reverse=index < former)
        try:
            at, prediction = next(self._stream)
        except StopIteration:
            raise ToolError(f"the segmenter {self.segmenter.name} stopped before slice {index}") from None
        if at != index:
            raise ToolError(f"the segmenter {self.segmenter.name} went on to slice {at}, not {index}")
        self._known = index
        image = self.images[index]
        return check_prediction(prediction, (image.height, image.width), self.segmenter.name)

    def corrected(self, index: int, mask: NDArray[np.bool_]) -> None:
        """See :meth:`Carrier.corrected`: the memory takes the mask for the truth."""
        self._track.prompt(index, Prompt(prior_mask=mask))
        self._known, self._stream = index, None
