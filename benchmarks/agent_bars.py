"""The figures of nano on mini val: against no-look and the oracle, validity, refusals.

    python benchmarks/agent_bars.py --out runs/bars

Every figure comes from the same code as ``ibisagent evaluate``. Intervals are 95% bootstraps over cases
(within targets for target means). ``share_of_ceiling`` is (nano - no-look) / (oracle - no-look).
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
from ibisagent.evaluate import evaluate, summarise
from ibisagent.evaluate.baselines import NoLookPolicy, mean_positions
from ibisagent.io import read_cases
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


def rate_interval(hits: int, n: int) -> list[float]:
    """Wilson interval of a rate."""
    if n == 0:
        return [float("nan")] * 2
    z, p = 1.959964, hits / n
    centre, spread = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return [round(float((centre + s * spread) / (1 + z * z / n)), 4) for s in (-1, 1)]


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--cases", type=Path, default=Path("data/mini/cases.jsonl"))
    p.add_argument("--refusals", type=Path, default=Path("data/refusals"))
    p.add_argument("--policy", default="nano")
    p.add_argument("--segmenter", default="litemedsam")
    p.add_argument("--split", default="val")
    p.add_argument("--stride", type=int, default=1)
    p.add_argument("--max-steps", type=int, default=8)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--skip-refusals", action="store_true")
    p.add_argument("--out", type=Path)
    a = p.parse_args()
    rows = [r for r in read_cases(a.cases) if r.split == a.split][:: a.stride]
    segmenter = make_segmenter(a.segmenter, "cpu")
    targets: dict = {}
    nano = make_policy(a.policy, device="cpu")
    runs = {
        "nano": (nano, None),
        "no_look": (NoLookPolicy(mean_positions(a.cases)), None),
        "oracle": (OraclePolicy(targets), targets),
    }
    report: dict = {"split": a.split, "num_cases": len(rows), "max_steps": a.max_steps, "seed": a.seed}
    for name, (policy, known) in runs.items():
        started = time.perf_counter()
        results = evaluate(
            rows, a.cases.parent, policy, segmenter, RolloutConfig(max_steps=a.max_steps, seed=a.seed), targets=known
        )
        summary = summarise(results, max_steps=a.max_steps, seconds=time.perf_counter() - started)
        summary["target_mean_iou_ci95"] = target_interval(results)
        if name == "nano":
            replies = sum(r.scores.num_replies for r in results if r.scores)
            valid = sum(r.scores.num_valid for r in results if r.scores)
            summary["action_validity_ci95"] = rate_interval(valid, replies)
            false = sum(bool(r.scores and r.scores.false_refusal) for r in results)
            summary["false_refusals_ci95"] = rate_interval(false, len(results))
            summary["outcomes"] = {
                o: sum(str(r.scores.outcome) == o for r in results if r.scores)
                for o in ("done", "absent", "uncertain", "out_of_steps", "error")
            }
        report[name] = summary
        print(name, round(summary["target_mean_iou"], 4), summary["target_mean_iou_ci95"], file=sys.stderr, flush=True)
    low, mid, high = (report[k]["target_mean_iou"] for k in ("no_look", "nano", "oracle"))
    report["share_of_ceiling"] = round((mid - low) / (high - low), 4)
    if not a.skip_refusals:
        for label in ("other_modality", "same_modality"):
            path = a.refusals / f"{label}.jsonl"
            absent = read_cases(path)[:: a.stride]
            results = evaluate(absent, path.parent, nano, segmenter, RolloutConfig(max_steps=a.max_steps, seed=a.seed))
            right = sum(bool(r.scores and r.scores.right_refusal) for r in results)
            report[f"refusals_{label}"] = {
                "n": len(results),
                "right": round(right / len(results), 4),
                "ci95": rate_interval(right, len(results)),
            }
    text = json.dumps(report, indent=1)
    if a.out:
        a.out.mkdir(parents=True, exist_ok=True)
        (a.out / "bars.json").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
