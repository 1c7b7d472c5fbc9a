"""Where the time of ``train rl`` goes on a small machine, and what playing groups side by side is worth.

    python benchmarks/rl_loop.py --updates 6 --write

One process, two threads, the preset ``nano``. First some updates: seconds by part (policy, segmenter, optimizer, and
the rest: environment, rendering, prompts, rewards, bookkeeping; tensors of a batch count as the optimizer's), the first
update left out. Then the same prompts are
played twice, taking turns: as training plays them, and plainly (one run at a time, every turn encoded anew by
``generate``, no embedding and no answer of the segmenter shared). Bars: the rest takes at most a tenth of the wall
time, and training plays at least twice as many episodes a second. Prints one JSON object; ``--write`` puts it into
``docs/results/rl_loop.json``. Nothing else should run meanwhile: the load average is part of the result.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ibisagent.train.config import load_config
from ibisagent.train.rl.config import RlConfig
from ibisagent.train.rl.play import Player
from ibisagent.train.rl.sampler import GenerateSampler

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "docs" / "results" / "rl_loop.json"
MOST_REST, LEAST_FACTOR = 0.10, 2.0
PARTS = ("policy", "segmenter", "optimizer", "rest")


def by_part(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Mean seconds an update of every part, and of the whole."""

    def mean(name: str) -> float:
        return sum(row[f"seconds/{name}"] for row in rows) / len(rows)

    parts = {name: mean(name) for name in ("policy", "segmenter", "optimizer")}
    whole = mean("update")
    return {**parts, "rest": whole - sum(parts.values()), "update": whole}


def plain(player: Player) -> Player:
    """The same player without anything shared."""
    return Player(
        player.segmenter, player.renderer, player.rubric, player.config, player.dialect, player.system_prompt,
        player.max_context, player.name, batched=False,
    )  # fmt: skip


def compare(trainer: Any, config: RlConfig, num_prompts: int, num_plain: int) -> dict[str, Any]:
    """Episodes a second of both ways, on the same prompts, taking turns."""
    player, model = trainer._player, trainer.accelerator.unwrap_model(trainer.model)
    slow = plain(player)
    quick_sampler = trainer._make_sampler(model)
    slow_sampler = GenerateSampler(
        model, player.renderer, temperature=config.temperature, max_new_tokens=config.max_new_tokens, batch_size=1
    )
    count, seconds, steps = [0, 0], [0.0, 0.0], [0, 0]
    at_once = config.prompts_per_update
    for start in range(0, num_prompts, at_once):
        prompts = [trainer._prompts[500 + start + i] for i in range(at_once)]
        began = time.perf_counter()
        quick = player.play(prompts, config.group_size, quick_sampler, start)
        seconds[0] += time.perf_counter() - began
        began = time.perf_counter()
        one_by_one = [
            run
            for number in range(num_plain)
            for run in slow.play([prompts[number % at_once]], 1, slow_sampler, 1000 * start + number)
        ]
        seconds[1] += time.perf_counter() - began
        for way, runs in enumerate((quick, one_by_one)):
            count[way] += len(runs)
            steps[way] += sum(len(run.episode.steps) for run in runs)
    speed = [n / s for n, s in zip(count, seconds, strict=True)]
    return {
        "episodes": dict(zip(("training", "plain"), count, strict=True)),
        "replies_an_episode": {
            name: round(replies / n, 2) for name, replies, n in zip(("training", "plain"), steps, count, strict=True)
        },
        "episodes_a_second": {name: round(v, 3) for name, v in zip(("training", "plain"), speed, strict=True)},
        "factor": round(speed[0] / speed[1], 2),
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    from ibisagent.train.rl.run import _build

    load = os.getloadavg()[0]
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        words = ["--preset", "nano", "--out", folder, "--device", "cpu", "--report-to", "none", "--page-updates", "0",
                 "--save-updates", "100000", "--num-updates", str(options.updates + 1),
                 "--prompts", f"scenes:{options.cases}", *options.settings]  # fmt: skip
        config = load_config(RlConfig, words, "rl_loop")
        trainer, *_ = _build(config, 1)
        trainer.train()
        rows = [row for row in trainer.state.log_history if "seconds/update" in row][1:]
        seconds = by_part(rows)
        compared = compare(trainer, config, options.compare_updates * config.prompts_per_update, options.plain_runs)
    share = {name: round(seconds[name] / seconds["update"], 4) for name in PARTS}
    runs = config.prompts_per_update * config.group_size
    return {
        "machine": {"cpus": os.cpu_count(), "threads": options.threads, "load_before": round(load, 2)},
        "settings": {
            name: getattr(config, name)
            for name in ("model", "segmenter", "group_size", "prompts_per_update", "max_steps", "micro_batch", "bf16")
        },
        "updates": len(rows),
        "runs_an_update": runs,
        "seconds_an_update": {name: round(value, 3) for name, value in seconds.items()},
        "share": share,
        **compared,
        "bars": {
            "rest": {"at_most": MOST_REST, "found": share["rest"], "met": share["rest"] <= MOST_REST},
            "factor": {
                "at_least": LEAST_FACTOR,
                "found": compared["factor"],
                "met": compared["factor"] >= LEAST_FACTOR,
            },
        },
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 0 whether or not the bars are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=6, help="updates that are measured, after one that is not")
    parser.add_argument("--compare-updates", type=int, default=3, help="batches that are played both ways")
    parser.add_argument("--plain-runs", type=int, default=8, help="runs played plainly for each such batch")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cases", type=Path, default=ROOT / "data" / "mini" / "cases.jsonl")
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.relative_to(ROOT)}")
    parser.add_argument("settings", nargs="*", help="after --: settings of train rl, for example --group-size 4")
    options = parser.parse_args(argv)
    result = measure(options)
    text = json.dumps(result, indent=1)
    print(text)
    if options.write:
        RESULT.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
