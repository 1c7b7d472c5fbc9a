"""The kit must pass a correct segmenter and catch each kind of fault."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ibisagent.segmenters.conformance import Violation, check_segmenter, default_images
from ibisagent.segmenters.prompting import check_prompt
from ibisagent.segmenters.protocol import Capabilities
from ibisagent.types import Image, Prediction, Prompt

ALL = Capabilities(clicks=True, negative_clicks=True, boxes=True, prior_mask=True)


class Discs:
    """A correct little segmenter: discs around positive clicks less discs around negative ones, the box, the prior."""

    name = "discs"
    weights_sha256: str | None = None

    def __init__(self, capabilities: Capabilities = ALL) -> None:
        self.capabilities = capabilities

    def encode(self, image: Image) -> Any:
        return image.height, image.width

    def predict(self, embedding: Any, prompts: Sequence[Prompt]) -> list[Prediction]:
        return [self.answer(embedding, prompt) for prompt in prompts]

    def answer(self, shape: tuple[int, int], prompt: Prompt) -> Prediction:
        check_prompt(prompt, self.capabilities, *shape)
        y, x = np.mgrid[: shape[0], : shape[1]]
        logits = np.full(shape, -1.0, np.float32)
        if prompt.prior_mask is not None:
            logits[prompt.prior_mask] = 1.0
        if prompt.prior_logits is not None:
            logits = prompt.prior_logits.copy()
        if (box := prompt.box) is not None:
            logits[box.y0 : box.y1 + 1, box.x0 : box.x1 + 1] = 1.0
        for click in prompt.clicks:
            logits[np.hypot(x - click.x, y - click.y) < 4] = 1.0 if click.positive else -1.0
        probability = (1 / (1 + np.exp(-logits))).astype(np.float32)
        return Prediction(logits > 0, score=0.5, state=logits, probability=probability)


def checks(segmenter: Any, images: Sequence[Image] | None = None) -> set[str]:
    return {violation.check for violation in check_segmenter(segmenter, images)}


@pytest.mark.parametrize(
    "capabilities",
    [
        ALL,
        replace(ALL, boxes=False),
        replace(ALL, clicks=False, negative_clicks=False),
        replace(ALL, negative_clicks=False),
        replace(ALL, prior_mask=False),
        replace(ALL, max_clicks=1),
        replace(ALL, max_clicks=3),
    ],
    ids=["all", "no boxes", "boxes only", "positive only", "no prior mask", "one click", "three clicks"],
)
def test_a_correct_segmenter_passes(capabilities: Capabilities) -> None:
    assert check_segmenter(Discs(capabilities)) == []


def test_the_default_images_are_awkward() -> None:
    images = default_images()
    sizes = {(i.height, i.width) for i in images}
    assert {(37, 91), (64, 64), (300, 200)} <= sizes
    assert any(h == 1 for h, _ in sizes) and any(w == 1 for _, w in sizes)
    assert {i.is_gray for i in images} == {True, False}
    assert any(i.pixels.min() == i.pixels.max() for i in images)


def test_violations_say_what_and_where() -> None:
    class Flat(Discs):
        def answer(self, shape: Any, prompt: Prompt) -> Prediction:
            return replace(super().answer(shape, prompt), score=1.5)

    found = check_segmenter(Flat(), default_images()[-1:])[0]
    assert found == Violation("score", "neither None nor a float in [0, 1]: 1.5 (200x300 RGB)")
    assert str(found) == "score: neither None nor a float in [0, 1]: 1.5 (200x300 RGB)"


class Faulty(Discs):
    """Spoils each answer with ``spoil``."""

    def __init__(self, spoil: Any) -> None:
        super().__init__()
        self.spoil = spoil

    def answer(self, shape: Any, prompt: Prompt) -> Prediction:
        return self.spoil(super().answer(shape, prompt))


@pytest.mark.parametrize(
    ("spoil", "check"),
    [
        (lambda p: None, "prediction"),
        (lambda p: replace(p, mask=p.mask.astype(np.uint8)), "mask"),
        (lambda p: replace(p, mask=p.mask.T), "mask"),
        (lambda p: replace(p, mask=p.mask[None]), "mask"),
        (lambda p: replace(p, score=float("nan")), "score"),
        (lambda p: replace(p, score=np.float32(0.5)), "score"),
        (lambda p: replace(p, state=p.state.astype(np.float64)), "state"),
        (lambda p: replace(p, state=p.state * np.float32(np.nan)), "state"),
        (lambda p: replace(p, probability=p.probability * np.float32(2)), "probability"),
        (lambda p: replace(p, probability=p.probability * np.float32(np.nan)), "probability"),
        (lambda p: replace(p, probability=p.probability[:1, :1]), "probability"),
    ],
)
def test_malformed_answers_are_caught(spoil: Any, check: str) -> None:
    assert check in checks(Faulty(spoil))


def test_missing_attributes_are_caught() -> None:
    class Nothing:
        pass

    assert checks(Nothing()) == {"attributes"}
    for name, value in (("name", ""), ("capabilities", None), ("weights_sha256", "abc"), ("predict", None)):
        bad = Discs()
        setattr(bad, name, value)
        assert checks(bad) == {"attributes"}, name
    for capabilities in (
        Capabilities(False, False, False, True),
        Capabilities(False, True, True, True),
        replace(ALL, max_clicks=0),
    ):
        assert checks(Discs(capabilities)) == {"attributes"}


def test_randomness_is_caught() -> None:
    class Moody(Discs):
        def __init__(self) -> None:
            super().__init__()
            self.rng = np.random.default_rng(0)

        def answer(self, shape: Any, prompt: Prompt) -> Prediction:
            return replace(super().answer(shape, prompt), mask=self.rng.random(shape) < 0.5, probability=None)

    assert "determinism" in checks(Moody())


def test_shared_memory_is_caught() -> None:
    class Sharing(Discs):
        def __init__(self) -> None:
            super().__init__()
            self.kept: dict[str, Prediction] = {}

        def answer(self, shape: Any, prompt: Prompt) -> Prediction:
            return self.kept.setdefault(repr((shape, prompt)), super().answer(shape, prompt))

    assert "determinism" in checks(Sharing())


def test_hidden_state_of_the_last_image_is_caught() -> None:
    class Forgetful(Discs):
        def encode(self, image: Image) -> Any:
            self.level = int(image.pixels.mean())
            return super().encode(image)

        def answer(self, shape: Any, prompt: Prompt) -> Prediction:
            found = super().answer(shape, prompt)
            return replace(found, mask=found.mask ^ bool(self.level % 2), probability=None)

    bright, dark = (replace(default_images()[3], pixels=np.full((9, 9, 3), v, np.uint8)) for v in (200, 31))
    assert checks(Forgetful(), [bright]) == set()
    assert checks(Forgetful(), [bright, dark]) == {"independence"}


def test_padding_that_leaks_between_prompts_is_caught() -> None:
    class Leaky(Discs):
        def predict(self, embedding: Any, prompts: Sequence[Prompt]) -> list[Prediction]:
            found = super().predict(embedding, prompts)
            return [replace(p, score=p.score / len(prompts)) for p in found]  # type: ignore[operator]

    class Reversed(Discs):
        def predict(self, embedding: Any, prompts: Sequence[Prompt]) -> list[Prediction]:
            return super().predict(embedding, prompts)[::-1]

    assert checks(Leaky()) == {"batch"}
    assert checks(Reversed()) == {"batch"}


def test_a_batch_of_the_wrong_length_is_caught() -> None:
    class Stingy(Discs):
        def predict(self, embedding: Any, prompts: Sequence[Prompt]) -> list[Prediction]:
            return super().predict(embedding, prompts)[:1]

    class Tuple(Discs):
        def predict(self, embedding: Any, prompts: Sequence[Prompt]) -> Any:
            return tuple(super().predict(embedding, prompts))

    assert {"batch", "border clicks"} <= checks(Stingy())
    assert "predict" in checks(Tuple()) and "empty batch" in checks(Tuple())


def test_changed_inputs_are_caught() -> None:
    class Scribbler(Discs):
        def answer(self, shape: Any, prompt: Prompt) -> Prediction:
            found = super().answer(shape, prompt)
            for array in (prompt.prior_logits, prompt.prior_mask):
                if array is not None and array.flags.writeable:
                    array[:] = 0
            return found

    class Insistent(Discs):
        def answer(self, shape: Any, prompt: Prompt) -> Prediction:
            if prompt.prior_mask is not None:
                prompt.prior_mask[:] = True  # raises on a read-only array
            return super().answer(shape, prompt)

    class Painter(Discs):
        def encode(self, image: Image) -> Any:
            image.pixels.flags.writeable = True
            image.pixels[0, 0] = 255
            return super().encode(image)

    assert checks(Scribbler()) == {"inputs"}
    assert "prior mask" in checks(Insistent())
    assert "inputs" in checks(Painter(), default_images()[:1])


def test_what_must_be_refused() -> None:
    class Tolerant(Discs):
        """Clips what lies outside, and answers anything."""

        def answer(self, shape: Any, prompt: Prompt) -> Prediction:
            try:
                return super().answer(shape, prompt)
            except Exception:
                return Prediction(np.zeros(shape, bool))

    class Wrong(Discs):
        """Raises, but not what the protocol says."""

        def answer(self, shape: Any, prompt: Prompt) -> Prediction:
            if not prompt.clicks and prompt.box is None:
                raise ValueError("empty")
            return super().answer(shape, prompt)

    image = default_images()[3:4]
    said = " ".join(map(str, check_segmenter(Tolerant(), image)))
    for words in ("empty prompt", "click outside", "box that leaves", "x1 < x0", "another shape"):
        assert words in said
    assert checks(Wrong()) == {"refusal"}

    undeclared = {
        "a click, though": replace(ALL, clicks=False, negative_clicks=False),
        "a negative click, though": replace(ALL, negative_clicks=False),
        "a box, though": replace(ALL, boxes=False),
        "a prior mask, though": replace(ALL, prior_mask=False),
        "one click more": replace(ALL, max_clicks=2),
    }
    for words, capabilities in undeclared.items():
        assert words in " ".join(map(str, check_segmenter(Tolerant(capabilities), image)))


def test_every_border_pixel_of_a_small_image_is_clicked() -> None:
    clicked: set[tuple[int, int]] = set()

    class Watching(Discs):
        def answer(self, shape: Any, prompt: Prompt) -> Prediction:
            found = super().answer(shape, prompt)
            clicked.update((c.x, c.y) for c in prompt.clicks)
            return found

    image = next(i for i in default_images() if (i.height, i.width) == (11, 7))
    assert check_segmenter(Watching(), [image]) == []
    assert {(x, y) for x, y in itertools.product(range(7), range(11)) if x in (0, 6) or y in (0, 10)} <= clicked


def test_crashes_are_findings_and_not_crashes() -> None:
    class NoEncode(Discs):
        def encode(self, image: Image) -> Any:
            raise RuntimeError("boom")

    class NullEncode(Discs):
        def encode(self, image: Image) -> Any:
            return None

    class EdgeBug(Discs):
        def answer(self, shape: Any, prompt: Prompt) -> Prediction:
            if any(c.x == shape[1] - 1 for c in prompt.clicks):
                raise IndexError("off by one")
            return super().answer(shape, prompt)

    assert checks(NoEncode()) == {"encode"}
    assert len(check_segmenter(NullEncode(), default_images()[:2])) == 2
    assert "border clicks" in checks(EdgeBug())


def test_the_rule_based_segmenter_conforms() -> None:
    rules = pytest.importorskip("ibisagent.segmenters.rules")
    assert check_segmenter(rules.make()) == []
