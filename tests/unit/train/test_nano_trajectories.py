"""Shards: what is written comes back exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ibisagent.errors import InputError
from ibisagent.segmenters.rules import RulesSegmenter
from ibisagent.train.nano_expert import synthesize
from ibisagent.train.nano_trajectories import Trajectory, read_shard, write_shard
from sample_scenes import disc_scene


@pytest.fixture(scope="module")
def many() -> list[Trajectory]:
    return [synthesize(disc_scene(i), RulesSegmenter(), np.random.default_rng([1, i])) for i in range(20)]


def test_a_shard_comes_back_exactly(many: list[Trajectory], tmp_path: Path) -> None:
    items = [*many[:20], synthesize(disc_scene(0, absent=True), RulesSegmenter(), np.random.default_rng(0))]
    path = tmp_path / "00000.jsonl"
    write_shard(path, items)
    assert [p.name for p in tmp_path.iterdir()] == ["00000.jsonl"]
    loaded = read_shard(path)
    assert len(loaded) == len(items)
    for a, b in zip(items, loaded, strict=True):
        assert np.array_equal(a.pixels, b.pixels) and b.pixels.dtype == np.uint8
        assert a.episode == b.episode
        for name in ("clicks", "learn", "target_name", "modality", "kind_of_case", "turn", "ious"):
            assert getattr(a, name) == getattr(b, name), name
        for p, q in zip([*a.masks, a.target, a.initial_mask], [*b.masks, b.target, b.initial_mask], strict=True):
            assert (p is None) == (q is None)
            assert p is None or (q is not None and q.dtype == np.bool_ and np.array_equal(p, q))


def test_a_shard_with_a_broken_image_is_bad_input(many: list[Trajectory], tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    write_shard(path, many[:1])
    text = path.read_text()
    at = text.index('"image_png": "') + 14
    path.write_text(text[:at] + "AAAA" + text[at + 4 :])
    with pytest.raises(InputError, match=r"x\.jsonl"):
        read_shard(path)
