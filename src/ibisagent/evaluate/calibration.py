"""Does a run know how good its mask is? Its own estimate of the quality, held against the truth.

The estimate of a run is what the segmenter said of the mask that became the final one. Where nothing was said (a given
mask that was kept, a refusal, a segmenter without scores) there is no estimate: such runs are counted, not guessed.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.episode import Episode, Outcome
from ibisagent.evaluate.result import CaseResult
from ibisagent.evaluate.statistics import estimate as interval_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FEW", "Judged", "calibrate", "judged_cases", "quality_estimate", "ranks", "selective_dice"]

NUM_BINS = 10
"""Bins of equal width over [0, 1] of the reliability curve; the expected calibration error depends on their number."""

FEW = 50
"""With fewer cases the summary says that ten bins say little."""

COVERAGES = tuple(k / 20 for k in range(1, 21))


def quality_estimate(episode: Episode) -> float | None:
    """What a run says of its final mask: IoU as the segmenter expects it, clipped to [0, 1].

    Returns
    -------
    float or None
        None where the final mask is not one that the segmenter made and scored, and after an error or a refusal.
    """
    if episode.final_step is None or episode.outcome in (Outcome.ERROR, Outcome.ABSENT):
        return None
    step = next((step for step in episode.steps if step.index == episode.final_step), None)
    score = None if step is None else step.segmenter_score
    return None if score is None or not np.isfinite(score) else float(min(max(score, 0.0), 1.0))


@dataclass(frozen=True)
class Judged:
    """Runs that said how good their mask is, all of present targets.

    Attributes
    ----------
    places
        ``int`` (n,): which of the results they are, ascending.
    estimate, iou, dice
        ``float64`` (n,), each in [0, 1].
    """

    places: NDArray[np.int_]
    estimate: NDArray[np.float64]
    iou: NDArray[np.float64]
    dice: NDArray[np.float64]

    def __len__(self) -> int:
        return int(self.estimate.size)


def judged_cases(results: Sequence[CaseResult]) -> Judged:
    """Estimate and truth of every run that has both."""
    rows = [
        (place, estimate, r.iou, r.dice)
        for place, r in enumerate(results)
        if not r.absent and r.scores is not None and r.episode is not None and not r.error
        if (estimate := quality_estimate(r.episode)) is not None
    ]
    table = np.array(rows, np.float64).reshape(len(rows), 4)
    return Judged(table[:, 0].astype(int), table[:, 1], table[:, 2], table[:, 3])


def calibrate(results: Sequence[CaseResult], clusters: Sequence[Hashable] | None = None) -> dict[str, Any]:
    """How far the estimates can be trusted.

    Parameters
    ----------
    results
        Scored.
    clusters
        Label of each result, for the bins' intervals; None draws the results as if they were independent.

    Returns
    -------
    dict
        ``n`` runs with an estimate; ``num_without``, played runs of present targets that have none, and what they came
        to, ``without_mean_iou``. ``mean_estimate``, ``mean_iou`` and ``bias``, the first minus the second: above 0 is
        too sure. ``mse``: mean squared difference of estimate and IoU (Brier's form for a graded truth; to say the mean
        IoU of every case would have ``mse_constant``). ``ece``: distance of mean estimate and mean IoU within a bin,
        mean over :data:`NUM_BINS` bins weighted by their cases. ``pearson``, ``spearman``: None below three runs or
        where one side does not vary. ``reliability``: the bins that have cases, ``{"low", "high",
        "mean_estimate", "mean_iou"}`` and of the last everything that an
        :class:`~ibisagent.evaluate.statistics.Estimate` says. ``selective_dice``: see :func:`selective_dice`.
        ``absent``: runs with an estimate whose target is absent, their number and mean estimate (the lower the
        better). ``note``: what a reader must know, or None.
    """
    judged = judged_cases(results)
    silent = [r for r in results if not r.absent and r.episode is not None and _silent(r)]
    of_absent = [quality_estimate(r.episode) for r in results if r.absent and r.episode is not None]
    told_of_absent = np.array([told for told in of_absent if told is not None], np.float64)
    estimate, iou = judged.estimate, judged.iou
    bins = _bins(judged, clusters if clusters is not None else range(len(results)))
    num = len(judged)
    return {
        "estimate": "score that the segmenter gave the final mask",
        "n": num,
        "num_without": len(silent),
        "without_mean_iou": _mean(np.array([r.iou for r in silent], np.float64)),
        "mean_estimate": _mean(estimate),
        "mean_iou": _mean(iou),
        "bias": _mean(estimate - iou),
        "mse": _mean((estimate - iou) ** 2),
        "mse_constant": float(iou.var()) if num else None,
        "ece": sum(b["n"] * abs(b["mean_estimate"] - b["mean_iou"]) for b in bins) / num if num else None,
        "num_bins": NUM_BINS,
        "pearson": _correlation(estimate, iou),
        "spearman": _correlation(ranks(estimate), ranks(iou)),
        "reliability": bins,
        "selective_dice": selective_dice(estimate, judged.dice),
        "absent": {"n": len(told_of_absent), "mean_estimate": _mean(told_of_absent)},
        "note": _note(num, len(silent)),
    }


def selective_dice(estimate: NDArray[np.float64], dice: NDArray[np.float64]) -> dict[str, Any]:
    """Mean Dice of the cases that a run is surest of, against their share of all cases (a risk-coverage curve).

    Cases of equal estimate are drawn from at random, in expectation: their order does not matter.

    Parameters
    ----------
    estimate, dice
        ``float64`` (n,).

    Returns
    -------
    dict
        ``coverage`` and ``dice`` of at most 20 points; ``n`` cases at each (rounded up). ``area``: mean Dice over all
        coverages 1/n … 1. ``area_chance``: where the estimate says nothing, the mean Dice. ``area_best``: where it
        orders perfectly. ``gain``: (area - chance) / (best - chance), 1 for a perfect order and 0 for none, negative
        for a misleading one; None where all cases are equally good.
    """
    num = int(dice.size)
    if not num:
        nothing = dict.fromkeys(("area", "area_chance", "area_best", "gain"))
        return {"coverage": [], "n": [], "dice": [], **nothing}
    curve, best = _selected(estimate, dice), _selected(dice, dice)
    taken = sorted({min(num, int(np.ceil(c * num - 1e-9))) for c in COVERAGES})
    area, chance, top = float(curve.mean()), float(dice.mean()), float(best.mean())
    return {
        "coverage": [count / num for count in taken],
        "n": taken,
        "dice": [float(curve[count - 1]) for count in taken],
        "area": area,
        "area_chance": chance,
        "area_best": top,
        "gain": (area - chance) / (top - chance) if top - chance > 1e-12 else None,
    }


def _silent(result: CaseResult) -> bool:
    return not result.error and result.episode is not None and quality_estimate(result.episode) is None


def _selected(key: NDArray[np.float64], dice: NDArray[np.float64]) -> NDArray[np.float64]:
    """Expected mean Dice of the k cases of highest key, for k = 1 … n."""
    _, group = np.unique(-key, return_inverse=True)
    mean = np.bincount(group, dice) / np.bincount(group)
    return np.cumsum(mean[np.sort(group)]) / np.arange(1, dice.size + 1)


def _bins(judged: Judged, clusters: Sequence[Hashable]) -> list[dict[str, Any]]:
    where = np.minimum((judged.estimate * NUM_BINS).astype(int), NUM_BINS - 1)  # 1.0 is in the last one
    bins = []
    for number in sorted(set(where.tolist())):
        mine = where == number
        of_bin = interval_of(judged.iou[mine], None, [clusters[place] for place in judged.places[mine]]).to_json()
        bins.append(
            {
                "low": number / NUM_BINS,
                "high": (number + 1) / NUM_BINS,
                "mean_estimate": float(judged.estimate[mine].mean()),
                "mean_iou": of_bin.pop("value"),
                **of_bin,
            }
        )
    return bins


def ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 0; equal values share their mean rank."""
    _, group, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count + 1) / 2)[group]


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float | None:
    if a.size < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    value = float(np.corrcoef(a, b)[0, 1])
    return value if np.isfinite(value) else None


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if values.size else None


def _note(num: int, num_silent: int) -> str | None:
    if not num:
        return "no run has an estimate of its quality"
    parts = []
    if num < FEW:
        parts.append(f"only {num} run{'' if num == 1 else 's'}: {NUM_BINS} bins say little")
    if num_silent:
        runs = "a run" if num_silent == 1 else f"{num_silent} runs"
        parts.append(f"{runs} without an estimate left out")
    return "; ".join(parts) or None
