"""What a report is made from: run folders and labs, opened and summed up."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ibisagent.errors import InputError
from ibisagent.evaluate.arms import AGENT, is_lab, lab_summary, read_lab
from ibisagent.evaluate.arms.ceiling import ceilings_of
from ibisagent.evaluate.records import Run, read_run
from ibisagent.evaluate.report.build import build_report, run_title
from ibisagent.evaluate.report.gallery import Failures, Placed, choose_failures
from ibisagent.evaluate.report.lab_sections import lab_findings, lab_remarks, lab_sections
from ibisagent.evaluate.report.model import Report, Section
from ibisagent.evaluate.report.numbers import count_text
from ibisagent.evaluate.report.protocol_section import protocol_sections
from ibisagent.evaluate.report.runs_section import runs_section
from ibisagent.evaluate.summary import summarise

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ibisagent.evaluate.arms import Lab
    from ibisagent.evaluate.result import CaseResult

__all__ = ["Pages", "Source", "open_sources"]

Pages = Literal["failures", "all", "none"]
"""Which cases get an episode page."""


@dataclass(frozen=True)
class _LabRun(Run):
    """The agent's run of a lab, whose pictures may lie with other arms."""

    lab: Lab | None = None

    def image(self, result: CaseResult) -> NDArray[np.uint8] | None:
        """As of a run; looks in every arm."""
        return super().image(result) if self.lab is None else self.lab.image(result)


@dataclass(frozen=True)
class Source:
    """A run that is reported on, with everything beside it.

    Parameters
    ----------
    run, summary
        What the report is about.
    failures
        Its worst cases.
    told
        What was found, in a line.
    title
        Heading; None for who played.
    arms, said, remarks, others
        See :func:`~ibisagent.evaluate.report.build.build_report`.
    """

    run: Run
    summary: Mapping[str, Any]
    failures: Failures
    told: str
    title: str | None
    arms: Sequence[Section]
    said: Sequence[str]
    remarks: Mapping[str, str]
    others: Mapping[str, Mapping[str, Any]]

    def pages(self, which: Pages) -> list[Placed]:
        """Cases that get an episode page."""
        if which == "none":
            return []
        if which == "failures":
            return self.failures.every()
        return [Placed(position, result) for position, result in enumerate(self.run.results)]

    def build(self, pages: Mapping[str, str]) -> Report:
        """The report, with links to these pages."""
        return build_report(
            self.run,
            self.summary,
            self.failures,
            pages,
            title=self.title,
            arms=self.arms,
            said=self.said,
            remarks=self.remarks,
            others=self.others,
        )


def open_sources(paths: Sequence[str | os.PathLike[str]], *, title: str | None = None, number: int = 12) -> Source:
    """Read runs and labs.

    Parameters
    ----------
    paths
        The first is what the report is about; of a lab that is the arm ``agent``. The others are held against it.
    title
        Heading.
    number
        Most cases of a gallery.

    Raises
    ------
    InputError
        If a folder holds neither, a record is damaged, or there is nothing to report on.
    """
    first = Path(paths[0])
    arms: list[Section] = []
    said: list[str] = []
    remarks: dict[str, str] = {}
    others: dict[str, Mapping[str, Any]] = {}
    told, ceilings = "", None
    if is_lab(first):
        lab = read_lab(first)
        run = _agent(lab)
        told_lab = lab_summary(lab)
        ceilings = ceilings_of(lab, AGENT)
        arms, said, remarks = lab_sections(told_lab), lab_findings(told_lab), lab_remarks(told_lab)
        told = f", {count_text(len(lab.arms), 'arm')}"
    else:
        run = read_run(first)
    if not run.results:
        raise InputError(f"{first}: no case has ended yet, so there is nothing to report")
    if len(paths) > 1:
        runs = _titled([(first, run), *((Path(path), _plain(Path(path))) for path in paths[1:])])
        arms.append(runs_section(runs))
        others = {name: other.facts for name, other in list(runs.items())[1:]}
        told += f", {count_text(len(paths) - 1, 'other run')}"
    arms += protocol_sections(run.path)
    summary = summarise(run.results, max_steps=run.max_steps, ceilings=ceilings)
    failures = choose_failures(run.results, number)
    told = f"{first}: {count_text(len(run.results), 'case')}{told}"
    return Source(run, summary, failures, told, title, arms, said, remarks, others)


def _agent(lab: Lab) -> Run:
    run = lab.agent
    if run is None:
        raise InputError(f"{lab.path}: the arm '{AGENT}' has not been played yet, so there is nothing to report")
    facts = {name: value for name, value in lab.facts.items() if name not in ("arms", "schema_version", "sessions")}
    return _LabRun(run.path, {**facts, **run.facts}, run.results, lab)


def _plain(path: Path) -> Run:
    return _agent(read_lab(path)) if is_lab(path) else read_run(path)


def _titled(runs: Sequence[tuple[Path, Run]]) -> dict[str, Run]:
    """Runs by who played, or by their folder where that is not enough to tell them apart."""
    names = [run_title(run) for _, run in runs]
    if len(set(names)) < len(names):
        names = [f"{name} ({path.resolve().name})" for name, (path, _) in zip(names, runs, strict=True)]
    if len(set(names)) < len(names):
        names = [f"{name}, {number}" for number, name in enumerate(names, start=1)]
    return dict(zip(names, (run for _, run in runs), strict=True))
