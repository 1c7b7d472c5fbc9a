"""Scripts of replies and what a command did; shared by the command line's tests."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

CLICK = "<think>I click inside.</think><action>Positive Point (0.4688, 0.5000)</action>"
OTHER = "<think>More.</think><action>Positive Point (0.3000, 0.4000)</action>"


def stop(answer: str) -> str:
    return f"<think>That is it.</think><action>Terminate</action><answer>{answer}</answer>"


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one object on standard output."""
        return json.loads(self.out)

    def assert_refused(self, *words: str) -> None:
        """Exit 2, one line, nothing on standard output."""
        assert (self.code, self.out) == (2, ""), self
        assert self.err.startswith("ibisagent: error: ") and self.err.count("\n") == 1, self.err
        for word in words:
            assert word in self.err, self.err


def save(path: Path, array: np.ndarray) -> Path:
    PIL.Image.fromarray(array).save(path)
    return path
