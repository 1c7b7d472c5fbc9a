"""Tiny models and a small corpus of the real environment, made once; runs of ``train sft`` in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sample_corpus import write_sample_corpus


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sft") / "corpus"
    write_sample_corpus(folder)
    return folder


@pytest.fixture
def train(corpus: Path) -> Callable[..., int]:
    """``train(out, "--flag", value, …)`` runs ``train sft`` on the corpus with the preset ``tiny``."""
    from ibisagent.train.sft.run import main

    def run(out: Path, *words: Any) -> int:
        head = ["--preset", "tiny", "--corpus", str(corpus), "--device", "cpu", "--out", str(out)]
        return main(head + [str(word) for word in words])

    return run


@pytest.fixture
def losses() -> Callable[[Path], dict[int, float]]:
    """Loss of every step of a run."""

    def read(out: Path) -> dict[int, float]:
        rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        return {row["step"]: row["loss"] for row in rows if "loss" in row}

    return read
