"""The part of the test kit that is for segmenters with a memory: what a :class:`~.protocol.Track` promises.

Called by :func:`ibisagent.segmenters.conformance.check_segmenter` where ``capabilities.video`` is declared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.errors import ToolError
from ibisagent.geometry import Geometry
from ibisagent.types import Image, PixelBox, PixelClick, Prediction, Prompt

if TYPE_CHECKING:
    from ibisagent.segmenters.conformance import Kit

__all__ = ["check_tracking", "default_stack"]

_KEY = 2  # the image of the stack that is prompted; others lie on both sides of it


def default_stack() -> list[Image]:
    """Return six neighbouring images of 26 x 20 pixels with a disc that moves and grows."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:20, :26]
    stack = []
    for i in range(6):
        disc = np.hypot(y - 10, x - 9 - i) < 3 + i / 2
        gray = np.clip(50 + 120 * disc + rng.normal(0, 8, disc.shape), 0, 255).astype(np.uint8)
        stack.append(Image(np.repeat(gray[..., None], 3, axis=2), Geometry.plane_2d()))
    return stack


class _Watched(Sequence[Image]):
    """A stack that notes which of its images are asked for."""

    def __init__(self, images: Sequence[Image]) -> None:
        self._images = images
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: Any) -> Any:
        if not isinstance(index, int) or not 0 <= index < len(self._images):
            raise IndexError(index)
        self.asked.append(index)
        return self._images[index]


def check_tracking(kit: Kit, stack: Sequence[Image] | None = None) -> None:
    """Check a segmenter that declares ``video``; what is found goes to the kit.

    Parameters
    ----------
    kit
        The run, with the segmenter.
    stack
        At least five images of one size; None for :func:`default_stack`.
    """
    if not callable(getattr(kit.segmenter, "track", None)):
        kit.fail("track", "capabilities declare video, but there is no method track")
        return
    _Tracking(kit, list(stack) if stack is not None else default_stack()).run()


class _Tracking:
    def __init__(self, kit: Kit, stack: list[Image]) -> None:
        self.kit, self.stack = kit, stack
        self.segmenter: Any = kit.segmenter
        height, width = stack[0].height, stack[0].width
        middle = PixelClick(width // 2, height // 2, True)
        box = PixelBox(width // 4, height // 4, 3 * width // 4, 3 * height // 4)
        self.point = Prompt(clicks=(middle,)) if self.segmenter.capabilities.clicks else Prompt(box=box)
        self.mask = np.zeros((height, width), bool)
        self.mask[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = True
        kit.here(" (stack of images)", (height, width))

    def run(self) -> None:
        """Carry in both directions, twice, and judge what comes."""
        before = [image.pixels.copy() for image in self.stack]
        first = self.follow(self.point)
        again = self.follow(self.point, between=True)
        if first is not None and again is not None and any(_differ(first[i], again[i]) for i in first):
            self.kit.fail("track determinism", "the same prompt on the same stack was carried differently")
        self.laziness()
        self.prompts()
        self.refusals()
        if any(not np.array_equal(old, image.pixels) for old, image in zip(before, self.stack, strict=True)):
            self.kit.fail("inputs", "the pixels of a stack's image were changed")

    def begin(self, stack: Sequence[Image], prompt: Prompt | None, index: int = _KEY) -> Any:
        """A track that was prompted, or None if that failed."""
        track = self.kit.attempt("track", lambda: self.segmenter.track(stack))
        if track is None or prompt is None:
            return track
        found = self.kit.attempt("track prompt", lambda: track.prompt(index, prompt))
        return track if found is not None and self.kit.sound(found) else None

    def follow(self, prompt: Prompt, between: bool = False) -> dict[int, Prediction] | None:
        """Carry in both directions; the images must come in order. With other work between the steps, if asked."""
        track = self.begin(self.stack, prompt)
        if track is None:
            return None
        found: dict[int, Prediction] = {}
        for reverse in (False, True):
            wanted = list(range(_KEY)[::-1] if reverse else range(_KEY + 1, len(self.stack)))
            answers = self.kit.attempt("carry", partial(self.walk, track, reverse, between))
            if answers is None:
                return None
            if [index for index, _ in answers] != wanted:
                self.kit.fail("carry", f"from image {_KEY}, reverse={reverse}: {[i for i, _ in answers]}, not {wanted}")
                return None
            if not all(self.kit.sound(prediction) for _, prediction in answers):
                return None
            found.update(answers)
        return found

    def walk(self, track: Any, reverse: bool, between: bool) -> list[tuple[int, Prediction]]:
        """The answers of one direction; `between` asks for other things on the way."""
        answers = []
        for index, prediction in track.carry(_KEY, reverse=reverse):
            kept = Prediction(prediction.mask.copy(), prediction.score, prediction.state, prediction.probability)
            answers.append((int(index), kept))
            if between:
                self.segmenter.predict(self.segmenter.encode(self.stack[0]), [self.point])
                if prediction.mask.flags.writeable:
                    prediction.mask[:] = ~prediction.mask  # answers must not share memory with the track
        return answers

    def laziness(self) -> None:
        """Images are read when their turn comes, at most once, and a run that was stopped can go on."""
        watched = _Watched(self.stack)
        track = self.begin(watched, None)
        if track is None:
            return
        if watched.asked:
            self.kit.fail("track laziness", "track read images before it was asked anything")
        if self.kit.attempt("track prompt", lambda: track.prompt(_KEY, self.point)) is None:
            return
        watched.asked.clear()
        index = self.kit.attempt("carry", lambda: next(iter(track.carry(_KEY)))[0])
        if index is not None and not set(watched.asked) <= {_KEY, _KEY + 1}:
            self.kit.fail("track laziness", f"one step from image {_KEY} read the images {watched.asked}")
        watched.asked.clear()
        rest = self.kit.attempt("carry", lambda: [i for i, _ in track.carry(_KEY + 1)])
        if rest is not None and rest != list(range(_KEY + 2, len(self.stack))):
            self.kit.fail("carry", f"a run that went on from image {_KEY + 1} answered for {rest}")
        if len(watched.asked) != len(set(watched.asked)):
            self.kit.fail("track laziness", f"a run read an image more than once: {watched.asked}")

    def prompts(self) -> None:
        """Given masks, several prompted images, and a prompt on an image that was carried."""
        if self.segmenter.capabilities.prior_mask:
            self.masks()
        track = self.begin(self.stack, self.point)
        if track is None:
            return
        last = len(self.stack) - 1
        if self.kit.attempt("carry", lambda: list(track.carry(_KEY))) is None:
            return
        corrected = self.kit.attempt("track prompt", lambda: track.prompt(last, self.point))
        answers = self.kit.attempt("carry", lambda: dict(track.carry(_KEY)))
        if corrected is not None and answers is not None and _differ(corrected, answers[last]):
            self.kit.fail("carry", "a prompted image on the way did not answer as its prompt did")

    def masks(self) -> None:
        """Masks alone are the truth, also an empty one; a mask with something to point at is refined."""
        track = self.begin(self.stack, None)
        if track is None:
            return
        given = self.kit.attempt("track prompt", lambda: track.prompt(_KEY, Prompt(prior_mask=self.mask)))
        if given is not None and not np.array_equal(given.mask, self.mask):
            self.kit.fail("track prompt", "a mask that was given alone did not come back as the truth")
        nothing = Prompt(prior_mask=np.zeros_like(self.mask))
        empty = self.kit.attempt("track prompt", lambda: track.prompt(_KEY + 2, nothing))
        if empty is not None and empty.mask.any():
            self.kit.fail("track prompt", "an empty mask, which says that the target is not there, was not kept")
        both = replace(self.point, prior_mask=self.mask)
        refined = self.kit.attempt("track prompt", lambda: track.prompt(0, both))
        if refined is not None:
            self.kit.sound(refined)

    def refusals(self) -> None:
        """What makes no sense raises ToolError."""
        count, height, width = len(self.stack), *self.mask.shape
        outside = Prompt(clicks=(PixelClick(width, 0, True),))
        calls: list[tuple[str, Callable[[Any], Any]]] = [
            ("a carry before any prompt", lambda track: list(track.carry(_KEY))),
            ("a prompt on an image past the end", lambda track: track.prompt(count, self.point)),
            ("a prompt on image -1", lambda track: track.prompt(-1, self.point)),
            ("an empty prompt", lambda track: track.prompt(_KEY, Prompt())),
            ("a click outside the image", lambda track: track.prompt(_KEY, outside)),
            (
                "a mask of another shape",
                lambda track: track.prompt(_KEY, Prompt(prior_mask=np.zeros((height, 1), bool))),
            ),
        ]
        for what, call in calls:
            track = self.begin(self.stack, None)
            if track is not None:
                self.kit.must_refuse("track refusal", partial(call, track), what)
        track = self.begin(self.stack, self.point)
        if track is not None:
            self.kit.must_refuse("track refusal", lambda: list(track.carry(count)), "a carry from past the end")
            try:
                track.prompt(_KEY, Prompt())
            except ToolError:
                if self.kit.attempt("track refusal", lambda: list(track.carry(_KEY))) is None:
                    self.kit.fail("track refusal", "after a refused prompt the track no longer worked")


def _differ(one: Prediction, other: Prediction) -> bool:
    return not np.array_equal(one.mask, other.mask)
