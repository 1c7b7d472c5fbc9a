"""Figures of a batch of runs, against figures counted by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("torch")

from ibisagent.scoring import score_episode
from ibisagent.train.rl.measures import measure
from sample_rl import ABSENT, FOUND, INSIDE, OUTSIDE, CountingSegmenter


def test_by_hand(
    make_player: Callable[..., Any], scripted: Callable[..., Any], disc_prompt: Any, absent_prompt: Any
) -> None:
    player = make_player(CountingSegmenter(broken_row=43), max_steps=3)
    script = {
        "0/0": [INSIDE, FOUND],
        "0/1": ["nonsense", "nonsense…", ABSENT],
        "0/2": [OUTSIDE],  # the tool fails
        "1/0": [ABSENT],
        "1/1": [ABSENT],
        "1/2": [ABSENT],
    }
    rollouts = player.play([disc_prompt, absent_prompt], 3, scripted(script), seed=0)
    got = measure(rollouts, player.rubric, 3)
    assert set(got) > {f"reward/{name}" for name in player.rubric.names}
    totals = [r.breakdown.total for r in rollouts if r.breakdown.total is not None]
    assert got["reward"] == pytest.approx(sum(totals) / 5) and got["reward_std"] > 0
    assert got["failed"] == pytest.approx(1 / 6) and got["truncated"] == pytest.approx(1 / 6)
    assert got["groups_alike"] == 0.5  # all of the second group refused
    found = score_episode(rollouts[0].episode, disc_prompt.target).iou
    assert 0.8 < found < 1 and got["iou"] == pytest.approx(found / 3)  # the others: called absent, failed
    assert got["validity"] == pytest.approx(7 / 9)  # two of the nine replies were nonsense
    assert got["refusal/right"] == 1.0 and got["refusal/false"] == pytest.approx(1 / 3)
    assert got["ended/done"] == pytest.approx(1 / 6) and got["ended/absent"] == pytest.approx(4 / 6)
    assert got["ended/out_of_steps"] == got["ended/uncertain"] == 0
    assert got["steps"] == pytest.approx((1 + 2 + 1) / 6)
    assert got["reward/format"] == pytest.approx(-2 / 5) and got["reward/stop"] == pytest.approx(0.5)


def test_what_applies_to_nobody_is_no_number(
    make_player: Callable[..., Any], scripted: Callable[..., Any], absent_prompt: Any
) -> None:
    player = make_player()
    got = measure(player.play([absent_prompt], 2, scripted({"0/0": [ABSENT], "0/1": [ABSENT]}), 0), player.rubric, 2)
    assert all(math.isnan(got[name]) for name in ("iou", "refusal/false", "reward/gain", "refinement_success"))
    assert got["groups_alike"] == 1.0 and got["reward_std"] == 0.0


def test_a_batch_of_failed_runs_has_no_reward(
    make_player: Callable[..., Any], scripted: Callable[..., Any], disc_prompt: Any
) -> None:
    player = make_player(CountingSegmenter(broken_row=43))
    got = measure(player.play([disc_prompt], 2, scripted({"0/0": [OUTSIDE], "0/1": [OUTSIDE]}), 0), player.rubric, 2)
    assert math.isnan(got["reward"]) and math.isnan(got["reward_std"]) and got["failed"] == got["groups_alike"] == 1.0
