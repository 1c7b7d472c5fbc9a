"""The one entrance to all converters."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ibisagent.engine.corpus.reader import Corpus
from ibisagent.errors import InputError
from ibisagent.io.files import one_line

__all__ = ["FORMATS", "Conversion", "Writer", "convert"]


@dataclass(frozen=True)
class Conversion:
    """What was written.

    Parameters
    ----------
    to, table
        Format, and the table that was read.
    files
        The files that a trainer is pointed at, in order.
    num_rows, num_examples
        Rows read, and examples written: more, where a trajectory became one example a reply.
    notes
        Lines for the user: what the format could not say.
    """

    to: str
    table: str
    files: tuple[Path, ...]
    num_rows: int
    num_examples: int
    notes: tuple[str, ...] = ()


Writer = Callable[[Corpus, str, str | None, Path, bool], Conversion]
"""(corpus, table, split, out, per_turn) -> what was written."""


@dataclass(frozen=True)
class _Format:
    tables: tuple[str, ...]
    """That it can be written from; the first is the default."""
    per_turn: bool
    """Default of `per_turn`."""


FORMATS: dict[str, _Format] = {
    "trl": _Format(("sft", "rl", "test", "vqa"), per_turn=False),
    "llamafactory": _Format(("sft", "vqa"), per_turn=True),
    "verl": _Format(("rl", "test", "vqa"), per_turn=False),
    "mini": _Format(("test", "rl", "sft"), per_turn=False),
}
"""Formats by name."""


def convert(
    folder: str | os.PathLike[str],
    to: str,
    out: str | os.PathLike[str],
    split: str | None = None,
    table: str | None = None,
    per_turn: bool | None = None,
) -> Conversion:
    """Write a table of a corpus in another format.

    Parameters
    ----------
    folder
        The corpus.
    to
        One of :data:`FORMATS`; each format's module says what it keeps and what it cannot say.
    out
        Folder to write to; made if it is missing. Files of the same names are overwritten, others stay.
    split
        Only this split; all if None.
    table
        Which table; the format's first if None (``sft`` for trl and llamafactory, ``rl`` for verl, ``test`` for mini).
    per_turn
        For ``sft``: write one example for every reply that is learnt, with all that came before it as its prompt,
        so that trainers without masks for single replies learn the right ones. None takes the format's default
        (yes for llamafactory, no for trl, whose messages carry a flag).

    Raises
    ------
    InputError
        If the format is unknown, has no use for the table, the corpus cannot be read, or `out` cannot be written.
    """
    if to not in FORMATS:
        raise InputError(f"no format '{one_line(to, 30)}'; there is {', '.join(FORMATS)}")
    kind = FORMATS[to]
    table = kind.tables[0] if table is None else table
    if table not in kind.tables:
        raise InputError(f"{to} has no use for the table '{one_line(table, 30)}'; give one of {', '.join(kind.tables)}")
    per_turn = kind.per_turn if per_turn is None else per_turn
    corpus, place = Corpus(folder), Path(out)
    corpus.shards(table, split)  # that it is there, before anything is made
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{place}: cannot be made ({error.strerror or error}); choose a writable folder") from None
    return _writer(to)(corpus, table, split, place, per_turn and table == "sft")


def _writer(to: str) -> Writer:
    from ibisagent.engine.corpus.converters import llamafactory, mini, trl, verl

    return {"trl": trl.write, "llamafactory": llamafactory.write, "verl": verl.write, "mini": mini.write}[to]
