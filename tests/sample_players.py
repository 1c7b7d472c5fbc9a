"""Players without models, for tests of workers: importable, so that another process can unpickle them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ibisagent.errors import InputError
from ibisagent.evaluate.result import CaseResult
from ibisagent.evaluate.run import Played
from ibisagent.geometry import Geometry
from ibisagent.types import Image


@dataclass
class Fake:
    """Plays a position by naming it; three of them share an image. It fails or dies where it is told to."""

    fails_at: int | None = None
    dies_at: int | None = None
    cannot_load: bool = False
    own_facts: bool = False

    def load(self) -> tuple[dict[str, Any], dict[str, Any]]:
        if self.cannot_load:
            raise InputError("there is no such policy")
        return {"policy": "fake", **({"weights": os.getpid()} if self.own_facts else {})}, {
            "batch": 1,
            "pid": os.getpid(),
        }

    def play(self, positions: Iterable[int]) -> Iterator[Played]:
        for position in positions:
            if position == self.dies_at:
                os._exit(7)
            if position == self.fails_at:
                raise RuntimeError("a fault of the model")
            image = Image(np.full((2, 3, 3), position // 3, np.uint8), Geometry.plane_2d())
            yield Played(position, CaseResult(f"c{position}", error=f"by {os.getpid()}"), image)

    def name_of_image(self, position: int) -> str | None:
        return f"image {position // 3}"
