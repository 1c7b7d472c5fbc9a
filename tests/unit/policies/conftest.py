"""Views to ask a policy about, and tiny models."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from chat_servers import GOOD_REPLY
from ibisagent.actions import DIALECTS
from ibisagent.episode import Episode, ImageRecord, Step, encode_mask
from ibisagent.geometry import Geometry
from ibisagent.policies.protocol import View
from ibisagent.types import Case, Image


def build_view(num_steps: int = 0, size: int = 40, case_id: str = "case-1", seed: int = 0, shade: int = 90) -> View:
    """A view of a gray image with a bright square, after `num_steps` clicks that each gave a mask."""
    pixels = np.full((size, size + 8, 3), shade, np.uint8)
    pixels[8:20, 8:20] = 220
    image = Image(pixels=pixels, geometry=Geometry.plane_2d())
    case = Case(image=image, instruction="Segment the bright square.", case_id=case_id)
    steps = []
    mask = None
    for i in range(num_steps):
        mask = np.zeros(pixels.shape[:2], bool)
        mask[8 : 12 + i, 8:20] = True
        turn = DIALECTS["plain"].parse(GOOD_REPLY)
        steps.append(
            Step(
                index=i,
                raw_text=GOOD_REPLY,
                thought=turn.thought,
                action=turn.action,
                pixels_xy=[(24, 10)],
                mask=encode_mask(mask),
                changed_pixels=int(mask.sum()),
            )
        )
    episode = Episode(
        case_id=case_id,
        instruction=case.instruction,
        image=ImageRecord(sha256=image.sha256, width=image.width, height=image.height),
        seed=seed,
        steps=steps,
    )
    return View(case=case, episode=episode, mask=mask)


@pytest.fixture
def make_view() -> Callable[..., View]:
    return build_view


@pytest.fixture(scope="session")
def make_vlm() -> Callable[..., Path]:
    """``make_vlm(kind, folder)`` of tiny_vlms.py, loaded here so that only tests that need it pay for torch."""
    spec = importlib.util.spec_from_file_location("tiny_vlms", Path(__file__).with_name("tiny_vlms.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make_vlm
