"""Shards: what is written comes back exactly, as rows that the data engine's own reader takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ibisagent.engine.corpus.reader import Corpus
from ibisagent.errors import InputError
from ibisagent.messages import build_messages
from ibisagent.policies.protocol import View
from ibisagent.segmenters.rules import RulesSegmenter
from ibisagent.train.nano_expert import synthesize
from ibisagent.train.nano_trajectories import SYSTEM_PROMPT, Trajectory, read_shards, shard_file, write_shard
from ibisagent.types import Case
from sample_scenes import disc_scene


@pytest.fixture(scope="module")
def many() -> list[Trajectory]:
    made = [synthesize(disc_scene(i), RulesSegmenter(), np.random.default_rng([1, i])) for i in range(20)]
    return [*made, synthesize(disc_scene(0, absent=True), RulesSegmenter(), np.random.default_rng(0))]


def test_a_shard_comes_back_exactly(many: list[Trajectory], tmp_path: Path) -> None:
    write_shard(tmp_path, 0, many[:9])
    write_shard(tmp_path, 1, many[9:])
    loaded = read_shards(tmp_path, 2)
    assert len(loaded) == len(many) and len(read_shards(tmp_path, 1)) == 9
    for a, b in zip(many, loaded, strict=True):
        assert np.array_equal(a.scene.image.pixels, b.scene.image.pixels) and b.scene.image.pixels.dtype == np.uint8
        assert a.scene.image.modality == b.scene.image.modality
        assert (a.scene.name, a.scene.home, a.scenario) == (b.scene.name, b.scene.home, b.scenario)
        assert (a.clicks, a.learn, a.kind_of_case) == (b.clicks, b.learn, b.kind_of_case)
        assert [m.intent for m in a.walk.moves] == [m.intent for m in b.walk.moves]
        assert a.walk.ious == pytest.approx(b.walk.ious, abs=1e-6)
        masks = [(t.scene.target, t.walk.initial_mask, *t.walk.masks) for t in (a, b)]
        for p, q in zip(*masks, strict=True):
            assert (p is None) == (q is None)
            assert p is None or (q is not None and q.dtype == np.bool_ and np.array_equal(p, q))


def test_the_record_that_comes_back_makes_the_same_conversation(many: list[Trajectory], tmp_path: Path) -> None:
    write_shard(tmp_path, 0, many)
    corpus = Corpus(tmp_path)
    for a, b, row in zip(many, read_shards(tmp_path, 1), corpus.rows("sft"), strict=True):
        for s, r in zip(a.episode.steps, b.episode.steps, strict=True):
            for name in ("raw_text", "thought", "action", "mask", "changed_pixels", "pixels_xy"):
                assert getattr(s, name) == getattr(r, name), name
        said = []
        for t in (a, b):
            case = Case(t.scene.image, t.episode.instruction, t.walk.initial_mask)
            said.append(build_messages(View(case, t.episode, None), SYSTEM_PROMPT))
        # What the run answers to a Terminate is not kept.
        for m, n, own in zip(*said, [*corpus.messages(row), said[0][-1]], strict=True):
            for p, q, o in zip(m["content"], n["content"], own["content"], strict=True):
                for x in (q, o):
                    assert np.array_equal(p["image"], x["image"]) if p["type"] == "image" else p == x


def test_a_damaged_shard_is_bad_input(many: list[Trajectory], tmp_path: Path) -> None:
    assert read_shards(tmp_path / "none", 1) == []
    write_shard(tmp_path, 0, many[:1])
    shard_file(tmp_path, 0, "images").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="train-00000"):
        read_shards(tmp_path, 1)
