"""``ibisagent report``: what was played, as a page, tables and plots."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ibisagent.cli.outputs import check_out, fill_folder

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Run the command: 0 once everything is written.

    Raises
    ------
    InputError
        If a run cannot be read or the folder not be written; nothing has been written then.
    """
    from ibisagent.evaluate.report.sources import open_sources
    from ibisagent.evaluate.report.write import OWNED, PAGE, write_report

    out = Path(options.out) if options.out else Path(options.runs[0]) / "report"
    check_out(out)
    source = open_sources(options.runs, title=options.title, number=options.worst)
    cases = source.pages(options.episodes)
    print(f"ibisagent: {source.told}; writing {len(cases)} episode pages ...", file=sys.stderr, flush=True)
    owned = OWNED if (out / "report.json").is_file() else ()
    with fill_folder(out, owned) as scratch:
        write_report(scratch, source.run, cases, source.build, plots=options.plots)
    print(f"ibisagent: open {out / PAGE}", file=sys.stderr, flush=True)
    if options.json:
        print(json.dumps({"page": str(out / PAGE), "files": sorted(OWNED)}), flush=True)
    return 0
