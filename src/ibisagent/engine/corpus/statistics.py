"""What is in a corpus, counted from its tables alone, so that anyone who has the folder gets the same figures."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ibisagent.engine.corpus.reader import Corpus
from ibisagent.engine.moments import Intent

__all__ = ["MAX_CURVE", "PAPER", "statistics", "summary"]

PAPER = {"final_iou": 0.9427, "final_dice": 0.9703, "num_steps": 8.69}
"""Means of the trajectories that the paper kept."""

MAX_CURVE = 20
"""Steps of the curve of IoU over steps: as many as an episode of the paper has."""

_Score = tuple[float, float, int]
"""Final IoU, final Dice, number of steps."""

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_BINS = 40
_STOPS = frozenset((Intent.FITS, Intent.ROUGH, Intent.ABSENT))
_ORIGIN = ["source", "group", "split", "licence", "modality"]
_ASKED = [*_ORIGIN, "target", "scenario", "instruction_category", "target_mask.size"]


def statistics(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Count a corpus.

    Parameters
    ----------
    folder
        The corpus; a partial one is counted as far as it goes. Messages and pictures are not read.

    Returns
    -------
    dict
        ``tables`` (rows by table and split), ``images``, ``licences``, and for each of ``sft``, ``rl``, ``test`` and
        ``vqa`` that is there a section; plain numbers, texts, lists and dicts, which JSON can hold. Final IoU and Dice
        (``with_target`` and all that is by target or scenario) are over trajectories whose target is in the image:
        where it is absent, refusing is right by definition. ``num_steps`` counts actions without the one that stops.

    Raises
    ------
    InputError
        If there is no corpus, or a shard is damaged.
    """
    corpus = Corpus(folder)
    found: dict[str, Any] = {
        "tables": {
            table: {split: corpus.count(table, split) for split in corpus.splits(table)} for table in corpus.tables
        }
    }
    licences: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    if "images" in corpus.tables:
        found["images"] = _images(corpus, licences)
    if "sft" in corpus.tables:
        found["sft"] = _trajectories(corpus)
    for table in ("rl", "test"):
        if table in corpus.tables:
            found[table] = _prompts(corpus, table)
    if "vqa" in corpus.tables:
        found["vqa"] = _questions(corpus)
    found["licences"] = {
        source: {licence: dict(sorted(counts.items())) for licence, counts in sorted(by.items())}
        for source, by in sorted(licences.items())
    }
    return found


def summary(values: Iterable[float]) -> dict[str, float] | None:
    """Number, mean, extremes and quantiles of some values; None if there are none."""
    data = np.asarray(list(values), float)
    if data.size == 0:
        return None
    quantiles = {
        f"q{round(q * 100):02d}": _round(v) for q, v in zip(_QUANTILES, np.quantile(data, _QUANTILES), strict=True)
    }
    median = quantiles.pop("q50")
    return {
        "num": int(data.size),
        "mean": _round(data.mean()),
        "median": median,
        "min": _round(data.min()),
        "max": _round(data.max()),
        **quantiles,
    }


def _images(corpus: Corpus, licences: dict[str, dict[str, Counter[str]]]) -> dict[str, Any]:
    counts = _Counts("modality", "source", "split")
    groups, sides = set(), []
    for row in corpus.rows("images", columns=[*_ORIGIN, "width", "height"]):
        counts.add(row)
        licences[row["source"]][row["licence"] or "unknown"][row["split"]] += 1
        if row["group"] is not None:
            groups.add((row["source"], row["group"]))
        sides += [row["width"], row["height"]]
    return {"num": counts.num, "num_groups": len(groups), "sides": summary(sides), "by": counts.tables()}


def _trajectories(corpus: Corpus) -> dict[str, Any]:
    counts = _Counts("modality", "target", "scenario", "outcome", "expert", "instruction_category", "source", "split")
    pairs: Counter[tuple[str, str]] = Counter()
    absent: Counter[tuple[str, str]] = Counter()
    intents: Counter[str] = Counter()
    lengths: dict[str, list[int]] = defaultdict(list)
    clicks: list[int] = []
    scores: list[_Score] = []
    per_target: dict[tuple[str, str], list[_Score]] = defaultdict(list)
    per_scenario: dict[str, list[_Score]] = defaultdict(list)
    curves: dict[str, list[list[float]]] = defaultdict(list)
    made: dict[str, set[Any]] = defaultdict(set)
    num_learnt = num_replies = 0
    columns = [*_ASKED, "outcome", "expert", "final_iou", "final_dice", "num_clicks", "provenance"]
    columns += [f"steps.list.element.{name}" for name in ("intent", "learn", "iou")]
    for row in corpus.rows("sft", columns=columns):
        counts.add(row)
        key = (_text(row["modality"]), _text(row["target"]))
        pairs[key] += 1
        # The paper's length is that of clicks: the action that stops is no step of it, whatever the row counts.
        moves = row["steps"][:-1] if row["steps"] and row["steps"][-1]["intent"] in _STOPS else row["steps"]
        lengths[_text(row["scenario"])].append(len(moves))
        clicks.append(row["num_clicks"])
        intents.update(_text(step["intent"]) for step in row["steps"])
        num_replies += len(row["steps"])
        num_learnt += sum(bool(step["learn"]) for step in row["steps"])
        for name in ("ibisagent_version", "segmenter", "segmenter_sha256", "teacher", "config_sha256"):
            if row["provenance"][name] is not None:
                made[name].add(row["provenance"][name])
        if row["target_mask"] is None:
            absent[key] += 1
        elif row["final_iou"] is not None:
            score = (row["final_iou"], row["final_dice"], len(moves))
            scores.append(score)
            per_target[key].append(score)
            per_scenario[_text(row["scenario"])].append(score)
            by_step = [step["iou"] for step in moves]
            if by_step and None not in by_step:
                curves[_text(row["scenario"])].append(by_step)
    return {
        "num": counts.num,
        "num_absent": absent.total(),
        "num_replies": num_replies,
        "num_learnt_replies": num_learnt,
        "by": counts.tables(),
        "by_modality_and_target": _targets(pairs, absent, per_target),
        "by_scenario": {name: _scored(found) for name, found in sorted(per_scenario.items())},
        "intents": _sorted(intents),
        "num_steps": summary(length for by in lengths.values() for length in by),
        "num_clicks": summary(clicks),
        "lengths": {
            scenario: {str(length): n for length, n in sorted(Counter(by).items())}
            for scenario, by in sorted(lengths.items())
        },
        "with_target": _scored(scores),
        "final_iou_histogram": _histogram([score[0] for score in scores]),
        "iou_by_step": {name: _curve(lines) for name, lines in sorted(curves.items())},
        "made_with": {name: sorted(values) for name, values in sorted(made.items())},
    }


def _targets(
    pairs: Counter[tuple[str, str]], absent: Counter[tuple[str, str]], per_target: dict[tuple[str, str], list[_Score]]
) -> list[dict[str, Any]]:
    rows = []
    for (modality, target), count in sorted(pairs.items(), key=lambda item: (item[0][0], -item[1], item[0][1])):
        scores = per_target.get((modality, target), [])
        present = count - absent[modality, target]
        rows.append({"modality": modality, "target": target, "num": count, "num_present": present, **_scored(scores)})
    return rows


def _scored(scores: Sequence[_Score]) -> dict[str, Any]:
    return {
        "final_iou": summary(iou for iou, _, _ in scores),
        "final_dice": summary(dice for _, dice, _ in scores),
        "num_steps": summary(steps for _, _, steps in scores),
    }


def _prompts(corpus: Corpus, table: str) -> dict[str, Any]:
    counts = _Counts("modality", "target", "scenario", "instruction_category", "source", "split")
    num_absent = num_given = 0
    for row in corpus.rows(table, columns=[*_ASKED, "initial_mask"]):
        counts.add(row)
        num_absent += row["target_mask"] is None
        num_given += row["initial_mask"] >= 0
    return {"num": counts.num, "num_absent": num_absent, "num_given_mask": num_given, "by": counts.tables()}


def _questions(corpus: Corpus) -> dict[str, Any]:
    counts, num_closed = _Counts("modality", "source", "split"), 0
    for row in corpus.rows("vqa", columns=[*_ORIGIN, "closed"]):
        counts.add(row)
        num_closed += bool(row["closed"])
    return {"num": counts.num, "num_closed": num_closed, "by": counts.tables()}


class _Counts:
    """Counts rows by the values of some columns."""

    def __init__(self, *columns: str) -> None:
        self.num = 0
        self._by: dict[str, Counter[str]] = {column: Counter() for column in columns}

    def add(self, row: dict[str, Any]) -> None:
        self.num += 1
        for column, counter in self._by.items():
            counter[_text(row[column])] += 1

    def tables(self) -> dict[str, dict[str, int]]:
        return {column: _sorted(counter) for column, counter in self._by.items()}


def _curve(lines: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Mean and quartiles after 1, 2, … actions; a trajectory that has ended keeps its last value."""
    length = min(max(len(line) for line in lines), MAX_CURVE)
    grid = np.array([[line[min(k, len(line) - 1)] for k in range(length)] for line in lines])
    low, middle, high = np.quantile(grid, (0.25, 0.5, 0.75), axis=0)
    return {
        "num": len(lines),
        "mean": [_round(v) for v in grid.mean(axis=0)],
        "median": [_round(v) for v in middle],
        "q25": [_round(v) for v in low],
        "q75": [_round(v) for v in high],
        "still_going": [sum(len(line) > k for line in lines) for k in range(length)],
    }


def _histogram(values: Sequence[float]) -> dict[str, list[float]]:
    counts, edges = np.histogram(np.asarray(values, float), bins=_BINS, range=(0.0, 1.0))
    return {"edges": [_round(edge) for edge in edges], "counts": [int(count) for count in counts]}


def _sorted(counter: Counter[str]) -> dict[str, int]:
    """The most frequent first; equal ones by name."""
    return dict(sorted(counter.items(), key=lambda item: (-item[1], item[0])))


def _text(value: str | None) -> str:
    return "not stated" if value is None or value == "" else value


def _round(value: Any) -> float:
    return round(float(value), 6)
