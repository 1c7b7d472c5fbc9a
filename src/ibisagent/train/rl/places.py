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
from ibisagent.segmenters.session import check_prediction
from ibisagent.train.rl.run_state import Run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ibisagent.segmenters.protocol import Segmenter
    from ibisagent.train.rl.contexts import Context
    from ibisagent.train.rl.play import Played
    from ibisagent.train.rl.sampler import Sample
    from ibisagent.train.tokens import Renderer
    from ibisagent.types import Prompt

__all__ = ["Tried", "place_advantages", "place_measures", "place_tensors", "try_places"]

_EPSILON = 1e-4
_AT_ONCE = 32
"""Prompts in one call: their masks are held together."""


@dataclass(frozen=True)
class Tried:
    """Places that were tried in one state.

    Parameters
    ----------
    position
        Of the token that was drawn, in the run's ids.
    ids
        Ids of the places, each once, the drawn one first.
    counts
        How often each was drawn.
    worth
        IoU of the mask that each leads to.
    num_failed
        Further places that the segmenter failed on; they are left out.
    """

    position: int
    ids: tuple[int, ...]
    counts: tuple[int, ...]
    worth: tuple[float, ...]
    num_failed: int = 0


@dataclass(frozen=True, eq=False)
class _State:
    """A state with the places that can be asked for in it, the drawn one first."""

    run: Run
    position: int
    counts: Counter[int]
    prompts: dict[int, Prompt]


def try_places(
    runs: Sequence[tuple[Run, Sample]], segmenter: Segmenter, renderer: Renderer
) -> list[tuple[Context, Tried]]:
    """Put the other places of replies to the segmenter, in the states before these replies are acted on.

    Parameters
    ----------
    runs
        Live runs and what they drew. Left out, so that their tokens keep the advantage of their run: absent targets,
        replies that ask for no mask, and those that the segmenter fails on. What a failure on another place leaves is
        learnt from, without it.
    segmenter
        The tool itself, without a memory of answers: those to further places are dropped as soon as they are scored.
        What the replies themselves ask for is taken from the runs' own, where it may be remembered.
    renderer
        Of the model's processor.

    Returns
    -------
    list of (Context, Tried)
        To be noted on each run's context.
    """
    groups: dict[int, list[_State]] = {}
    embeddings: dict[int, Any] = {}
    for run, sample in runs:
        if run.prompt.target is None or not run.prompt.target.any():
            continue
        for at, others in sample.places:
            counts = Counter((sample.ids[at], *others))
            prompts = {}
            for place in counts:
                wanted = run.env.foresee(renderer.text((*sample.ids[:at], place, *sample.ids[at + 1 :])))
                if wanted is not None:
                    group = id(run.env.segmenter)
                    embeddings[group], prompts[place] = wanted
            if sample.ids[at] in prompts:
                groups.setdefault(id(run.env.segmenter), []).append(_State(run, at, counts, prompts))
    found = []
    for group, states in groups.items():
        worth = _worth(states, embeddings[group], segmenter)
        for state in states:
            known = {place: worth.get(_key(prompt)) for place, prompt in state.prompts.items()}
            scored = {place: value for place, value in known.items() if value is not None}
            if next(iter(known.values())) is None:
                continue
            tried = Tried(
                len(state.run.context.ids) + state.position,
                tuple(scored),
                tuple(state.counts[place] for place in scored),
                tuple(scored.values()),
                len(known) - len(scored),
            )
            found.append((state.run.context, tried))
    return found


def _worth(states: Sequence[_State], embedding: Any, segmenter: Segmenter) -> dict[Any, float]:
    """IoU by prompt, of states of one case; siblings in the same state ask once. What failed is missing."""
    own = {_key(prompt): prompt for state in states for prompt in list(state.prompts.values())[:1]}
    more = {_key(prompt): prompt for state in states for prompt in state.prompts.values()}
    rest = {key: prompt for key, prompt in more.items() if key not in own}
    found: dict[Any, float] = {}
    for tool, prompts in ((states[0].run.env.segmenter, own), (segmenter, rest)):
        keys = list(prompts)
        for at in range(0, len(keys), _AT_ONCE):
            _score(tool, embedding, {key: prompts[key] for key in keys[at : at + _AT_ONCE]}, states[0].run, found)
    return found


def _score(tool: Segmenter, embedding: Any, prompts: dict[Any, Prompt], run: Run, found: dict[Any, float]) -> None:
    """Note the IoU of what a tool answers; where it fails on several together, each is asked alone."""
    target = run.prompt.target
    assert target is not None
    try:
        answers = tool.predict(embedding, list(prompts.values()))
        shape = (target.shape[0], target.shape[1])
        for key, answer in zip(prompts, answers, strict=True):
            found[key] = iou(check_prediction(answer, shape, tool.name).mask, target)
    except Exception:  # a prompt that fails alone is missing in `found`, and counted in `Tried.num_failed`
        if len(prompts) > 1:
            for key, prompt in prompts.items():
                _score(tool, embedding, {key: prompt}, run, found)


def _key(prompt: Prompt) -> Any:
    """The same for prompts of one case that ask for the same; masks and logits by identity."""
    return prompt.clicks, prompt.box, id(prompt.prior_logits), id(prompt.prior_mask)


def place_advantages(tried: Sequence[Tried]) -> list[NDArray[np.float32]]:
    """Worth minus the mean of the state, over the deviation of all states together.

    A state in which all places do alike has next to nothing to teach; dividing by its own deviation would make as much
    of it as of any other. The rubric's weights and ``scale_rewards`` have no say here.

    Parameters
    ----------
    tried
        Of the runs of a batch that one process plays.

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
        ``places/tried`` (places a click, each once), ``places/worth`` (the mean worth of a click, places as often as
        they were drawn), ``places/spread`` (deviation of their worth within a state),
        ``places/missed`` (worth of the best minus that of the one that was clicked) and ``places/failed`` (places
        that the segmenter failed on); means over the clicks, NaN without any.
    """
    mean, spread, missed = [], [], []
    for state in tried:
        share = np.array(state.counts, np.float64) / sum(state.counts)
        worth = np.array(state.worth, np.float64)
        mean.append(float(share @ worth))
        spread.append(float(np.sqrt(share @ (worth - mean[-1]) ** 2)))
        missed.append(max(state.worth) - state.worth[0])
    found = {
        "tried": [float(len(state.ids)) for state in tried],
        "worth": mean,
        "spread": spread,
        "missed": missed,
        "failed": [float(state.num_failed) for state in tried],
    }
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
