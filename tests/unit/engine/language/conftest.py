from __future__ import annotations

import json
from pathlib import Path

import pytest

from ibisagent import phantoms

MINI = Path(__file__).parents[4] / "data/mini/cases.jsonl"


@pytest.fixture(scope="session")
def shown_in() -> dict[str, set[str]]:
    """Names of mini and the phantoms, with the modalities that show them."""
    homes: dict[str, set[str]] = {}
    for line in MINI.read_text().splitlines():
        row = json.loads(line)
        homes.setdefault(row["target"], set()).add(row["modality"])
    for kind in phantoms.KINDS:
        for seed in range(8):
            for name in phantoms.generate(kind, seed, 96).masks:
                homes.setdefault(name, set()).add(phantoms.MODALITIES[kind])
    return homes
