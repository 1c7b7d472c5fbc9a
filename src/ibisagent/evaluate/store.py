"""The folder of a run: everything that scoring it again needs, written case by case.

- ``run.json``: schema version, settings (what was asked for, hashes of weights and list), sessions (where it was run).
- ``results.jsonl``: one line a case as it ends (:meth:`CaseResult.to_json`, its place in the list, its episode's file).
- ``episodes/``: the runs; ``images/``: the pixels that were looked at, once each, by their hash.
- ``summary.json`` and ``cases.csv``: derived, written last. A folder without them is not finished.

A line of the journal is written after what it names, so a process that is killed at any moment loses the cases in play
and no others; the same settings go on with such a folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ibisagent import __version__
from ibisagent.errors import InputError
from ibisagent.evaluate.environment import describe_environment, differences
from ibisagent.evaluate.records import (
    EPISODES,
    IMAGES,
    JOURNAL,
    PROTOCOL_TABLES,
    RUN,
    SCHEMA_VERSION,
    SHA256,
    SUMMARY,
    TABLE,
    Run,
    check_schema,
    read_facts,
    read_journal,
    read_run,
    restore,
    shown,
)
from ibisagent.evaluate.result import CaseResult
from ibisagent.io.files import claim_file
from ibisagent.rendering.png import png_bytes, write_atomic

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["SCHEMA_VERSION", "Run", "RunFolder", "read_run", "write_json"]

_FOUND = ("leakage",)
_ABOUT_ITSELF = ("schema_version", "sessions", *_FOUND)
_EPISODE, _PICTURE = re.compile(r"[0-9]{5,}_.*\.json"), re.compile(r"[0-9a-f]{64}\.png")
_WAYS_OUT = "--overwrite removes it, or choose another --out"


class RunFolder:
    """A run's folder that is being written. Made by :meth:`open`.

    Attributes
    ----------
    path
        The folder.
    facts
        As ``run.json`` has them.
    done
        Results of earlier sessions and of this one by their place in the list, scored.
    """

    def __init__(
        self, path: Path, facts: dict[str, Any], done: dict[int, CaseResult], journal: IO[bytes], *, keep_images: bool
    ) -> None:
        self.path, self.facts, self.done, self.keep_images = path, facts, done, keep_images
        self._journal = journal
        self._opened = time.monotonic()

    @property
    def changes(self) -> str:
        """What of this session's circumstances differs from the first one's and may change a digit; else empty."""
        sessions = self.facts["sessions"]
        return differences(sessions[0], sessions[-1]) if sessions else ""

    @classmethod
    def open(
        cls,
        out: str | os.PathLike[str],
        facts: dict[str, Any],
        *,
        environment: dict[str, Any] | None = None,
        keep_images: bool = True,
        overwrite: bool = False,
    ) -> RunFolder:
        """Begin a run, or go on with one of the same settings.

        Parameters
        ----------
        out
            Folder; made if need be. Other files in it stay.
        facts
            Settings: everything that the results depend on, as JSON can say it, with ``max_steps``, and ``num_rows``,
            the length of the list.
        environment
            Where this session runs; by default :func:`describe_environment`. It may differ between sessions, and each
            is recorded.
        keep_images
            Whether the pixels are stored too.
        overwrite
            Whether another run in the folder is removed; else that is an error.

        Raises
        ------
        InputError
            If the folder holds a run with other settings or of another schema, another process is writing it, or it
            cannot be written.
        """
        path = Path(out)
        settings = json.loads(json.dumps({"ibisagent_version": __version__, **facts}))
        _known(path, settings, overwrite)  # a refusal writes nothing
        with _writing(path):
            path.mkdir(parents=True, exist_ok=True)
            journal = (path / JOURNAL).open("ab")
        try:
            with _writing(path):
                claim_file(journal.fileno(), path)
                known = _known(path, settings, overwrite)  # what another process has written meanwhile
                if known is None:
                    _clear(path)
                    known = {"schema_version": SCHEMA_VERSION, **settings, "sessions": []}
                records, good = read_journal(path)
                os.truncate(path / JOURNAL, good)
                done = _done(path, records)
                if not known["sessions"] or len(done) < settings.get("num_rows", len(done) + 1):
                    place = describe_environment() if environment is None else environment
                    session = json.loads(json.dumps({**place, "begun_with": len(done)}))
                    known["sessions"] = [*known["sessions"], session]
                    write_json(known, path / RUN)
                (path / EPISODES).mkdir(exist_ok=True)
        except BaseException:
            journal.close()
            raise
        return cls(path, known, done, journal, keep_images=keep_images)

    def append(self, position: int, result: CaseResult, image: NDArray[np.uint8] | bytes | None = None) -> None:
        """Keep a case that has ended; on return it is on the disk.

        Parameters
        ----------
        position
            Its place in the list, from 0.
        result
            What came of it.
        image
            ``uint8`` (H, W, 3) pixels, or those as a PNG file's bytes; None keeps no picture of it.

        Raises
        ------
        InputError
            If the disk is full or the folder has gone.
        """
        record: dict[str, Any] = {"position": position, **result.to_json(), "episode": None}
        with _writing(self.path):
            if result.episode is not None:
                name = f"{position:05d}_{_safe(result.case_id or '')}.json"
                result.episode.save(self.path / EPISODES / name)
                _sync(self.path / EPISODES / name)
                record["episode"] = name
                self._keep_image(result.episode.image.sha256, image)
            self._journal.write(json.dumps(record).encode() + b"\n")
            self._journal.flush()
            os.fsync(self._journal.fileno())
        self.done[position] = result

    def has_image(self, sha256: str) -> bool:
        """Whether nobody needs to send the pixels of that hash: they are stored, or are not to be."""
        return not self.keep_images or (self.path / IMAGES / f"{sha256}.png").exists()

    def _keep_image(self, sha256: str, image: NDArray[np.uint8] | bytes | None) -> None:
        if image is None or not SHA256.fullmatch(sha256) or self.has_image(sha256):
            return
        place = self.path / IMAGES / f"{sha256}.png"
        place.parent.mkdir(exist_ok=True)
        write_atomic(image if isinstance(image, bytes) else png_bytes(image), place)
        _sync(place)

    def note(self, name: str, found: Any) -> None:
        """Write into ``run.json`` what was found out about the run and is no setting: ``leakage``."""
        if name not in _FOUND:
            raise ValueError(f"{name} is none of {_FOUND}")
        with _writing(self.path):
            self.facts[name] = json.loads(json.dumps(found))
            write_json(self.facts, self.path / RUN)

    def results(self) -> list[CaseResult]:
        """Everything that has ended, in the order of the list."""
        return [self.done[position] for position in sorted(self.done)]

    def finish(self, summary: dict[str, Any]) -> None:
        """Put the journal in the order of the list and write what is derived from it; the folder is closed.

        So the folder of a run that was interrupted, or played by several processes, is that of one that was not.
        """
        from ibisagent.evaluate.summary import cases_csv

        with _writing(self.path):
            session = self.facts["sessions"][-1]
            if "seconds" not in session:  # wall-clock, of a session that came to the end
                session["seconds"] = round(time.monotonic() - self._opened, 1)
                write_json(self.facts, self.path / RUN)
            lines = {record["position"]: record for record in read_journal(self.path)[0]}
            text = "".join(json.dumps(lines[position]) + "\n" for position in sorted(lines))
            write_atomic(text.encode(), self.path / JOURNAL)
            table = cases_csv(self.results(), self.facts["max_steps"])
            write_atomic(table.encode("utf-8", "replace"), self.path / TABLE)
            write_json(summary, self.path / SUMMARY)
        self.close()

    def close(self) -> None:
        """Let go of the folder; the same settings may go on with it."""
        self._journal.close()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def write_json(content: Any, path: Path) -> None:
    """Write JSON for people and programs, whole or not at all."""
    write_atomic((json.dumps(content, indent=1) + "\n").encode(), path)


def _known(path: Path, settings: dict[str, Any], overwrite: bool) -> dict[str, Any] | None:
    """Facts of the run to go on with; None to begin.

    Raises
    ------
    InputError
        If there is a run that is not of these settings, and it is not to be overwritten.
    """
    if overwrite:
        return None
    known = read_facts(path)
    if known is None:
        if (path / JOURNAL).is_file() and (path / JOURNAL).stat().st_size:
            raise InputError(f"{path} has a {JOURNAL} and no {RUN}; {_WAYS_OUT}")
        return None
    if known.get("schema_version") is None:
        raise InputError(f"{path} holds results of another kind or of an older ibisagent; {_WAYS_OUT}")
    check_schema(path, known)
    before = {name: value for name, value in known.items() if name not in _ABOUT_ITSELF}
    for name in {**settings, **before}:
        if settings.get(name) != before.get(name):
            was, now = shown(before.get(name)), shown(settings.get(name))
            raise InputError(f"{path} holds a run with {name} {was}, not {now}; {_WAYS_OUT}")
    return known


def _done(path: Path, records: list[dict[str, Any]]) -> dict[int, CaseResult]:
    done: dict[int, CaseResult] = {}
    for record in records:
        try:
            position, result = restore(path, record)
        except InputError:
            continue  # its episode is lost or damaged, so the case is played again, and its later line counts
        done[position] = result
    return done


def _clear(path: Path) -> None:
    """Remove what an earlier run left, by the names that runs give: the folders may hold things of somebody else."""
    os.truncate(path / JOURNAL, 0)  # not removed: it is locked
    if not (path / RUN).is_file():
        return
    for folder, ours in ((EPISODES, _EPISODE), (IMAGES, _PICTURE)):
        for file in (path / folder).iterdir() if (path / folder).is_dir() else ():
            if ours.fullmatch(file.name):
                file.unlink()
        with contextlib.suppress(OSError):
            (path / folder).rmdir()  # if it is empty now
    for file in path.glob(PROTOCOL_TABLES):
        file.unlink()
    for name in (SUMMARY, TABLE, RUN):  # run.json last: it says whose the rest is
        (path / name).unlink(missing_ok=True)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"--out {path}: {error.strerror or error}") from None


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)[:100]
