"""Moments to think about: a disc on a grey ground, and phantoms with damaged masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ibisagent.actions import Click, ClickAction, DiscardAction, TerminateAction, UndoAction
from ibisagent.clicks import next_click
from ibisagent.engine.moments import Intent, Moment
from ibisagent.phantoms import KINDS, generate


def click_at(x: float, y: float, positive: bool = True) -> ClickAction:
    return ClickAction(clicks=(Click(x=x, y=y, positive=positive),))


ACTIONS: dict[Intent, Any] = {
    Intent.START: click_at(0.5, 0.5),
    Intent.MISSED: click_at(0.5, 0.5),
    Intent.EXCESS: click_at(0.5, 0.5, positive=False),
    Intent.WRONG: click_at(0.5, 0.5),
    Intent.UNDO: UndoAction(),
    Intent.DISCARD: DiscardAction(),
    Intent.FITS: TerminateAction(verdict="found"),
    Intent.ROUGH: TerminateAction(verdict="uncertain"),
    Intent.ABSENT: TerminateAction(verdict="absent"),
}


def box(x0: int, y0: int, x1: int, y1: int, size: int = 100) -> np.ndarray:
    mask = np.zeros((size, size), np.bool_)
    mask[y0:y1, x0:x1] = True
    return mask


@pytest.fixture
def make_moment() -> Callable[..., Moment]:
    """A moment on a grey picture of 100 pixels a side with a bright square at 40..60; keywords replace its parts."""

    def make(intent: str = "missed", **changes: Any) -> Moment:
        kind = Intent(intent)
        pixels = np.full((100, 100, 3), 100, np.uint8)
        pixels[40:60, 40:60] = 200
        given: dict[str, Any] = {
            "pixels": pixels,
            "mask": None if kind is Intent.START else box(40, 40, 60, 60),
            "target": box(40, 40, 60, 60),
            "name": "left lung",
            "modality": "CT",
            "instruction": "Segment the left lung.",
            "action": ACTIONS[kind],
            "intent": kind,
            "index": 1,
        }
        return Moment(**{**given, **changes})

    return make


@pytest.fixture(scope="session")
def expert_moments() -> Callable[[int], list[Moment]]:
    """Makes the moments of a short run from a seed."""
    return _run


def _run(seed: int, steps: int = 4) -> list[Moment]:
    """A short run on a phantom: each mask takes a disc of the target in or leaves a disc of the excess out."""
    phantom = generate(KINDS[seed % len(KINDS)], 100 + seed, 128)
    names = sorted(phantom.masks)
    name = names[seed % len(names)]
    target = phantom.masks[name]
    size = target.shape[0]
    rows, columns = np.indices(target.shape)
    moments: list[Moment] = []
    mask: np.ndarray | None = None
    previous: np.ndarray | None = None
    action: Any = None
    intent: Intent | None = None
    for index in range(steps):
        pixel = next_click(mask, target)
        if pixel is None:
            break
        now = Intent.START if mask is None else Intent.MISSED if pixel.positive else Intent.EXCESS
        last = index == steps - 1
        click = ClickAction(clicks=(Click.at_pixel(pixel, size, size),))
        moment = Moment(
            phantom.pixels, mask, target, name, phantom.modality, f"Segment the {name}.",
            TerminateAction(verdict="found") if last else click, Intent.FITS if last else now, index, previous, action,
            intent,
        )  # fmt: skip
        moments.append(moment)
        near = (rows - pixel.y) ** 2 + (columns - pixel.x) ** 2 < (size // (6 + index)) ** 2
        grown = np.zeros_like(target) if mask is None else mask
        previous, mask = mask, (grown | near) if pixel.positive else (grown & ~near)
        action, intent = moment.action, moment.intent
    if seed % 3 == 0 and mask is not None:
        undo = replace(moments[-1], action=UndoAction(), intent=Intent.UNDO, index=len(moments))
        moments[-1] = undo
    return moments
