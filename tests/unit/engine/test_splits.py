"""Splits by patient, and the development split: deterministic, out of train, never at the cost of a scarce target."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibisagent.engine.splits import EVERY, development_images, split_of_group

MINI = Path(__file__).parents[3] / "data" / "mini" / "cases.jsonl"


def test_every_eighth_image_of_a_group_is_set_apart() -> None:
    rows = [(f"a{i:02d}", "alpha", "lung") for i in range(20)] + [(f"b{i}", "beta", "lung") for i in range(7)]
    assert development_images(rows) == {"a04", "a12"}
    assert development_images(reversed(rows)) == {"a04", "a12"}


def test_an_image_with_a_scarce_target_stays() -> None:
    rows = [(f"a{i:02d}", "alpha", "lung") for i in range(20)] + [("a04", "alpha", "tumor"), ("a05", "alpha", "tumor")]
    assert development_images(rows) == {"a12"}


def test_on_mini_it_is_a_small_part_of_train_that_costs_no_target() -> None:
    rows = [json.loads(line) for line in MINI.read_text(encoding="utf-8").splitlines()]
    train = [(r["image"], r["group"], r["target"]) for r in rows if r["split"] == "train"]
    apart = development_images(train)
    assert 5 <= len(apart) <= len({image for image, _, _ in train}) / EVERY
    assert not apart & {r["image"] for r in rows if r["split"] == "val"}
    left = Counter(f"{group}/{target}" for image, group, target in train if image not in apart)
    assert set(left) == {f"{group}/{target}" for _, group, target in train}


def test_a_group_has_one_split_for_ever() -> None:
    """Literal values: a changed hash would move patients between the splits of corpora that exist."""
    assert [split_of_group(f"patient_{n}") for n in (1, 5, 8, 12)] == ["train", "val", "test", "val"]
    assert split_of_group("patient_007", {"train": 0.5, "test": 0.5}, salt="a") == "test"
    assert split_of_group("patient_007", {"train": 0.5, "test": 0.5}, salt="c") == "train"


def test_shares_are_met_and_nothing_goes_to_an_empty_split() -> None:
    count = Counter(split_of_group(f"p{n}") for n in range(5000))
    assert set(count) == {"train", "val", "test"}
    assert abs(count["train"] / 5000 - 0.8) < 0.02 and abs(count["test"] / 5000 - 0.1) < 0.02
    assert {split_of_group(f"p{n}", {"train": 0.0, "test": 1.0, "val": 0.0}) for n in range(300)} == {"test"}


@given(group=st.text(), salt=st.text(), grow=st.floats(0, 0.3))
def test_more_training_takes_nobody_out_of_training(group: str, salt: str, grow: float) -> None:
    before = split_of_group(group, {"train": 0.6, "test": 0.4}, salt)
    after = split_of_group(group, {"train": 0.6 + grow, "test": 0.4 - grow}, salt)
    assert after == before or (before, after) == ("test", "train")


@pytest.mark.parametrize("shares", [{}, {"train": 0.5}, {"train": 1.5, "test": -0.5}, {"train": float("nan")}])
def test_shares_that_are_none(shares: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="add up to 1"):
        split_of_group("p", shares)
