"""``ibisagent compare``: runs of one case list held against one another."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ibisagent.cli.outputs import check_out, fill_folder
from ibisagent.errors import InputError

if TYPE_CHECKING:
    from ibisagent.evaluate.changes import Panels
    from ibisagent.evaluate.compare import Change, Comparison
    from ibisagent.evaluate.pairing import Side

__all__ = ["add_compare", "run"]

_OWNED = ("compare.json", "compare.md", "compare.html", "changes")


def add_compare(p: argparse.ArgumentParser) -> None:
    """Fill the command's parser."""
    from ibisagent.cli.values import at_least

    p.description = (
        "Hold runs of one case list against one another, case by case: differences with intervals and tests, by "
        "target, the smallest difference that could have been found, and the cases that changed most."
    )
    p.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        help="folders of 'ibisagent evaluate --out'; the first is what the others are compared to. Several seeds of "
        "one side: their folders with commas between them (start rl0,rl1,rl2)",
    )
    p.add_argument("--names", metavar="N,N", help="names of the sides (default: those of the folders)")
    p.add_argument(
        "--figures",
        metavar="F,F",
        help="figures by their names in summary.json, or all; target_mean_iou is the mean over targets. The first is "
        "told by target (default: iou and the main ones of an agent)",
    )
    p.add_argument("--out", metavar="DIR", help="folder for compare.html, compare.md, compare.json and changes/*.png")
    p.add_argument("--changes", metavar="N", type=at_least(0), default=12, help="cases shown as pictures (%(default)s)")
    p.add_argument("--seed", metavar="K", type=at_least(0), default=0, help="seed of the resampling (%(default)s)")
    p.add_argument("--json", action="store_true", help="print one JSON object on standard output")


def run(options: argparse.Namespace) -> int:
    """Run the command: 0, whatever was found.

    Raises
    ------
    InputError
        If a folder holds no run, cases cannot be paired, or a figure or the output folder is no use.
    """
    out = None if options.out is None else Path(options.out)
    if out is not None:
        check_out(out)
    if len(options.runs) < 2:
        raise InputError("compare needs two runs or more: ibisagent compare A B (seeds of one side: A B0,B1,B2)")

    from ibisagent.evaluate.compare import DEFAULT_FIGURES, compare
    from ibisagent.evaluate.compare_text import terminal
    from ibisagent.evaluate.figures import FIGURES

    asked = options.figures
    figures = DEFAULT_FIGURES if asked is None else tuple(FIGURES) if asked == "all" else _words(asked, "--figures")
    found = compare(_sides(options.runs, options.names), figures, seed=options.seed)
    if out is not None:
        _write(out, found, options.changes)
        print(f"written to {out}", file=sys.stderr)
    if options.json:
        print(json.dumps({"comparisons": [one.to_json() for one in found]}), flush=True)
    else:
        print("\n\n".join(terminal(one) for one in found), flush=True)
    return 0


def _sides(runs: Sequence[str], names: str | None) -> list[Side]:
    from ibisagent.evaluate.pairing import Side
    from ibisagent.evaluate.records import read_run

    folders = [
        [Path(text)] if Path(text).is_dir() else [Path(part) for part in text.split(",") if part] for text in runs
    ]
    if not all(folders):
        raise InputError("a run is an empty name; give the folder of a run, or several with commas between them")
    told = _words(names, "--names") if names is not None else _names(folders)
    if len(told) != len(folders):
        raise InputError(f"--names has {len(told)} names for {len(folders)} sides")
    return [Side(name, tuple(read_run(folder) for folder in some)) for name, some in zip(told, folders, strict=True)]


def _names(folders: Sequence[Sequence[Path]]) -> tuple[str, ...]:
    """Names of folders, with their parents' where they are the same."""
    short = [", ".join(folder.resolve().name for folder in some) for some in folders]
    if len(set(short)) == len(short):
        return tuple(short)
    longer = [", ".join("/".join(folder.resolve().parts[-3:]) for folder in some) for some in folders]
    return tuple(longer) if len(set(longer)) == len(longer) else tuple(f"{n}: {s}" for n, s in enumerate(longer, 1))


def _words(text: str, option: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    if not words:
        raise InputError(f"{option} names nothing")
    return words


def _write(out: Path, comparisons: Sequence[Comparison], number: int) -> None:
    from ibisagent.evaluate.changes import change_panels, joined, shown_changes
    from ibisagent.evaluate.compare_text import markdown
    from ibisagent.rendering.png import save_png
    from ibisagent.web.compare_page import render_compare_page

    drawn: list[tuple[list[tuple[Change, Panels | None]], ...]] = []
    addresses: list[list[tuple[Change, str | None]]] = []
    # A folder "changes" is ours to replace only where an earlier comparison stands beside it.
    with fill_folder(out, _OWNED if (out / "compare.json").is_file() else ()) as scratch:
        (scratch / "changes").mkdir()
        for place, one in enumerate(comparisons):
            groups = tuple(
                [(change, change_panels(one, change)) for change in some] for some in shown_changes(one, number)
            )
            drawn.append(groups)
            named: list[tuple[Change, str | None]] = []
            for change, panels in (pair for group in groups for pair in group):
                if panels is None:
                    named.append((change, None))
                    continue
                safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in change.key)[:100]
                name = f"changes/{place + 1}_{len(named) + 1:02d}_{safe}.png"
                save_png(joined(panels), scratch / name)
                named.append((change, name))
            addresses.append(named)
        told = {"comparisons": [one.to_json() for one in comparisons]}
        (scratch / "compare.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        (scratch / "compare.md").write_bytes(markdown(comparisons, addresses).encode("utf-8", "replace"))
        page = render_compare_page(comparisons, [(groups[0], groups[1]) for groups in drawn])
        (scratch / "compare.html").write_text(page, encoding="utf-8")
