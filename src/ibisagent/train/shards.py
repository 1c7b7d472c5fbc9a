"""Rows of parquet shards by number, in any order: shards that were read lately stay in memory."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibisagent.io.files import reading

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Shards"]


class Shards:
    """Reads shards. It may be sent to another process, without what it holds.

    Parameters
    ----------
    most
        Shards that are held in memory.
    """

    def __init__(self, most: int = 64) -> None:
        self.most = most
        self._tables: OrderedDict[Path, pa.Table] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tables": OrderedDict()}

    def row(self, path: Path, number: int) -> dict[str, Any]:
        """A row of a shard.

        Raises
        ------
        InputError
            If the shard is missing or damaged.
        """
        import pyarrow.parquet as pq

        if path not in self._tables:
            with reading(path, "a shard of a corpus"):
                self._tables[path] = pq.read_table(path)
            while len(self._tables) > self.most:
                self._tables.popitem(last=False)
        self._tables.move_to_end(path)
        row: dict[str, Any] = self._tables[path].slice(number, 1).to_pylist()[0]
        return row
