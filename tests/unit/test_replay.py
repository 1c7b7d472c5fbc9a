from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ibisagent.environment import SegmentationEnv
from ibisagent.episode import Episode
from ibisagent.errors import InputError, PolicyError, ToolError
from ibisagent.geometry import Geometry
from ibisagent.replay import replay
from ibisagent.rle import encode_mask
from ibisagent.segmenters.fake import FakeSegmenter
from ibisagent.segmenters.rules import RulesSegmenter
from ibisagent.types import Case, Image


def say(body: str, answer: str = "") -> str:
    return f"<think>t</think><action>{body}</action>{answer}"


REPLIES = [
    say("Positive Point (0.6328, 0.4271)"),
    "junk",
    say("Discard"),
    say("Undo"),
    say("Negative Point (0.0703, 0.1042)"),
    say("Box (0.4000, 0.1500, 0.8500, 0.7000)"),
    say("Terminate", "<answer>Found: it</answer>"),
]


@pytest.fixture
def played(disc_case: Case, disc_target: NDArray[np.bool_], tmp_path: Path) -> Episode:
    given = disc_target.copy()
    given[:, :38] = False
    env = SegmentationEnv(RulesSegmenter())
    env.reset(replace(disc_case, initial_mask=given))
    for reply in REPLIES:
        env.step(reply)
    env.episode.save(tmp_path / "e.json")
    return Episode.load(tmp_path / "e.json")  # from the file: that is what a replay reads


def test_a_replay_matches(played: Episode, disc_image: Image) -> None:
    report = replay(played, disc_image, RulesSegmenter())
    assert report.matches and report.num_matched == report.num_steps == len(REPLIES)
    assert report.same_image and report.same_segmenter
    assert report.detail == "7 of 7 steps gave the same mask"


def test_a_changed_mask_is_found(played: Episode, disc_image: Image) -> None:
    played.steps[4].mask = encode_mask(np.zeros((disc_image.height, disc_image.width), bool))
    report = replay(played, disc_image, RulesSegmenter())
    assert report.first_mismatch == 4 and report.num_matched == 4 and not report.matches
    assert report.num_pixels is not None and report.num_pixels > 0
    assert "step 4" in report.detail


def test_another_image_is_reported(played: Episode, disc_image: Image) -> None:
    inverted = Image(255 - disc_image.pixels, disc_image.geometry)
    report = replay(played, inverted, RulesSegmenter())
    assert not report.same_image and "not the recorded one" in report.detail


def test_another_segmenter_is_reported(played: Episode, disc_image: Image) -> None:
    other = RulesSegmenter()
    other.name = "other"
    report = replay(played, disc_image, other)
    assert report.matches and not report.same_segmenter


def test_another_size_is_refused(played: Episode) -> None:
    with pytest.raises(InputError, match="the image is 3 x 3"):
        replay(played, Image(np.zeros((3, 3, 3), np.uint8), Geometry.plane_2d()), RulesSegmenter())


def test_a_recorded_failure_may_fail_again(disc_case: Case) -> None:
    env = SegmentationEnv(FakeSegmenter([RuntimeError("x")]))
    env.reset(disc_case)
    env.step(REPLIES[0])
    again = replay(env.episode, disc_case.image, FakeSegmenter([RuntimeError("x")]))
    assert again.matches and again.num_steps == 1
    healed = replay(env.episode, disc_case.image, RulesSegmenter())
    assert healed.first_mismatch == 0 and "did not fail now" in healed.detail


def test_a_new_failure_is_an_error(played: Episode, disc_image: Image) -> None:
    with pytest.raises(ToolError):
        replay(played, disc_image, FakeSegmenter([RuntimeError("x")]))


def test_an_episode_of_a_failed_policy_replays(disc_case: Case) -> None:
    env = SegmentationEnv(RulesSegmenter())
    env.reset(disc_case)
    env.step(REPLIES[0])
    env.step(say("Undo"))
    env.fail(PolicyError("gone"))
    assert replay(env.episode, disc_case.image, RulesSegmenter()).matches


def test_an_action_that_is_not_carried_out_now_is_a_mismatch(disc_case: Case) -> None:
    env = SegmentationEnv(RulesSegmenter())
    env.reset(disc_case)
    env.step(REPLIES[0])
    env.step(say("Undo"))
    del env.episode.steps[0]
    report = replay(env.episode, disc_case.image, RulesSegmenter())
    assert report.first_mismatch == 0 and "no action to undo" in report.detail
