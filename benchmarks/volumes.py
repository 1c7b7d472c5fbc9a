"""A whole volume from a few clicks: mini's brain1 (25 slices, 7 with tumour) and phantom volumes, 3-D Dice.

    python benchmarks/volumes.py --weights runs/seg/no-brain1/last.pt --out docs/results/volumes.json

Rows of brain1: the oracle with clicks on one and on two slices, with ClickNet trained without brain1 (`--weights`) and
with the shipped weights, which saw its slices; and nano with the shipped weights, told nothing. `--weights` are of
`ibisagent train segmenter --leave-out brain1 --init BASE --minutes 8 --lr 1e-3 --threads 1 --out runs/seg/no-brain1`,
BASE being the `last.pt` of a run with `--stage base`, on procedural images alone. One volume has no interval: the
phantoms (seeds that nothing was tuned on) say how far such figures spread.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ibisagent.config import RolloutConfig
from ibisagent.episode import write_json
from ibisagent.grid import Grid
from ibisagent.io.labels import read_label_volume
from ibisagent.io.studies import open_volume
from ibisagent.io.volume import ArrayVoxels, Volume
from ibisagent.metrics import dice
from ibisagent.phantoms import generate_volume
from ibisagent.policies.oracle import OraclePolicy
from ibisagent.registry import resolve_policy
from ibisagent.segmenters.clicknet import ClickNet
from ibisagent.segmenters.litemedsam import LiteMedSamSegmenter
from ibisagent.volume.config import VolumeConfig
from ibisagent.volume.run import run_volume
from ibisagent.volume.targets import SliceTargets

ORACLE_STEPS = 16
"""Actions of the oracle on a key slice."""

PHANTOMS = (("head_mri", "brain tumor"), ("chest_ct", "lung tumor"), ("chest_ct", "left lung"), ("chest_ct", "heart"))
FIRST_SEED = 1000
"""Phantoms of the report; those that settings were tried on have lower seeds."""


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--weights", type=Path, help="ClickNet trained without brain1 (last.pt)")
    p.add_argument("--data", type=Path, default=Path("data/mini/volumes"))
    p.add_argument("--phantoms", type=int, default=12, help="volumes of each phantom target (%(default)s)")
    p.add_argument("--no-nano", action="store_true")
    p.add_argument("--out", type=Path)
    a = p.parse_args()
    torch.set_num_threads(max(1, min(2, torch.get_num_threads())))
    volume = open_volume(a.data / "brain1.nii.gz", modality="MRI")
    assert volume is not None
    target = read_label_volume(a.data / "brain1_label.nii.gz", volume)
    shipped = LiteMedSamSegmenter()
    unseen = None
    if a.weights is not None:
        net = ClickNet()
        net.load_state_dict(torch.load(a.weights, map_location="cpu", weights_only=True)["average"])
        unseen = LiteMedSamSegmenter(clicknet=net)
    rows: dict[str, Any] = {}
    sentence = "Segment the brain tumor."
    for name, segmenter in (("trained without brain1", unseen), ("shipped (has seen brain1)", shipped)):
        for keys in (1, 2):
            if segmenter is not None:
                rows[f"oracle, clicks on {keys}, {name}"] = oracle(volume, target, segmenter, sentence, keys)
    if not a.no_nano:
        record = run_volume(volume, sentence, resolve_policy("nano"), shipped)
        rows["nano, shipped (has seen brain1)"] = row(record, target)
    spread: dict[str, Any] = {}
    for kind, name in PHANTOMS:
        found: list[dict[str, Any]] = []
        for seed in range(FIRST_SEED, FIRST_SEED + a.phantoms):
            drawn = generate_volume(kind, seed)
            if name not in drawn.masks:
                continue
            grid = Grid(drawn.values.shape, tuple(map(tuple, drawn.affine.tolist())))  # type: ignore[arg-type]
            made = Volume(grid, ArrayVoxels(drawn.values), "phantom", "NIfTI", modality=drawn.modality)
            window = "0,600" if drawn.modality == "MRI" else "-1000,400"
            found.append(oracle(made, drawn.masks[name], unseen or shipped, f"Segment the {name}.", 2, window))
        values = np.array([one["dice"] for one in found])
        draws = np.random.default_rng(0).choice(values, (2000, len(values))).mean(axis=1)
        spread[f"{kind}: {name}"] = {
            "n": len(values),
            "dice": round(float(values.mean()), 4),
            "ci95": [round(float(v), 4) for v in np.percentile(draws, (2.5, 97.5))],
            "worst": round(float(values.min()), 4),
            "slices_clicked": round(float(np.mean([len(one["slices_clicked"]) for one in found])), 2),
        }
    result = {"brain1": rows, "phantoms, oracle, clicks on 2": spread, "bar": "oracle, at most 2, unseen: Dice >= 0.75"}
    text = json.dumps(result, indent=1)
    if a.out:
        write_json(a.out, text)
    print(text)
    return 0


def oracle(
    volume: Volume,
    target: np.ndarray,
    segmenter: LiteMedSamSegmenter,
    sentence: str,
    keys: int,
    window: str | None = None,
) -> dict[str, Any]:
    """The oracle looks without clicking, and clicks on `keys` slices; nothing is asked again."""
    config = VolumeConfig(scan="look", key_slices=keys, max_revisits=0, rollout=RolloutConfig(max_steps=ORACLE_STEPS))
    policy = OraclePolicy(SliceTargets(target, volume.grid))
    return row(run_volume(volume, sentence, policy, segmenter, config, window=window), target)


def row(record: Any, target: np.ndarray) -> dict[str, Any]:
    """Figures of one run."""
    mask = record.final_mask.decode()
    shown = [int(i) for i in np.flatnonzero(target.any(axis=(0, 1)))]
    drawn = [int(i) for i in np.flatnonzero(mask.any(axis=(0, 1)))]
    return {
        "dice": round(dice(mask, target), 4),
        "outcome": str(record.outcome),
        "slices_clicked": [index for _, index in record.clicked_slices],
        "clicks": sum(len(s.pixels_xy) for v in record.visits if v.episode for s in v.episode.steps),
        "slices_of_target": [shown[0], shown[-1]],
        "slices_of_mask": [drawn[0], drawn[-1]] if drawn else None,
        "dice_by_slice": {i: round(dice(mask[:, :, i], target[:, :, i]), 3) for i in sorted({*shown, *drawn})},
        "seconds": round(record.seconds_total, 1),
    }


if __name__ == "__main__":
    sys.exit(main())
