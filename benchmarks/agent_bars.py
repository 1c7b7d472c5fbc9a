"""The figures of nano on mini val: against no-look and the oracle, validity, refusals.

    python benchmarks/agent_bars.py --out runs/bars
    python benchmarks/agent_bars.py --split dev --parts runs --policy nano:runs/nano/model   # to choose by

Every figure comes from the same code as ``ibisagent evaluate``. Intervals are 95% bootstraps: over cases
within their target for target means, over images for rates. ``share_of_ceiling`` is
(nano - no-look) / (oracle - no-look).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

from ibisagent.config import RolloutConfig
from ibisagent.engine.splits import development_images
from ibisagent.evaluate import evaluate, summarise
from ibisagent.evaluate.baselines import NoLookPolicy, mean_positions
from ibisagent.io import CaseRow, read_cases
from ibisagent.policies.oracle import OraclePolicy
from ibisagent.registry import make_policy, make_segmenter


def target_interval(results, draws: int = 2000) -> list[float]:
    """Bootstrap of target_mean_iou: cases are drawn again within their target."""
    by: dict[str, list[float]] = defaultdict(list)
    for r in results:
        if not r.absent:
            by[f"{r.group}/{r.target}"].append(r.iou or 0.0)
    rng = np.random.default_rng(0)
    values = [np.mean([np.mean(rng.choice(v, len(v))) for v in by.values()]) for _ in range(draws)]
    return [round(float(v), 4) for v in np.percentile(values, (2.5, 97.5))]


def rate_interval(flags: list[tuple[str, float, float]], draws: int = 2000) -> list[float]:
    """Bootstrap of a rate over images: (image, hits, tries) of every run; runs on one image are not independent."""
    by: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for image, hits, tries in flags:
        by[image].append((hits, tries))
    sums = np.array([np.sum(v, 0) for v in by.values()])
    rng = np.random.default_rng(0)
    picked = sums[rng.integers(len(sums), size=(draws, len(sums)))].sum(1)
    return [round(float(v), 4) for v in np.percentile(picked[:, 0] / np.maximum(picked[:, 1], 1), (2.5, 97.5))]


def image_of(result) -> str:
    """Case ids begin with the image's name."""
    return (result.case_id or "").split("__")[0]


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--cases", type=Path, default=Path("data/mini/cases.jsonl"))
    p.add_argument("--refusals", type=Path, default=Path("data/refusals"))
    p.add_argument("--policy", default="nano")
    p.add_argument("--segmenter", default="litemedsam")
    p.add_argument("--split", default="val", help="train, val, or dev: the part of train that training leaves out")
    p.add_argument("--stride", type=int, default=1)
    p.add_argument("--max-steps", type=int, default=8)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--parts", nargs="+", default=["runs", "refusals"], choices=["runs", "refusals"], help="two halves")
    p.add_argument("--out", type=Path)
    a = p.parse_args()
    split = "train" if a.split == "dev" else a.split
    rows = [r for r in read_cases(a.cases) if isinstance(r, CaseRow) and r.split == split]
    if a.split == "dev":
        apart = development_images((r.image, r.group or "", r.target or "") for r in rows)
        rows = [r for r in rows if r.image in apart]
    rows = rows[:: a.stride]
    segmenter = make_segmenter(a.segmenter, "cpu")
    targets: dict = {}
    nano = make_policy(a.policy, device="cpu")
    runs = {
        "nano": (nano, None),
        "no_look": (NoLookPolicy(mean_positions(a.cases)), None),
        "oracle": (OraclePolicy(targets), targets),
    }
    report: dict = {"split": a.split, "num_cases": len(rows), "max_steps": a.max_steps, "seed": a.seed}
    for name, (policy, known) in runs.items() if "runs" in a.parts else ():
        started = time.perf_counter()
        results = evaluate(
            rows, a.cases.parent, policy, segmenter, RolloutConfig(max_steps=a.max_steps, seed=a.seed), targets=known
        )
        summary = summarise(results, max_steps=a.max_steps, seconds=time.perf_counter() - started)
        summary["target_mean_iou_ci95"] = target_interval(results)
        if name == "nano":
            played = [r for r in results if r.scores]
            replies = [(image_of(r), r.scores.num_valid, r.scores.num_replies) for r in played]
            summary["action_validity_ci95"] = rate_interval(replies)
            refused = [(image_of(r), float(bool(r.scores.false_refusal)), 1.0) for r in played]
            summary["false_refusals_ci95"] = rate_interval(refused)
            summary["outcomes"] = {
                o: sum(str(r.scores.outcome) == o for r in results if r.scores)
                for o in ("done", "absent", "uncertain", "out_of_steps", "error")
            }
        report[name] = summary
        print(name, round(summary["target_mean_iou"], 4), summary["target_mean_iou_ci95"], file=sys.stderr, flush=True)
    if "runs" in a.parts:
        low, mid, high = (report[k]["target_mean_iou"] for k in ("no_look", "nano", "oracle"))
        report["share_of_ceiling"] = round((mid - low) / (high - low), 4)
    if "refusals" in a.parts:
        for label in ("other_modality", "same_modality"):
            path = a.refusals / f"{label}.jsonl"
            absent = read_cases(path)[:: a.stride]
            results = evaluate(absent, path.parent, nano, segmenter, RolloutConfig(max_steps=a.max_steps, seed=a.seed))
            flags = [(image_of(r), float(bool(r.scores and r.scores.right_refusal)), 1.0) for r in results]
            right = round(sum(f[1] for f in flags) / len(flags), 4)
            images = len({f[0] for f in flags})
            interval = rate_interval(flags)
            report[f"refusals_{label}"] = {"n": len(flags), "images": images, "right": right, "ci95": interval}
    text = json.dumps(report, indent=1)
    if a.out:
        a.out.mkdir(parents=True, exist_ok=True)
        path = a.out / "bars.json"
        if len(a.parts) == 1 and path.exists():  # the other part, by another process
            text = json.dumps(json.loads(path.read_text(encoding="utf-8")) | report, indent=1)
        path.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
