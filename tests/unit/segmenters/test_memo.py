from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ibisagent.geometry import Geometry
from ibisagent.segmenters.litemedsam import LiteMedSamSegmenter
from ibisagent.segmenters.memo import MemoSegmenter
from ibisagent.segmenters.session import Session
from ibisagent.types import Image, PixelBox, PixelClick, Prediction, Prompt


class Counting(LiteMedSamSegmenter):
    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def predict(self, embedding: Any, prompts: Sequence[Prompt]) -> list[Prediction]:
        self.asked += len(prompts)
        return super().predict(embedding, prompts)


def picture(seed: int) -> Image:
    rng = np.random.default_rng(seed)
    gray = rng.integers(0, 80, (48, 60), np.uint8)
    gray[10:30, 20:45] += 120
    return Image(np.repeat(gray[..., None], 3, 2), Geometry.plane_2d())


CLICKS = [PixelClick(30, 20, True), PixelClick(22, 12, True), PixelClick(5, 5, False)]


def masks(session: Session) -> list[np.ndarray]:
    return [session.add_clicks([click]).mask for click in CLICKS]


def test_it_answers_as_what_it_wraps_and_asks_once() -> None:
    inner, image = Counting(), picture(0)
    expected = masks(Session(inner, image))
    memory = MemoSegmenter(inner)
    inner.asked = 0
    for _ in range(3):
        got = masks(Session(memory, image, embedding=memory.encode(image)))
        assert all(np.array_equal(a, b) for a, b in zip(expected, got, strict=True))
    assert inner.asked == memory.num_predicted == 3 and memory.num_remembered == 6 and memory.num_encoded == 1


def test_what_differs_is_asked_anew() -> None:
    inner, image = Counting(), picture(0)
    memory = MemoSegmenter(inner)
    embedding = memory.encode(image)
    given = np.zeros((48, 60), bool)
    given[12:20, 22:30] = True
    first = memory.predict(embedding, [Prompt(clicks=(CLICKS[0],))])[0]
    variants = [
        Prompt(clicks=(CLICKS[0],), prior_mask=given),
        Prompt(clicks=(CLICKS[0],), prior_mask=~given),
        Prompt(clicks=(CLICKS[0],), prior_logits=first.state),
        Prompt(clicks=(CLICKS[0],), box=PixelBox(10, 10, 50, 40)),
        Prompt(clicks=(CLICKS[1],)),
    ]
    inner.asked = 0
    memory.predict(embedding, variants)
    memory.predict(embedding, variants[::-1])
    assert inner.asked == 5
    # Logits that came from elsewhere are told apart by their values.
    assert first.state is not None
    memory.predict(embedding, [Prompt(clicks=(CLICKS[0],), prior_logits=first.state.copy())])
    memory.predict(embedding, [Prompt(clicks=(CLICKS[0],), prior_logits=first.state.copy())])
    assert inner.asked == 6


def test_another_image_forgets_the_first() -> None:
    inner = Counting()
    memory = MemoSegmenter(inner)
    a, b = picture(0), picture(1)
    of_a = memory.predict(memory.encode(a), [Prompt(clicks=(CLICKS[0],))])[0].mask
    of_b = memory.predict(memory.encode(b), [Prompt(clicks=(CLICKS[0],))])[0].mask
    assert not np.array_equal(of_a, of_b)
    again = memory.predict(memory.encode(a), [Prompt(clicks=(CLICKS[0],))])[0].mask
    assert np.array_equal(of_a, again) and memory.num_encoded == 3 and inner.asked == 3
