"""Nano after RL against its start, case by case: the figures of docs/course.md at nano scale.

    python benchmarks/nano_rl.py --exam val --before runs/e/start-val --after runs/e/rl{0,1,2}-val \
        --exam phantoms --before runs/e/start-phantoms --after runs/e/rl{0,1,2}-phantoms --out docs/results/nano_rl.json

Folders are those that ``ibisagent evaluate --out`` writes; every ``--exam`` has a ``--before`` and one ``--after`` run
a seed. Runs of the same cases with other wordings (``evaluate --seed``) are joined by commas: ``--before A,B --after
A0,B0 A1,B1``. Differences are of the same cases. Intervals are 95% bootstraps that draw seeds, and whole images: cases
of one image, and wordings of one case, are not independent.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

DRAWS = 4000


def read(folders: str) -> dict[str, dict[str, str]]:
    """Rows of ``cases.csv`` by case, of folders joined by commas."""
    rows = {}
    for number, folder in enumerate(folders.split(",")):
        with (Path(folder) / "cases.csv").open(encoding="utf-8", newline="") as file:
            rows |= {f"{number}:{row['case_id']}": row for row in csv.DictReader(file)}
    return rows


def images_of(folders: str) -> dict[str, str]:
    """The image of each case, by the names that :func:`read` gives them."""
    images = {}
    for number, folder in enumerate(folders.split(",")):
        lines = (Path(folder) / "results.jsonl").read_text(encoding="utf-8").splitlines()
        images |= {f"{number}:{row['case_id']}": row["image"] for row in map(json.loads, lines)}
    return images


def asked(folders: str) -> list[tuple[str, int]]:
    """The case list of each run, and the seed by which its instructions were drawn."""
    runs = (Path(folder) / "run.json" for folder in folders.split(","))
    facts = (json.loads(run.read_text(encoding="utf-8")) for run in runs)
    return [(run["cases_sha256"], run["seed"]) for run in facts]


def number(text: str) -> float:
    """What an empty cell means for a score: nothing was earned."""
    return float(text) if text else 0.0


def mean_of_targets(values: np.ndarray, targets: list[str]) -> float:
    """Mean over targets of the mean over their cases."""
    by: dict[str, list[float]] = defaultdict(list)
    for value, target in zip(values.tolist(), targets, strict=True):
        by[target].append(value)
    return float(np.mean([np.mean(v) for v in by.values()]))


def interval(differences: np.ndarray, images: list[str], targets: list[str] | None) -> list[float]:
    """Ends for the mean of (seeds, cases): seeds are drawn, and whole images."""
    rng = np.random.default_rng(0)
    names = sorted(set(images))
    places = [[i for i, image in enumerate(images) if image == name] for name in names]
    means = []
    for _ in range(DRAWS):
        drawn = [i for k in rng.integers(len(names), size=len(names)) for i in places[k]]
        mean = differences[rng.integers(len(differences), size=len(differences))].mean(0)[drawn]
        means.append(mean.mean() if targets is None else mean_of_targets(mean, [targets[i] for i in drawn]))
    return [round(float(v), 4) for v in np.percentile(means, (2.5, 97.5))]


def compare(before: str, after: list[str]) -> dict[str, Any]:
    """Both sides' means over present targets, their paired differences, and refusals, validity and steps.

    Raises
    ------
    SystemExit
        If the runs are not of the same cases.
    """
    first, others = read(before), [read(folder) for folder in after]
    for folder, other in zip(after, others, strict=True):
        if other.keys() != first.keys() or asked(folder) != asked(before):
            sys.exit(f"{folder} and {before} are not of the same cases in the same words (evaluate --seed)")
    present = [c for c in first if first[c]["right_refusal"] == ""]
    absent = [c for c in first if c not in set(present)]
    image_of = images_of(before)
    images = [image_of[c] for c in present]
    targets = [f"{first[c]['group']}/{first[c]['target']}" for c in present]
    told: dict[str, Any] = {"n": len(present), "images": len(set(images)), "seeds": len(after)}
    if before.count(","):
        told["wordings"] = before.count(",") + 1
    for what, column in (("iou", "iou"), ("steps", "num_steps")):
        one = np.array([number(first[c][column]) for c in present])
        many = np.array([[number(other[c][column]) for c in present] for other in others])
        told[what] = {
            "before": round(float(one.mean()), 4),
            "after": [round(float(v), 4) for v in many.mean(1)],
            "difference": round(float((many - one).mean()), 4),
            "ci95": interval(many - one, images, None),
        }
        if what == "iou":
            told["target_mean_iou"] = {
                "before": round(mean_of_targets(one, targets), 4),
                "after": [round(mean_of_targets(v, targets), 4) for v in many],
                "difference": round(mean_of_targets((many - one).mean(0), targets), 4),
                "ci95": interval(many - one, images, targets),
            }
    runs = [first, *others]
    missed = np.array([[number(r[c]["false_refusal"]) > 0 for c in present] for r in runs])
    ious = np.array([[number(r[c]["iou"]) for c in present] for r in runs])
    gains = (ious[1:] - ious[0]) * ~(missed[1:] | missed[0])
    told["iou"]["of_it_where_neither_refused"] = round(float(gains.mean()), 4)
    told["validity"] = [
        round(sum(number(r[c]["num_valid"]) for c in r) / sum(number(r[c]["num_replies"]) for c in r), 4) for r in runs
    ]
    told["false_refusals"] = [round(float(np.mean([number(r[c]["false_refusal"]) for c in present])), 4) for r in runs]
    if absent:
        rates = [round(float(np.mean([number(r[c]["right_refusal"]) for c in absent])), 4) for r in runs]
        told["right_refusals"] = {"n": len(absent), "before": rates[0], "after": rates[1:]}
    return told


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--exam", action="append", required=True, help="name of an exam; once for every exam")
    p.add_argument("--before", action="append", required=True, help="run of the start; once for every exam")
    p.add_argument("--after", action="append", nargs="+", required=True, help="runs after RL, one a seed")
    p.add_argument("--out", type=Path, help="JSON file")
    a = p.parse_args()
    if not len(a.exam) == len(a.before) == len(a.after):
        p.error("every --exam needs a --before and an --after")
    told = {name: compare(one, many) for name, one, many in zip(a.exam, a.before, a.after, strict=True)}
    text = json.dumps(told, indent=1)
    if a.out:
        a.out.parent.mkdir(parents=True, exist_ok=True)
        a.out.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
