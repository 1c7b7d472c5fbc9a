"""How much of what RL does to the weights is learning, and how much is chance: several seeds from one start.

    python benchmarks/rl_movement.py --start runs/nano/model --after runs/rl{0,1,2}/model [--mean runs/rl-mean]

For every part of the network: how far each seed moved it, and the mean cosine between the seeds' movements. Two seeds
share what the rewards say and nothing else: the cosine is about the share of a movement's squared length that is
common, and what is missing to 1 is chance. ``--mean`` writes the mean of the
seeds' weights as a model of its own: what is common to them is whole in it, and chance is smaller.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from itertools import combinations
from pathlib import Path
from statistics import fmean

import torch
from safetensors.torch import load_file, save_file

WEIGHTS = "model.safetensors"


def movements(start: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What was added to each part (the first word of a weight's name), as one ``float64`` vector."""
    parts: dict[str, list[torch.Tensor]] = {}
    for name, value in sorted(start.items()):
        if value.is_floating_point():
            parts.setdefault(name.partition(".")[0], []).append((after[name].double() - value.double()).flatten())
    return {name: torch.cat(values) for name, values in parts.items()}


def cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    """NaN where one of them did not move."""
    scale = float(one.norm() * other.norm())
    return float(one @ other) / scale if scale else float("nan")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", type=Path, required=True, help="folder of the model before RL")
    parser.add_argument("--after", type=Path, nargs="+", required=True, help="folders of models after it, one a seed")
    parser.add_argument("--mean", type=Path, help="write the mean of the seeds' weights here")
    args = parser.parse_args()
    if len(args.after) < 2:
        parser.error("--after needs two seeds or more")
    start = load_file(args.start / WEIGHTS)
    models = [load_file(folder / WEIGHTS) for folder in args.after]
    moved = [movements(start, model) for model in models]
    whole = [torch.cat(list(parts.values())) for parts in moved]
    rows = {name: [parts[name] for parts in moved] for name in moved[0]} | {"all": whole}
    told = {
        name: {
            "weights": vectors[0].numel(),
            "moved": [round(float(vector.norm()), 4) for vector in vectors],
            "cosine": round(fmean(cosine(one, other) for one, other in combinations(vectors, 2)), 4),
        }
        for name, vectors in rows.items()
    }
    if args.mean is not None:
        shutil.copytree(args.after[0], args.mean, dirs_exist_ok=True)
        mean = {
            name: torch.stack([model[name].double() for model in models]).mean(0).to(value.dtype)
            if value.is_floating_point()
            else value
            for name, value in models[0].items()
        }
        save_file(mean, args.mean / WEIGHTS, metadata={"format": "pt"})
    print(json.dumps(told, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
