"""Shards of corrections: nano acts first, on scenes that no trajectory was made of."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from ibisagent.actions import DIALECTS  # noqa: E402
from ibisagent.errors import InputError  # noqa: E402
from ibisagent.policies import nano  # noqa: E402
from ibisagent.policies.protocol import Reply  # noqa: E402
from ibisagent.segmenters import litemedsam  # noqa: E402
from ibisagent.segmenters.rules import RulesSegmenter  # noqa: E402
from ibisagent.train import nano_corpus  # noqa: E402
from ibisagent.train.nano_expert import synthesize  # noqa: E402
from ibisagent.train.nano_trajectories import read_shards, shard_file, write_shard  # noqa: E402

TEXT = "<think>x</think><action>Positive Point (0.5078, 0.5078)</action>"
MIDDLE = DIALECTS["plain"].parse(TEXT).action


class Clicker:
    """Always clicks in the middle."""

    name = "clicker"

    def act(self, views: Any, seed: int) -> list[Reply]:
        return [Reply(TEXT) for _ in views]


@pytest.fixture
def options(toy_cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    monkeypatch.setattr(nano_corpus, "SHARD", 2)
    monkeypatch.setattr(litemedsam, "LiteMedSamSegmenter", lambda clicknet: RulesSegmenter())
    monkeypatch.setattr(nano, "make", lambda folder, device: Clicker())
    return argparse.Namespace(
        cases=toy_cases, out=tmp_path, seed=0, all_images=False, instances=1.0, segmenter_weights=None,
        num_trajectories=3, num_corrections=4, kind="trajectories", part="0/1",
    )  # fmt: skip


def test_corrections_are_made_of_other_scenes_and_begin_with_the_policy(options: argparse.Namespace) -> None:
    threads = torch.get_num_threads()
    try:
        nano_corpus.write_part(options)
        options.kind = "corrections"
        nano_corpus.write_part(options)
    finally:
        torch.set_num_threads(threads)
    shards = [shard_file(options.out / "corrections", k) for k in range(2)]
    assert sorted(shards[0].parent.iterdir()) == shards
    plain, own = nano_corpus.read(options.out, 3, 0), nano_corpus.read(options.out, 3, 4)
    assert len(plain) == 4 and len(own) == 8
    scenes = nano_corpus.source(options, absent_share=0.0)
    for i, t in enumerate(own):
        # four of the first kind, then the next four
        assert t.scene.image.sha256 == scenes.scene(i).image.sha256
        assert t.kind_of_case.startswith("corrected ") == (i >= 4)
        assert t.scene.target is not None
    assert all(t.scenario == "correction" for t in own[4:])
    assert any(t.walk.moves[0].action == MIDDLE for t in own[4:])
    assert not any(move.action == MIDDLE for t in plain for move in t.walk.moves)


def test_reading_takes_no_more_shards_than_asked_for(options: argparse.Namespace) -> None:
    scenes = nano_corpus.source(options, absent_share=0.0)
    for k in range(3):
        item = synthesize(scenes.scene(k), RulesSegmenter(), np.random.default_rng(k))
        write_shard(options.out / "trajectories", k, [item])
    assert len(nano_corpus.read(options.out, 4, 0)) == 2
    assert len(nano_corpus.read(options.out, 100, 100)) == 3
    (first,) = read_shards(options.out / "trajectories", 1)
    assert first.scene.name and np.array_equal(first.scene.image.pixels, scenes.scene(0).image.pixels)


def test_a_folder_belongs_to_one_run(options: argparse.Namespace) -> None:
    nano_corpus.claim(options)
    nano_corpus.claim(options)
    options.seed = 1
    with pytest.raises(InputError, match="seed 0 and not 1: choose another --out"):
        nano_corpus.claim(options)
    options.cases = options.out / "broken.jsonl"
    options.cases.write_text('{"image": "x.png"')
    with pytest.raises(InputError, match=r"broken\.jsonl is no case list"):
        nano_corpus.claim(options)
    options.cases = options.out / "none.jsonl"
    with pytest.raises(InputError, match=r"cannot read .*none\.jsonl"):
        nano_corpus.claim(options)


@pytest.mark.slow
def test_a_worker_that_fails_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not nano_corpus.write(["--cases", str(tmp_path / "none.jsonl"), "--out", str(tmp_path)], 1, "trajectories")
    assert "writing the trajectories failed" in capsys.readouterr().err
