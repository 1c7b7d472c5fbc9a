"""A small picture with a bright square, its masks, scripts of replies, and ``main`` with what it printed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # whichever import mode pytest runs in

from cli_samples import Ran, save

from ibisagent.cli import main


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    def call(*argv: object) -> Ran:
        code = main([str(a) for a in argv])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return call


@pytest.fixture
def square() -> np.ndarray:
    pixels = np.full((48, 64), 20, np.uint8)
    pixels[12:36, 16:44] = 200
    return pixels


@pytest.fixture
def folder(tmp_path: Path, square: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Working folder with ``image.png``, ``target.png`` and ``empty.png``."""
    save(tmp_path / "image.png", square)
    save(tmp_path / "target.png", (square > 100).astype(np.uint8) * 255)
    save(tmp_path / "empty.png", np.zeros_like(square))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def script(folder: Path) -> Callable[..., str]:
    def write(*replies: str) -> str:
        (folder / "script.json").write_text(json.dumps(replies))
        return f"scripted:{folder / 'script.json'}"

    return write
