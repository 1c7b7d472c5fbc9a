from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ibisagent.actions import BoxAction, ClickAction
from ibisagent.clicks import next_click
from ibisagent.engine.expert import EXPERTS, Expert, ExpertConfig, best_length, box_around

RNG = np.random.default_rng(0)


def disc(size: int = 40) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    return (x - 22) ** 2 + (y - 17) ** 2 <= 81


def test_the_paper_preset_has_the_papers_numbers() -> None:
    paper = EXPERTS["paper"]
    assert (paper.rule, paper.stop_iou, paper.max_clicks) == ("paper", 0.80, 20)
    assert paper.plateau is None and paper.keep == "last" and not paper.box_first


def test_the_first_click_is_the_rules_click_on_its_pixel() -> None:
    target = disc()
    action = Expert(EXPERTS["paper"]).next_action(None, target, RNG, 0)
    assert isinstance(action, ClickAction)
    assert action.clicks[0].to_pixel(40, 40) == next_click(None, target)
    assert Expert(EXPERTS["paper"]).next_action(target, target, RNG, 1) is None


def test_a_box_comes_first_where_it_is_asked_for_and_only_then() -> None:
    target = disc()
    expert = Expert(EXPERTS["box_first"])
    action = expert.next_action(None, target, RNG, 0)
    assert action == box_around(target)
    assert isinstance(action, BoxAction)
    box = action.to_pixels(40, 40)
    assert (box.x0, box.y0, box.x1, box.y1) == (13, 8, 31, 26)
    assert isinstance(expert.next_action(~target, target, RNG, 1), ClickAction)


@pytest.mark.parametrize(
    ("preset", "ious", "made", "done"),
    [
        ("paper", [0.5, 0.79], 2, False),
        ("paper", [0.5, 0.80], 2, True),
        ("paper", [0.5] * 20, 20, True),
        ("paper", [0.5] * 19, 19, False),
        ("plateau", [0.5, 0.505, 0.507], 3, True),  # two clicks without a gain of 0.01
        ("plateau", [0.5, 0.52, 0.53], 3, False),
        ("plateau", [0.6, 0.6], 1, False),  # a given mask and one click: not yet patient enough
        ("ibis", [0.7, 0.7, 0.7, 0.72], 4, False),
        ("ibis", [0.7, 0.7, 0.705, 0.709], 4, True),
    ],
)
def test_when_it_is_done(preset: str, ious: list[float], made: int, done: bool) -> None:
    assert Expert(EXPERTS[preset]).is_done(ious, made) is done


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0, 0.2))
def test_what_is_cut_off_is_never_much_better(ious: list[float], plateau: float) -> None:
    keep = best_length(ious, plateau)
    assert 1 <= keep <= len(ious)
    assert max(ious) <= ious[keep - 1] + plateau
    assert all(max(ious[i:]) > ious[i] + plateau for i in range(keep - 1)), "an earlier cut would have done"


def test_settings_are_checked() -> None:
    for wrong in ({"stop_iou": 0.0}, {"max_clicks": 0}, {"rule": "random"}, {"stop": 0.8}):
        with pytest.raises(ValidationError):
            ExpertConfig.model_validate(wrong)
