"""What a person decided about trajectories: a file of JSON lines that the build honours.

One line is ``{"trajectory_id": "…", "decision": "accept", "note": "…", "who": "…"}``, where `note` and `who` may be
left out. Lines are only ever added, and the last line about a trajectory holds; ``"undecided"`` takes an earlier
decision back. So two people, or a page and a script, can write to one file, and nothing that was said is lost.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ibisagent.errors import InputError
from ibisagent.io.files import atomic_write, display_name, lock_file, one_line

__all__ = ["MAX_NOTE_CHARS", "Decision", "Decisions", "append_decision"]

MAX_NOTE_CHARS = 4000
"""Longest note."""


class Decision(BaseModel):
    """One line of the file.

    Parameters
    ----------
    trajectory_id
        Of the table ``sft``.
    decision
        ``"reject"`` leaves the trajectory out of the next build; ``"undecided"`` takes an earlier decision back.
    note
        Why, in a person's words.
    who
        Who decided.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    trajectory_id: str = Field(min_length=1, max_length=1000)
    decision: Literal["accept", "reject", "undecided"]
    note: str = Field(default="", max_length=MAX_NOTE_CHARS)
    who: str = Field(default="", max_length=200)

    def to_line(self) -> str:
        """One line of JSON without its line break; an empty `who` is left out."""
        fields = self.model_dump()
        if not self.who:
            del fields["who"]
        return json.dumps(fields, ensure_ascii=False)


class Decisions:
    """The decisions that hold, in the order in which their trajectories were first spoken of.

    Parameters
    ----------
    lines
        As they were written; the last one about a trajectory holds. One that says only ``"undecided"`` is kept for
        its note.
    """

    def __init__(self, lines: Iterable[Decision] = ()) -> None:
        self._held: dict[str, Decision] = {}
        for line in lines:
            self._held[line.trajectory_id] = line

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Decisions:
        """Read a file.

        Raises
        ------
        InputError
            If it cannot be read, or a line is damaged; the message has the line's number.
        """
        return cls(_lines(path))

    @property
    def rejected_ids(self) -> frozenset[str]:
        """Trajectories that must not be built or exported."""
        return self._with("reject")

    @property
    def accepted_ids(self) -> frozenset[str]:
        """Trajectories that a person has looked at and found good."""
        return self._with("accept")

    def get(self, trajectory_id: str) -> Decision | None:
        """What holds for a trajectory, or None if nobody spoke of it."""
        return self._held.get(trajectory_id)

    def __iter__(self) -> Iterator[Decision]:
        return iter(self._held.values())

    def __len__(self) -> int:
        return len(self._held)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Decisions) and self._held == other._held

    __hash__ = None  # type: ignore[assignment]

    def merge(self, other: Decisions) -> Decisions:
        """Both files' decisions; where both speak of a trajectory, `other` holds."""
        return Decisions([*self, *other])

    def conflicts(self, other: Decisions) -> list[str]:
        """Trajectories that one file accepts and the other rejects, sorted: for people to talk about."""
        return sorted(
            (self.accepted_ids & other.rejected_ids) | (self.rejected_ids & other.accepted_ids),
        )

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write a file with one line a trajectory, whole or not at all.

        Raises
        ------
        InputError
            If it cannot be written.
        """
        with atomic_write(path) as file:
            file.write("".join(f"{line.to_line()}\n" for line in self).encode("utf-8"))

    def _with(self, decision: str) -> frozenset[str]:
        return frozenset(name for name, line in self._held.items() if line.decision == decision)


def append_decision(path: str | os.PathLike[str], decision: Decision) -> None:
    """Add a line to a file, which is made if there is none; when this returns, the line is on the disk.

    Other processes may append at the same time: each line is written under a lock (where the system has ``flock``),
    and a line that could not be written whole is taken away again.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    data = f"{decision.to_line()}\n".encode()
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        try:
            lock_file(descriptor)
            size = os.fstat(descriptor).st_size
            if size and not _ends_a_line(descriptor, size):  # written by hand: do not glue two lines together
                data = b"\n" + data
            try:
                written = os.write(descriptor, data)
                if written != len(data):
                    raise OSError("the disk is full")
                os.fsync(descriptor)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)  # which also gives the lock back
    except (OSError, ValueError) as error:
        raise InputError(
            f"{display_name(path)}: cannot be written ({one_line(getattr(error, 'strerror', None) or error)}); "
            "choose a writable file"
        ) from error



def _ends_a_line(descriptor: int, size: int) -> bool:
    os.lseek(descriptor, size - 1, os.SEEK_SET)
    return os.read(descriptor, 1) == b"\n"


def _lines(path: str | os.PathLike[str]) -> Iterator[Decision]:
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = one_line(getattr(error, "strerror", None) or error)
        raise InputError(f"{display_name(path)}: cannot be read ({reason}); check the path") from error
    # Bytes are split at line feeds alone: a note may hold any other character that Unicode calls a line's end.
    for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not raw.strip():
            continue
        try:
            yield Decision.model_validate(json.loads(raw.decode("utf-8")))
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{display_name(path)}, line {number}: not a decision ({_reason(error)}); "
                'a line is {"trajectory_id": "…", "decision": "accept" or "reject", "note": "…"}'
            ) from None


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        return one_line(f"{place}: {first['msg']}" if place else first["msg"])
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    return "not JSON"
