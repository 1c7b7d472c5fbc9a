"""A rubric: named, weighted reward functions over the facts of an episode, and the breakdown that they give.

A rubric is asked for by a spec, ``PRESET[:ITEM,ITEM…]`` (see :func:`load_rubric`)::

    ibis                          ours, with its own weights
    ibis:step_cost=0.05,stop=0.5  the same with two weights changed; 0 takes a part out of the total and still logs it
    paper                         the paper's five parts, their plain mean
    paper:click+progress          the parts of one row of its ablation: these beside answer and format; their mean
    paper:none                    answer and format only
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from ibisagent.errors import InputError
from ibisagent.rewards.trace import Trace, trace_episode

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ibisagent.episode import Episode

__all__ = ["PRESETS", "Breakdown", "Part", "Preset", "RewardFunction", "Rubric", "load_preset", "load_rubric", "means"]

PRESETS: dict[str, str] = {
    "ibis": "ibisagent.rewards.ibis:PRESET",
    "paper": "ibisagent.rewards.paper:PRESET",
}
"""Import string of every preset."""


@dataclass(frozen=True)
class Part:
    """What one reward function says of an episode, before its weight.

    Attributes
    ----------
    value
        None where the function does not apply (stopping, for a target that is not there): no zero, and no part of
        a mean.
    by_turn
        One number for every reply, whose sum is `value`; None where the value belongs to the episode as a whole.
    """

    value: float | None
    by_turn: tuple[float, ...] | None = None

    @classmethod
    def of_turns(cls, values: Iterable[float]) -> Part:
        """A part that is the sum of what the replies earned."""
        by_turn = tuple(float(value) for value in values)
        return cls(math.fsum(by_turn), by_turn)


@dataclass(frozen=True)
class RewardFunction:
    """One named part of a rubric.

    Attributes
    ----------
    name
        Unique in its preset.
    compute
        From the facts to the part. It is never asked about an excluded episode.
    formula, bounds, source
        For people: what it computes, the values that it can take, where it is from.
    per_turn
        Whether it says which reply earned what.
    """

    name: str
    compute: Callable[[Trace], Part]
    formula: str
    bounds: str
    source: str
    per_turn: bool


@dataclass(frozen=True)
class Preset:
    """A family of rubrics.

    Attributes
    ----------
    name
        Its name in specs.
    functions
        All of its parts, in the order of tables.
    always
        Parts that stay in whatever subset is asked for.
    weights
        Weight of every part; None: each part of a subset of n weighs 1 / n, so that the total is their mean.
    """

    name: str
    functions: tuple[RewardFunction, ...]
    always: tuple[str, ...]
    weights: Mapping[str, float] | None

    def rubric(self, chosen: Sequence[str] | None = None, weights: Mapping[str, float] | None = None) -> Rubric:
        """A rubric of this family.

        Parameters
        ----------
        chosen
            Parts beside those that are always in; None takes all.
        weights
            Weights to change, by part.

        Raises
        ------
        InputError
            If there is no such part in the preset or the subset, or a weight is negative or not finite.
        """
        names = [function.name for function in self.functions]
        for name in chosen or ():
            if name not in names:
                raise InputError(f"the reward '{self.name}' has no part '{name}'; it has {', '.join(names)}")
        picked = [name for name in names if chosen is None or name in chosen or name in self.always]
        base = {name: 1 / len(picked) if self.weights is None else self.weights[name] for name in picked}
        for name, weight in (weights or {}).items():
            if name not in base:
                raise InputError(f"the reward '{self.name}' has no part '{name}' here; it has {', '.join(picked)}")
            if not (math.isfinite(weight) and weight >= 0):
                raise InputError(f"the weight of '{name}' must be a number from 0 up, not {weight}")
            base[name] = float(weight)
        return Rubric(self.name, tuple(f for f in self.functions if f.name in base), base)


@dataclass(frozen=True)
class Breakdown:
    """What an episode earned, and for what.

    Attributes
    ----------
    total
        Weighted sum of the parts; None where the episode is excluded: it is to be left out of the batch, it did not
        earn zero.
    parts
        Every part before its weight; None where it does not apply.
    by_turn
        For parts that say which reply earned what: one number for every reply in ``episode.steps``, before the
        weight. Parts of the episode as a whole and parts that do not apply are not in it.
    excluded
        Why the episode may not be trained on (see :class:`~ibisagent.rewards.trace.Trace`), or None.
    """

    total: float | None
    parts: dict[str, float | None]
    by_turn: dict[str, tuple[float, ...]]
    excluded: str | None


@dataclass(frozen=True)
class Rubric:
    """Reward functions and their weights. Make one with :func:`load_rubric`.

    Attributes
    ----------
    name
        Of the preset that it is of.
    functions
        The parts, in the order of tables.
    weights
        By part, from 0 up. What punishes has negative values, not a negative weight.
    """

    name: str
    functions: tuple[RewardFunction, ...]
    weights: Mapping[str, float]

    @property
    def names(self) -> tuple[str, ...]:
        """The parts, in the order of tables."""
        return tuple(function.name for function in self.functions)

    def score(self, episode: Episode, target: NDArray[np.bool_] | None) -> Breakdown:
        """Score an ended episode. Parameters and errors as in :func:`~ibisagent.rewards.trace.trace_episode`."""
        return self.score_trace(trace_episode(episode, target))

    def score_trace(self, trace: Trace) -> Breakdown:
        """Score facts that are known already, so that several rubrics share them."""
        if trace.excluded is not None:
            return Breakdown(None, dict.fromkeys(self.names), {}, trace.excluded)
        found = {function.name: function.compute(trace) for function in self.functions}
        total = math.fsum(self.weights[name] * part.value for name, part in found.items() if part.value is not None)
        by_turn = {name: part.by_turn for name, part in found.items() if part.by_turn is not None}
        return Breakdown(total, {name: part.value for name, part in found.items()}, by_turn, None)

    def turn_rewards(self, breakdown: Breakdown) -> tuple[float, ...]:
        """Weighted reward of every reply; with :meth:`episode_reward` they sum to the total.

        Empty where no part says which reply earned what.

        Raises
        ------
        ValueError
            If the episode is excluded.
        """
        _included(breakdown)
        weighted = [[self.weights[name] * v for v in values] for name, values in breakdown.by_turn.items()]
        return tuple(math.fsum(column) for column in zip(*weighted, strict=True))

    def episode_reward(self, breakdown: Breakdown) -> float:
        """Weighted reward for the episode as a whole: the parts that name no reply.

        Raises
        ------
        ValueError
            If the episode is excluded.
        """
        _included(breakdown)
        whole = {n: v for n, v in breakdown.parts.items() if v is not None and n not in breakdown.by_turn}
        return math.fsum(self.weights[name] * value for name, value in whole.items())


def _included(breakdown: Breakdown) -> None:
    if breakdown.excluded is not None:
        raise ValueError(f"the episode earned nothing and is to be left out: {breakdown.excluded}")


def load_preset(name: str) -> Preset:
    """The preset of this name.

    Raises
    ------
    InputError
        If there is none.
    """
    if name not in PRESETS:
        raise InputError(f"there is no reward '{name}'; there are {', '.join(PRESETS)}")
    module, _, attribute = PRESETS[name].partition(":")
    preset = getattr(import_module(module), attribute)
    assert isinstance(preset, Preset)
    return preset


def load_rubric(spec: str) -> Rubric:
    """The rubric that a spec names: ``PRESET[:ITEM,ITEM…]``.

    Parameters
    ----------
    spec
        An item ``part=weight`` changes a weight; one item may be a subset, ``part+part…``, ``all`` (as without a
        subset) or ``none`` (only the parts that are always in). See the module's docstring.

    Raises
    ------
    InputError
        If there is no such preset or part, a weight is no number from 0 up, or there are two subsets.
    """
    name, colon, rest = spec.partition(":")
    preset = load_preset(name)
    chosen: Sequence[str] | None = None
    subsets, weights = 0, {}
    for item in rest.split(",") if colon else ():
        part, equals, value = (piece.strip() for piece in item.partition("="))
        if equals:
            try:
                weights[part] = float(value)
            except ValueError:
                raise InputError(f"'{item}' in '{spec}' is no weight; write PART=NUMBER") from None
        else:
            subsets += 1
            chosen = {"all": None, "none": ()}.get(part, part.split("+"))
    if subsets > 1:
        raise InputError(f"'{spec}' names two subsets; join parts with +, as in paper:click+progress")
    return preset.rubric(chosen, weights)


def means(breakdowns: Iterable[Breakdown]) -> dict[str, float]:
    """What to log of a batch: the mean of the total and of every part, and the share that is excluded.

    A mean is over the episodes to which the part applies; a part that applies to none is left out.
    """
    found = list(breakdowns)
    values: dict[str, list[float]] = {}
    for breakdown in found:
        for name, value in {"total": breakdown.total, **breakdown.parts}.items():
            if value is not None:
                values.setdefault(name, []).append(value)
    result = {name: math.fsum(numbers) / len(numbers) for name, numbers in values.items()}
    if found:
        result["excluded"] = sum(b.excluded is not None for b in found) / len(found)
    return result
