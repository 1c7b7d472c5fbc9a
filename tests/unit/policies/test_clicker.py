from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from ibisagent.actions import BoxAction, ClickAction, TerminateAction
from ibisagent.config import RolloutConfig
from ibisagent.episode import Outcome
from ibisagent.error_clicks import largest_component_click
from ibisagent.errors import InputError, PolicyError
from ibisagent.policies.clicker import ClickerPolicy, make
from ibisagent.policies.protocol import Policy
from ibisagent.rle import decode_mask
from ibisagent.rollout import run_episode
from ibisagent.segmenters.protocol import Capabilities
from ibisagent.segmenters.rules import RulesSegmenter
from ibisagent.types import Case, Image, Prediction, Prompt


class Stubborn:
    """Segmenter that never moves its square, takes boxes and clicks, and keeps what it was asked."""

    name = "stubborn"
    weights_sha256 = None

    def __init__(self, boxes: bool = True, negative_clicks: bool = True) -> None:
        self.capabilities = Capabilities(True, negative_clicks, boxes, False)
        self.prompts: list[Prompt] = []

    def encode(self, image: Image) -> tuple[int, int]:
        return image.height, image.width

    def predict(self, embedding: tuple[int, int], prompts: list[Prompt]) -> list[Prediction]:
        self.prompts += prompts
        mask = np.zeros(embedding, bool)
        mask[30:46, 2:50] = True
        return [Prediction(mask) for _ in prompts]


CONFIG = RolloutConfig(max_steps=8, max_repeated_actions=99)


def test_box_then_so_many_clicks_then_stop(disc_case: Case, disc_target: NDArray[np.bool_]) -> None:
    policy = ClickerPolicy({"disc": disc_target}, "largest-component", 5, box="always")
    assert isinstance(policy, Policy) and policy.name == "clicks:largest-component?clicks=5&box=always"
    segmenter = Stubborn()
    episode = run_episode(disc_case, policy, segmenter, CONFIG)
    actions = [step.action for step in episode.steps]
    assert [type(action) for action in actions] == [BoxAction, *[ClickAction] * 5, TerminateAction]
    assert episode.outcome is Outcome.DONE and episode.num_steps == 6
    assert episode.steps[0].pixels_xy == [(28, 8), (52, 32)]  # the disc's box, corners included
    expected = largest_component_click(decode_mask(episode.steps[0].mask), disc_target)
    assert expected is not None
    # The rule may ask for one pixel again and again; a repeated action must not end the run.
    assert [step.pixels_xy for step in episode.steps[1:6]] == [[expected.index[::-1]]] * 5
    assert segmenter.prompts[-1].box is not None and len(segmenter.prompts[-1].clicks) == 5


def test_no_box_where_the_case_or_the_segmenter_has_none(disc_case: Case, disc_target: NDArray[np.bool_]) -> None:
    targets = {"disc": disc_target}
    disc_case = replace(disc_case, target="Vessels of the disc")
    for policy, segmenter in (
        (ClickerPolicy(targets, "largest-component", 2, box="auto"), Stubborn()),
        (ClickerPolicy(targets, "largest-component", 2, box="always"), Stubborn(boxes=False)),
        (ClickerPolicy(targets, "largest-component", 2), Stubborn()),
    ):
        episode = run_episode(disc_case, policy, segmenter, CONFIG)
        assert [type(step.action) for step in episode.steps] == [ClickAction, ClickAction, TerminateAction]
        assert episode.steps[0].pixels_xy == [(40, 20)]


def test_noc_stops_at_the_iou_and_never_repeats_a_pixel(disc_case: Case, disc_target: NDArray[np.bool_]) -> None:
    good = run_episode(
        disc_case, ClickerPolicy({"disc": disc_target}, "deepest-error", 20, stop_iou=0.8), RulesSegmenter(), CONFIG
    )
    assert good.num_steps == 1 and good.outcome is Outcome.DONE
    config = RolloutConfig(max_steps=20)
    poor = run_episode(disc_case, ClickerPolicy({"disc": disc_target}, "deepest-error", 20), Stubborn(), config)
    pixels = [tuple(step.pixels_xy[0]) for step in poor.steps[:-1]]
    assert len(pixels) == 20 == len(set(pixels)) and poor.outcome is Outcome.DONE


def test_rejected_clicks_count(disc_case: Case, disc_target: NDArray[np.bool_]) -> None:
    corner = np.zeros_like(disc_target)
    corner[:4, :4] = True  # all but this is excess of the stubborn square
    policy = ClickerPolicy({"disc": corner}, "largest-component", 4)
    episode = run_episode(disc_case, policy, Stubborn(negative_clicks=False), CONFIG)
    assert [step.invalid is None for step in episode.steps] == [True, False, False, False, True]
    assert isinstance(episode.steps[-1].action, TerminateAction)


def test_absent_missing_and_misfit_targets(disc_case: Case, disc_target: NDArray[np.bool_]) -> None:
    rule = ("largest-component", 5)
    episode = run_episode(disc_case, ClickerPolicy({"disc": np.zeros_like(disc_target)}, *rule), Stubborn(), CONFIG)
    assert episode.outcome is Outcome.ABSENT
    for targets in ({}, {"disc": disc_target[1:]}):
        failed = run_episode(replace(disc_case), ClickerPolicy(targets, *rule), Stubborn(), CONFIG)
        assert failed.outcome is Outcome.ERROR and PolicyError.__name__ in (failed.error or "")


def test_arguments_are_checked() -> None:
    for arguments in (("nearest", 5), ("deepest-error", 0)):
        with pytest.raises(InputError):
            ClickerPolicy({}, *arguments)
    with pytest.raises(InputError, match="stop_iou"):
        ClickerPolicy({}, "deepest-error", 5, stop_iou=1.5)
    with pytest.raises(InputError, match="box must be one of"):
        ClickerPolicy({}, "deepest-error", 5, box="sometimes")


def test_spec() -> None:
    made = make("deepest-error?clicks=20&stop=0.9", targets={}, device="cpu")
    assert (made.rule, made.num_clicks, made.box, made.stop_iou) == ("deepest-error", 20, "never", 0.9)
    assert (
        make(made.name.partition(":")[2], targets={}).name
        == made.name
        == "clicks:deepest-error?clicks=20&box=never&stop=0.9"
    )
    for arg in (None, "nearest", "deepest-error?clicks=x", "deepest-error?size=3", "deepest-error?clicks=0"):
        with pytest.raises(InputError):
            make(arg, targets={})
    with pytest.raises(InputError, match="needs the target's mask"):
        make("deepest-error")
