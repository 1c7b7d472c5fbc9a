"""The measured coverage, in short; ``benchmarks/coverage.py`` measures it at length."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("coverage_bench", ROOT / "benchmarks" / "coverage.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("law", ["symmetric", "failing", "rate-0.95"])
def test_intervals_of_fifty_clusters_cover(bench: ModuleType, law: str) -> None:
    found = bench.coverage(bench.LAWS[law], 50, 120, seed=3)
    assert 0.89 <= found["coverage"] <= 1.0  # 95%, less three standard errors of so few data sets
    assert found["coverage"] >= found["percentile_coverage"]
    # And are no longer than what was published (over 2,000 data sets), give or take a tenth: [0, 1] would hold it, too.
    published = json.loads((ROOT / "docs" / "results" / "coverage.json").read_text(encoding="utf-8"))["intervals"]["50"]
    assert found["mean_width"] == pytest.approx(published[law]["mean_width"], rel=0.1)
    assert published[law]["mean_width"] < 0.1


def test_what_was_published_meets_the_bar(bench: ModuleType) -> None:
    told = json.loads((ROOT / "docs" / "results" / "coverage.json").read_text(encoding="utf-8"))
    rows = told["intervals"]["50"]
    assert set(rows) == {*bench.LAWS, *bench.MACRO} and told["draws_of_50"] == 2000
    assert all(0.93 <= row["coverage"] <= 0.97 for row in rows.values() if row["in_bar"])
    assert told["bar"]["met"]
