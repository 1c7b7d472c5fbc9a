"""Credit by place: a click is held against other clicks that the same state could have drawn.

A run's advantage says little of one click among several: most of it is the luck of the others and of the stop. A place
is one token of some models (NanoVLM's pointer), drawn from a distribution that is known as a whole. So more places are
drawn from it, each is put to the segmenter in the very state that the click was drawn in, and what the token learns
from is how much better the mask gets there than at the others: the mean over actions of the policy gradient
(expected policy gradients, Ciosek and Whiteson 2018) instead of one sample of it, with the immediate gain in IoU as
the return. Words (what to do, when to stop) keep the advantage of their run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ibisagent.metrics.overlap import iou
from ibisagent.train.rl.run_state import Run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ibisagent.segmenters.protocol import Segmenter
    from ibisagent.train.rl.contexts import Context
    from ibisagent.train.rl.play import Played
    from ibisagent.train.rl.sampler import Sample
    from ibisagent.train.tokens import Renderer

__all__ = ["Tried", "place_advantages", "place_measures", "place_tensors", "try_places"]

_EPSILON = 1e-4


@dataclass(frozen=True)
class Tried:
    """Places that were tried in one state.

    Parameters
    ----------
    position
        Of the token that was drawn, in the run's ids.
    ids
        Ids of the places, each once; the drawn one is among them.
    counts
        How often each was drawn.
    worth
        IoU of the mask that each leads to.
    """

    position: int
    ids: tuple[int, ...]
    counts: tuple[int, ...]
    worth: tuple[float, ...]


def try_places(
    runs: Sequence[tuple[Run, Sample]], segmenter: Segmenter, renderer: Renderer
) -> list[tuple[Context, Tried]]:
    """Put the other places of replies to the segmenter, in the states before these replies are acted on.

    Parameters
    ----------
    runs
        Live runs and what they drew. Absent targets, replies without further places, and states in which a place could
        not be asked for are left out.
    segmenter
        The tool that encoded their images, without memory: no answer is asked for twice.
    renderer
        Of the model's processor.

    Returns
    -------
    list of (Context, Tried)
        To be noted on each run's context.
    """
    asked: dict[int, list[tuple[Run, int, Counter[int], list[Any]]]] = {}
    for run, sample in runs:
        target = run.prompt.target
        if target is None or not target.any():
            continue
        for at, others in sample.places:
            drawn = Counter((sample.ids[at], *others))
            wanted = [
                run.env.foresee(renderer.text((*sample.ids[:at], place, *sample.ids[at + 1 :]))) for place in drawn
            ]
            if len(drawn) > 1 and all(w is not None for w in wanted):
                asked.setdefault(id(run.env.segmenter), []).append((run, at, drawn, wanted))
    found = []
    for states in asked.values():
        prompts = [prompt for *_, wanted in states for _, prompt in wanted]
        try:
            answers = iter(segmenter.predict(states[0][3][0][0], prompts))
        except Exception:
            # A tool that fails will fail on the run itself in a moment, and is recorded there.
            continue
        for run, at, drawn, wanted in states:
            assert run.prompt.target is not None
            worth = tuple(iou(next(answers).mask, run.prompt.target) for _ in wanted)
            tried = Tried(len(run.context.ids) + at, tuple(drawn), tuple(drawn.values()), worth)
            found.append((run.context, tried))
    return found


def place_advantages(tried: Sequence[Tried]) -> list[NDArray[np.float32]]:
    """Worth minus the mean of the state, over the deviation of all states together.

    A state in which all places do alike has next to nothing to teach; dividing by its own deviation would make as much
    of it as of any other.

    Parameters
    ----------
    tried
        Of a batch.

    Returns
    -------
    list of NDArray
        ``float32`` (places,) for each, times the share of the draws that were of this place.
    """
    centred, shares = [], []
    for state in tried:
        share = np.array(state.counts, np.float64) / sum(state.counts)
        worth = np.array(state.worth, np.float64)
        centred.append(worth - share @ worth)
        shares.append(share)
    variance = np.mean([s @ c**2 for s, c in zip(shares, centred, strict=True)]) if tried else 0.0
    deviation = float(np.sqrt(variance)) + _EPSILON
    return [(s * c / deviation).astype(np.float32) for s, c in zip(shares, centred, strict=True)]


def place_measures(tried: Sequence[Tried]) -> dict[str, float]:
    """What there was to choose from.

    Parameters
    ----------
    tried
        Of a batch.

    Returns
    -------
    dict
        ``places/tried`` (places a click, each once), ``places/spread`` (deviation of their worth within a state) and
        ``places/missed`` (worth of the best minus that of the one that was clicked); means over the clicks, NaN
        without any.
    """
    spread, missed = [], []
    for state in tried:
        share = np.array(state.counts, np.float64) / sum(state.counts)
        worth = np.array(state.worth, np.float64)
        spread.append(float(np.sqrt(share @ (worth - share @ worth) ** 2)))
        missed.append(max(state.worth) - state.worth[0])
    found = {"tried": [float(len(state.ids)) for state in tried], "spread": spread, "missed": missed}
    return {f"places/{name}": float(np.mean(v)) if v else float("nan") for name, v in found.items()}


def place_tensors(runs: Sequence[Played], batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    """What was tried, beside a batch of these runs.

    Parameters
    ----------
    runs
        In the batch's order.
    batch
        From :func:`~ibisagent.train.rl.batch.to_tensors`; where places were tried, its ``advantages`` are put to 0:
        these tokens answer for their own place alone.

    Returns
    -------
    dict
        ``place_ids`` ``int64`` (B, C, K), -1 where there is none, and ``place_advantages`` ``float32`` (B, C, K).
    """
    rows, length = batch["completion_ids"].shape
    states = [
        (row, tried)
        for row, run in enumerate(runs)
        if run.breakdown.excluded is None
        for tried in run.context.tried
    ]
    most = max((len(tried.ids) for _, tried in states), default=1)
    device = batch["advantages"].device
    ids = torch.full((rows, length, most), -1, dtype=torch.long)
    value = torch.zeros(rows, length, most)
    for (row, tried), advantage in zip(states, place_advantages([t for _, t in states]), strict=True):
        column = tried.position - runs[row].context.num_prompt
        ids[row, column, : len(tried.ids)] = torch.tensor(tried.ids)
        value[row, column, : len(tried.ids)] = torch.from_numpy(advantage)
        batch["advantages"][row, column] = 0.0
    return {"place_ids": ids.to(device), "place_advantages": value.to(device)}
