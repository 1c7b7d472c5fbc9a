"""``ibisagent report``: what was played, as a page, tables and plots."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ibisagent.cli.outputs import check_out, fill_folder

__all__ = ["run", "write"]


def run(options: argparse.Namespace) -> int:
    """Run the command: 0 once everything is written.

    Raises
    ------
    InputError
        If a run cannot be read or the folder not be written; nothing has been written then.
    """
    from ibisagent.evaluate.report.write import OWNED

    out = Path(options.out) if options.out else Path(options.runs[0]) / "report"
    page = write(options.runs, out, options.title, options.worst, options.episodes, options.plots)
    if options.json:
        print(json.dumps({"page": str(page), "files": sorted(OWNED)}), flush=True)
    return 0


def write(
    runs: Sequence[str | Path],
    out: Path,
    title: str | None = None,
    worst: int = 12,
    episodes: Literal["failures", "all", "none"] = "failures",
    plots: bool = True,
) -> Path:
    """Write a report and say where it is.

    Parameters
    ----------
    runs
        Folders of runs or labs; the report is about the first.
    out
        Its folder.
    title, worst, episodes, plots
        As the options of the command.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    InputError
        As :func:`run`.
    """
    from ibisagent.evaluate.report.sources import open_sources
    from ibisagent.evaluate.report.write import OWNED, PAGE, write_report

    check_out(out)
    source = open_sources(runs, title=title, number=worst)
    cases = source.pages(episodes)
    print(f"ibisagent: {source.told}; writing {len(cases)} episode pages ...", file=sys.stderr, flush=True)
    owned = OWNED if (out / "report.json").is_file() else ()
    with fill_folder(out, owned) as scratch:
        write_report(scratch, source.run, cases, source.build, plots=plots)
    print(f"ibisagent: open {out / PAGE}", file=sys.stderr, flush=True)
    return out / PAGE
