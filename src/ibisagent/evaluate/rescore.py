"""Score a stored run again: from its folder alone, without the data, a model or torch."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ibisagent.errors import InputError
from ibisagent.evaluate.records import SUMMARY, TABLE, Run, read_run
from ibisagent.evaluate.store import write_json
from ibisagent.evaluate.summary import cases_csv, summarise
from ibisagent.rendering.png import write_atomic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ibisagent.evaluate.result import CaseResult

__all__ = ["rescore", "run_summary"]


def run_summary(results: Sequence[CaseResult], max_steps: int) -> dict[str, Any]:
    """What ``summary.json`` of a run is: of its results and nothing else, so that it can be made again."""
    return summarise(results, max_steps=max_steps)


def rescore(path: str | os.PathLike[str]) -> tuple[Run, dict[str, Any]]:
    """Score a run's episodes again and write its ``summary.json`` and ``cases.csv`` anew.

    Parameters
    ----------
    path
        Folder of a run; it may be unfinished.

    Returns
    -------
    run
        As it was read.
    summary
        As it was written; equal to the one that was there, unless the code of the figures has changed.

    Raises
    ------
    InputError
        If there is no run, it is of another schema, a record in it is damaged, or the folder cannot be written.
    """
    run = read_run(path)
    summary = run_summary(run.results, run.max_steps)
    try:
        write_atomic(cases_csv(run.results, run.max_steps).encode("utf-8", "replace"), run.path / TABLE)
        write_json(summary, run.path / SUMMARY)
    except OSError as error:
        raise InputError(f"{run.path} cannot be written: {error.strerror or error}") from None
    return run, summary
