"""A corpus folder, finished or still growing, read back into rows, pictures, messages and episodes."""

from __future__ import annotations

import io
import os
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.engine.corpus.schema import NO_MASK, TABLES, schema
from ibisagent.episode import Episode, Rle, decode_mask
from ibisagent.errors import InputError
from ibisagent.geometry import Geometry
from ibisagent.io.files import display_name, one_line, reading
from ibisagent.rendering import agent_overlay
from ibisagent.types import Case, Image

if TYPE_CHECKING:
    import pyarrow.parquet as pq
    from numpy.typing import NDArray

__all__ = ["Corpus"]

_SHARD = re.compile(r"(?P<split>[^.].*)-\d{5}-of-\d{5}\.parquet")

_MAX_IMAGES = 32
_MAX_GROUPS = 4


class Corpus:
    """The shards of one folder.

    Shards that are not written yet are no error: what is there is read. Files that a killed run left half written
    are never looked at (see :func:`ibisagent.engine.corpus.writer.write_table`).

    Parameters
    ----------
    folder
        What ``ibisagent synthesize --out`` wrote; ``FOLDER/data/TABLE/SPLIT-…parquet`` lie in it.

    Raises
    ------
    InputError
        If the folder does not exist or holds no shard.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._shards: dict[str, dict[str, list[Path]]] = {}
        if not self.folder.is_dir():
            raise InputError(f"{display_name(folder)}: no such folder; give the folder that a corpus was written to")
        for table in TABLES:
            found: dict[str, list[Path]] = {}
            for path in sorted((self.folder / "data" / table).glob("*.parquet")):
                match = _SHARD.fullmatch(path.name)
                if match:
                    found.setdefault(match["split"], []).append(path)
            if found:
                self._shards[table] = found
        if not self._shards:
            raise InputError(f"{display_name(folder)}: no corpus in it; there is no shard below data/")
        self._places: dict[str, tuple[Path, int, int]] | None = None
        self._groups: OrderedDict[tuple[Path, int], list[dict[str, Any]]] = OrderedDict()
        self._images: OrderedDict[str, NDArray[np.uint8]] = OrderedDict()

    # -- tables ------------------------------------------------------------------------------

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the tables that have shards, in the order of :data:`~.schema.TABLES`."""
        return tuple(self._shards)

    def splits(self, table: str) -> tuple[str, ...]:
        """Names of a table's splits, sorted; empty if it has no shard."""
        return tuple(sorted(self._shards.get(table, ())))

    def shards(self, table: str, split: str | None = None) -> tuple[Path, ...]:
        """Files of a table, of one split or of all, sorted by split and number.

        Raises
        ------
        InputError
            If there is no such table or split in the folder.
        """
        if table not in self._shards:
            raise InputError(
                f"{display_name(self.folder)}: no table '{one_line(table, 30)}'; there is {', '.join(self.tables)}"
            )
        if split is not None and split not in self._shards[table]:
            raise InputError(
                f"{display_name(self.folder)}: no split '{one_line(split, 30)}' of '{table}'; "
                f"there is {', '.join(self.splits(table))}"
            )
        splits = self.splits(table) if split is None else (split,)
        return tuple(path for name in splits for path in self._shards[table][name])

    def count(self, table: str, split: str | None = None) -> int:
        """Number of rows, read from the shards' footers; errors as in :meth:`rows`."""
        return sum(self.count_of(path, table) for path in self.shards(table, split))

    def count_of(self, path: Path, table: str) -> int:
        """Number of rows of one of the :meth:`shards`, read from its footer; errors as in :meth:`rows`."""
        return int(self._open(path, table).metadata.num_rows)

    def rows(self, table: str, split: str | None = None, columns: Sequence[str] | None = None) -> Iterator[dict]:
        """Rows as plain dicts, shard by shard.

        Parameters
        ----------
        table, split
            Which; all splits if None.
        columns
            Only these columns; all if None. Statistics over a large corpus need not read its messages.

        Raises
        ------
        InputError
            If there is no such table or split, or a shard is damaged (named in the message).
        """
        for path in self.shards(table, split):
            yield from self.shard_rows(path, table, columns)

    def shard_rows(self, path: Path, table: str, columns: Sequence[str] | None = None) -> Iterator[dict]:
        """Rows of one of the :meth:`shards`; parameters and errors as in :meth:`rows`."""
        file = self._open(path, table)
        for group in range(file.num_row_groups):
            with reading(path, "a shard of a corpus"):
                rows = file.read_row_group(group, columns=columns).to_pylist()
            yield from rows

    # -- pictures ----------------------------------------------------------------------------

    def image_row(self, image_id: str) -> dict[str, Any]:
        """The row of the table ``images``, without its picture; errors as in :meth:`image_png`."""
        return {name: value for name, value in self._image_row(image_id).items() if name != "image"}

    def image_png(self, image_id: str) -> bytes:
        """The picture as it is stored, PNG.

        Raises
        ------
        InputError
            If it is not in the folder (a corpus that still grows may lack it), or its shard is damaged.
        """
        return bytes(self._image_row(image_id)["image"]["bytes"])

    def image(self, image_id: str) -> NDArray[np.uint8]:
        """Pixels of an image.

        Returns
        -------
        NDArray
            ``uint8`` (H, W, 3), read-only.

        Raises
        ------
        InputError
            As :meth:`image_png`, and if the picture cannot be decoded or is not the one that its id names.
        """
        if image_id in self._images:
            self._images.move_to_end(image_id)
            return self._images[image_id]
        import PIL.Image

        from ibisagent.hashing import pixel_hash

        png = self.image_png(image_id)
        with reading(self._place(image_id)[0], "a shard of a corpus"):
            pixels = np.array(PIL.Image.open(io.BytesIO(png), formats=("PNG",)).convert("RGB"))
        if pixel_hash(pixels) != image_id:
            raise InputError(
                f"{display_name(self._place(image_id)[0])}: the picture {image_id[:12]}… is not the one that its id "
                "names; build the corpus again"
            )
        pixels.flags.writeable = False
        self._images[image_id] = pixels
        while len(self._images) > _MAX_IMAGES:
            self._images.popitem(last=False)
        return pixels

    # -- what rows mean ----------------------------------------------------------------------

    def mask(self, row: Mapping[str, Any], number: int) -> NDArray[np.bool_] | None:
        """Mask number `number` of a row as ``bool`` (H, W), None for ``NO_MASK``.

        Raises
        ------
        InputError
            If the row has no such mask, or it is damaged.
        """
        rle = self.rle(row, number)
        return None if rle is None else decode_mask(rle)

    def rle(self, row: Mapping[str, Any], number: int) -> Rle | None:
        """Mask number `number` of a row as it is stored; errors as in :meth:`mask`."""
        if number == NO_MASK:
            return None
        if not 0 <= number < len(row["masks"]):
            raise InputError(f"{_name(row)}: there is no mask number {number}; build the corpus again")
        return _rle(row["masks"][number], row)

    def target(self, row: Mapping[str, Any]) -> NDArray[np.bool_] | None:
        """Reference mask of a row as ``bool`` (H, W), None where the target is absent; errors as in :meth:`mask`."""
        return None if row["target_mask"] is None else decode_mask(_rle(row["target_mask"], row))

    def case(self, row: Mapping[str, Any]) -> Case:
        """The case that a row of ``sft``, ``rl`` or ``test`` is about; errors as in :meth:`image` and :meth:`mask`."""
        spacing = self.image_row(row["image_id"])["spacing_mm"]
        geometry = Geometry.plane_2d((spacing[0], spacing[1]) if spacing else None)
        image = Image(
            self.image(row["image_id"]), geometry, row["modality"], source=row["sample"], sha256=row["image_id"]
        )
        initial = self.mask(row, row["initial_mask"])
        if initial is not None and initial.shape != (image.height, image.width):
            raise InputError(f"{_name(row)}: the given mask is not of the image's size; build the corpus again")
        return Case(image, row["instruction"], initial, case_id=_name(row), target=row["target"], group=row["group"])

    def messages(self, row: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Chat messages of a row, in the form that :func:`ibisagent.messages.build_messages` gives.

        Returns
        -------
        list of dict
            ``{"role", "content": [{"type": "text", "text": str} | {"type": "image", "image": uint8 (H, W, 3)}]}``;
            an image is the row's image with the part's mask over it.

        Raises
        ------
        InputError
            As :meth:`image` and :meth:`mask`.
        """
        pixels = self.image(row["image_id"])
        shown: dict[int, NDArray[np.uint8]] = {}
        out = []
        for message in row["messages"]:
            content: list[dict[str, Any]] = []
            for part in message["content"]:
                if part["type"] == "text":
                    content.append({"type": "text", "text": part["text"]})
                    continue
                number = part["mask"]
                if number not in shown:
                    mask = self.mask(row, number)
                    if mask is not None and mask.shape != pixels.shape[:2]:
                        raise InputError(f"{_name(row)}: mask {number} is not of the image's size")
                    shown[number] = agent_overlay(pixels, mask)
                # A copy: whoever draws into one picture of a conversation must not change another.
                content.append({"type": "image", "image": shown[number].copy()})
            out.append({"role": message["role"], "content": content})
        return out

    def episode(self, row: Mapping[str, Any]) -> Episode:
        """The record of a row of ``sft``, complete enough to show, replay and score it.

        What a corpus does not keep stands at its default: seconds, tokens, millimetres.

        Raises
        ------
        InputError
            As :meth:`messages`, and if replies and steps do not belong together.
        """
        from ibisagent.engine.corpus.records import episode_of_row

        return episode_of_row(self, row)

    # -- reading -----------------------------------------------------------------------------

    def _open(self, path: Path, table: str) -> pq.ParquetFile:
        import pyarrow.parquet as pq

        with reading(path, "a shard of a corpus"):
            file = pq.ParquetFile(path)
        missing = [name for name in schema(table).names if name not in file.schema_arrow.names]
        if missing:
            raise InputError(
                f"{display_name(path)}: no shard of the table '{table}': it lacks the column '{missing[0]}'"
            )
        return file

    def _place(self, image_id: str) -> tuple[Path, int, int]:
        """File, row group and row of an image."""
        if self._places is None:
            self._places = {}
            for path in self.shards("images"):
                file = self._open(path, "images")
                for group in range(file.num_row_groups):
                    with reading(path, "a shard of a corpus"):
                        names = file.read_row_group(group, columns=["image_id"]).column(0).to_pylist()
                    for index, name in enumerate(names):
                        self._places.setdefault(name, (path, group, index))
        if image_id not in self._places:
            raise InputError(
                f"{display_name(self.folder)}: the image {one_line(image_id, 12)}… is not in it; finish the corpus"
            )
        return self._places[image_id]

    def _image_row(self, image_id: str) -> dict[str, Any]:
        path, group, index = self._place(image_id)
        if (path, group) not in self._groups:
            file = self._open(path, "images")
            with reading(path, "a shard of a corpus"):
                self._groups[path, group] = file.read_row_group(group).to_pylist()
            while len(self._groups) > _MAX_GROUPS:
                self._groups.popitem(last=False)
        self._groups.move_to_end((path, group))
        return self._groups[path, group][index]


def _name(row: Mapping[str, Any]) -> str:
    return str(row.get("trajectory_id") or row.get("prompt_id") or row.get("question_id") or "row")


def _rle(value: Mapping[str, Any], row: Mapping[str, Any]) -> Rle:
    try:
        return Rle.model_validate(dict(value))
    except ValueError as error:
        raise InputError(f"{_name(row)}: a damaged mask ({one_line(error, 80)}); build the corpus again") from None
