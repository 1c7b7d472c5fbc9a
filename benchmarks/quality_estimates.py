"""How well can a run say how good its mask is, from stored facts alone? On the training split, never on val.

Plays mini's training images (``--images development``, which nano does not learn from, or ``--images learnt``, every
fourth of the others) and compares estimates of the final IoU: the segmenter's score, whether the mask still moved at
the last step, how many steps it took, and mixtures. Writes a JSON:

    python benchmarks/quality_estimates.py --policy nano --images development \\
        --out docs/results/quality_nano_development.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ibisagent.api import resolve_policy
from ibisagent.engine.splits import development_images
from ibisagent.evaluate import CaseResult, evaluate
from ibisagent.evaluate.calibration import calibrate, quality_estimate, ranks, selective_dice
from ibisagent.io import CaseRow, read_cases
from ibisagent.metrics import iou
from ibisagent.registry import make_segmenter
from ibisagent.rle import decode_mask

CASES = Path(__file__).parents[1] / "data" / "mini" / "cases.jsonl"

STEP_COST = 0.03
"""What a step takes off the score in ``score_less_steps``; chosen on nano's development cases."""


def chosen(images: str) -> list[CaseRow]:
    """Rows of the training split."""
    rows = [row for row in read_cases(CASES) if isinstance(row, CaseRow) and row.split == "train"]
    apart = development_images([(row.image, row.group, row.target) for row in rows])
    mine = [row for row in rows if (row.image in apart) == (images == "development")]
    return mine if images == "development" else mine[::4]


def played(policy: str, rows: Sequence[CaseRow]) -> list[CaseResult]:
    """Results on the CPU with the embedded segmenter."""
    targets: Any = {} if policy == "oracle" else None
    player = resolve_policy(policy, device="cpu", targets=targets)
    return evaluate(rows, CASES.parent, player, make_segmenter("litemedsam", "cpu"), targets=targets)


def facts(result: CaseResult) -> dict[str, float] | None:
    """Every estimate of one run; None where the segmenter's score is missing."""
    episode = result.episode
    score = None if episode is None or result.absent or result.error else quality_estimate(episode)
    if episode is None or score is None or episode.final_mask is None or episode.final_step is None:
        return None
    final = decode_mask(episode.final_mask)
    before = [step.mask for step in episode.steps[: episode.final_step] if step.mask is not None]
    stability = iou(final, decode_mask(before[-1])) if before else 0.0
    return {
        "score": score,
        "stability": stability,
        "score_times_stability": score * stability,
        "few_steps": -float(episode.num_steps),
        "score_less_steps": score - STEP_COST * episode.num_steps,
        "large_area": float(final.mean()),
    }


def compare(results: Sequence[CaseResult]) -> dict[str, Any]:
    """Rank correlation with the IoU and the selective-Dice gain, by estimate."""
    pairs = [(found, r) for r in results if (found := facts(r)) is not None]
    true = np.array([r.iou for _, r in pairs], float)
    dice = np.array([r.dice for _, r in pairs], float)
    told: dict[str, Any] = {}
    for name in pairs[0][0]:
        values = np.array([found[name] for found, _ in pairs])
        gain = selective_dice(values, dice)["gain"]
        told[name] = {"spearman": float(np.corrcoef(ranks(values), ranks(true))[0, 1]), "selective_gain": gain}
    return told


def main() -> None:
    """Play, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="nano")
    parser.add_argument("--images", choices=("development", "learnt"), default="development")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    results = played(options.policy, chosen(options.images))
    calibration = calibrate(results, [r.image for r in results])
    kept = ("n", "num_without", "mean_estimate", "mean_iou", "bias", "mse", "mse_constant", "ece")
    report = {
        "policy": options.policy,
        "images": options.images,
        "num_images": len({r.image for r in results}),
        **{name: calibration[name] for name in kept},
        "estimates": compare(results),
    }
    text = json.dumps(report, indent=1, default=float)
    options.out.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
