"""The figures of a run, read from its ``log.jsonl``."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LOG", "History", "moving_mean", "read_history"]

LOG = "log.jsonl"
"""Name of the file in a run's folder."""


@dataclass(frozen=True)
class History:
    """What a run logged.

    Attributes
    ----------
    name
        Of the run's folder.
    path
        Of the log.
    values
        Metric -> update -> value; numbers only, not-a-numbers left out.
    """

    name: str
    path: Path
    values: dict[str, dict[int, float]]

    @property
    def is_rl(self) -> bool:
        """Whether runs were played (else it learnt from demonstrations)."""
        return "reward" in self.values or "reward/vqa" in self.values

    def series(self, metric: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Updates and values of a metric, ascending; empty if it was never logged."""
        points = sorted(self.values.get(metric, {}).items())
        steps = np.array([step for step, _ in points], np.int64)
        return steps, np.array([value for _, value in points], np.float64)


def read_history(place: str | Path) -> History:
    """Read the log of a run.

    Parameters
    ----------
    place
        The run's folder, or its log. A last line that a killed run left half written is passed over; of an update
        that was done twice, the later figures count.

    Raises
    ------
    InputError
        If there is no such file, a line is damaged, or nothing has been logged yet.
    """
    path = Path(place)
    if path.is_dir():
        path = path / LOG
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        what = f"{place} holds no {LOG}" if Path(place).is_dir() else f"there is no run {place}"
        raise InputError(f"{what}; name the folder that a training wrote to (--out)") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    values: dict[str, dict[int, float]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            step = record.pop("step")
            if not isinstance(step, int):
                raise TypeError
        except (ValueError, KeyError, TypeError, AttributeError):
            if number == len(lines):  # whole lines end in a line break, so this one was being written
                continue
            raise InputError(f"{path}: line {number} holds no figures of a training") from None
        for name, value in record.items():
            if _is_number(value):
                values.setdefault(name, {})[step] = float(value)
    if not values:
        raise InputError(f"{path} holds no figures yet")
    return History(path.resolve().parent.name, path, values)


def moving_mean(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Mean over the `width` values around each one; at the ends over the part of them that there is."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places, reach = np.arange(len(values)), max(width, 1) // 2
    first, last = np.maximum(places - reach, 0), np.minimum(places + reach + 1, len(values))
    return (sums[last] - sums[first]) / (last - first)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
