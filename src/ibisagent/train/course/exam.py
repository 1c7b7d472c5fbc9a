"""The exam: greedy runs on held-out prompts, and what they come to, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.evaluate.statistics import grouped_ci95
from ibisagent.hashing import pixel_hash

if TYPE_CHECKING:
    from ibisagent.scoring import Scores
    from ibisagent.train.course.config import GymConfig
    from ibisagent.train.course.gym import Exam

__all__ = ["Images", "figure", "figures", "images_of", "play_exam", "ratio", "take_exam"]

Figure = dict[str, Any]
"""``value``, ``ci95`` and ``n``."""

Images = Mapping[str, Sequence[int]]
"""By kind of prompt: which image each is about, by number. Prompts about one image are not independent."""

_LIVE = 64
"""Runs that are played side by side."""


def take_exam(config: GymConfig, folder: Path, exam: Exam) -> dict[str, list[Scores]]:
    """Play all prompts of a cell's exam greedily.

    Parameters
    ----------
    config
        Segmenter and budgets.
    folder
        Of the model.
    exam
        From :func:`~ibisagent.train.course.gym.open_exam`.
    """
    return play_exam(folder, exam, config.segmenter, config.max_steps, config.max_new_tokens)


def play_exam(
    folder: Path, exam: Exam, segmenter: str, max_steps: int, max_new_tokens: int, live: int = _LIVE
) -> dict[str, list[Scores]]:
    """Play prompts greedily with a NanoVLM, many side by side.

    In a batch its scores differ in the last digits from those of one run alone: an unusual run may end otherwise than
    under ``ibisagent evaluate``.

    Parameters
    ----------
    folder
        Of the model.
    exam
        Prompts by kind.
    segmenter
        The tool.
    max_steps, max_new_tokens
        Most actions of a run, most tokens of a reply.
    live
        Runs at a time.

    Returns
    -------
    dict
        Scores by kind, in the order of the prompts.
    """
    from ibisagent.actions import DIALECTS
    from ibisagent.config import RolloutConfig
    from ibisagent.policies.checkpoints import load_checkpoint
    from ibisagent.registry import make_segmenter
    from ibisagent.rewards import load_rubric
    from ibisagent.scoring import score_episode
    from ibisagent.train.course.gym import SYSTEM_PROMPT
    from ibisagent.train.rl.nano_sampler import NanoSampler
    from ibisagent.train.rl.play import Player
    from ibisagent.train.tokens import Renderer

    loaded = load_checkpoint(folder, device="cpu", dtype="float32")
    renderer = Renderer(loaded.processor)
    sampler = NanoSampler(loaded.model, renderer, temperature=0.0, max_new_tokens=max_new_tokens, batch_size=live)
    player = Player(
        make_segmenter(segmenter),
        renderer,
        load_rubric("ibis"),
        RolloutConfig(max_steps=max_steps),
        DIALECTS["plain"],
        SYSTEM_PROMPT,
        max_context=2048,
    )
    found: dict[str, list[Scores]] = {}
    for name, prompts in exam.items():
        found[name] = []
        for start in range(0, len(prompts), live):
            for run in player.play(prompts[start : start + live], 1, sampler, 0):
                found[name].append(score_episode(run.episode, run.prompt.target))
    return found


def images_of(exam: Exam) -> dict[str, list[int]]:
    """Which image each prompt is about: images are numbered as they appear, through all kinds."""
    numbers: dict[str, int] = {}
    return {
        kind: [numbers.setdefault(pixel_hash(prompt.case.image.pixels), len(numbers)) for prompt in prompts]
        for kind, prompts in exam.items()
    }


def figures(found: Mapping[str, Sequence[Scores]], images: Images) -> dict[str, Figure]:
    """What a cell reports.

    Parameters
    ----------
    found
        Scores by kind.
    images
        From :func:`images_of`; intervals draw whole images.

    Returns
    -------
    dict
        ``iou``, ``dice``, ``steps``, ``false_refusals`` over present targets; ``refinement_success`` over their steps
        after the first; ``validity`` over all replies; ``right_refusals`` over absent targets; ``iou_given`` over
        prompts with a wrong or damaged given mask. What has no run is left out.
    """
    present, absent, given = found["present"], found["absent"], found["given"]
    seen, missing, shown = images["present"], images["absent"], images["given"]
    every = [*present, *absent, *given]
    told = {
        "iou": figure([_number(s.iou) for s in present], seen),
        "dice": figure([_number(s.dice) for s in present], seen),
        "steps": figure([float(s.num_steps) for s in present], seen),
        "false_refusals": figure([float(bool(s.false_refusal)) for s in present], seen),
        "refinement_success": ratio(
            [s.num_improvements or 0 for s in present], [s.num_refinements or 0 for s in present], seen
        ),
        "validity": ratio([s.num_valid for s in every], [s.num_replies for s in every], [*seen, *missing, *shown]),
        "right_refusals": figure([float(bool(s.right_refusal)) for s in absent], missing),
        "iou_given": figure([_number(s.iou) for s in given], shown),
    }
    return {name: value for name, value in told.items() if value is not None}


def figure(values: Sequence[float], images: Sequence[int] | None = None) -> Figure | None:
    """A mean over runs with its bootstrap interval, which draws whole images where they are named; None of nothing."""
    groups = range(len(values)) if images is None else images
    interval = grouped_ci95(values, [str(image) for image in groups])
    if interval is None:
        return None
    return {"value": _short(float(np.mean(values))), "ci95": [_short(v) for v in interval], "n": len(values)}


def ratio(
    parts: Sequence[int], wholes: Sequence[int], images: Sequence[int] | None = None, num_resamples: int = 5000
) -> Figure | None:
    """Sum over sum; the interval draws runs, not replies, and whole images where they are named.

    ``n`` is the sum of `wholes`. None where that is 0.
    """
    group = np.arange(len(parts)) if images is None else np.unique(np.asarray(images), return_inverse=True)[1]
    part, whole = np.bincount(group, np.asarray(parts, float)), np.bincount(group, np.asarray(wholes, float))
    if not whole.sum():
        return None
    drawn = np.random.default_rng(0).integers(0, len(part), (num_resamples, len(part)))
    sums = whole[drawn].sum(1)
    shares = part[drawn].sum(1)[sums > 0] / sums[sums > 0]
    value = float(part.sum() / whole.sum())
    low, high = np.percentile(shares, [2.5, 97.5])
    return {
        "value": _short(value),
        "ci95": [_short(min(float(low), value)), _short(max(float(high), value))],
        "n": int(whole.sum()),
    }


def _number(value: float | None) -> float:
    return 0.0 if value is None else float(value)


def _short(value: float) -> float:
    return round(value, 4)
