"""The development split: deterministic, out of train, and never at the cost of a scarce target."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from ibisagent.engine.splits import EVERY, development_images

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
