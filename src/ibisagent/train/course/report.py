"""The tables of docs/course.md, written from the cells' files (``runs/report``).

How to run::

    python -m ibisagent.train.course.report [--results docs/results/ablation] [--mini docs/results/ablation-mini]
        [--places docs/results/ablation-places] [--document docs/course.md] [--check]

Cells on phantoms have their tables between ``<!-- course stages -->`` and ``<!-- /course -->`` and the like; cells on
real images between ``<!-- course mini stages -->`` and ``<!-- /course -->``, and those of RL that tries further places
of every click between ``<!-- course places stages -->`` and ``<!-- /course -->``, where the document has such places
(for the rewards, too).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ibisagent.errors import InputError
from ibisagent.rendering.png import write_atomic
from ibisagent.train.course.stages import ROWS, Row
from ibisagent.train.runs import say

__all__ = ["comparisons", "main", "paired_difference", "read_cells", "table", "with_tables"]

Cells = dict[str, dict[int, dict[str, Any]]]
"""Cells by row and seed."""

_ASIDE = ("mini", "places")
"""Presets whose tables have places of their own, named with this word before."""

_RESAMPLES = 4000

_CLAIMS: tuple[tuple[str, str, str], ...] = (
    ("sft", "base", "iou"),
    ("reflection", "sft", "iou"),
    ("rl", "base", "iou"),
    ("rl", "reflection", "iou"),
    ("sft+rl", "sft", "iou"),
    ("sft+rl", "rl", "iou"),
    ("all", "reflection", "iou"),
    ("all", "sft+rl", "iou"),
    ("sft+rl", "sft", "steps"),
    ("all", "reflection", "steps"),
    ("reward-none", "reflection", "iou"),
    ("reward-all", "reflection", "iou"),
    ("reward-click", "reward-none", "iou"),
    ("reward-progress", "reward-none", "iou"),
    ("reward-length", "reward-none", "iou"),
    ("reward-all", "reward-none", "iou"),
    ("reward-click", "reward-none", "steps"),
    ("reward-progress", "reward-none", "steps"),
    ("reward-length", "reward-none", "steps"),
    ("reward-all", "reward-none", "steps"),
)
"""(row, other row, what): the order of the published figures, which is held against ours; table 4 has no steps."""


def main(argv: Sequence[str] | None = None) -> int:
    """Write the tables.

    Parameters
    ----------
    argv
        Options without the program's name; None takes those of the process.

    Returns
    -------
    int
        0, or 1 with ``--check`` if the document is not what the files say.

    Raises
    ------
    InputError
        If a file is no cell's, or the document has no place for the tables.
    """
    p = argparse.ArgumentParser(prog="report", description=__doc__.split("\n")[0])
    p.add_argument("--results", type=Path, default=Path("docs/results/ablation"), help="folder of the cells' files")
    p.add_argument("--mini", type=Path, default=Path("docs/results/ablation-mini"), help="those on real images")
    p.add_argument("--places", type=Path, default=Path("docs/results/ablation-places"), help="those of preset places")
    p.add_argument("--document", type=Path, default=Path("docs/course.md"), help="Markdown with places for the tables")
    p.add_argument("--check", action="store_true", help="write nothing; say whether the document is up to date")
    a = p.parse_args(argv)
    try:
        before = a.document.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read {a.document}: {error.strerror}") from None
    cells, left_out = read_cells(a.results)
    after = with_tables(before, cells, left_out)
    number = sum(map(len, cells.values()))
    for name in _ASIDE:
        if f"<!-- course {name} stages -->" in before:
            aside, left_out = read_cells(getattr(a, name))
            after = with_tables(after, aside, left_out, f"{name} ")
            number += sum(map(len, aside.values()))
    if a.check:
        if after != before:
            say(f"{a.document} is not what the results say; run runs/report")
        return int(after != before)
    if after != before:
        write_atomic(after.encode(), a.document)
    say(f"{number} cells; {a.document} {'written' if after != before else 'is up to date'}")
    return 0


def read_cells(folder: Path) -> tuple[Cells, list[str]]:
    """All cells of a folder that were made with the same settings, and the names of those with others.

    The settings are those of most cells.

    Raises
    ------
    InputError
        If a file is no cell's.
    """
    found: list[tuple[str, dict[str, Any]]] = []
    for path in sorted(folder.glob("*.json")):
        try:
            cell = json.loads(path.read_text(encoding="utf-8"))
            known = (
                cell["row"] in ROWS
                and cell["config_sha256"]
                and cell["figures"]["iou"]["n"]
                and cell["runs"]["iou"]
                and len(cell["runs"]["image"]) == len(cell["runs"]["iou"])
            )
        except (OSError, ValueError, KeyError, TypeError):
            known = False
        if not known:
            raise InputError(f"{path} is no cell of the ablation")
        found.append((path.stem, cell))
    if not found:
        return {}, []
    most = Counter(cell["config_sha256"] for _, cell in found).most_common(1)[0][0]
    cells: Cells = {}
    for _, cell in found:
        if cell["config_sha256"] == most:
            cells.setdefault(cell["row"], {})[int(cell["seed"])] = cell
    return cells, [name for name, cell in found if cell["config_sha256"] != most]


def with_tables(text: str, cells: Cells, left_out: Sequence[str] = (), prefix: str = "") -> str:
    """`text` with what stands between ``<!-- course NAME -->`` and ``<!-- /course -->`` written anew.

    `prefix` stands before the names; with one the table of rewards is written only where the document has a place for
    it, and what has not run has no line.

    Raises
    ------
    InputError
        If a table has no place in it.
    """
    rewards = not prefix or f"<!-- course {prefix}rewards -->" in text
    tables = ("stages", "rewards") if rewards else ("stages",)
    parts = {name: table(cells, name, whole=not prefix) for name in tables}
    parts |= {"shapes": comparisons(cells, tables, whole=not prefix), "made": _made(cells, left_out)}
    for name, content in parts.items():
        opening = f"<!-- course {prefix}{name} -->\n"
        if opening not in text:
            raise InputError(f"the document has no place for the table '{name}': {opening.strip()}")
        whole = opening + content
        text = re.sub(re.escape(opening) + r".*?(?=<!-- /course -->)", lambda _, w=whole: w, text, count=1, flags=re.S)  # type: ignore[misc]
    return text


def table(cells: Cells, name: str, whole: bool = True) -> str:
    """One table: every row of it, with a dash where nothing has run; not `whole`: without such rows."""
    lines = [
        "| row | seeds | n | IoU | steps | valid actions | refinements that helped | right refusals | false refusals "
        "| IoU, given mask | paper: IoU | steps |",
        "|" + "---|" * 12,
    ]
    for row in ROWS.values():
        if row.table == name and (whole or row.name in cells):
            lines.append("| " + " | ".join(_line(row, cells.get(row.name, {}))) + " |")
    return "\n".join(lines) + "\n"


def _line(row: Row, made: Mapping[int, dict[str, Any]]) -> list[str]:
    paper = [_plain(row.paper_iou, 2), _plain(row.paper_steps, 2)]
    label = row.name.removeprefix("reward-")
    if not made:
        return [label, "0", *["–"] * 8, *paper]
    runs = {what: _runs(made, what) for what in ("iou", "steps")}
    told = [label, str(len(made)), str(runs["iou"].shape[1])]
    for what, scale, digits in (("iou", 100, 1), ("steps", 1, 2)):
        low, high = _interval(runs[what], _images(made))
        mean = runs[what].mean()
        told.append(f"{scale * mean:.{digits}f} ({scale * low:.{digits}f}–{scale * high:.{digits}f})")
    names = ("validity", "refinement_success", "right_refusals", "false_refusals", "iou_given")
    for what in names:
        known = [cell["figures"][what] for cell in made.values() if what in cell["figures"]]
        if not known:
            told.append("–")
            continue
        scale, digits = (100, 1) if what == "iou_given" else (1, 3)
        value = float(np.mean([f["value"] for f in known]))
        low, high = min(f["ci95"][0] for f in known), max(f["ci95"][1] for f in known)
        told.append(f"{scale * value:.{digits}f} ({scale * low:.{digits}f}–{scale * high:.{digits}f})")
    return [*told, *paper]


def comparisons(cells: Cells, tables: Sequence[str] = ("stages", "rewards"), whole: bool = True) -> str:
    """What the published order says, and what the runs say: paired differences on the same prompts and seeds.

    Not `whole`: without what has not run.
    """
    lines = ["| what | paper | here | seeds | the same? |", "|---|---|---|---|---|"]
    for first, second, what in _CLAIMS:
        one, other = ROWS[first], ROWS[second]
        if one.table not in tables:
            continue
        published = _published(one, other, what)
        said = "–" if published is None else f"{published:+.2f}"
        seeds = sorted(set(cells.get(first, {})) & set(cells.get(second, {})))
        name = f"{_label(one)} against {_label(other)}, {'IoU' if what == 'iou' else 'steps'}"
        if not seeds:
            lines += [f"| {name} | {said} | – | 0 | not run |"] * whole
            continue
        left, right = ({seed: cells[row][seed] for seed in seeds} for row in (first, second))
        lines.append(_compared(name, published, paired_difference(left, right, what), what, len(seeds)))
    if "rewards" in tables:
        lines += _main_effects(cells)
    return "\n".join(lines) + "\n"


def _compared(name: str, published: float | None, here: tuple[float, float, float], what: str, num_seeds: int) -> str:
    """A line: what was published, the mean difference here with its interval, and whether they agree."""
    mean, low, high = ((100 if what == "iou" else 1) * v for v in here)
    if low <= 0 <= high:
        verdict = "undecided"
    elif published is None:
        verdict = "more" if mean > 0 else "fewer"
    else:
        verdict = "yes" if (mean > 0) == (published > 0) else "no"
    said = "–" if published is None else f"{published:+.2f}"
    return f"| {name} | {said} | {mean:+.2f} ({low:+.2f} to {high:+.2f}) | {num_seeds} | {verdict} |"


def _main_effects(cells: Cells) -> list[str]:
    """What each part of the published reward adds, over the four pairs of rows that differ by it alone.

    None where a row has not run.
    """
    rows = [row for row in ROWS.values() if row.table == "rewards"]
    seeds = sorted(set.intersection(*(set(cells.get(row.name, {})) for row in rows)))
    if not seeds:
        return []
    lines = []
    for what in ("iou", "steps"):
        for part in ("click", "progress", "length"):
            has = [part in row.name or row.name == "reward-all" for row in rows]
            published, here = [], []
            for row, with_it in zip(rows, has, strict=True):
                sign = 1 if with_it else -1
                value = row.paper_iou if what == "iou" else row.paper_steps
                published.append(sign * (value or 0.0))
                here.append(sign * _runs({seed: cells[row.name][seed] for seed in seeds}, what))
            difference = np.sum(here, 0) / sum(has)
            images = _images({seed: cells[rows[0].name][seed] for seed in seeds})
            found = (float(difference.mean()), *_interval(difference, images))
            name = f"reward {part} in four pairs of rows, {'IoU' if what == 'iou' else 'steps'}"
            lines.append(_compared(name, sum(published) / sum(has), found, what, len(seeds)))
    return lines


def paired_difference(
    one: Mapping[int, dict[str, Any]], other: Mapping[int, dict[str, Any]], what: str
) -> tuple[float, float, float]:
    """The mean difference of two rows over the same seeds and prompts, and the ends of its 95% interval.

    Parameters
    ----------
    one, other
        Cells by seed; the second row is taken from the first.
    what
        ``iou`` or ``steps``.

    Raises
    ------
    InputError
        If they were not examined on the same prompts, or are not of the same seeds.
    """
    left, right = _runs(one, what), _runs(other, what)
    if set(one) != set(other) or left.shape != right.shape or (_images(one) != _images(other)).any():
        raise InputError("the two rows were not examined on the same prompts, or are not of the same seeds")
    difference = left - right
    return (float(difference.mean()), *_interval(difference, _images(one)))


def _label(row: Row) -> str:
    return f"reward {row.name.removeprefix('reward-')}" if row.table == "rewards" else row.name


def _published(one: Row, other: Row, what: str) -> float | None:
    first, second = ((r.paper_iou if what == "iou" else r.paper_steps) for r in (one, other))
    return None if first is None or second is None else first - second


def _made(cells: Cells, left_out: Sequence[str]) -> str:
    every = [cell for made in cells.values() for cell in made.values()]
    if not every:
        return "No cell has run yet.\n"
    seconds, cpu = (sorted(cell[name] or 0.0 for cell in every) for name in ("seconds_own", "cpu_seconds_own"))
    commits = sorted({str(cell["commit"]) for cell in every})
    size = next((m["parameters"] for c in every for m in c["training"].values() if "parameters" in m), None)
    text = (
        f"{len(every)} cells have run"
        + (f", with a model of {size:.2f} M parameters" if size else "")
        + f": {seconds[len(seconds) // 2]:.0f} s a cell of its own work (median; most {seconds[-1]:.0f} s), beginnings "
        f"that cells share left out; of all cores together {cpu[len(cpu) // 2]:.0f} s (most {cpu[-1]:.0f} s), whatever "
        f"else the machine did. Commits: {', '.join(commits)}.\n"
    )
    if left_out:
        text += f"Left out, made with other settings: {', '.join(left_out)}.\n"
    return text


def _runs(made: Mapping[int, dict[str, Any]], what: str) -> np.ndarray:
    """(seeds, cases).

    Raises
    ------
    InputError
        If seeds were not examined on the same prompts.
    """
    rows = [made[seed]["runs"][what] for seed in sorted(made)]
    if len({len(row) for row in rows}) > 1:
        raise InputError("cells of one row were examined on different prompts")
    return np.asarray(rows, float)


def _images(made: Mapping[int, dict[str, Any]]) -> np.ndarray:
    """The image of each case, by number.

    Raises
    ------
    InputError
        If seeds were not examined on the same images.
    """
    rows = [cell["runs"]["image"] for cell in made.values()]
    if any(row != rows[0] for row in rows):
        raise InputError("cells of one row were examined on different images")
    return np.asarray(rows[0])


def _interval(values: np.ndarray, images: np.ndarray) -> tuple[float, float]:
    """95% bootstrap interval of the mean: seeds are drawn, and whole images, which are the same for all seeds."""
    rng = np.random.default_rng(0)
    seeds = len(values)
    _, image = np.unique(images, return_inverse=True)
    sums, counts = np.stack([np.bincount(image, row) for row in values]), np.bincount(image)
    means = np.empty(_RESAMPLES)
    for number in range(_RESAMPLES):
        picked = sums[rng.integers(0, seeds, seeds)].mean(0)
        drawn = rng.integers(0, len(counts), len(counts))
        means[number] = picked[drawn].sum() / counts[drawn].sum()
    low, high = np.percentile(means, [2.5, 97.5])
    mean = float(values.mean())
    return min(float(low), mean), max(float(high), mean)


def _plain(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        say(f"ibisagent: error: {error}")
        sys.exit(2)
