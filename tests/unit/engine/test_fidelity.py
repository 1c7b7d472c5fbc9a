"""The paper's expert, click by click, against an implementation that shares no code with ours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from ibisagent import phantoms
from ibisagent.actions import ClickAction
from ibisagent.engine.builder.config import load_config
from ibisagent.engine.expert import Expert
from ibisagent.engine.walk import Subject, expert_walk
from ibisagent.geometry import Geometry
from ibisagent.io.datasets import CaseRow, load_case, read_cases
from ibisagent.registry import make_segmenter
from ibisagent.segmenters.memo import MemoSegmenter
from ibisagent.types import Image, PixelClick, Prompt

MINI = Path(__file__).parents[3] / "data" / "mini" / "cases.jsonl"


def cases(number: int) -> Iterator[tuple[str, Image, NDArray[np.bool_]]]:
    """Half from mini, spread over it, half targets of phantoms of all kinds."""
    rows = [row for row in read_cases(MINI) if isinstance(row, CaseRow) and row.mask]
    half = number // 2
    for i in range(half):
        row = rows[i * len(rows) // half]
        image, target, _ = load_case(row, MINI.parent)
        assert target is not None
        yield row.case_id, image, target
    made = seed = 0
    while made < number - half:
        drawn = phantoms.generate(phantoms.KINDS[seed % len(phantoms.KINDS)], seed)
        for name, target in sorted(drawn.masks.items()):
            if made < number - half:
                made += 1
                yield f"{drawn.kind} {seed} {name}", Image(drawn.pixels, Geometry.plane_2d()), target
        seed += 1


def straightforward(segmenter: Any, image: Image, target: NDArray[np.bool_]) -> list[tuple[int, int, bool]]:
    """The paper's loop as one writes it down: errors, distance transform, deepest point, all over the whole image."""
    embedding = segmenter.encode(image)
    mask = np.zeros_like(target)
    clicks: list[PixelClick] = []
    logits = None
    while len(clicks) < 20:
        missed, excess = target & ~mask, mask & ~target
        if not missed.any() and not excess.any():
            break
        positive = bool(missed.sum() >= excess.sum())
        region = missed if positive else excess
        depth = distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
        y, x = np.unravel_index(np.argmax(depth.astype(np.float32)), depth.shape)
        clicks.append(PixelClick(int(x), int(y), positive))
        (answer,) = segmenter.predict(embedding, [Prompt(clicks=tuple(clicks), prior_logits=logits)])
        mask, logits = answer.mask, answer.state
        if (mask & target).sum() / (mask | target).sum() >= 0.80:
            break
    return [(c.x, c.y, c.positive) for c in clicks]


def compare(segmenter_name: str, number: int) -> int:
    """Play `number` cases both ways; the number of clicks that were compared."""
    segmenter = make_segmenter(segmenter_name)
    remembering = MemoSegmenter(segmenter)
    config = load_config(("phantoms:1",), "paper")
    total = 0
    for name, image, target in cases(number):
        walk = expert_walk(
            Subject(image, "target", target), Expert(config.expert), remembering, np.random.default_rng(0)
        )
        ours = []
        for move in walk.moves:
            assert isinstance(move.action, ClickAction)
            click = move.action.clicks[0].to_pixel(image.width, image.height)
            ours.append((click.x, click.y, click.positive))
        assert ours == straightforward(segmenter, image, target), name
        total += len(ours)
    return total


def test_some_cases_with_the_rule_based_segmenter() -> None:
    assert compare("rules", 50) > 100


@pytest.mark.slow
def test_200_cases_with_the_rule_based_segmenter() -> None:
    assert compare("rules", 200) > 400


def test_some_cases_with_the_embedded_segmenter() -> None:
    assert compare("litemedsam", 12) > 24


@pytest.mark.slow
def test_200_cases_with_the_embedded_segmenter() -> None:
    assert compare("litemedsam", 200) > 400
