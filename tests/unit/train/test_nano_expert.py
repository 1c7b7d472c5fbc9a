"""The simulated expert in the real environment: every record is a run that could be played again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ibisagent.actions import DIALECTS, ClickAction, DiscardAction, TerminateAction, UndoAction
from ibisagent.config import RolloutConfig
from ibisagent.engine.damage import damaged_mask
from ibisagent.environment import SegmentationEnv
from ibisagent.episode import Outcome
from ibisagent.errors import ToolError
from ibisagent.metrics import iou
from ibisagent.policies.protocol import Reply
from ibisagent.segmenters.rules import RulesSegmenter
from ibisagent.train import nano_expert as module
from ibisagent.train.nano_expert import HARM, MAX_CLICKS, PLATEAU, correct, synthesize
from ibisagent.train.nano_trajectories import GRID, Scene, Trajectory, cell_click
from ibisagent.types import Case, PixelClick, Prediction
from sample_scenes import SIZE, disc_scene


def scene(number: int = 0, absent: bool = False) -> Scene:
    """Noisy, so that the region grower has something to miss."""
    return disc_scene(number, absent, noise=2.0)


@pytest.fixture(scope="module")
def many() -> list[Trajectory]:
    return [synthesize(scene(i), RulesSegmenter(), np.random.default_rng([1, i])) for i in range(90)]


def actions(t: Trajectory) -> list[Any]:
    return [step.action for step in t.episode.steps]


def test_each_list_has_an_entry_a_step(many: list[Trajectory]) -> None:
    for t in many:
        n = len(t.episode.steps)
        assert n == len(t.walk.masks) == len(t.clicks) == len(t.learn) == len(t.walk.ious)
        assert [s.index for s in t.episode.steps] == list(range(n))
        for step, click in zip(t.episode.steps, t.clicks, strict=True):
            assert (click is not None) == isinstance(step.action, ClickAction)


def test_it_always_ends_in_a_terminate_and_only_there(many: list[Trajectory]) -> None:
    for t in many:
        *before, last = actions(t)
        assert isinstance(last, TerminateAction) and t.learn[-1]
        assert not any(isinstance(a, TerminateAction) for a in before)
        final = iou(t.walk.masks[-1], t.scene.target) if t.walk.masks[-1] is not None else 0.0
        assert t.walk.ious[-1] == pytest.approx(final)
        assert last.verdict == ("found" if final >= 0.55 else "uncertain")
        assert t.episode.outcome == (Outcome.DONE if last.verdict == "found" else Outcome.UNCERTAIN)
        assert t.episode.end_reason == "terminate" and t.episode.answer == last.answer
        assert t.episode.final_mask == t.episode.steps[-1].mask
    assert {actions(t)[-1].verdict for t in many} >= {"found"}


def test_it_stops_at_the_first_mask_that_nothing_later_beats(many: list[Trajectory]) -> None:
    for t in many:
        shown = [score for score, good in zip(t.walk.ious[:-1], t.learn, strict=False) if good]
        if t.scenario == "plain":
            assert all(score < t.walk.ious[-1] for score in shown[:-1]) and shown[-1] == t.walk.ious[-1]
        if t.scenario in ("corrupted_mask", "right_stop"):
            before = iou(t.walk.initial_mask, t.scene.target)
            assert t.walk.ious[-1] > before + PLATEAU if len(t.walk.moves) > 1 else before >= 0.9
    assert {t.scenario for t in many} >= {"plain", "corrupted_mask", "mismatched_mask", "self_correction"}


def test_what_shows_some_of_the_target_is_worked_on_and_the_shares_are_as_asked(many: list[Trajectory]) -> None:
    drawn = [module._drawn(module.SHARES, np.random.default_rng(i)) for i in range(2000)]
    for name, share in module.SHARES.items():
        assert np.mean([d == name for d in drawn]) == pytest.approx(share, abs=0.025)
    for t in many:
        assert (t.scenario == "mismatched_mask") == isinstance(actions(t)[0], DiscardAction)


def test_a_click_of_the_expert_s_lies_on_the_cell_of_its_pixel() -> None:
    for size in (64, 96, 256, 500):
        for cell in range(GRID):
            pixel = int((cell + 0.5) * size / GRID)
            action = module.CellExpert().click_at(PixelClick(pixel, 0, True), size, size)
            assert action == cell_click(cell, True)


def test_a_record_can_be_played_again_word_by_word(many: list[Trajectory]) -> None:
    for t in many[:30]:
        image = t.scene.image
        env = SegmentationEnv(RulesSegmenter(), RolloutConfig(max_steps=40, max_repeated_actions=50))
        view = env.reset(Case(image, t.episode.instruction, t.walk.initial_mask))
        for step, mask in zip(t.episode.steps, t.walk.masks, strict=True):
            assert DIALECTS["plain"].parse(step.raw_text).action == step.action
            view = env.step(step.raw_text)
            assert env.episode.steps[-1].invalid is None
            assert (view.mask is None) == (mask is None)
            assert mask is None or np.array_equal(view.mask, mask)
        assert env.done and env.episode.outcome == t.episode.outcome


def test_clicks_are_centres_of_cells_and_right_ones_lie_in_an_error_region(many: list[Trajectory]) -> None:
    for t in many:
        before = t.walk.initial_mask
        for step, click, good, after in zip(t.episode.steps, t.clicks, t.learn, t.walk.masks, strict=True):
            if click is not None:
                x, y, positive = click
                assert step.pixels_xy == [(int(x), int(y))]
                assert isinstance(step.action, ClickAction)
                said = step.action.clicks[0]
                assert (said.x * GRID - 0.5) == pytest.approx(round(said.x * GRID - 0.5), abs=0.01)
                assert said.positive == positive
                now = np.zeros_like(t.scene.target) if before is None else before
                region = (t.scene.target & ~now) if positive else (now & ~t.scene.target)
                assert region[int(y), int(x)] == good
            before = after


def test_wrong_clicks_are_shown_but_never_learnt_and_mostly_taken_back(many: list[Trajectory]) -> None:
    wrong = [(t, i) for t in many for i, good in enumerate(t.learn) if not good]
    assert len(wrong) >= 3
    for t, i in wrong:
        assert isinstance(actions(t)[i], ClickAction) and t.walk.initial_mask is None
        before = t.walk.ious[i - 1] if i else 0.0
        assert t.walk.ious[i] < before - HARM or i == 0
        assert isinstance(actions(t)[i + 1], UndoAction) and t.learn[i + 1]
        assert t.walk.ious[i + 1] == pytest.approx(before)
    for t in many:
        undone = [i for i, a in enumerate(actions(t)) if isinstance(a, UndoAction)]
        assert all(not t.learn[i - 1] for i in undone)
        assert (
            sum(isinstance(a, ClickAction) and good for a, good in zip(actions(t), t.learn, strict=True)) <= MAX_CLICKS
        )


def test_given_masks_are_refined_or_dropped(many: list[Trajectory]) -> None:
    given = [t for t in many if t.walk.initial_mask is not None]
    assert 5 <= len(given) <= 35
    dropped = [t for t in given if isinstance(actions(t)[0], DiscardAction)]
    assert 1 <= len(dropped) < len(given)
    for t in dropped:
        assert iou(t.walk.initial_mask, t.scene.target) < 0.2 and t.walk.masks[0] is None
    for t in many:
        assert not any(isinstance(a, DiscardAction) for a in actions(t)[1:])
        if t.walk.initial_mask is None:
            assert not any(isinstance(a, DiscardAction) for a in actions(t))


def test_an_absent_target_is_refused_at_once() -> None:
    for i in range(5):
        t = synthesize(replace(scene(i, absent=True), others=()), RulesSegmenter(), np.random.default_rng(i))
        (action,) = actions(t)
        assert isinstance(action, TerminateAction) and action.verdict == "absent"
        assert t.episode.outcome == Outcome.ABSENT and t.learn == [True] and t.clicks == [None]
        assert t.scene.target is None and t.walk.initial_mask is None and t.walk.ious == []


def test_the_seed_decides_everything(many: list[Trajectory]) -> None:
    for i in range(12):
        again = synthesize(scene(i), RulesSegmenter(), np.random.default_rng([1, i]))
        assert [s.raw_text for s in again.episode.steps] == [s.raw_text for s in many[i].episode.steps]
        assert again.walk.ious == many[i].walk.ious and again.learn == many[i].learn
    other = [synthesize(scene(i), RulesSegmenter(), np.random.default_rng([2, i])) for i in range(12)]
    assert [actions(t) for t in other] != [actions(t) for t in many[:12]]


class Broken(RulesSegmenter):
    def predict(self, embedding: Any, prompts: Any) -> list[Prediction]:
        raise RuntimeError("out of order")


def test_a_segmenter_that_fails_is_an_error_not_a_trajectory() -> None:
    with pytest.raises(ToolError, match="out of order"):
        synthesize(scene(), Broken(), np.random.default_rng(0))


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_mask_is_another_mask_of_the_same_shape(seed: int) -> None:
    target = scene(seed).target
    assert target is not None
    kept = target.copy()
    got = damaged_mask(target, np.random.default_rng(seed))
    assert got.dtype == np.bool_ and got.shape == target.shape
    assert np.array_equal(target, kept)


class Scribbler:
    """Clicks where it is told, then stops."""

    name, dialect = "scribbler", "plain"

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)

    def act(self, views: Any, seed: int) -> list[Reply]:
        return [Reply(self.texts.pop(0) if self.texts else "<think>x</think><action>Undo</action>") for _ in views]


def said(x: float, y: float, sign: str = "Positive") -> str:
    return f"<think>here</think><action>{sign} Point ({x:.4f}, {y:.4f})</action>"


def plain_scene() -> tuple[Scene, np.random.Generator]:
    """A scene, and a generator with which it starts without a given mask and lets the policy act five times."""
    for seed in range(200):
        rng = np.random.default_rng(seed)
        drawn = scene()
        assert drawn.target is not None
        if module._drawn(module.GIVEN, rng) == "plain":
            rng.random(4)  # the instruction
            if rng.integers(1, 6) == 5:
                return drawn, np.random.default_rng(seed)
    raise AssertionError


def test_the_expert_goes_on_from_where_the_policy_led() -> None:
    drawn, rng = plain_scene()
    assert drawn.target is not None
    ys, xs = np.nonzero(drawn.target)
    inside = said((xs.mean() - 5) / SIZE, ys.mean() / SIZE)
    t = correct(drawn, RulesSegmenter(), Scribbler(inside), rng)
    assert actions(t)[0] == DIALECTS["plain"].parse(inside).action and t.learn[0] is True
    assert t.scenario == "correction" and t.kind_of_case == "corrected toy/disc"
    assert isinstance(actions(t)[-1], TerminateAction) and t.walk.ious[-1] > 0.8
    for step, mask in zip(t.episode.steps, t.walk.masks, strict=True):
        assert (step.mask is None) == (mask is None)
    assert len(t.episode.steps) == len(t.walk.masks) == len(t.clicks) == len(t.learn) == len(t.walk.ious)


def test_a_policy_s_bad_click_is_shown_taken_back_and_not_learnt() -> None:
    drawn, rng = plain_scene()
    assert drawn.target is not None
    ys, xs = np.nonzero(drawn.target)
    good, bad = said((xs.mean() - 5) / SIZE, ys.mean() / SIZE), said(0.98, 0.02)
    t = correct(drawn, RulesSegmenter(), Scribbler(good, bad), rng)
    assert actions(t)[:2] == [DIALECTS["plain"].parse(text).action for text in (good, bad)]
    assert t.learn[:2] == [True, False] and t.walk.ious[1] < t.walk.ious[0] - HARM
    assert isinstance(actions(t)[2], UndoAction) and t.learn[2] and t.walk.ious[2] == pytest.approx(t.walk.ious[0])


def test_a_policy_that_stops_leaves_all_to_the_expert() -> None:
    drawn, rng = plain_scene()
    t = correct(
        drawn, RulesSegmenter(), Scribbler("<think>x</think><action>Terminate</action><answer>Found: x</answer>"), rng
    )
    assert all(t.learn) and t.walk.ious[-1] > 0.8
    with pytest.raises(ValueError, match="nothing to correct"):
        correct(scene(absent=True), RulesSegmenter(), Scribbler(), rng)
