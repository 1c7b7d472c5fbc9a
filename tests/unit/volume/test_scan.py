"""Where a run looks: spread, gaps, ranks, candidates."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibisagent.rle import encode_mask
from ibisagent.volume.record import Visit
from ibisagent.volume.scan import between, key_candidates, longest_stretch, rank, spread


def seen(index: int, pixels: int = 0, score: float | None = None, *, is_absent: bool = False) -> Visit:
    mask = None
    if pixels:
        mask = np.zeros((20, 20), bool)
        mask.flat[:pixels] = True
    return Visit(
        kind="scan",
        plane="axial",
        index=index,
        mask=encode_mask(mask) if mask is not None else None,
        score=score,
        is_absent=is_absent,
    )


@given(first=st.integers(0, 50), size=st.integers(1, 200), count=st.integers(1, 40))
def test_spread_covers_its_range_evenly(first: int, size: int, count: int) -> None:
    picked = spread(first, first + size - 1, count)
    assert len(picked) == min(size, count) and picked == sorted(set(picked))
    assert first <= picked[0] and picked[-1] < first + size
    edges = [first - 1, *picked, first + size]
    assert max(b - a for a, b in itertools.pairwise(edges)) <= size / len(picked) + 1


@given(last=st.integers(0, 100), data=st.data())
def test_between_halves_every_gap_once(last: int, data: st.DataObject) -> None:
    looked = sorted(data.draw(st.sets(st.integers(0, last))))
    new = between(0, last, looked)
    assert not set(new) & set(looked) and new == sorted(set(new)) and all(0 <= i <= last for i in new)
    if len(looked) < last + 1:
        assert new
    # looking again and again leaves nothing out
    while new:
        looked = sorted({*looked, *new})
        new = between(0, last, looked)
    assert looked == list(range(last + 1))


def test_rank_is_score_times_the_logarithm_of_pixels() -> None:
    assert rank(seen(1, 100, 0.5)) == pytest.approx(0.5 * np.log(101))
    assert rank(seen(1, 100)) == pytest.approx(np.log(101))  # a segmenter without scores
    assert rank(seen(1)) == rank(seen(1, 50, 0.9, is_absent=True)) == 0.0


def test_longest_stretch() -> None:
    visits = [seen(i, is_absent=i in (0, 6, 12)) for i in (12, 0, 3, 6, 9, 15, 18)]
    assert longest_stretch(visits) == (15, 18)
    assert longest_stretch([seen(4, is_absent=True)]) is None


def test_candidates_of_a_scan_that_looked() -> None:
    visits = [seen(i, is_absent=not 6 <= i <= 12) for i in range(0, 20, 3)]
    assert key_candidates(visits, 1, looked=True) == [9]
    assert key_candidates(visits, 2, looked=True) == [7, 11]
    assert key_candidates([seen(3, is_absent=True)], 2, looked=True) == []


def test_candidates_of_a_scan_that_clicked() -> None:
    visits = [seen(2, 30, 0.9), seen(5, 100, 0.8), seen(8, 90, 0.9), seen(11, 80, 0.5), seen(14, is_absent=True)]
    assert key_candidates(visits, 1, looked=False) == [8, 5, 2, 11]  # the best, and those that stand in for it
    assert key_candidates(visits, 2, looked=False)[:2] == [8, 5]
    assert key_candidates(visits, 3, looked=False)[:3] == [8, 5, 2]
    assert key_candidates([seen(1, is_absent=True), seen(2)], 1, looked=False) == []


def test_a_row_of_slices_outweighs_a_single_one() -> None:
    alone, row = seen(2, 100, 0.9), [seen(8, 60, 0.8), seen(11, 50, 0.8)]
    assert rank(alone) > rank(row[0])
    assert key_candidates([alone, seen(5, is_absent=True), *row], 1, looked=False) == [8, 11, 2]
    elsewhere = seen(5, 90, 0.9)
    mask = np.zeros((20, 20), bool)
    mask[15:, 10:] = True  # on another place: not of the same thing
    elsewhere.mask = encode_mask(mask)
    assert key_candidates([alone, elsewhere, *row], 1, looked=False)[0] == 8
