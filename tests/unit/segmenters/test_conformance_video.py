"""The kit must pass a correct tracker and catch each kind of fault of another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ibisagent.segmenters.conformance import check_segmenter
from ibisagent.segmenters.conformance_video import default_stack
from ibisagent.segmenters.protocol import VideoSegmenter, video_segmenter
from ibisagent.segmenters.rules import RulesSegmenter
from ibisagent.types import Image, Prediction, Prompt
from sample_tracks import RulesTrack, TrackingRules


def checks(track: type[RulesTrack]) -> set[str]:
    class Segmenter(TrackingRules):
        def track(self, images: Sequence[Image]) -> RulesTrack:
            return track(self, images)

    return {violation.check for violation in check_segmenter(Segmenter(), default_stack()[:1])}


def test_a_correct_tracker_passes() -> None:
    segmenter = TrackingRules()
    assert isinstance(segmenter, VideoSegmenter) and video_segmenter(segmenter) is segmenter
    assert check_segmenter(segmenter, default_stack()[:1]) == []
    assert set(segmenter.carried) == {0, 1, 3, 4, 5}  # both sides of the prompted image
    track = segmenter.track(default_stack())
    track.prompt(2, Prompt(prior_mask=np.hypot(*np.mgrid[-10:10, -11:15]) < 4))
    assert all(prediction.mask.any() for _, prediction in track.carry(2))


def test_without_the_declaration_nothing_is_tried() -> None:
    class Undeclared(TrackingRules):
        capabilities = replace(TrackingRules.capabilities, video=False)

        def track(self, images: Sequence[Image]) -> RulesTrack:
            raise AssertionError

    assert check_segmenter(Undeclared(), default_stack()[:1]) == []
    assert video_segmenter(Undeclared()) is None


def test_a_declaration_without_the_method() -> None:
    class Empty(RulesSegmenter):
        capabilities = replace(RulesSegmenter.capabilities, video=True)

    assert [violation.check for violation in check_segmenter(Empty(), default_stack()[:1])] == ["track"]
    assert video_segmenter(Empty()) is None


class Eager(RulesTrack):
    def __init__(self, segmenter: TrackingRules, images: Sequence[Image]) -> None:
        super().__init__(segmenter, [images[i] for i in range(len(images))])


class ReadsTwice(RulesTrack):
    def follow(self, image: Image, last: np.ndarray) -> Prediction:
        for index in range(len(self.images)):
            self.images[index]
        return super().follow(image, last)


class WrongOrder(RulesTrack):
    def carry(self, start: int, *, reverse: bool = False) -> Iterator[tuple[int, Prediction]]:
        yield from reversed(list(super().carry(start, reverse=reverse)))


class OneWay(RulesTrack):
    def carry(self, start: int, *, reverse: bool = False) -> Iterator[tuple[int, Prediction]]:
        return super().carry(start)


class Transposed(RulesTrack):
    def carry(self, start: int, *, reverse: bool = False) -> Iterator[tuple[int, Prediction]]:
        for index, prediction in super().carry(start, reverse=reverse):
            yield index, Prediction(mask=prediction.mask.T)


class Random(RulesTrack):
    rng = np.random.default_rng(0)

    def follow(self, image: Image, last: np.ndarray) -> Prediction:
        return Prediction(mask=self.rng.random(last.shape) < 0.5)


class Shared(RulesTrack):
    """Hands out the arrays that it goes on with."""

    def carry(self, start: int, *, reverse: bool = False) -> Iterator[tuple[int, Prediction]]:
        for index, _ in super().carry(start, reverse=reverse):
            yield index, self.masks[index]


class Forgetful(RulesTrack):
    """Carries over what was prompted."""

    def carry(self, start: int, *, reverse: bool = False) -> Iterator[tuple[int, Prediction]]:
        for index, prediction in super().carry(start, reverse=reverse):
            yield index, Prediction(mask=~prediction.mask) if index in self.prompted else prediction


class Smooths(RulesTrack):
    def prompt(self, index: int, prompt: Prompt) -> Prediction:
        found = super().prompt(index, prompt)
        found.mask[0] = True
        return found


class Lenient(RulesTrack):
    def check(self, index: int) -> None:
        if index < 0:
            raise ValueError(index)


@pytest.mark.parametrize(
    ("track", "check"),
    [
        (Eager, "track laziness"),
        (ReadsTwice, "track laziness"),
        (WrongOrder, "carry"),
        (OneWay, "carry"),
        (Transposed, "mask"),
        (Random, "track determinism"),
        (Shared, "track determinism"),
        (Forgetful, "carry"),
        (Smooths, "track prompt"),
        (Lenient, "track refusal"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_each_fault_is_caught(track: Callable[..., Any], check: str) -> None:
    assert check in checks(track)  # type: ignore[arg-type]
