"""A lab as it was played: its arms, each an ordinary run, scored anew from its episodes."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibisagent.errors import InputError
from ibisagent.evaluate.arms.arm import AGENT
from ibisagent.evaluate.arms.play import ARMS, LAB, read_lab_facts
from ibisagent.evaluate.store import RUN, Run, read_run

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ibisagent.evaluate.result import CaseResult

__all__ = ["Lab", "is_lab", "read_lab"]


@dataclass(frozen=True)
class Lab:
    """A lab.

    Parameters
    ----------
    path
        Its folder.
    facts
        What ``lab.json`` says.
    arms
        Runs by the arm's name, in the order in which they were played; those that were skipped or have no case yet
        are missing.
    """

    path: Path
    facts: dict[str, Any]
    arms: dict[str, Run] = field(repr=False)

    @property
    def agent(self) -> Run | None:
        """The plain run; None if it is not there."""
        return self.arms.get(AGENT)

    @property
    def is_complete(self) -> bool:
        """Whether every arm that could be played has a result for every row."""
        told = self.facts["arms"]
        return all(about.get("skipped") or (name in self.arms and self.arms[name].is_complete)
                   for name, about in told.items())  # fmt: skip

    def about(self, name: str) -> dict[str, Any]:
        """What ``lab.json`` says of an arm: kind, title, about, against, notes, left_out, seconds …"""
        found = self.facts["arms"].get(name)
        return found if isinstance(found, dict) else {}

    def image(self, result: CaseResult) -> NDArray[np.uint8] | None:
        """Pixels that a case of any arm was played on: every arm's pictures are kept once.

        Raises
        ------
        InputError
            As :meth:`ibisagent.evaluate.store.Run.image`.
        """
        for run in self.arms.values():
            pixels = run.image(result)
            if pixels is not None:
                return pixels
        return None


def is_lab(path: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a lab."""
    return (Path(path) / LAB).is_file()


def read_lab(path: str | os.PathLike[str]) -> Lab:
    """Read a lab and score its episodes anew; needs neither the data nor a model. A lab may be unfinished.

    Raises
    ------
    InputError
        If there is no lab, it is of a newer schema, or a record in it is damaged.
    """
    folder = Path(path)
    facts = read_lab_facts(folder)
    if facts is None:
        raise InputError(f"{folder} holds no lab of ibisagent evaluate --arms: there is no {LAB}")
    arms = {}
    for name, about in facts["arms"].items():
        place = folder / ARMS / str(name)
        if isinstance(about, dict) and not about.get("skipped") and (place / RUN).is_file():
            arms[str(name)] = read_run(place)
    return Lab(folder, facts, arms)
