"""``ibisagent evaluate --rescore``: a stored run or lab, scored again without data, model or torch."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ibisagent.cli.evaluated import report, report_protocol, say
from ibisagent.errors import InputError

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Run the command: 0 if every case had ended without error, else 5.

    Raises
    ------
    InputError
        If the folder holds no run, one of another schema, or a damaged one.
    """
    from ibisagent.evaluate.protocols.apply import write_table
    from ibisagent.evaluate.rescore import rescore

    if options.cases is not None or options.also:
        raise InputError("--rescore DIR scores a stored run again and plays nothing; leave CASES out")
    path = Path(options.rescore)
    if (path / "lab.json").is_file():
        if options.protocol is not None:
            raise InputError(f"{path} is a lab; give --rescore one of its runs, {path / 'arms' / 'agent'} for example")
        summary, failed = _lab(path)
    else:
        stored, summary = rescore(path)
        if not stored.is_complete:
            say(
                f"ibisagent: note: the run is not finished: {len(stored.results)} of {stored.num_rows} cases have ended"
            )
        report(summary, stored.results, path)
        tables = [write_table(path, stored.facts, stored.results)]
        if options.protocol is not None:
            tables.append(write_table(path, stored.facts, stored.results, options.protocol))
        for table in tables:
            if table is not None:
                report_protocol(table, path)
        failed = bool(summary["num_errors"])
    if options.json:
        print(json.dumps(summary), flush=True)
    return 5 if failed else 0


def _lab(path: Path) -> tuple[dict[str, Any], bool]:
    """Every arm, and the summary of all."""
    from ibisagent.evaluate.arms import lab_summary, read_lab
    from ibisagent.evaluate.rescore import rescore
    from ibisagent.evaluate.store import write_json

    lab = read_lab(path)
    summaries = [rescore(arm.path)[1] for arm in lab.arms.values()]
    summary = lab_summary(lab)
    write_json(summary, path / "lab_summary.json")
    say(f"{len(summaries)} arms scored again{'' if lab.is_complete else '; the lab is not finished'}: {path}")
    return summary, any(one["num_errors"] for one in summaries)
