"""Facts say what the Agent view shows, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from ibisagent.actions import BoxAction, Click, ClickAction, UndoAction
from ibisagent.engine.moments import Moment
from ibisagent.engine.reasoning.facts import level_of, measure
from ibisagent.engine.reasoning.regions import dominant_ninth, pieces_of

Make = Callable[..., Moment]


def square(x0: int, y0: int, x1: int, y1: int, size: int = 100) -> np.ndarray:
    mask = np.zeros((size, size), np.bool_)
    mask[y0:y1, x0:x1] = True
    return mask


def click(x: float, y: float, positive: bool = True) -> ClickAction:
    return ClickAction(clicks=(Click(x=x, y=y, positive=positive),))


def test_the_target_is_not_read(make_moment: Make) -> None:
    moment = make_moment(previous_mask=square(40, 40, 50, 50), previous_action=click(0.45, 0.45))
    for target in (None, np.zeros((100, 100), np.bool_), np.ones((100, 100), np.bool_), square(0, 0, 9, 9)):
        assert measure(replace(moment, target=target)) == measure(moment)


def test_what_is_kept_of_an_array_serves_that_array_alone(make_moment: Make) -> None:
    mask, other = square(40, 40, 60, 60), square(40, 40, 60, 60)
    first = make_moment(mask=mask)
    darker = replace(first, pixels=first.pixels // 4)
    smaller = replace(first, mask=square(40, 40, 50, 50), previous_mask=mask, previous_action=click(0.45, 0.45))
    measured = [measure(moment) for moment in (first, darker, smaller, replace(first, mask=other), first)]
    assert measured[0] == measured[3] == measured[4]
    assert measured[0].mask is not None and measured[1].mask is not None and measured[2].change is not None
    assert (measured[0].mask.level, measured[1].mask.level) == ("bright", "dark")
    assert measured[2].change.kind == "shrank"


def test_a_square_in_the_centre(make_moment: Make) -> None:
    facts = measure(make_moment(action=click(0.5, 0.5)))
    mask = facts.mask
    assert mask is not None and facts.click is not None
    assert (mask.share, mask.place, mask.pieces, mask.holes, mask.borders) == (0.04, "centre", 1, 0, ())
    assert (mask.x0, mask.y0, mask.x1, mask.y1) == (0.4, 0.4, 0.6, 0.6)
    assert (mask.inside, mask.spread, mask.level, mask.tone, mask.even) == (200.0, 0.0, "bright", "brighter", "even")
    assert mask.clear_edge
    assert facts.click.inside and facts.click.side == "centre" and facts.click.against_mask == "alike"
    assert facts.image.gray and facts.change is None and facts.box is None


def test_without_a_mask_only_image_and_click_are_measured(make_moment: Make) -> None:
    for mask in (None, np.zeros((100, 100), np.bool_)):
        facts = measure(make_moment("start", mask=mask))
        assert facts.mask is None and facts.click is not None
        assert facts.click.inside is None and facts.click.side == "" and facts.click.level == "bright"
        assert facts.click.against_around == "brighter"


@pytest.mark.parametrize(
    ("x", "y", "side", "near"),
    [
        (0.30, 0.50, "left", "away"), (0.61, 0.50, "right", "edge"), (0.50, 0.35, "above", "close"),
        (0.50, 0.95, "below", "away"), (0.70, 0.70, "below right", "away"), (0.30, 0.32, "above left", "away"),
    ],
)  # fmt: skip
def test_the_side_of_a_click_outside(make_moment: Make, x: float, y: float, side: str, near: str) -> None:
    facts = measure(make_moment(action=click(x, y))).click
    assert facts is not None
    assert (facts.inside, facts.side, facts.near, facts.in_hole) == (False, side, near, False)
    assert facts.against_mask == "darker"


def test_holes_and_pieces(make_moment: Make) -> None:
    mask = square(20, 20, 60, 60) | square(80, 80, 90, 90)
    mask[35:45, 35:45] = False
    mask[0, 99] = True  # a speck
    facts = measure(make_moment(mask=mask, action=click(0.4, 0.4)))
    assert facts.mask is not None and facts.click is not None
    assert (facts.mask.pieces, facts.mask.holes) == (2, 1)
    assert facts.mask.main_share == pytest.approx(1500 / 1601)
    assert facts.click.in_hole and not facts.click.inside
    small = measure(make_moment("excess", mask=mask, action=click(0.85, 0.85, False))).click
    assert small is not None and small.piece_share == pytest.approx(100 / 1601)


def test_a_mask_that_fills_the_image_touches_every_edge(make_moment: Make) -> None:
    facts = measure(make_moment(mask=np.ones((100, 100), np.bool_))).mask
    assert facts is not None
    assert facts.borders == ("left", "right", "upper", "lower")
    assert (facts.share, facts.tone, facts.place) == (1.0, "", None)


def test_the_edges_near_a_click_are_those_of_its_own_ninth(make_moment: Make) -> None:
    mask = square(0, 0, 20, 30) | square(0, 20, 100, 30)
    for x, y, borders in ((0.1, 0.1, ("left", "upper")), (0.5, 0.25, ()), (0.9, 0.25, ("right",)), (0.5, 0.5, ())):
        facts = measure(make_moment("excess", mask=mask, action=click(x, y))).click
        assert facts is not None and facts.borders == borders


def test_halves_and_ninths(make_moment: Make) -> None:
    facts = measure(make_moment(mask=square(60, 5, 95, 95))).mask
    assert facts is not None and (facts.half_x, facts.half_y) == ("right", "")
    assert dominant_ninth(square(0, 0, 20, 20).view(np.uint8)) == "upper left"
    assert dominant_ninth(np.ones((90, 90), np.uint8)) is None


def test_a_ragged_outline_is_told_from_a_smooth_one(make_moment: Make) -> None:
    teeth = square(20, 20, 80, 80)
    teeth[20:30, ::2] = teeth[70:80, ::2] = False
    facts = measure(make_moment(mask=teeth)).mask
    assert facts is not None and facts.outline == "ragged"
    facts = measure(make_moment(mask=square(20, 20, 80, 80))).mask
    assert facts is not None and facts.outline == "smooth"


@pytest.mark.parametrize(
    ("before", "after", "kind", "percent"),
    [
        (square(40, 40, 60, 60), square(40, 40, 80, 60), "grew", 100),
        (square(40, 40, 60, 60), square(40, 40, 50, 60), "shrank", -50),
        (square(40, 40, 60, 60), square(40, 40, 60, 60), "hardly", 0),
        (square(40, 40, 60, 60), square(50, 40, 70, 60), "moved", 0),
        (None, square(40, 40, 60, 60), "first", 0),
        (np.zeros((100, 100), np.bool_), square(40, 40, 60, 60), "first", 0),
        (square(40, 40, 60, 60), None, "gone", 0),
        (square(40, 40, 60, 60), np.zeros((100, 100), np.bool_), "gone", 0),
    ],
)
def test_what_the_last_step_changed(
    make_moment: Make, before: np.ndarray | None, after: np.ndarray | None, kind: str, percent: int
) -> None:
    change = measure(make_moment(mask=after, previous_mask=before, previous_action=click(0.5, 0.5))).change
    assert change is not None
    assert (change.kind, change.percent) == (kind, percent)


def test_a_change_says_where_and_what_came_in(make_moment: Make) -> None:
    before, after = square(40, 40, 60, 60), square(40, 40, 60, 60) | square(80, 45, 100, 55)
    change = measure(make_moment(mask=after, previous_mask=before, previous_action=click(0.9, 0.5))).change
    assert change is not None
    assert (change.place, change.new_pieces, change.new_borders) == ("middle right", 1, ("right",))
    assert change.gained == 0.5 and change.lost == 0.0 and change.gained_tone == "darker"


def test_the_first_step_has_no_change_and_undo_has(make_moment: Make) -> None:
    before = square(40, 40, 80, 80)
    assert measure(make_moment(previous_mask=before)).change is None
    change = measure(make_moment(previous_mask=before, previous_action=UndoAction())).change
    assert change is not None and change.kind == "shrank"


def test_a_box_and_colours(make_moment: Make) -> None:
    moment = make_moment("start", action=BoxAction(x0=0.1, y0=0.1, x1=0.3, y1=0.3))
    facts = measure(moment)
    assert facts.click is None and facts.box is not None
    assert facts.box.place == "upper left" and facts.box.share == pytest.approx(0.04)
    pixels = moment.pixels.copy()
    pixels[0, 0] = (10, 20, 30)
    assert not measure(replace(moment, pixels=pixels)).image.gray


def test_words_for_grey_values_and_pieces() -> None:
    assert [level_of(v) for v in (0, 79, 80, 160, 161)] == ["dark", "dark", "grey", "grey", "bright"]
    assert pieces_of(square(0, 0, 10, 10) | square(50, 50, 60, 60)) == 2


def test_oblong_images(make_moment: Make) -> None:
    pixels = np.zeros((40, 200, 3), np.uint8)
    mask = np.zeros((40, 200), np.bool_)
    mask[10:30, 150:190] = True
    facts = measure(make_moment(pixels=pixels, mask=mask, target=mask, action=click(0.1, 0.5)))
    assert facts.mask is not None and facts.click is not None
    assert facts.mask.place == "middle right" and facts.click.side == "left"
