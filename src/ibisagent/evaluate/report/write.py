"""The folder of a report: page, texts, plots and the pages of the runs that it links to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ibisagent.evaluate.records import Run
from ibisagent.evaluate.report.gallery import Placed, write_episode_pages
from ibisagent.evaluate.report.latex import render_latex
from ibisagent.evaluate.report.markdown import render_markdown
from ibisagent.evaluate.report.model import Report
from ibisagent.evaluate.report.page import render_report_page
from ibisagent.evaluate.report.plots import write_plots
from ibisagent.evaluate.report.record import report_json
from ibisagent.rendering.png import write_atomic

__all__ = ["OWNED", "write_report"]

PAGE, MARKDOWN, LATEX, JSON, PLOTS, EPISODES = (
    "index.html", "report.md", "tables.tex", "report.json", "plots", "episodes"
)  # fmt: skip

OWNED = (PAGE, MARKDOWN, LATEX, JSON, PLOTS, EPISODES)
"""What the folder of a report holds."""


def write_report(
    folder: Path,
    run: Run,
    cases: Iterable[Placed],
    build: Callable[[Mapping[str, str]], Report],
    *,
    plots: bool = True,
) -> Report:
    """Write a report's files.

    Parameters
    ----------
    folder
        Empty; must exist.
    run
        Where the images of the cases are.
    cases
        Those that get an episode page.
    build
        Makes the report from the file names of these pages by the case's key.
    plots
        Whether plots are written as files, too; those of the page are part of it.

    Raises
    ------
    OSError
        If a file cannot be written.
    """
    (folder / EPISODES).mkdir()
    report = build(write_episode_pages(run, cases, folder / EPISODES))
    files = {}
    if plots:
        (folder / PLOTS).mkdir()
        written = write_plots(report, folder / PLOTS)
        files = {key: [(word, f"{PLOTS}/{name}") for word, name in found] for key, found in written.items()}
    for name, text in (
        (PAGE, render_report_page(report, files)),
        (MARKDOWN, render_markdown(report)),
        (LATEX, render_latex(report)),
        (JSON, report_json(report)),
    ):
        write_atomic(text.encode("utf-8", "replace"), folder / name)
    return report
