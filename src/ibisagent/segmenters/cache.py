"""A small cache of image embeddings, so that several cases on one image encode it once."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from ibisagent.segmenters.protocol import Segmenter
from ibisagent.segmenters.session import encode_image
from ibisagent.types import Image

__all__ = ["EmbeddingCache"]


class EmbeddingCache:
    """Embeddings of one segmenter by image hash, the least recently used dropped first.

    Parameters
    ----------
    segmenter
        The segmenter that encodes.
    max_images
        Embeddings kept at once.
    """

    def __init__(self, segmenter: Segmenter, max_images: int = 4) -> None:
        if max_images < 1:
            raise ValueError(f"max_images must be at least 1, not {max_images}")
        self.segmenter = segmenter
        self.max_images = max_images
        self._kept: OrderedDict[str, Any] = OrderedDict()

    def get(self, image: Image) -> Any:
        """The embedding of an image, made now if it is not kept.

        Raises
        ------
        ToolError
            If encoding fails; failures are not kept.
        """
        key = image.sha256
        if key not in self._kept:
            self._kept[key] = encode_image(self.segmenter, image)
        self._kept.move_to_end(key)
        while len(self._kept) > self.max_images:
            self._kept.popitem(last=False)
        return self._kept[key]
