"""Credit by state: who answers for what, whom a run is held against, and what must not move it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("trl")
from ibisagent.rewards import load_rubric
from ibisagent.rewards.rubric import Breakdown
from ibisagent.train.rl.returns import return_advantages, rewarded_turns

TURN = st.tuples(st.floats(-1, 1), st.one_of(st.none(), st.floats(0, 1)))
RUNS = st.lists(st.one_of(st.none(), st.lists(TURN, min_size=1, max_size=4)), min_size=4, max_size=12).map(
    lambda runs: runs[: len(runs) // 4 * 4]
)


def test_a_reply_does_not_answer_for_what_was_before_it() -> None:
    """Two runs stop in the same state, one after a lucky click: the stops are worth the same."""
    lucky = [(0.8, 0.0), (0.2, 0.8)]
    plain = [(0.4, 0.4), (0.2, 0.8)]
    one, other = return_advantages([lucky, plain] * 4, 8, decay=1.0)[:2]
    assert abs(one[1] - other[1]) < 0.2  # each run is held against the others, which are not quite the same
    assert one[0] - other[0] > 1.0


def test_a_click_that_harms_is_blamed_and_the_stop_before_it_praised() -> None:
    """From the same good mask, one sibling stops and earns, the other clicks and spoils it."""
    stops = [(0.8, 0.0), (0.2, 0.8)]
    spoils = [(0.8, 0.0), (-0.5, 0.8), (0.0, 0.3)]
    for decay in (0.5, 0.9, 1.0):
        good, bad = return_advantages([stops, spoils] * 4, 8, decay)[:2]
        assert good[1] > 0 > bad[1]


def test_a_harder_case_is_no_fault() -> None:
    """All siblings of a case earn little: none of them is blamed as if it were an easy case."""
    easy, hard = [[(0.9, 0.0)] for _ in range(8)], [[(0.1, 0.0)] for _ in range(8)]
    got = np.concatenate(return_advantages([*easy, *hard], 8))
    worse = np.concatenate(return_advantages([*easy, *hard[:-1], [(-0.5, 0.0)]], 8))
    assert abs(got[:8].mean() + got[8:].mean()) < 1e-6
    assert worse[-1] < worse[8:15].min()


def test_excluded_runs_are_empty_and_move_nothing() -> None:
    runs: list[Any] = [[(0.3, 0.0), (0.1, 0.3)], [(0.5, 0.0)], None, None]
    got = return_advantages(runs, 4)
    assert [len(a) for a in got] == [2, 1, 0, 0]
    assert [a.size for a in return_advantages([None, None], 2)] == [0, 0]
    with pytest.raises(ValueError, match="no groups of 3"):
        return_advantages(runs, 3)


@given(RUNS, st.sampled_from([0.0, 0.5, 1.0]))
def test_they_are_finite_of_one_scale_and_blind_to_the_order_of_groups(runs: list[Any], decay: float) -> None:
    got = return_advantages(runs, 4, decay)
    assert [len(a) for a in got] == [0 if run is None else len(run) for run in runs]
    every = np.concatenate(got) if got else np.zeros(0)
    assert np.isfinite(every).all()
    assert every.size == 0 or every.std() <= 1.0 + 1e-3
    turned = return_advantages([*runs[4:], *runs[:4]], 4, decay)
    for mine, other in zip(got, [*turned[-4:], *turned[:-4]] if len(runs) > 4 else turned, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-3)


def test_parts_that_name_no_reply_are_earned_by_the_last() -> None:
    rubric = load_rubric("ibis:answer=0.1,step_cost=0.5")
    by_turn = {name: (0.0, 0.0) for name in rubric.names if name != "answer"} | {"step_cost": (-1.0, 0.0)}
    parts: dict[str, float | None] = {name: sum(values) for name, values in by_turn.items()} | {"answer": 3.0}
    replies = tuple(SimpleNamespace(iou_before=u) for u in (0.0, 0.6))
    run: Any = SimpleNamespace(breakdown=Breakdown(-0.2, parts, by_turn, None), trace=SimpleNamespace(replies=replies))
    assert rewarded_turns(run, rubric) == ((-0.5, 0.0), (pytest.approx(0.3), 0.6))
    run.breakdown = Breakdown(None, dict.fromkeys(rubric.names), {}, "tool_error")
    assert rewarded_turns(run, rubric) is None
