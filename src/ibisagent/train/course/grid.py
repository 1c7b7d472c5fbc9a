"""The grid: all cells of the tables, one process each, finished ones skipped (``runs/ablation.sh``)."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Sequence

from ibisagent.errors import InputError
from ibisagent.train.config import load_config
from ibisagent.train.course.cell import is_finished
from ibisagent.train.course.config import GymConfig
from ibisagent.train.course.stages import ROWS, cell_name, row_named
from ibisagent.train.runs import say

__all__ = ["GridConfig", "main"]


class GridConfig(GymConfig):
    """Which cells."""

    only: tuple[str, ...] = ()
    """Tables (stages, rewards) or single rows; none: all."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of every row."""
    dry_run: bool = False
    """Print the commands and run nothing."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the grid.

    Parameters
    ----------
    argv
        Options without the program's name; None takes those of the process.

    Returns
    -------
    int
        0, or the code of the first cell that failed or was stopped; the same command goes on.

    Raises
    ------
    InputError
        If a setting cannot be used.
    """
    config = load_config(
        GridConfig, argv, "ablation.sh", "Stages and rewards at gym scale; finished cells are skipped."
    )
    jobs = [(row, seed) for seed in config.seeds for row in _rows(config.only)]
    words = _words(config)
    for number, (row, seed) in enumerate(jobs):
        name = cell_name(row, seed)
        if not config.dry_run and is_finished(config, row, seed):
            say(f"[{number + 1}/{len(jobs)}] {name}: finished already")
            continue
        command = [sys.executable, "-m", "ibisagent.train.course.cell", "--row", row, "--seed", str(seed), *words]
        if config.dry_run:
            print(shlex.join(command))
            continue
        say(f"[{number + 1}/{len(jobs)}] {name}")
        began = time.perf_counter()
        code = subprocess.run(command).returncode
        if code:
            say(f"{name} ended with {code}; the same command goes on")
            return code
        say(f"{name}: {time.perf_counter() - began:.0f} s with all that it had to make")
    return 0


def _rows(only: Sequence[str]) -> list[str]:
    """Rows of the named tables and the named rows, in the order of the tables.

    Raises
    ------
    InputError
        If there is no such table or row.
    """
    if not only:
        return list(ROWS)
    wanted = {name for name in only if name not in ("stages", "rewards")}
    for name in wanted:
        row_named(name)
    return [name for name, row in ROWS.items() if name in wanted or row.table in only]


def _words(config: GridConfig) -> list[str]:
    """The gym's settings that differ from their defaults, as a cell's options."""
    words = []
    for name in GymConfig.model_fields:
        value = getattr(config, name)
        if value != GymConfig.model_fields[name].default:
            listed = value if isinstance(value, tuple) else (value,)
            words += [f"--{name.replace('_', '-')}", *map(str, listed)]
    return words


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        say(f"ibisagent: error: {error}")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
