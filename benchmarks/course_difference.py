"""One row of the course against another, of one folder or of two: paired by prompt and seed.

    python benchmarks/course_difference.py docs/results/ablation-places/all docs/results/ablation-places-off/all

Both must have been examined on the same prompts. Prints the mean difference (first minus second) of IoU, in points,
and of steps, with 95% bootstrap intervals that draw seeds and whole images; and how much of the former is of prompts on
which both acted: who refuses, or says found at once, has no step.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ibisagent.errors import InputError
from ibisagent.train.course.report import paired_difference


def cells_of(word: str) -> dict[int, dict[str, Any]]:
    """Cells by seed of FOLDER/ROW.

    Raises
    ------
    InputError
        If there is none.
    """
    path = Path(word)
    found = {
        int(file.stem.rpartition("-seed")[2]): json.loads(file.read_text(encoding="utf-8"))
        for file in sorted(path.parent.glob(f"{path.name}-seed*.json"))
    }
    if not found:
        raise InputError(f"{path.parent} has no cell of the row {path.name}")
    return found


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("first", help="FOLDER/ROW")
    p.add_argument("second", help="FOLDER/ROW that is taken away")
    a = p.parse_args()
    one, other = cells_of(a.first), cells_of(a.second)
    seeds = sorted(set(one) & set(other))
    if not seeds:
        raise InputError("the two rows have no seed in common")
    for what, scale in (("iou", 100), ("steps", 1)):
        mean, low, high = paired_difference({s: one[s] for s in seeds}, {s: other[s] for s in seeds}, what)
        each = [np.mean(one[s]["runs"][what]) - np.mean(other[s]["runs"][what]) for s in seeds]
        print(
            f"{what}: {scale * mean:+.2f} [{scale * low:+.2f}, {scale * high:+.2f}], seeds "
            + ", ".join(f"{s}: {scale * d:+.2f}" for s, d in zip(seeds, each, strict=True))
            + f", n {len(one[seeds[0]]['runs'][what])}"
        )
    runs = {what: [[c[s]["runs"][what] for s in seeds] for c in (one, other)] for what in ("iou", "steps")}
    gains, acted = np.subtract(*np.asarray(runs["iou"])), (np.asarray(runs["steps"]) > 0).all(0)
    print(f"of it where both acted: {100 * (gains * acted).mean():+.2f}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        sys.exit(f"error: {error}")
