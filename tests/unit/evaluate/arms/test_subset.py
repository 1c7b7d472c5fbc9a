"""A subset is always the same, and spread over targets."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibisagent.evaluate.arms.subset import subset
from ibisagent.io import CaseRow, RowError, read_cases

MINI = Path(__file__).parents[4] / "data" / "mini" / "cases.jsonl"


def row(number: int, group: str = "g", target: str = "t", mask: str | None = "m.png") -> CaseRow:
    return CaseRow(case_id=f"c{number}", image="i.png", mask=mask, target=target, group=group)


rows = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.booleans()), max_size=30).map(
    lambda found: [row(i, g, t, "m.png" if m else None) for i, (g, t, m) in enumerate(found)]
)


@settings(max_examples=60, deadline=None)
@given(rows, st.integers(1, 35), st.randoms())
def test_order_changes_nothing_and_larger_subsets_hold_smaller_ones(
    found: list[CaseRow], number: int, shuffle: random.Random
) -> None:
    chosen = subset(found, number)
    assert len(chosen) == min(number, len(found))
    assert [r.case_id for r in chosen] == [r.case_id for r in found if r in chosen], "in the list's order"
    mixed = list(found)
    shuffle.shuffle(mixed)
    assert {r.case_id for r in subset(mixed, number)} == {r.case_id for r in chosen}
    assert {r.case_id for r in chosen} <= {r.case_id for r in subset(found, number + 1)}


def test_every_kind_of_target_comes_before_a_second_of_any() -> None:
    found = [row(i) for i in range(9)] + [row(10, target="u"), row(11, group="h"), row(12, mask=None)]
    chosen = subset(found, 4)
    assert Counter((r.group, r.target, r.mask is None) for r in chosen).most_common(1)[0][1] == 1
    assert Counter(r.target for r in subset(found, 6))["t"] == 5


def test_names_do_not_decide_where_every_image_is_a_group_of_its_own() -> None:
    found = [row(i, group=f"patient{i:02d}") for i in range(40)]
    places = [found.index(r) for r in subset(found, 10)]
    assert max(places) > 30 and sum(places) / 10 > 10, "the first ten would have a mean of 4.5"


def test_rows_that_cannot_be_used_stay_beside_the_number() -> None:
    bad = RowError(1, "c2", "bad", code="duplicate_id")
    assert subset([row(1), bad, row(2)], 5) == [row(1), bad, row(2)]
    assert len(subset([row(1), bad, row(2)], 1)) == 2 and bad in subset([row(1), bad, row(2)], 1)


@pytest.mark.skipif(not MINI.exists(), reason="data/mini is not here")
def test_24_cases_of_mini_val_are_these() -> None:
    chosen = subset([r for r in read_cases(MINI) if r.split == "val"], 24)
    assert len(chosen) == 24 and len({(r.group, r.target) for r in chosen}) == 16
    import hashlib

    names = "\n".join(sorted(r.case_id for r in chosen))
    assert hashlib.sha256(names.encode()).hexdigest()[:16] == "7285ad67cef9cddc"
