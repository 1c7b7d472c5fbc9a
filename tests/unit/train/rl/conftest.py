"""A small nano that writes at random, tiny Qwen models, prompts with discs, and a sampler that reads from a script."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ibisagent.actions import DIALECTS
from ibisagent.config import RolloutConfig
from ibisagent.messages import default_system_prompt
from ibisagent.rewards import load_rubric
from ibisagent.types import Case
from sample_rl import ABSENT, FOUND, GRID, INSIDE, SIDE, CountingSegmenter, ScriptedSampler, make_small_nano


@pytest.fixture(scope="session")
def vocabulary() -> Any:
    """Nano's processor with 16 x 16 coordinates and four tokens an image."""
    from ibisagent.policies.nano_processor import NanoImageProcessor
    from ibisagent.train.vocabulary import build_processor

    texts = [default_system_prompt(DIALECTS["plain"]), INSIDE, FOUND, ABSENT, "Segment the disc. The new mask is shown"]
    processor = build_processor(texts * 4, size=360, grid=GRID, image_tokens=SIDE**2)
    processor.image_processor = NanoImageProcessor(size={"height": 32 * SIDE, "width": 32 * SIDE})
    return processor


@pytest.fixture(scope="session")
def renderer(vocabulary: Any) -> Any:
    from ibisagent.train.tokens import Renderer

    return Renderer(vocabulary)


@pytest.fixture
def small_nano(vocabulary: Any) -> Any:
    """A random nano of that vocabulary."""
    return make_small_nano(vocabulary)


@pytest.fixture
def disc_prompt(disc_case: Case, disc_target: NDArray[np.bool_]) -> Any:
    from ibisagent.train.rl.prompts import RlPrompt

    return RlPrompt(disc_case, disc_target, "disc")


@pytest.fixture
def absent_prompt(disc_case: Case) -> Any:
    from dataclasses import replace

    from ibisagent.train.rl.prompts import RlPrompt

    return RlPrompt(replace(disc_case, case_id="none"), None, "none")


@pytest.fixture
def make_player(renderer: Any) -> Callable[..., Any]:
    """``make_player(segmenter, max_steps=…, **options of Player)``."""
    from ibisagent.train.rl.play import Player

    def make(segmenter: Any = None, max_steps: int = 4, reward: str = "ibis", **options: Any) -> Any:
        config = RolloutConfig(max_steps=max_steps)
        tool = segmenter if segmenter is not None else CountingSegmenter()
        return Player(tool, renderer, load_rubric(reward), config, DIALECTS["plain"], "Segment.", **options)

    return make


@pytest.fixture
def scripted(renderer: Any) -> Callable[..., ScriptedSampler]:
    return lambda script: ScriptedSampler(renderer, script)
