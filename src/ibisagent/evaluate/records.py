"""Reading the folder of a run, as :mod:`ibisagent.evaluate.store` wrote it."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibisagent.episode import Episode
from ibisagent.errors import InputError
from ibisagent.evaluate.result import CaseResult
from ibisagent.rle import decode_mask
from ibisagent.scoring import score_episode

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "EPISODES", "IMAGES", "JOURNAL", "RUN", "SCHEMA_VERSION", "SUMMARY", "TABLE", "Run", "check_schema", "read_facts",
    "read_journal", "read_object", "read_run", "restore", "scored", "shown",
]  # fmt: skip

SCHEMA_VERSION = 1
"""Version of the folder. Added fields keep it; renamed, removed or reinterpreted ones raise it."""

RUN, JOURNAL, SUMMARY, TABLE = "run.json", "results.jsonl", "summary.json", "cases.csv"
EPISODES, IMAGES = "episodes", "images"
PROTOCOL_TABLES = "protocol-*.json"

SHA256 = re.compile(r"[0-9a-f]{64}")
"""What names a picture."""


@dataclass(frozen=True)
class Run:
    """A run as it was read from its folder, scored anew.

    Parameters
    ----------
    path
        The folder.
    facts
        What ``run.json`` says.
    results
        Scored, in the order of the list; of an unfinished run those that ended.
    """

    path: Path
    facts: dict[str, Any]
    results: list[CaseResult] = field(repr=False)

    @property
    def num_rows(self) -> int:
        """Rows of the list that the run is of; as many as there are results once it is finished."""
        number = self.facts.get("num_rows")
        return number if isinstance(number, int) else len(self.results)

    @property
    def is_complete(self) -> bool:
        """Whether every row has a result."""
        return len(self.results) == self.num_rows

    @property
    def max_steps(self) -> int:
        """Budget of its episodes."""
        number = self.facts.get("max_steps")
        if isinstance(number, int):
            return number
        return max((r.episode.max_steps for r in self.results if r.episode is not None), default=0)

    def image(self, result: CaseResult) -> NDArray[np.uint8] | None:
        """Pixels that a case was played on.

        Returns
        -------
        ``uint8`` (H, W, 3), or None where the run kept no images or the case was never played.

        Raises
        ------
        InputError
            If the picture is there and cannot be read.
        """
        if result.episode is None or not SHA256.fullmatch(result.episode.image.sha256):
            return None
        path = self.path / IMAGES / f"{result.episode.image.sha256}.png"
        if not path.is_file():
            return None
        import numpy as np
        import PIL.Image

        try:
            with PIL.Image.open(path) as picture:
                return np.asarray(picture.convert("RGB"), np.uint8)
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(f"{path} cannot be read: {error}") from None


def read_run(path: str | os.PathLike[str]) -> Run:
    """Read a run's folder and score its episodes anew; needs neither the data nor a model.

    Raises
    ------
    InputError
        If there is no run, it is of a newer schema, or a record in it is damaged.
    """
    folder = Path(path)
    facts = read_facts(folder)
    if facts is None:
        raise InputError(f"{folder} holds no run of ibisagent evaluate: there is no {RUN}")
    check_schema(folder, facts)
    records, _ = read_journal(folder)
    found = dict(restore(folder, record) for record in records)
    return Run(folder, facts, [found[position] for position in sorted(found)])


def read_facts(folder: Path) -> dict[str, Any] | None:
    """What run.json says; None where there is none. Raises as :func:`read_object`."""
    return read_object(folder / RUN)


def read_object(path: Path) -> dict[str, Any] | None:
    """A JSON object from a file; None where there is no such file.

    Raises
    ------
    InputError
        If the file cannot be read, or holds something else.
    """
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise InputError(f"{path} is damaged: it is not valid JSON") from None
    if not isinstance(found, dict):
        raise InputError(f"{path} is damaged: it is no JSON object")
    return found


def check_schema(folder: Path, facts: dict[str, Any]) -> None:
    """Refuse a run that this version cannot read.

    Raises
    ------
    InputError
        If its schema is unknown or not named.
    """
    version = facts.get("schema_version")
    if version is None:
        raise InputError(f"{folder} holds no run that can be read: its {RUN} has no schema_version")
    if version != SCHEMA_VERSION:
        shown = str(version)[:20]
        raise InputError(f"{folder} has schema version {shown}, this ibisagent reads {SCHEMA_VERSION}: use a newer one")


def read_journal(folder: Path) -> tuple[list[dict[str, Any]], int]:
    """Records of the journal, and how many bytes of it they are: what was cut off at its end is left out."""
    try:
        data = (folder / JOURNAL).read_bytes()
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise InputError(f"cannot read {folder / JOURNAL}: {error.strerror or error}") from None
    records: list[dict[str, Any]] = []
    lines = data.splitlines(keepends=True)
    good = 0
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line) if line.endswith(b"\n") else None
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict) or not isinstance(record.get("position"), int):
            if number == len(lines):
                break
            raise InputError(f"{folder / JOURNAL} line {number} is damaged")
        records.append(record)
        good += len(line)
    return records, good


def restore(folder: Path, record: dict[str, Any]) -> tuple[int, CaseResult]:
    """A journal's line as a scored result, with its place in the list."""
    name = record.get("episode")
    episode = None
    if name is not None:
        if not isinstance(name, str) or Path(name).name != name:
            raise InputError(f"{folder / JOURNAL}: {name!r} is no name of an episode")
        episode = Episode.load(folder / EPISODES / name)
    return record["position"], scored(CaseResult.from_json(record, episode))


def shown(value: Any) -> str:
    """A setting in a message: not longer than a line can bear."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def scored(result: CaseResult) -> CaseResult:
    """The result with the scores that its episode and its target mask give.

    Raises
    ------
    InputError
        If the mask is not of the image's size, or the run has not ended.
    """
    if result.episode is None:
        return replace(result, scores=None)
    target = None if result.target_mask is None else decode_mask(result.target_mask)
    try:
        return replace(result, scores=score_episode(result.episode, target))
    except ValueError as error:
        raise InputError(f"the record of {result.case_id} is damaged: {error}") from None
