"""A test kit that every segmenter passes, ours or a user's.

From pytest::

    assert check_segmenter(segmenter) == []

Every finding is a :class:`Violation` with the check's name and what was seen; the kit itself never
raises for a faulty segmenter. It says nothing about how good the masks are: models with random
weights pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibisagent.errors import ToolError
from ibisagent.geometry import Geometry
from ibisagent.segmenters.conformance_video import check_tracking
from ibisagent.segmenters.protocol import Capabilities, Segmenter
from ibisagent.types import Image, PixelBox, PixelClick, Prediction, Prompt

__all__ = ["Violation", "check_segmenter", "default_images"]

MAX_DIFFERENCE = 1e-3
"""Largest difference in probability that batching may cause; logits may differ by ten times as much."""

_SMALL_PERIMETER = 64  # images up to this many border pixels get a click on each of them


@dataclass(frozen=True)
class Violation:
    """One promise that a segmenter breaks.

    Parameters
    ----------
    check
        Stable name of the check, for example ``"mask"`` or ``"determinism"``.
    detail
        What was seen, on which image.
    """

    check: str
    detail: str

    def __str__(self) -> str:
        return f"{self.check}: {self.detail}"


def default_images() -> list[Image]:
    """Return gray and RGB images of awkward sizes: lines of one pixel, odd, square, larger; one is constant."""
    rng = np.random.default_rng(0)

    def scene(height: int, width: int, gray: bool) -> Image:
        y, x = np.mgrid[:height, :width]
        disc = np.hypot((y - height / 2) / height, (x - width / 3) / width) < 0.25
        base = 40 + 120 * disc[..., None] + rng.normal(0, 12, (height, width, 1 if gray else 3))
        pixels = np.clip(base, 0, 255).astype(np.uint8)
        return Image(np.repeat(pixels, 3, axis=2) if gray else pixels, Geometry.plane_2d())

    constant = Image(np.zeros((8, 8, 3), np.uint8), Geometry.plane_2d())
    sizes = [(1, 19, True), (23, 1, False), (11, 7, True), (37, 91, False), (64, 64, True), (300, 200, False)]
    return [constant, *(scene(*size) for size in sizes)]


def check_segmenter(segmenter: Segmenter, images: Sequence[Image] | None = None) -> list[Violation]:
    """Check that a segmenter keeps the protocol's promises.

    Parameters
    ----------
    segmenter
        Any backend.
    images
        Images to try; None for :func:`default_images`. Images with at most 64 border pixels get a
        click on each of them, larger ones on the corners and sixteen others. A segmenter that declares
        ``video`` is also tried on a small stack of images.

    Returns
    -------
    list of Violation
        Empty if it conforms.
    """
    kit = Kit(segmenter)
    kit.attributes()
    if kit.violations:
        return kit.violations  # without these nothing else can be asked
    chosen = list(images) if images is not None else default_images()
    for image in chosen:
        kit.image(image)
    if len(chosen) > 1:
        kit.independence(chosen[-1], chosen[0])
    if segmenter.capabilities.video:
        check_tracking(kit)
    return kit.violations


class Kit:
    """One run over one segmenter; collects what it finds."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter
        self.violations: list[Violation] = []
        self.here("", (0, 0))

    def here(self, where: str, shape: tuple[int, int]) -> None:
        """Say what is looked at now: words for the findings, and the shape (height, width) that masks must have."""
        self._where, self._shape = where, shape

    # -- reporting ------------------------------------------------------------------------------

    def fail(self, check: str, detail: str) -> None:
        self.violations.append(Violation(check, f"{detail}{self._where}"))

    def attempt(self, check: str, call: Callable[[], Any]) -> Any:
        """Run a call that must work; None, and a violation, if it raises."""
        try:
            return call()
        except Exception as error:  # a faulty backend may raise anything; that is the finding
            self.fail(check, f"raised {type(error).__name__}: {error}")
            return None

    def predict(self, check: str, embedding: Any, prompts: Sequence[Prompt]) -> list[Prediction] | None:
        """Predict and check the form of every answer; None if there is no usable answer."""
        found = self.attempt(check, lambda: self.segmenter.predict(embedding, prompts))
        if found is None:
            return None
        if not isinstance(found, list) or len(found) != len(prompts):
            self.fail(check, f"{len(prompts)} prompts were not answered by a list of as many predictions")
            return None
        sound = [self.sound(prediction) for prediction in found]
        return found if all(sound) else None

    def refuses(self, check: str, embedding: Any, prompt: Prompt, what: str) -> None:
        """Check that a prompt raises ToolError and nothing else."""
        self.must_refuse(check, lambda: self.segmenter.predict(embedding, [prompt]), what)

    def must_refuse(self, check: str, call: Callable[[], Any], what: str) -> None:
        """Check that a call raises ToolError and nothing else."""
        try:
            call()
        except ToolError:
            return
        except Exception as error:  # any other kind would end the run as a crash, not as an outcome
            self.fail(check, f"{what} raised {type(error).__name__} in place of ToolError")
            return
        self.fail(check, f"{what} was answered; it must raise ToolError")

    # -- checks ---------------------------------------------------------------------------------

    def attributes(self) -> None:
        s: Any = self.segmenter
        for method in ("encode", "predict"):
            if not callable(getattr(s, method, None)):
                self.fail("attributes", f"no method {method}")
        if not (isinstance(getattr(s, "name", None), str) and s.name):
            self.fail("attributes", "name is not a non-empty string")
        c = getattr(s, "capabilities", None)
        if not isinstance(c, Capabilities):
            self.fail("attributes", "capabilities is not a Capabilities")
        else:
            if not (c.clicks or c.boxes):
                self.fail("attributes", "capabilities offer neither clicks nor boxes")
            if c.negative_clicks and not c.clicks:
                self.fail("attributes", "capabilities offer negative clicks without clicks")
            if c.max_clicks is not None and c.max_clicks < 1:
                self.fail("attributes", "capabilities.max_clicks is less than 1")
        digest = getattr(s, "weights_sha256", "absent")
        if digest is not None and not (isinstance(digest, str) and re.fullmatch(r"[0-9a-f]{64}", digest)):
            self.fail("attributes", "weights_sha256 is neither None nor 64 lower-case hex digits")

    def image(self, image: Image) -> None:
        gray = "gray" if image.is_gray else "RGB"
        self.here(f" ({image.width}x{image.height} {gray})", (image.height, image.width))
        before = image.pixels.copy()
        count = len(self.violations)
        embedding = self.attempt("encode", lambda: self.segmenter.encode(image))
        if embedding is None:
            if len(self.violations) == count:
                self.fail("encode", "returned None")
            return
        prompts = self._prompts(image)
        singles = [self.predict("predict", embedding, [prompt]) for prompt in prompts]
        self._batches(embedding, prompts, singles)
        self._determinism(image, embedding, prompts, singles)
        self._borders(image, embedding)
        self._priors(image, embedding, prompts[0])
        self._refusals(image, embedding)
        if self.attempt("empty batch", lambda: self.segmenter.predict(embedding, []) == []) is False:
            self.fail("empty batch", "no prompts must give an empty list")
        if not np.array_equal(before, image.pixels):
            self.fail("inputs", "the image's pixels were changed")

    def independence(self, first: Image, second: Image) -> None:
        """An embedding must not depend on what was encoded after it."""
        self.here(" (two images)", (first.height, first.width))
        prompt = self._prompts(first)[0]
        embedding = self.attempt("encode", lambda: self.segmenter.encode(first))
        if embedding is None:
            return
        alone = self.predict("predict", embedding, [prompt])
        self.attempt("encode", lambda: self.segmenter.encode(second))
        again = self.predict("predict", embedding, [prompt])
        if alone and again and not np.array_equal(alone[0].mask, again[0].mask):
            self.fail("independence", "encoding another image changed the answers on the first embedding")

    def sound(self, prediction: Any) -> bool:
        """Check types, shapes and ranges of one answer; whether all of them hold."""
        count = len(self.violations)
        if not isinstance(prediction, Prediction):
            self.fail("prediction", f"{type(prediction).__name__} is not a Prediction")
            return False
        mask, score, state, probability = prediction.mask, prediction.score, prediction.state, prediction.probability
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != self._shape:
            self.fail("mask", f"not a bool array of {self._shape}: {_form(mask)}")
        if score is not None and not (isinstance(score, float) and 0.0 <= score <= 1.0):
            self.fail("score", f"neither None nor a float in [0, 1]: {score!r}")
        if state is not None:
            if not isinstance(state, np.ndarray) or state.dtype != np.float32 or state.ndim != 2:
                self.fail("state", f"neither None nor float32 (h, w): {_form(state)}")
            elif not np.isfinite(state).all():
                self.fail("state", "holds NaN or infinity")
        if probability is not None:
            if (
                not isinstance(probability, np.ndarray)
                or probability.dtype != np.float32
                or probability.shape != self._shape
            ):
                self.fail("probability", f"neither None nor float32 of {self._shape}: {_form(probability)}")
            elif not (np.isfinite(probability).all() and probability.min() >= 0.0 and probability.max() <= 1.0):
                self.fail("probability", "holds NaN or leaves [0, 1]")
        return len(self.violations) == count

    def _prompts(self, image: Image) -> list[Prompt]:
        """Legal prompts of every declared kind, several forms mixed; none with a prior."""
        c, w, h = self.segmenter.capabilities, image.width, image.height
        middle = PixelClick(w // 2, h // 2, True)
        whole, dot = PixelBox(0, 0, w - 1, h - 1), PixelBox(w - 1, h // 2, w - 1, h // 2)
        part = PixelBox(w // 4, h // 4, max(w // 4, 3 * w // 4 - 1), max(h // 4, 3 * h // 4 - 1))
        most = c.max_clicks if c.max_clicks is not None else 8
        prompts = []
        if c.clicks:
            prompts += [Prompt(clicks=(middle,)), Prompt(clicks=(PixelClick(w // 3, h // 3, True),))]
            if most >= 2:
                prompts.append(Prompt(clicks=(middle, PixelClick(w // 4, h // 4, True))))
                prompts.append(Prompt(clicks=(middle, middle)))  # the same pixel twice is legal
            many = tuple(PixelClick((5 * i) % w, (3 * i) % h, not c.negative_clicks or i % 2 == 0) for i in range(most))
            prompts.append(Prompt(clicks=many))
        if c.negative_clicks:
            prompts.append(Prompt(clicks=(PixelClick(w // 3, h // 3, False),)))
            if most >= 2:
                prompts.append(Prompt(clicks=(middle, PixelClick(0, 0, False))))
        if c.boxes:
            prompts += [Prompt(box=whole), Prompt(box=dot), Prompt(box=part)]
        if c.boxes and c.clicks:
            prompts.append(Prompt(clicks=(middle,), box=whole))
        return prompts

    def _batches(self, embedding: Any, prompts: list[Prompt], singles: list[list[Prediction] | None]) -> None:
        """A batch answers as its prompts do one by one, in order."""
        together = self.predict("batch", embedding, prompts)
        for index, (one, both) in enumerate(zip(singles, together or [], strict=False)):
            if one is not None and (difference := _difference(one[0], both)):
                self.fail("batch", f"prompt {index} of a mixed batch is answered differently than alone: {difference}")

    def _determinism(
        self, image: Image, embedding: Any, prompts: list[Prompt], singles: list[list[Prediction] | None]
    ) -> None:
        """The same question gets the same bits, on the same embedding and on a fresh one."""
        for prediction in (single[0] for single in singles[:1] if single):
            mask = prediction.mask.copy()
            if prediction.mask.flags.writeable:
                prediction.mask[:] = ~prediction.mask  # answers must not share memory with the segmenter
            again = self.predict("determinism", embedding, prompts[:1])
            if again and not np.array_equal(mask, again[0].mask):
                self.fail("determinism", "the same prompt on the same embedding gave another mask")
            fresh = self.attempt("encode", lambda: self.segmenter.encode(image))
            anew = self.predict("determinism", fresh, prompts[:1]) if fresh is not None else None
            if anew and not np.array_equal(mask, anew[0].mask):
                self.fail("determinism", "the same prompt on a second encoding of the image gave another mask")
            if anew and again and anew[0].score != again[0].score:
                self.fail("determinism", "the same prompt gave another score")

    def _borders(self, image: Image, embedding: Any) -> None:
        if self.segmenter.capabilities.clicks:
            clicks = [Prompt(clicks=(PixelClick(x, y, True),)) for x, y in _border(image.width, image.height)]
            self.predict("border clicks", embedding, clicks)

    def _priors(self, image: Image, embedding: Any, prompt: Prompt) -> None:
        """States come back, masks from elsewhere are taken if declared, and neither is modified."""
        for first in self.predict("predict", embedding, [prompt]) or []:
            if first.state is not None:
                self._untouched("prior logits", embedding, replace(prompt, prior_logits=first.state), first.state)
        if self.segmenter.capabilities.prior_mask:
            for mask in (np.zeros(self._shape, bool), np.ones(self._shape, bool), _half(self._shape)):
                self._untouched("prior mask", embedding, replace(prompt, prior_mask=mask), mask)

    def _untouched(self, check: str, embedding: Any, prompt: Prompt, array: NDArray[Any]) -> None:
        before = array.copy()
        self.predict(check, embedding, [prompt])
        if not np.array_equal(before, array):
            self.fail("inputs", f"the {check} given with a prompt was changed")
        frozen = before.copy()
        frozen.flags.writeable = False
        given = prompt.prior_logits is not None
        again = replace(prompt, prior_logits=frozen) if given else replace(prompt, prior_mask=frozen)
        self.predict(check, embedding, [again])  # read-only arrays are legal

    def _refusals(self, image: Image, embedding: Any) -> None:
        c, w, h = self.segmenter.capabilities, image.width, image.height
        click, box = PixelClick(0, 0, True), PixelBox(0, 0, w - 1, h - 1)
        self.refuses("refusal", embedding, Prompt(), "an empty prompt")
        if c.clicks:
            for x, y in ((-1, 0), (0, -1), (w, 0), (0, h), (w + 1000, h + 1000)):
                outside = Prompt(clicks=(PixelClick(x, y, True),))
                self.refuses("refusal", embedding, outside, f"a click outside the image, ({x}, {y}),")
        else:
            self.refuses("refusal", embedding, Prompt(clicks=(click,)), "a click, though clicks are not declared,")
        if c.clicks and not c.negative_clicks:
            negative = Prompt(clicks=(click, replace(click, positive=False)))
            self.refuses("refusal", embedding, negative, "a negative click, though not declared,")
        if c.clicks and c.max_clicks is not None:
            many = Prompt(clicks=(click,) * (c.max_clicks + 1))
            self.refuses("refusal", embedding, many, "one click more than capabilities.max_clicks")
        if c.boxes:
            for bad in (PixelBox(0, 0, w, h - 1), PixelBox(-1, 0, 0, 0), PixelBox(0, h - 1, 0, h)):
                self.refuses("refusal", embedding, Prompt(box=bad), f"a box that leaves the image, {bad},")
            if w > 1:
                self.refuses("refusal", embedding, Prompt(box=PixelBox(1, 0, 0, 0)), "a box with x1 < x0")
        else:
            self.refuses("refusal", embedding, Prompt(box=box), "a box, though boxes are not declared,")
        some = Prompt(clicks=(click,)) if c.clicks else Prompt(box=box)
        if not c.prior_mask:
            given = replace(some, prior_mask=np.zeros(self._shape, bool))
            self.refuses("refusal", embedding, given, "a prior mask, though not declared,")
        else:
            wrong = replace(some, prior_mask=np.zeros((h + 1, w), bool))
            self.refuses("refusal", embedding, wrong, "a prior mask of another shape than the image")


def _border(width: int, height: int) -> list[tuple[int, int]]:
    """Every border pixel of a small image; corners and sixteen more of a large one."""
    pixels = [(x, y) for y in range(height) for x in range(width) if x in (0, width - 1) or y in (0, height - 1)]
    if len(pixels) <= _SMALL_PERIMETER:
        return pixels
    corners = [(0, 0), (width - 1, 0), (0, height - 1), (width - 1, height - 1)]
    return corners + pixels[:: len(pixels) // 16][:16]


def _half(shape: tuple[int, int]) -> NDArray[np.bool_]:
    mask = np.zeros(shape, bool)
    mask[: max(1, shape[0] // 2)] = True
    return mask


def _form(value: Any) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


def _difference(one: Prediction, other: Prediction) -> str:
    """Say how two answers differ beyond rounding; empty if they do not.

    Batched arithmetic rounds differently, so a pixel may change sides where its probability is one half.
    """
    if (one.score is None) != (other.score is None) or abs((one.score or 0) - (other.score or 0)) > MAX_DIFFERENCE:
        return f"score {one.score} and {other.score}"
    for name, limit in (("state", 10 * MAX_DIFFERENCE), ("probability", MAX_DIFFERENCE)):
        a, b = getattr(one, name), getattr(other, name)
        if (a is None) != (b is None) or (a is not None and a.shape != b.shape):
            return f"{name} has another form"
        if a is not None and float(np.abs(a - b).max()) > limit:
            return f"{name} differs by {float(np.abs(a - b).max()):.2g}"
    changed = one.mask != other.mask
    if one.probability is not None:
        changed = changed & (np.abs(one.probability - 0.5) > MAX_DIFFERENCE)
    return f"{int(changed.sum())} pixels of the mask" if changed.any() else ""
