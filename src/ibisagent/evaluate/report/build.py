"""From runs to a report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ibisagent.evaluate.report.appendix import appendix_section, leakage_text
from ibisagent.evaluate.report.gallery import Failures, make_galleries
from ibisagent.evaluate.report.model import Report, Section
from ibisagent.evaluate.report.numbers import count_text
from ibisagent.evaluate.report.scales import caution_text
from ibisagent.evaluate.report.sections import (
    breakdown_section,
    calibration_section,
    figures_section,
    findings,
    headlines,
    steps_section,
)

if TYPE_CHECKING:
    from ibisagent.evaluate.records import Run

__all__ = ["build_report", "run_title"]


def build_report(
    run: Run,
    summary: Mapping[str, Any],
    failures: Failures,
    pages: Iterable[str] = (),
    *,
    title: str | None = None,
    arms: Sequence[Section] = (),
    said: Sequence[str] = (),
    remarks: Mapping[str, str] | None = None,
    others: Mapping[str, Mapping[str, Any]] | None = None,
) -> Report:
    """Put a report together.

    Parameters
    ----------
    run, summary
        What the report is about; the summary of :func:`~ibisagent.evaluate.summary.summarise`.
    failures, pages
        Cases of the galleries, and those keys of them that have an episode page.
    title
        Heading; by default who played.
    arms, said, remarks
        Sections, sentences and short lines by figure about other runs beside this one.
    others
        ``run.json`` of those by title, for the record.
    """
    galleries, pictures = make_galleries(run, failures, pages)
    parts: list[Section | None] = [
        *arms,
        breakdown_section(summary),
        steps_section(summary),
        calibration_section(summary, run.results),
        _failures(galleries),
        figures_section(summary),
        appendix_section({run_title(run): run.facts, **(others or {})}),
    ]
    caution = caution_text(summary.get("intervals"))
    cautions = [text for text in (caution, leakage_text(run.facts.get("leakage"))) if text]
    if not run.is_complete:
        cautions.insert(0, f"Not finished: {len(run.results):,} of {run.num_rows:,} rows have ended.")
    return Report(
        title=title or run_title(run),
        subject=_subject(run, summary),
        headlines=headlines(summary, remarks),
        findings=(*said, *findings(summary)),
        cautions=tuple(cautions),
        sections=tuple(part for part in parts if part is not None),
        pictures=pictures,
    )


def run_title(run: Run) -> str:
    """Who played with what."""
    policy, segmenter = (str(run.facts.get(name) or "unknown") for name in ("policy", "segmenter"))
    return f"{policy} with {segmenter}"


def _subject(run: Run, summary: Mapping[str, Any]) -> str:
    facts, results = run.facts, run.results
    where = str(facts.get("cases") or "")
    split = f", split {facts['split']}" if facts.get("split") else ""
    absent = sum(bool(result.absent) for result in results)
    parts = [
        f"{count_text(summary['num_cases'], 'case')}" + (f" ({absent:,} of absent targets)" if absent else ""),
        count_text(len(summary["per_target"]), "target"),
        count_text(len({r.image for r in results if r.image}), "image"),
        count_text(len({r.patient for r in results if r.patient}), "group"),
    ]
    return f"{where}{split}: " + ", ".join(parts)


def _failures(galleries: Sequence[Any]) -> Section | None:
    if not galleries:
        return None
    text = (
        "Chosen by number, not by eye: the worst cases of this run. Regret is the IoU of the run's best mask minus "
        "that of the one it ended with, in points."
    )
    return Section("failures", "Failures", tuple(galleries), text)
