from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from reward_samples import SMALL, TARGET, click, golden, invalid, mask, prefixes, run, runs, stop

from ibisagent.actions import DiscardAction, UndoAction
from ibisagent.episode import Episode, Step
from ibisagent.rewards import Breakdown, load_rubric
from ibisagent.rle import Rle, decode_mask

IBIS = load_rubric("ibis")


def score(*steps: Step, **settings_: object) -> Breakdown:
    return IBIS.score(run(*steps, **settings_), TARGET)  # type: ignore[arg-type]


def undo(after: Rle | None) -> Step:
    return Step(index=0, action=UndoAction(), mask=after, changed_pixels=1)


def test_a_run() -> None:
    breakdown = IBIS.score(golden(), TARGET)
    # IoU 0, 0, 4/10, 4/10, 8/12, 9/10; five steps, one nonsense; stopped at the best mask, above 0.8.
    assert breakdown.parts == pytest.approx(
        {
            "gain": 0.9,
            "stop": 1.0,
            "refusal": 0.0,
            "false_positive": None,
            "step_cost": -5.0,
            "format": -1.0,
            "answer": 3.0,
        }
    )
    assert breakdown.by_turn["gain"] == pytest.approx((0, 0.4, 0, 4 / 15, 7 / 30, 0))
    # 0.9 + 0.2 - 5 * 0.02 - 0.1
    assert breakdown.total == pytest.approx(0.9)
    # Nonsense: a step and a fault. The useless click: a step.
    assert IBIS.turn_rewards(breakdown) == pytest.approx(
        (-0.12, 0.38, -0.02, 4 / 15 - 0.02, 7 / 30 - 0.02, 0.2), abs=1e-12
    )
    assert IBIS.episode_reward(breakdown) == 0.0


def test_going_back_and_forth_earns_nothing() -> None:
    straight = score(click(0, 0, True, mask(9)), stop())
    detour = score(click(0, 0, True, mask(9)), click(3, 1, True, mask(9, 9)), undo(mask(9)), stop())
    assert detour.parts["gain"] == pytest.approx(0.9) == pytest.approx(straight.parts["gain"])
    assert detour.by_turn["gain"][1] == pytest.approx(-detour.by_turn["gain"][2]) != 0
    assert detour.total == pytest.approx(straight.total - 2 * 0.02)  # type: ignore[operator]


def test_a_bad_given_mask_is_worth_discarding() -> None:
    discard = Step(index=0, action=DiscardAction(), mask=None, changed_pixels=10)
    breakdown = score(discard, click(0, 0, True, mask(9)), stop(), initial=mask(2, 10))
    # From 2/20 to nothing, and from nothing to 9/10: 0.8 in all.
    assert breakdown.by_turn["gain"] == pytest.approx((-0.1, 0.9, 0.0))


def test_what_the_end_itself_does_falls_on_the_last_reply() -> None:
    refused = score(click(0, 0, True, mask(9)), stop("absent"))
    assert refused.by_turn["gain"] == pytest.approx((0.9, -0.9)) and refused.parts["refusal"] == -1.0
    # Out of steps, and the environment keeps the earlier, better mask: 0.9 at the end, not 0.1.
    kept = score(click(0, 0, True, mask(9)), click(1, 0, False, mask(1)), final=mask(9))
    assert kept.by_turn["gain"] == pytest.approx((0.9, 0.0)) and kept.parts["gain"] == pytest.approx(0.9)


@pytest.mark.parametrize(("hits", "credit"), [(1, 0), (4, 0), (5, 0), (6, 1 / 3), (7, 2 / 3), (8, 1), (9, 1), (10, 1)])
def test_a_stop_earns_by_its_mask(hits: int, credit: float) -> None:
    breakdown = score(click(0, 0, True, mask(hits)), stop())
    assert breakdown.by_turn["stop"] == pytest.approx((0.0, credit))
    assert score(click(0, 0, True, mask(hits)), stop("uncertain")).parts["stop"] == 0.0
    assert score(click(0, 0, True, mask(hits))).parts["stop"] == 0.0


def test_a_stop_on_a_ruined_mask_earns_nothing() -> None:
    good, ruin = click(0, 0, True, mask(10)), click(3, 1, True, mask(10, 1))  # 1.0, then 10/11
    assert score(good, ruin, stop()).parts["stop"] == 0.0
    assert score(good, ruin, undo(mask(10)), stop()).parts["stop"] == 1.0
    # A given mask counts as reached; 0.95 is near enough to 1.0.
    assert score(ruin, stop(), initial=mask(10)).parts["stop"] == 0.0
    assert IBIS.score(run(stop(), initial=mask(10)), TARGET).parts["stop"] == 1.0


def test_a_premature_stop_is_worth_less_than_going_on() -> None:
    early = score(click(0, 0, True, mask(6)), stop()).total
    later = score(click(0, 0, True, mask(6)), click(7, 0, True, mask(9)), stop()).total
    # 0.6 + 0.2/3 - 0.02 against 0.9 + 0.2 - 0.04
    assert early == pytest.approx(0.6 + 0.2 / 3 - 0.02) and later == pytest.approx(1.06)


def test_absent_targets() -> None:
    refused = IBIS.score(run(stop("absent")), None)
    assert refused.parts == {
        "gain": None,
        "stop": None,
        "refusal": 1,
        "false_positive": 0,
        "step_cost": 0,
        "format": 0,
        "answer": 3,
    }
    looked = IBIS.score(run(click(0, 0, True, mask(3)), undo(None), stop("absent")), None)
    unsure = IBIS.score(run(stop("uncertain")), None)
    alarm = IBIS.score(run(click(0, 0, True, mask(3)), stop("found")), None)
    out = IBIS.score(run(click(0, 0, True, mask(3))), None)
    # 0.5; 0.5 - 2 steps; 0; -0.5 - a step
    assert [b.total for b in (refused, looked, unsure, alarm, out)] == pytest.approx([0.5, 0.46, 0, -0.52, -0.52])
    assert alarm.by_turn["false_positive"] == (0.0, -1.0)


def test_refusing_pays_from_where_the_docstring_says() -> None:
    refuse = [IBIS.score(run(stop("absent")), target).total for target in (None, TARGET)]
    segment = [IBIS.score(run(click(0, 0, True, mask(7)), stop()), target).total for target in (None, TARGET)]

    def expected(totals: list[float | None], absent: float) -> float:
        assert totals[0] is not None and totals[1] is not None
        return absent * totals[0] + (1 - absent) * totals[1]

    assert expected(refuse, 0.58) > expected(segment, 0.58)
    assert expected(refuse, 0.55) < expected(segment, 0.55)


def test_nonsense_costs_more_than_a_useless_click() -> None:
    first = click(0, 0, True, mask(6))
    totals = [score(first, step, stop()).total for step in (click(0, 0, True, mask(6)), invalid(mask(6)))]
    assert totals[0] - totals[1] == pytest.approx(0.1)  # type: ignore[operator]


# -- properties -------------------------------------------------------------------------------


@given(runs())
@settings(max_examples=150, deadline=None)
def test_gains_telescope(pair: tuple[Episode, NDArray | None]) -> None:
    episode, target = pair
    breakdown = IBIS.score(episode, target)
    if target is None or not target.any():
        assert breakdown.parts["gain"] is None and "gain" not in breakdown.by_turn
        return

    def overlap(rle: Rle | None) -> float:
        if rle is None:
            return 0.0
        found = decode_mask(rle)
        return float((found & target).sum() / (found | target).sum())

    gained = overlap(episode.final_mask) - overlap(episode.initial_mask)
    assert math.fsum(breakdown.by_turn["gain"]) == pytest.approx(gained, abs=1e-12)


@given(prefixes(), st.sampled_from(["found", "uncertain"]), st.booleans())
@settings(max_examples=150, deadline=None)
def test_a_stop_is_never_worse_than_a_useless_click(
    prefix: tuple[list[Step], Rle | None], verdict: str, then_stops: bool
) -> None:
    """Whatever went before, stopping beats a click that changes nothing: in the total and at that reply."""
    steps, initial = prefix
    target = decode_mask(mask(10)).reshape(5, 4).T.copy()
    assert target.shape == SMALL
    current = steps[-1].mask if steps else initial
    useless = click(9, 0, True, current)
    stopped = IBIS.score(run(*steps, stop(verdict), initial=initial, size=SMALL), target)
    ending = [useless, stop(verdict)] if then_stops else [useless]
    clicked = IBIS.score(run(*steps, *ending, initial=initial, size=SMALL), target)
    assert stopped.total is not None and clicked.total is not None and stopped.total > clicked.total
    at = len(steps)
    assert IBIS.turn_rewards(stopped)[at] >= 0 > IBIS.turn_rewards(clicked)[at]
