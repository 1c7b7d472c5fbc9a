"""Tiny models and a small corpus of the real environment, made once; runs of ``train sft`` in this process."""

from __future__ import annotations

import importlib.util
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


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of a tiny model of a kind, ``qwen2_5_vl`` or ``qwen3_vl``."""
    path = Path(__file__).parents[2] / "policies" / "tiny_vlms.py"
    spec = importlib.util.spec_from_file_location("tiny_vlms", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in made:
            made[kind] = module.make_vlm(kind, tmp_path_factory.mktemp("tiny") / kind)
        return made[kind]

    return make


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
