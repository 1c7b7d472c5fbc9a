"""What conditions work with: the rows of a list, their files, and a place for the masks that they give."""

from __future__ import annotations

import hashlib
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.engine.language.instructions import Library
from ibisagent.errors import InputError
from ibisagent.io import CaseRow

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ibisagent.evaluate.case_list import CaseList
    from ibisagent.types import Image

__all__ = ["NotPossible", "Scene", "changed"]

_KEPT = 64


class NotPossible(Exception):
    """A condition cannot be set for a case; the message is a short reason, the same for every such case."""


class Scene:
    """A case list, seen by the conditions of an arm.

    Parameters
    ----------
    cases
        The whole list, so that a case's neighbours on the same image are known though they are not played.
    folder
        Where given masks are written, one PNG a case.
    seed, library
        As in :func:`ibisagent.evaluate.evaluate`.
    """

    def __init__(self, cases: CaseList, folder: Path, seed: int, library: Library = "core") -> None:
        self.folder, self.seed, self.library = folder, seed, library
        self.rows = [row for row in cases.rows if isinstance(row, CaseRow)]
        self._read = cases.load
        self._by_image: dict[str, list[CaseRow]] = defaultdict(list)
        for row in self.rows:
            self._by_image[row.image].append(row)
        self._loaded: OrderedDict[str, tuple[Image, NDArray[np.bool_] | None]] = OrderedDict()

    def rng(self, row: CaseRow, name: str) -> np.random.Generator:
        """A generator of its own for a condition of a case, by the lab's seed: neither order nor subset changes it."""
        text = f"{self.seed}\0{name}\0{row.case_id}"
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        return np.random.default_rng(int.from_bytes(digest[:8], "big"))

    def load(self, row: CaseRow) -> tuple[Image, NDArray[np.bool_]]:
        """Image and target of a case.

        Raises
        ------
        NotPossible
            If its files cannot be used, or its target is absent.
        """
        image, target = self._load(row)
        if target is None or not target.any():
            raise NotPossible("the target is absent")
        return image, target

    def neighbours(self, row: CaseRow) -> list[CaseRow]:
        """The other rows of the same image whose target is there, by name."""
        found = {r.target: r for r in reversed(self._by_image[row.image]) if r.mask is not None}
        return [found[name] for name in sorted(found) if name != row.target]

    def others(self, row: CaseRow) -> dict[str, NDArray[np.bool_]]:
        """Masks of the other structures of the same image, by name; those that cannot be read are left out."""
        masks = {}
        for other in self.neighbours(row):
            try:
                mask = self._load(other)[1]
            except NotPossible:
                continue
            if mask is not None and mask.any():
                masks[other.target] = mask
        return masks

    def shown(self, row: CaseRow) -> tuple[str, ...]:
        """Names of everything that the list says to be on a row's image."""
        return tuple(sorted({r.target for r in self._by_image[row.image] if r.mask is not None}))

    def give(self, row: CaseRow, mask: NDArray[np.bool_]) -> str:
        """Write a mask for a case to start from; its path in :attr:`folder`, which the row says as its own."""
        from ibisagent.rendering.png import png_bytes, write_atomic

        name = hashlib.sha256(row.case_id.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(png_bytes(mask.astype(np.uint8) * 255), self.folder / f"{name}.png")
        return f"{name}.png"

    def _load(self, row: CaseRow) -> tuple[Image, NDArray[np.bool_] | None]:
        if row.case_id not in self._loaded:
            try:
                image, target, _ = self._read(row)
            except InputError:
                raise NotPossible("its files cannot be used") from None
            self._loaded[row.case_id] = (image, target)
        self._loaded.move_to_end(row.case_id)
        while len(self._loaded) > _KEPT:
            self._loaded.popitem(last=False)
        return self._loaded[row.case_id]


def changed(row: CaseRow, condition: dict[str, Any], **fields: Any) -> CaseRow:
    """The row under a condition: other `fields`, and the condition's facts for the record."""
    return row.model_copy(update={**fields, "condition": condition})
