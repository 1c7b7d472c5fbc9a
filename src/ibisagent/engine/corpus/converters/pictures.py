"""The pictures of a row's messages, as files hold them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ibisagent.errors import InputError
from ibisagent.rendering import agent_overlay

if TYPE_CHECKING:
    from ibisagent.engine.corpus.reader import Corpus

__all__ = ["Pictures"]

_LEVEL = 2  # overlays are many: the smallest file is a tenth smaller and takes three times as long


class Pictures:
    """Encodes each picture of one row once.

    Parameters
    ----------
    corpus, row
        Whose.
    """

    def __init__(self, corpus: Corpus, row: Mapping[str, Any]) -> None:
        self.corpus, self.row = corpus, row
        self._done: dict[int, bytes] = {}

    def png(self, number: int) -> bytes:
        """PNG of the row's image with mask `number` over it.

        Raises
        ------
        InputError
            If the image or the mask cannot be read, or they are of two sizes.
        """
        if number not in self._done:
            self._done[number] = self._encode(number)
        return self._done[number]

    def name(self, number: int) -> str:
        """File name that tells by image and mask what is in it; equal pictures have equal names."""
        image = self.row["image_id"]
        rle = self.corpus.rle(self.row, number)
        if rle is None:
            return f"{image[:2]}/{image[:32]}.png"
        mask = hashlib.sha256(rle.counts.encode()).hexdigest()
        return f"{image[:2]}/{image[:32]}-{mask[:16]}.png"

    def cell(self, number: int) -> dict[str, Any]:
        """The picture as a cell of an image column: ``{"bytes", "path"}``."""
        return {"bytes": self.png(number), "path": self.name(number).rpartition("/")[2]}

    def _encode(self, number: int) -> bytes:
        import PIL.Image

        pixels, mask = self.corpus.image(self.row["image_id"]), self.corpus.mask(self.row, number)
        try:
            # Three planes even where they are equal: not every trainer's processor turns gray into colour.
            shown = agent_overlay(pixels, mask)
        except ValueError as error:
            raise InputError(f"{self.row['image_id'][:12]}…: mask {number} does not fit its image ({error})") from None
        buffer = io.BytesIO()
        PIL.Image.fromarray(shown).save(buffer, format="PNG", compress_level=_LEVEL)
        return buffer.getvalue()
