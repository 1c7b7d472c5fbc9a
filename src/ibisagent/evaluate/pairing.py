"""Which results of several runs are of the same case, which have no partner, and what speaks against pairing them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ibisagent.errors import InputError

if TYPE_CHECKING:
    from ibisagent.evaluate.records import Run
    from ibisagent.evaluate.result import CaseResult

__all__ = ["Pairing", "Side", "pair_cases"]

_SAME_OF_A_RUN = {
    "cases_sha256": "case lists differ (their hashes do)",
    "max_steps": "budgets of steps differ",
    "instructions": "instructions were drawn in different ways",
}


@dataclass(frozen=True)
class Side:
    """What is compared: one run, or the runs of several seeds.

    Parameters
    ----------
    name
        For people.
    runs
        At least one.
    """

    name: str
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Pairing:
    """The cases that every run of both sides has.

    Parameters
    ----------
    keys
        Name of every paired case, in the order of A's first run.
    a, b
        Results by side and run, each in the order of `keys`.
    only_a, only_b
        Names of the cases that lack a partner: some run of the other side (or of their own) does not have them.
    notes
        What a reader must know of the pairs, a line each.
    """

    keys: tuple[str, ...]
    a: tuple[tuple[CaseResult, ...], ...] = field(repr=False)
    b: tuple[tuple[CaseResult, ...], ...] = field(repr=False)
    only_a: tuple[str, ...] = ()
    only_b: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def pair_cases(a: Side, b: Side) -> Pairing:
    """Find the partners.

    A case is known by its id. Where a run has an id several times (a case that was asked in several wordings), id and
    instruction together name it. Rows without an id go by their line.

    Raises
    ------
    InputError
        If no case has a partner, or two partners were scored against different references.
    """
    runs = [*a.runs, *b.runs]
    by_wording = any(_repeats(run.results) for run in runs)
    tables = [_table(run.results, by_wording) for run in runs]
    split = len(a.runs)
    common = [key for key in tables[0] if all(key in table for table in tables[1:])]
    only = []
    for own in (tables[:split], tables[split:]):
        seen = dict.fromkeys(key for table in own for key in table)
        only.append(tuple(_name(key) for key in seen if any(key not in table for table in tables)))
    if not common:
        raise InputError(f"{a.name} and {b.name} have no case in common; compare runs of one case list")
    rows = [tuple(table[key] for key in common) for table in tables]
    for place, key in enumerate(common):
        _check_references([row[place] for row in rows], _name(key), a.name, b.name)
    notes = [*_notes_of_runs(a, b), *_notes_of_cases(rows)]
    names = tuple(_name(key) for key in common)
    return Pairing(names, tuple(rows[:split]), tuple(rows[split:]), only[0], only[1], tuple(notes))


def _repeats(results: Sequence[CaseResult]) -> bool:
    return any(count > 1 for count in Counter(r.case_id for r in results if r.case_id is not None).values())


def _table(results: Sequence[CaseResult], by_wording: bool) -> dict[tuple[Hashable, ...], CaseResult]:
    found: dict[tuple[Hashable, ...], CaseResult] = {}
    for result in results:
        if result.case_id is None:
            key: tuple[Hashable, ...] = ("line", result.line)
        elif by_wording:
            key = ("case", result.case_id, result.instruction)
        else:
            key = ("case", result.case_id)
        again = 1
        while key in found:  # the same id and instruction twice: the first with the first, the second with the second
            again += 1
            key = (*key, again)
        found[key] = result
    return found


def _name(key: tuple[Hashable, ...]) -> str:
    kind, first, *more = key
    if kind == "line":
        return f"line {first}"
    return str(first) if not more else f"{first} ({', '.join(str(part) for part in more)})"


def _check_references(rows: Sequence[CaseResult], name: str, a: str, b: str) -> None:
    played = [row for row in rows if row.episode is not None]
    if len({row.absent for row in played}) > 1:
        raise InputError(f"{name}: its target is absent in some of the runs of {a} and {b} and present in others")
    references = {None if r.target_mask is None else (tuple(r.target_mask.size), r.target_mask.counts) for r in played}
    if len(references) > 1:
        raise InputError(
            f"{name}: the runs of {a} and {b} were scored against different reference masks; play both on one list"
        )


def _notes_of_runs(a: Side, b: Side) -> list[str]:
    notes = []
    facts: list[Mapping[str, Any]] = [run.facts for run in (*a.runs, *b.runs)]
    for name, text in _SAME_OF_A_RUN.items():
        values = {str(f[name]) for f in facts if f.get(name) is not None}
        if len(values) > 1:
            shown = "" if name == "cases_sha256" else f": {', '.join(sorted(values))}"
            notes.append(text + shown)
    for side in (a, b):
        for run in side.runs:
            if not run.is_complete:
                name = side.name if len(side.runs) == 1 else f"{run.path.name} of {side.name}"
                notes.append(f"{name} is not finished: it has {len(run.results)} of {run.num_rows} rows")
        folders = {run.path.resolve() for run in side.runs}
        if len(folders) < len(side.runs):
            notes.append(f"{side.name} names one folder more than once: its seeds are not independent")
    return notes


def _notes_of_cases(rows: Sequence[Sequence[CaseResult]]) -> list[str]:
    cases = list(zip(*rows, strict=True))
    images = sum(len({r.episode.image.sha256 for r in case if r.episode is not None}) > 1 for case in cases)
    words = sum(len({r.instruction for r in case if r.episode is not None}) > 1 for case in cases)
    errors = [sum(bool(r.error) for r in row) for row in rows]
    notes = []
    if images:
        notes.append(
            f"{images} of {len(cases)} cases were not played on the same pixels (a condition, or other images)"
        )
    if words:
        notes.append(
            f"{words} of {len(cases)} cases were asked with other words (instructions drawn with another seed)"
        )
    if any(errors):
        notes.append(f"errors by run, scored as failures: {', '.join(map(str, errors))}")
    return notes
