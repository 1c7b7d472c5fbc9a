"""Oracle clicks with the embedded segmenter: target_mean_iou after each click, by group and target.

    python benchmarks/oracle_clicks.py --split val
    python benchmarks/oracle_clicks.py --weights runs/seg/no-lung1/last.pt --groups lung1 --split all

The second form tests a checkpoint of ``ibisagent train segmenter --leave-out lung1`` on every case of
the group that it has never seen. Prints one JSON object; the interval is a bootstrap over cases.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from ibisagent.clicks import next_click
from ibisagent.io.datasets import CaseRow, load_case, read_cases
from ibisagent.metrics import iou
from ibisagent.segmenters.clicknet import ClickNet
from ibisagent.segmenters.litemedsam import LiteMedSamSegmenter
from ibisagent.segmenters.session import Session


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--cases", type=Path, default=Path("data/mini/cases.jsonl"))
    p.add_argument("--weights", type=Path, help="checkpoint (.pt) of a training run; default: the embedded weights")
    p.add_argument("--split", default="val", choices=["train", "val", "all"])
    p.add_argument("--groups", nargs="*")
    p.add_argument("--clicks", type=int, default=6)
    p.add_argument("--stride", type=int, default=1, help="use every n-th case")
    a = p.parse_args()
    net = None
    if a.weights:
        net = ClickNet()
        net.load_state_dict(torch.load(a.weights, map_location="cpu", weights_only=True)["average"])
    segmenter = LiteMedSamSegmenter(clicknet=net)
    rows = [r for r in read_cases(a.cases) if isinstance(r, CaseRow) and r.mask and a.split in ("all", r.split)]
    rows = [r for r in rows if not a.groups or r.group in a.groups][:: a.stride]
    curves: dict[str, list[list[float]]] = defaultdict(list)
    by_score: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        image, target, _ = load_case(row, a.cases.parent)
        session = Session(segmenter, image, None)
        curve, scores = [], []
        for _ in range(a.clicks):
            click = next_click(session.mask, target)
            if click is None or (curve and curve[-1] >= 0.98):
                curve.append(curve[-1])
                scores.append(scores[-1])
                continue
            prediction = session.add_clicks([click])
            curve.append(iou(prediction.mask, target))
            scores.append(prediction.score or 0.0)
        curves[f"{row.group}/{row.target}"].append(curve)
        by_score[f"{row.group}/{row.target}"].append(curve[int(np.argmax(scores))])
    rng = np.random.default_rng(0)
    draws = [np.mean([np.mean(rng.choice([c[-1] for c in v], len(v))) for v in curves.values()]) for _ in range(1000)]
    result = {
        "num_cases": len(rows),
        "split": a.split,
        "groups": a.groups,
        "clicks": a.clicks,
        "target_mean_iou_by_click": [
            round(float(np.mean([np.mean([c[k] for c in v]) for v in curves.values()])), 4) for k in range(a.clicks)
        ],
        "target_mean_iou": round(float(np.mean([np.mean([c[-1] for c in v]) for v in curves.values()])), 4),
        "ci95": [round(float(v), 4) for v in np.percentile(draws, (2.5, 97.5))],
        "target_mean_iou_highest_score": round(float(np.mean([np.mean(v) for v in by_score.values()])), 4),
        "per_target": {
            k: {"n": len(v), "iou": [round(float(np.mean([c[j] for c in v])), 3) for j in range(a.clicks)]}
            for k, v in sorted(curves.items())
        },
    }
    json.dump(result, sys.stdout, indent=1)
    print()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
