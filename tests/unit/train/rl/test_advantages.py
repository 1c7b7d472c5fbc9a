"""Advantages: what a group's mean is, who counts in it, and what a turn is held against."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibisagent.train.rl.advantages import episode_advantages, turn_advantages

rewards = st.none() | st.floats(-3, 3, allow_nan=False).map(lambda value: round(value, 3))
scales = st.sampled_from(["group", "batch", "none"])


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[float | None], int]:
    size = draw(st.integers(1, 5))
    groups = draw(st.integers(1, 4))
    return draw(st.lists(rewards, min_size=size * groups, max_size=size * groups)), size


@st.composite
def turned(draw: st.DrawFn) -> tuple[list[list[float] | None], int]:
    size = draw(st.integers(2, 4))
    one = st.none() | st.lists(st.floats(-1, 1).map(lambda value: round(value, 3)), max_size=4)
    count = size * draw(st.integers(1, 3))
    return draw(st.lists(one, min_size=count, max_size=count)), size


def test_by_hand() -> None:
    got = episode_advantages([1.0, 3.0, None, 5.0, 5.0, 5.0], 3)
    # Mean 2 and unbiased deviation sqrt 2 of the first two; nothing where all got the same.
    assert got == pytest.approx([-1 / 1.41431, 1 / 1.41431, 0, 0, 0, 0], abs=1e-4)
    assert episode_advantages([1.0, 3.0, None, 5.0, 5.0, 5.0], 3, "none").tolist() == [-1, 1, 0, 0, 0, 0]
    whole = np.std([1, 3, 5, 5, 5], ddof=1)
    assert episode_advantages([1.0, 3.0, None, 5.0, 5.0, 5.0], 3, "batch")[:2] == pytest.approx(
        [-1 / whole, 1 / whole], rel=1e-3
    )


@given(batches(), scales)
def test_the_mean_of_a_group_is_zero_and_the_excluded_count_nowhere(
    batch: tuple[list[float | None], int], scale: str
) -> None:
    totals, size = batch
    got = episode_advantages(totals, size, scale)
    assert got.dtype == np.float32 and got.shape == (len(totals),) and np.isfinite(got).all()
    for start in range(0, len(totals), size):
        group = totals[start : start + size]
        assert got[start : start + size].sum() == pytest.approx(0, abs=1e-3)
        assert all(got[start + i] == 0 for i, total in enumerate(group) if total is None)
        known = [total for total in group if total is not None]
        alone = episode_advantages(known, max(1, len(known)), "none")  # as if the failed runs had never been
        if scale == "none":
            mine = [got[start + i] for i, total in enumerate(group) if total is not None]
            assert mine == pytest.approx(alone.tolist(), abs=1e-5)
        order = [(a, b) for a, b in zip(group, got[start : start + size], strict=True) if a is not None]
        assert all(x[1] <= y[1] + 1e-6 for x in order for y in order if x[0] < y[0])


@given(batches())
def test_the_group_s_scale_takes_shifts_and_factors_out(batch: tuple[list[float | None], int]) -> None:
    totals, size = batch
    moved = [None if total is None else 100 * total + 7 for total in totals]
    one, other = episode_advantages(totals, size), episode_advantages(moved, size)
    groups = [[t for t in totals[i : i + size] if t is not None] for i in range(0, len(totals), size)]
    spread = [np.std(group) for group in groups if len(set(group)) > 1]
    if spread and min(spread) > 0.1:  # else the small number under the deviation shows
        assert one == pytest.approx(other, abs=5e-3)


@given(turned(), scales)
def test_a_turn_is_held_against_the_siblings_that_took_it(
    batch: tuple[list[list[float] | None], int], scale: str
) -> None:
    by_turn, size = batch
    got = turn_advantages(by_turn, size, scale)
    assert [len(a) for a in got] == [0 if turns is None else len(turns) for turns in by_turn]
    for start in range(0, len(by_turn), size):
        for turn in range(4):
            there = [i for i in range(start, start + size) if len(got[i]) > turn]
            assert sum(float(got[i][turn]) for i in there) == pytest.approx(0, abs=1e-3)
            if len(there) == 1:
                assert got[there[0]][turn] == 0
            if scale == "none" and there:
                values = [by_turn[i][turn] for i in there]
                assert [got[i][turn] for i in there] == pytest.approx(np.array(values) - np.mean(values), abs=1e-5)


def test_turns_by_hand() -> None:
    got = turn_advantages([[1.0, 0.0, 9.0], [3.0, 2.0], None, [5.0]], 2, "none")
    assert [a.tolist() for a in got] == [[-1, -1, 0], [1, 1], [], [0]]
    assert [a.tolist() for a in turn_advantages([None, None], 2)] == [[], []]


@pytest.mark.parametrize(("count", "size"), [(3, 2), (2, 0), (1, 2)])
def test_broken_groups_are_refused(count: int, size: int) -> None:
    with pytest.raises(ValueError, match="no groups"):
        episode_advantages([0.0] * count, size)
    with pytest.raises(ValueError, match="no groups"):
        turn_advantages([[0.0]] * count, size)
