"""What a run on a volume has done so far, a line a visit, so that an interrupted run goes on where it was."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError

from ibisagent.errors import InputError
from ibisagent.io.files import claim_file
from ibisagent.volume.record import Visit

__all__ = ["Journal"]


class Journal:
    """Visits on disk, in the order in which they were made. The run asks for each before it makes it.

    Parameters
    ----------
    path
        The file; None keeps nothing. Its first line says what run it is of.
    run
        What must be equal for a visit to be one of this run: instruction, hashes of weights, settings, grid.

    Raises
    ------
    InputError
        If the file is of another run, another process is writing it, or it cannot be written.
    """

    def __init__(self, path: Path | None, run: dict[str, Any]) -> None:
        self._kept: list[Visit] = []
        self._ends: list[int] = []  # bytes up to the end of each of them
        self._begin = self._next = 0
        self._path, self._is_new = path, False
        self._file: IO[str] | None = None
        if path is None:
            return
        head = json.dumps({"run": run}, sort_keys=True)
        try:
            self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - closed by close()
            claim_file(self._file.fileno(), path)
            length = self._read(path, head)
            self._is_new = length == 0
            self._file.truncate(length)
            if length == 0:
                self._write(head)
        except InputError:
            self.close()
            raise
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror or error}); choose another folder") from None

    @property
    def num_kept(self) -> int:
        """Visits of an earlier start."""
        return len(self._kept)

    def take(self, kind: str, plane: str, index: int, carried_from: int | None = None) -> Visit | None:
        """The visit that an earlier start made at this point, or None if it did not come so far."""
        if self._next >= len(self._kept):
            return None
        visit = self._kept[self._next]
        if (visit.kind, visit.plane, visit.index, visit.carried_from) != (kind, plane, index, carried_from):
            # Time budgets may end a run elsewhere; what does not follow any more is not used, nor in the way next time.
            if self._file is not None:
                self._file.truncate(self._ends[self._next - 1] if self._next else self._begin)
            self._kept = self._kept[: self._next]
            return None
        self._next += 1
        return visit

    def add(self, visit: Visit) -> None:
        """Keep a visit that was made now."""
        if self._file is not None:
            self._write(visit.model_dump_json())
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; it stays."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def discard(self) -> None:
        """Close the file and remove it, unless an earlier start began it: then it stays as it is."""
        self.close()
        if self._path is not None and self._is_new:
            self._path.unlink(missing_ok=True)

    def _write(self, line: str) -> None:
        assert self._file is not None
        self._file.write(line + "\n")

    def _read(self, path: Path, head: str) -> int:
        """Read what is there; bytes of whole lines. A line that was cut off does not count."""
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return 0
        lines = data.split(b"\n")[:-1]
        if not lines:
            return 0
        if lines[0].decode("utf-8", "replace") != head:
            raise InputError(f"{path}: of another run (other settings or data); remove it, or choose another --out")
        length = self._begin = len(lines[0]) + 1
        for line in lines[1:]:
            try:
                self._kept.append(Visit.model_validate_json(line))
            except ValidationError:
                break
            length += len(line) + 1
            self._ends.append(length)
        return length
