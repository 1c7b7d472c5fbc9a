"""What was used of a budget, counted together by all processes that share a folder, and kept between runs.

The ledger is a file of JSON lines. A request first sets aside the most that it may use; its answer then says what it
did use, and a refusal gives it back. A request whose process died in between stays set aside: its server may well
have worked, and charged, for it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ibisagent.engine.chat.budget import Budget, Use
from ibisagent.errors import InputError
from ibisagent.io.files import lock_file

__all__ = ["Ledger"]

log = logging.getLogger(__name__)


class Ledger:
    """The count of one folder's requests.

    Parameters
    ----------
    path
        The file, made when it is first needed. None counts for this object alone.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self._path = None if path is None else Path(path)
        self._thread = threading.Lock()
        self._offset = 0
        self._settled = Use()
        self._aside: dict[str, Use] = {}

    def reserve(self, further: Use, budget: Budget, **notes: str) -> str:
        """Set aside what a request may use.

        Parameters
        ----------
        further
            The most that it may use.
        budget
            What may be used in all.
        notes
            Written with it for the reader, for example the model.

        Returns
        -------
        str
            A name for :meth:`settle` and :meth:`release`.

        Raises
        ------
        BudgetError
            If the budget does not cover it; nothing is written then.
        InputError
            If the file cannot be read or written.
        """
        ticket = uuid.uuid4().hex
        with self._open() as file:
            budget.check(self._total(), further)
            self._write(file, {"do": "reserve", "id": ticket, **asdict(further), **notes})
        return ticket

    def settle(self, ticket: str, used: Use) -> None:
        """Replace what was set aside by what was used."""
        with self._open() as file:
            self._write(file, {"do": "settle", "id": ticket, **asdict(used)})

    def release(self, ticket: str) -> None:
        """Give back what was set aside: the server did nothing for it."""
        with self._open() as file:
            self._write(file, {"do": "release", "id": ticket})

    def total(self) -> Use:
        """All that was used or is set aside, by every process.

        Raises
        ------
        InputError
            If the file cannot be read.
        """
        with self._open():
            return self._total()

    def _total(self) -> Use:
        return sum(self._aside.values(), self._settled)

    @contextlib.contextmanager
    def _open(self) -> Iterator[int | None]:
        """Hold the lock, know all that others wrote, and yield the file; None without one."""
        with self._thread:
            if self._path is None:
                yield None
                return
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(self._path, flags, 0o666)
                try:
                    lock_file(descriptor)
                    self._read(descriptor)
                    yield descriptor
                finally:
                    os.close(descriptor)  # which also gives the lock back
            except OSError as error:
                raise InputError(
                    f"the ledger {self._path.name} of the chat cache: {error.strerror or error}"
                ) from error

    def _read(self, descriptor: int) -> None:
        """Take in the lines that were added since the last look."""
        size = os.fstat(descriptor).st_size
        if size < self._offset:  # someone cleared the file: count again
            self._offset, self._settled, self._aside = 0, Use(), {}
        if size == self._offset:
            return
        os.lseek(descriptor, self._offset, os.SEEK_SET)
        data = b""
        while len(data) < size - self._offset and (chunk := os.read(descriptor, size - self._offset - len(data))):
            data += chunk
        for line in data.split(b"\n"):
            self._take(line)
        if not data.endswith(b"\n"):  # the lock is ours, so its writer died within the line
            size += os.write(descriptor, b"\n")
        self._offset = size

    def _write(self, descriptor: int | None, entry: dict[str, Any]) -> None:
        line = json.dumps(entry, sort_keys=True).encode()
        if descriptor is not None:
            written = os.write(descriptor, line + b"\n")
            if written != len(line) + 1:
                raise OSError("the disk is full")
            self._offset += written
        self._take(line)

    def _take(self, line: bytes) -> None:
        if not line.strip():
            return
        try:
            entry = json.loads(line)
            ticket, what = entry["id"], entry["do"]
            use = Use()
            if what != "release":
                use = Use(
                    requests=int(entry["requests"]),
                    prompt_tokens=int(entry["prompt_tokens"]),
                    completion_tokens=int(entry["completion_tokens"]),
                    cost=float(entry["cost"]),
                )
        except (ValueError, KeyError, TypeError):
            log.warning("the ledger of the chat cache has a line that cannot be read; it is not counted")
            return
        if what == "reserve":
            self._aside[ticket] = use
        else:
            self._aside.pop(ticket, None)
            self._settled += use

