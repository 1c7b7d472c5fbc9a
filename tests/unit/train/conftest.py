"""Tiny vision-language models, made once, for all kinds of training."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of a tiny model of a kind, ``qwen2_5_vl`` or ``qwen3_vl``."""
    path = Path(__file__).parents[1] / "policies" / "tiny_vlms.py"
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
