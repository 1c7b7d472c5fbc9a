"""No-look clicks where the target was on the training images, whatever the image shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ibisagent.actions import ClickAction, TerminateAction
from ibisagent.config import RolloutConfig
from ibisagent.episode import Episode
from ibisagent.evaluate.baselines import (
    BoxOraclePolicy,
    CentrePolicy,
    NoLookPolicy,
    Place,
    Positions,
    RandomPolicy,
    mean_positions,
)
from ibisagent.evaluate.case_list import open_case_list
from ibisagent.geometry import Geometry
from ibisagent.io import CaseRow, read_cases
from ibisagent.policies.protocol import Policy
from ibisagent.rollout import run_episode
from ibisagent.segmenters.rules import RulesSegmenter
from ibisagent.types import Case, Image


def case(shape: tuple[int, int] = (64, 80), group: str = "alpha", target: str = "body", fill: int = 90) -> Case:
    pixels = np.full((*shape, 3), fill, np.uint8)
    return Case(Image(pixels, Geometry.plane_2d()), "x", case_id="c", target=target, group=group)


def at(
    x: float, y: float, group: str | None = "alpha", target: str = "body", image: str = "i", patient: str = "p"
) -> Place:
    return Place(group, target, image, patient, x, y)


def test_positions_are_the_mean_centroids_of_the_train_cases(toy_cases: Path) -> None:
    positions = mean_positions(toy_cases)  # the files of the val rows do not exist
    assert positions.of(None, "beta", "brain") == pytest.approx((40.5 / 80, 34.5 / 64))
    # alpha/body: discs at 30 and 50, both 32 down
    assert positions.of(None, "alpha", "body") == pytest.approx((40.5 / 80, 32.5 / 64), abs=1e-6)
    assert positions.of(None, "alpha", "liver") is None
    rows = [row for row in read_cases(toy_cases) if isinstance(row, CaseRow)]
    for row in rows:
        if row.split == "train":
            assert positions.of(row.case_id, row.group, row.target) is None, "its patient is all there is"
        else:
            assert positions.of(row.case_id, row.group, row.target) == positions.of(None, row.group, row.target)


def test_a_case_says_nothing_of_itself() -> None:
    cases = open_case_list("phantoms:20?size=64&seed=3")
    policy = NoLookPolicy(mean_positions(cases))
    rows = [row for row in cases.rows if isinstance(row, CaseRow) and row.split == "train" and row.mask is not None]
    clicks = 0
    for row in rows:
        found = policy.positions.of(row.case_id, row.group, row.target)
        target = cases.load(row)[1]
        assert target is not None
        ys, xs = np.nonzero(target)
        clicks += found == pytest.approx(((xs.mean() + 0.5) / target.shape[1], (ys.mean() + 0.5) / target.shape[0]))
    assert len(rows) > 20 and clicks == 0
    number = sum(policy.positions.of(r.case_id, r.group, r.target) is not None for r in rows)
    assert 0 < number < len(rows) and f"known for {number} of {len(rows)} cases" in policy.coverage(rows)


def test_own_image_and_patient_are_left_out() -> None:
    places = [
        at(0.1, 0.1, image="i", patient="p"),
        at(0.3, 0.3, image="j", patient="p"),
        at(0.5, 0.9, image="k", patient="q"),
    ]
    positions = Positions(places, {"train": ("i", "p"), "val": ("i", None)})
    assert positions.of("train", "alpha", "body") == (0.5, 0.9)
    assert positions.of("val", "alpha", "body") == pytest.approx((0.4, 0.6))
    assert positions.of("other", "alpha", "body") == pytest.approx((0.3, 1.3 / 3))


def test_it_clicks_there_once_and_stops() -> None:
    policy = NoLookPolicy(Positions([at(0.253, 0.75)]))
    episode = run_episode(case(), policy, RulesSegmenter(), RolloutConfig())
    click, end = (s.action for s in episode.steps)
    assert isinstance(click, ClickAction) and isinstance(end, TerminateAction)
    assert episode.steps[0].pixels_xy == [(20, 48)] and click.clicks[0].positive
    assert end.verdict == "found" and episode.num_steps == 1 and str(episode.outcome) == "done"


def test_it_never_looks() -> None:
    policy = NoLookPolicy(Positions([at(0.2, 0.7)]))
    texts = {
        tuple(
            s.raw_text for s in run_episode(case(fill=fill), policy, RulesSegmenter(), RolloutConfig(seed=fill)).steps
        )
        for fill in (0, 90, 255)
    }
    assert len(texts) == 1


def test_a_target_without_a_position_is_sought_in_the_middle() -> None:
    episode = run_episode(case((33, 21), "gamma"), NoLookPolicy(Positions([])), RulesSegmenter(), RolloutConfig())
    assert episode.steps[0].pixels_xy == [(10, 16)]


def test_another_patients_target_is_sought_where_it_was_in_the_others() -> None:
    policy = NoLookPolicy(
        Positions([at(0.25, 0.5), at(0.75, 0.25, group="beta"), at(0.0, 0.0, group="beta", target="brain")])
    )
    assert run_episode(case(group="new"), policy, RulesSegmenter()).steps[0].pixels_xy == [(40, 24)]


@pytest.mark.parametrize("place", [(0.0, 0.0), (0.9999, 0.9999)])
def test_a_position_at_the_edge_is_a_pixel_of_the_image(place: tuple[float, float]) -> None:
    episode = run_episode(case(), NoLookPolicy(Positions([at(*place)])), RulesSegmenter(), RolloutConfig())
    assert episode.steps[0].invalid is None
    assert episode.steps[0].pixels_xy == [(0, 0) if place[0] == 0 else (79, 63)]


def test_it_is_a_policy() -> None:
    assert isinstance(NoLookPolicy(Positions([])), Policy)


def played(policy: Policy, seed: int = 0, max_steps: int = 8, **facts: str) -> Episode:
    return run_episode(
        replace(case(), **facts), policy, RulesSegmenter(), RolloutConfig(seed=seed, max_steps=max_steps)
    )


def test_the_centre_is_the_middle_pixel() -> None:
    episode = played(CentrePolicy())
    assert episode.steps[0].pixels_xy == [(40, 32)] and episode.num_steps == 1 and str(episode.outcome) == "done"


def test_random_clicks_follow_seed_and_case_and_nothing_else() -> None:
    def places(**how: Any) -> list[Any]:
        return [s.pixels_xy for s in played(RandomPolicy(None), **how).steps if s.pixels_xy]

    first = places()
    assert len(first) == 8 and places() == first
    assert places(seed=1) != first and places(case_id="d") != first
    assert places(max_steps=3) == first[:3], "the budget cuts, it does not draw anew"
    one = played(RandomPolicy())
    assert one.num_steps == 1 and one.steps[0].pixels_xy == first[0] and one.policy.name == "random-click"


def test_random_clicks_are_spread_over_the_image_and_of_both_signs() -> None:
    steps = [played(RandomPolicy(None), case_id=str(i)).steps[j] for i in range(25) for j in (0, 1)]
    actions = [s.action for s in steps]
    signs = [a.clicks[0].positive for a in actions if isinstance(a, ClickAction)]
    assert all(signs[::2]) and 5 <= sum(signs[1::2]) <= 20
    xs = [s.pixels_xy[0][0] for s in steps]
    assert min(xs) < 20 and max(xs) >= 60


def test_the_box_oracle_gives_the_tight_box() -> None:
    target = np.zeros((64, 80), bool)
    target[10:21, 30:61] = True
    policy = BoxOraclePolicy({"c": target})
    episode = played(policy)
    assert episode.steps[0].pixels_xy == [(30, 10), (60, 20)] and episode.num_steps == 1
    assert str(played(BoxOraclePolicy({"c": None})).outcome) == "absent"
    assert "no target" in (played(policy, case_id="other").error or "")
