"""Runs held against one another, case by case: differences with intervals, tests, and the cases that changed most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.errors import InputError
from ibisagent.evaluate.figures import FIGURES, Figure, case_figures
from ibisagent.evaluate.pairing import Pairing, Side, pair_cases
from ibisagent.evaluate.statistics import Clusters, Difference, cluster_unit, holm, paired

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ibisagent.evaluate.figure import CaseFigures
    from ibisagent.evaluate.result import CaseResult

__all__ = ["DEFAULT_FIGURES", "Change", "Comparison", "Line", "Tally", "compare", "figure_of"]

DEFAULT_FIGURES = (
    *("iou", "target_mean_iou", "dice", "right_refusals", "false_refusals", "errors", "action_validity"),
    *("refinement_success", "steps"),
)
"""What is compared where nothing else is asked for; those that no case has are left out."""

_MACRO = "target_mean_"
_TIE = 1e-9

_POOLED = frozenset({"ciou_all"})
"""Figures that pool pixels: a case without any adds nothing, so a weight of 0 does not say that the figure lacks."""


@dataclass(frozen=True)
class Tally:
    """Cases where B is better, equal or worse; higher, equal or lower where neither is better."""

    wins: int
    ties: int
    losses: int


@dataclass(frozen=True)
class Line:
    """One figure of one comparison, over all cases or over those of a target.

    Parameters
    ----------
    figure
        What is compared.
    target
        ``"group/target"``; None is all cases.
    difference
        B less A, with everything that is known of it, over the cases of which every run has the figure.
    tally
        Of the cases that every run of both sides has the figure of, means over seeds.
    p_holm
        Corrected over all figures of all comparisons, and among targets over all targets of all comparisons.
    """

    figure: Figure
    target: str | None
    difference: Difference
    tally: Tally
    p_holm: float | None = None

    def to_json(self) -> dict[str, Any]:
        """As compare.json has it."""
        t = self.tally
        more = {"p_holm": self.p_holm, "wins": t.wins, "ties": t.ties, "losses": t.losses}
        return {"figure": self.figure.name, "target": self.target, **self.difference.to_json(), **more}


@dataclass(frozen=True)
class Change:
    """A case whose main figure changed.

    Parameters
    ----------
    key
        Name of the case.
    value_a, value_b
        Its figure, the mean over seeds.
    a, b
        The result shown for each side: of several seeds, the one nearest to the mean.
    run_a, run_b
        Numbers of their runs within the sides.
    """

    key: str
    value_a: float
    value_b: float
    a: CaseResult = field(repr=False)
    b: CaseResult = field(repr=False)
    run_a: int = 0
    run_b: int = 0

    @property
    def difference(self) -> float:
        """B less A."""
        return self.value_b - self.value_a

    def to_json(self) -> dict[str, Any]:
        """As compare.json has it."""
        return {"case": self.key, "value_a": self.value_a, "value_b": self.value_b, "difference": self.difference}


@dataclass(frozen=True)
class Comparison:
    """Two sides.

    Parameters
    ----------
    a, b
        The sides; differences are B less A.
    pairing
        Their cases.
    clusters
        What was drawn.
    lines, by_target
        Figures over all cases, and the main figure of every target.
    changes
        Cases by how much the main figure changed, the largest change first; those that did not change are left out.
    """

    a: Side
    b: Side
    pairing: Pairing
    clusters: Clusters
    lines: tuple[Line, ...]
    by_target: tuple[Line, ...]
    changes: tuple[Change, ...]

    def to_json(self) -> dict[str, Any]:
        """As compare.json has it."""
        pairs, clusters = self.pairing, self.clusters
        return {
            "a": {"name": self.a.name, "runs": [run.path.name for run in self.a.runs]},
            "b": {"name": self.b.name, "runs": [run.path.name for run in self.b.runs]},
            "num_cases": len(pairs.keys),
            "only_a": list(pairs.only_a),
            "only_b": list(pairs.only_b),
            "notes": list(pairs.notes),
            "clusters": {"unit": clusters.unit, "number": clusters.number, "warning": clusters.warning},
            "figures": [line.to_json() for line in self.lines],
            "targets": [line.to_json() for line in self.by_target],
            "changes": [change.to_json() for change in self.changes],
        }


def figure_of(name: str) -> Figure:
    """A figure by its name; ``target_mean_NAME`` is the mean over targets of NAME.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    if name in FIGURES:
        return FIGURES[name]
    base = name.removeprefix(_MACRO)
    if base == name or base not in FIGURES:
        raise InputError(f"no figure is called '{name}'; there are {', '.join(FIGURES)}, and target_mean_ before each")
    inner = FIGURES[base]
    return Figure(
        name,
        f"{inner.title}, mean of targets",
        f"Mean over targets, each counting the same, of: {inner.about}",
        inner.higher_is_better,
        inner.percent,
        inner.unit,
        inner.section,
    )


def compare(sides: Sequence[Side], figures: Sequence[str] = DEFAULT_FIGURES, *, seed: int = 0) -> list[Comparison]:
    """Hold every other side against the first.

    Parameters
    ----------
    sides
        Two or more; the first is what the others are compared to.
    figures
        Names; the first is the main one: it is told by target, and its changes are listed.
    seed
        Seed of all draws.

    Returns
    -------
    list of Comparison
        One for every side after the first. p values are corrected over all of them.

    Raises
    ------
    InputError
        If a figure is unknown, or cases cannot be paired.
    """
    known = [figure_of(name) for name in dict.fromkeys(figures)]
    if len(sides) < 2 or not known:
        raise InputError("a comparison needs two sides and a figure")
    found = [
        _compare(sides[0], other, known, seed, skip_empty=tuple(figures) == DEFAULT_FIGURES) for other in sides[1:]
    ]
    return _corrected(found)


def _compare(a: Side, b: Side, figures: Sequence[Figure], seed: int, *, skip_empty: bool) -> Comparison:
    pairing = pair_cases(a, b)
    clusters = cluster_unit([_telling(case) for case in zip(*pairing.a, *pairing.b, strict=True)])
    targets = [_pair(case) for case in zip(*pairing.a, *pairing.b, strict=True)]
    scored = tuple(
        [[case_figures(r, max_steps=run.max_steps) for r in row] for run, row in zip(side.runs, rows, strict=True)]
        for side, rows in ((a, pairing.a), (b, pairing.b))
    )
    lines = []
    for figure in figures:
        base = figure.name if figure.name in FIGURES else figure.name.removeprefix(_MACRO)
        sums, left_out = _on_both((_sums(scored[0], base), _sums(scored[1], base)), pooled=base in _POOLED)
        macro = targets if base != figure.name else None
        difference = _said(paired(*sums, clusters.labels, macro, seed), left_out, macro)
        if difference.n or left_out.any() or not skip_empty:
            lines.append(Line(figure, None, difference, _tally(*sums, figure)))
    main = figures[0] if figures[0].name in FIGURES else FIGURES[figures[0].name.removeprefix(_MACRO)]
    sums, left_out = _on_both((_sums(scored[0], main.name), _sums(scored[1], main.name)), pooled=main.name in _POOLED)
    by_target = []
    for target in sorted(set(targets)):
        mine = np.array([t == target for t in targets])
        part = tuple((numbers[:, mine], weights[:, mine]) for numbers, weights in sums)
        labels = [label for label, own in zip(clusters.labels, mine, strict=True) if own]
        difference = _said(paired(part[0], part[1], labels, seed=seed), left_out[mine])
        if difference.n or left_out[mine].any():
            by_target.append(Line(main, target, difference, _tally(part[0], part[1], main)))
    return Comparison(a, b, pairing, clusters, tuple(lines), tuple(by_target), _changes(pairing, *sums))


def _corrected(found: Sequence[Comparison]) -> list[Comparison]:
    """With p after Holm's correction, and with what could have been found after it."""
    lines = iter(_together([line for one in found for line in one.lines]))
    targets = iter(_together([line for one in found for line in one.by_target]))
    return [
        replace(
            one,
            lines=tuple(next(lines) for _ in one.lines),
            by_target=tuple(next(targets) for _ in one.by_target),
        )
        for one in found
    ]


def _together(lines: Sequence[Line]) -> list[Line]:
    p_values = [line.difference.p for line in lines]
    tests = max(1, sum(p is not None for p in p_values))
    return [
        replace(line, difference=line.difference.among(tests), p_holm=p)
        for line, p in zip(lines, holm(p_values), strict=True)
    ]


Sums = tuple["NDArray[np.float64]", "NDArray[np.float64]"]


def _sums(scored: Sequence[Sequence[CaseFigures]], name: str) -> Sums:
    """Numbers and weights (runs, cases) of a figure; 0 and 0 where a case has no part in it."""
    pairs = np.array([[case.get(name, (0.0, 0.0)) for case in run] for run in scored], np.float64)
    return pairs[..., 0], pairs[..., 1]


def _on_both(sides: tuple[Sums, Sums], *, pooled: bool) -> tuple[tuple[Sums, Sums], NDArray[np.bool_]]:
    """Both sides' sums without the cases that some run lacks the figure of, and which cases these are.

    A difference over other cases on either side would be one of the cases, not of the sides.
    """
    (na, wa), (nb, wb) = sides
    known = np.concatenate([wa, wb]) > 0
    if pooled:
        return sides, np.zeros(known.shape[1], np.bool_)
    kept = known.all(axis=0)
    return ((na * kept, wa * kept), (nb * kept, wb * kept)), np.asarray(known.any(axis=0) & ~kept)


def _said(difference: Difference, left_out: NDArray[np.bool_], targets: Sequence[str] | None = None) -> Difference:
    """With the number of cases that are left out in its warning."""
    number = int(left_out.sum())
    if not number:
        return difference
    told = f"{number} case{' is' if number == 1 else 's are'} left out: not every run has the figure there"
    if targets is not None:
        told += "; a target without other cases is in no mean over targets"
    return replace(difference, warning="; ".join(filter(None, (told, difference.warning))))


def _by_case(sums: Sums) -> NDArray[np.float64]:
    """Each case's own figure, the mean over the runs that have it; NaN where none does."""
    numbers, weights = sums
    known = weights > 0
    values = np.divide(numbers, weights, out=np.zeros_like(numbers), where=known)
    count = known.sum(axis=0)
    return np.divide(values.sum(axis=0), count, out=np.full(count.shape, np.nan), where=count > 0)


def _tally(a: Sums, b: Sums, figure: Figure) -> Tally:
    change = _by_case(b) - _by_case(a)
    change = change[np.isfinite(change)] * (-1 if figure.higher_is_better is False else 1)
    return Tally(int((change > _TIE).sum()), int((np.abs(change) <= _TIE).sum()), int((change < -_TIE).sum()))


def _changes(pairing: Pairing, a: Sums, b: Sums) -> tuple[Change, ...]:
    before, after = _by_case(a), _by_case(b)
    size = np.abs(after - before)
    order = [int(i) for i in np.argsort(-np.nan_to_num(size), kind="stable") if np.isfinite(size[i]) and size[i] > _TIE]
    found = []
    for i in order:
        run_a, run_b = _nearest(a, i, before[i]), _nearest(b, i, after[i])
        results = pairing.a[run_a][i], pairing.b[run_b][i]
        found.append(Change(pairing.keys[i], float(before[i]), float(after[i]), *results, run_a, run_b))
    return tuple(found)


def _nearest(sums: Sums, case: int, mean: float) -> int:
    numbers, weights = sums[0][:, case], sums[1][:, case]
    away = np.where(weights > 0, np.abs(numbers / np.where(weights > 0, weights, 1.0) - mean), np.inf)
    return int(np.argmin(away))


def _telling(case: Sequence[CaseResult]) -> CaseResult:
    """The result that says most of where a case comes from: a row that could not be read says little."""
    return max(case, key=lambda r: (r.image is not None) + (r.patient is not None))


def _pair(case: Sequence[CaseResult]) -> str:
    return next((r for r in case if r.target is not None), case[0]).pair
