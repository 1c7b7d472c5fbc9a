"""A local Ray cluster with two workers makes the same bytes as processes do."""

from __future__ import annotations

from pathlib import Path

import pytest

from ibisagent.engine.builder.build import synthesize
from ibisagent.engine.builder.config import load_config
from ibisagent.errors import InputError

pytest.importorskip("ray")
pytestmark = pytest.mark.slow  # a cluster takes ten seconds to start; .ci/run runs this file by itself


def test_two_ray_workers_make_the_same_corpus(tmp_path: Path) -> None:
    config = load_config(
        ("phantoms:8?size=96",), segmenter="rules", teacher="terse", shard_images=2, filters={"min_final_dice": 0.5}
    )
    seen: list[int] = []
    ray = tmp_path / "ray"
    synthesize(config, ray, executor="ray", num_workers=2, on_progress=lambda done, total: seen.append(done))
    synthesize(config, tmp_path / "own", num_workers=1)
    files = {p.relative_to(tmp_path / "own") for p in (tmp_path / "own").rglob("*") if p.is_file()}
    assert {p.relative_to(tmp_path / "ray") for p in (tmp_path / "ray").rglob("*") if p.is_file()} == files
    for name in files - {Path("run.json")}:
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "own" / name).read_bytes(), name
    assert seen[0] == 0 and seen[-1] == 8 and sorted(seen) == seen and len(seen) == 5


def test_what_fails_on_a_worker_fails_here_in_one_line(tmp_path: Path) -> None:
    config = load_config(("phantoms:2?size=96",), segmenter="sam:/no/such/folder", teacher="terse")
    with pytest.raises(InputError, match="no/such/folder"):
        synthesize(config, tmp_path / "out", executor="ray", num_workers=2)
