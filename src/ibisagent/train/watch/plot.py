"""``ibisagent train plot``: curves of one or several runs, from what they logged."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from ibisagent.errors import InputError
from ibisagent.train.watch.history import History, read_history

__all__ = ["main"]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} ('{self.prog} --help' shows all options)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``ibisagent train plot``; prints the name of the file that it wrote.

    Parameters
    ----------
    argv
        Options without the program's name; None takes those of the process.

    Returns
    -------
    int
        0.

    Raises
    ------
    InputError
        In one line: a run that logged nothing, a damaged log, an unknown metric, a file that cannot be written.
    """
    options = _parser().parse_args(list(sys.argv[1:] if argv is None else argv))
    histories = [read_history(place) for place in options.runs]
    labels = options.labels or _labels(histories)
    if len(labels) != len(histories):
        raise InputError(f"{len(labels)} labels do not fit {len(histories)} runs")
    single = histories[0].path.parent / "curves.png"
    out = Path(options.out) if options.out else single if len(histories) == 1 else Path("curves.png")
    kind = out.suffix.lower().removeprefix(".")
    if kind not in ("png", "svg"):
        raise InputError(f"--out {out}: the name must end in .png or .svg")

    from ibisagent.rendering.png import write_atomic
    from ibisagent.train.watch.curves import automatic_width, draw_curves
    from ibisagent.train.watch.panels import chosen_sections, present_sections

    sections = chosen_sections(histories, options.metrics) if options.metrics else present_sections(histories)
    if not sections:
        raise InputError("the runs logged nothing that has a curve; --metrics draws any figure by its name")
    width = options.smooth or automatic_width(histories)
    data = draw_curves(histories, labels, sections, width, kind)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(data, out)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror or error}") from None
    print(out)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="ibisagent train plot",
        description="Draw the curves of runs of 'train sft' and 'train rl', also while they are going on.",
        allow_abbrev=False,
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="folder of a run (its --out), or a log.jsonl")
    parser.add_argument(
        "--out", metavar="FILE", help="a .png or .svg (default: curves.png in the run's folder; of several runs, here)"
    )
    parser.add_argument("--metrics", metavar="NAME", nargs="+", help="only these, as named in the log; 'reward/*'")
    parser.add_argument("--labels", metavar="TEXT", nargs="+", help="names of the runs (default: those of the folders)")
    parser.add_argument(
        "--smooth", metavar="N", type=_at_least_1, help="values in a moving mean; 1 is none (default: by length)"
    )
    return parser


def _at_least_1(text: str) -> int:
    number = int(text) if text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 up is needed, not '{text}'")
    return number


def _labels(histories: Sequence[History]) -> list[str]:
    """Names of the folders, with as much of the path before them as tells them apart."""
    paths = [history.path.resolve().parent.parts for history in histories]
    for depth in range(1, max(len(parts) for parts in paths) + 1):
        labels = ["/".join(parts[-depth:]) for parts in paths]
        if len(set(labels)) == len(labels):
            return labels
    return [f"{history.name} ({number})" for number, history in enumerate(histories, 1)]
