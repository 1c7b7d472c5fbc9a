"""Which floats this machine trains nano and reads images with fastest, and what `fast_dtype` chooses.

    python benchmarks/precision.py [--repeats 7] [--write]

A training step is a forward and a backward pass of the embedded nano over four rows of seven pictures each (random
pixels and words; no loss that depends on them), the encoder LiteMedSAM's on one picture. The two types take turns;
medians, and ratios above 1 where bfloat16 is faster. --write: into docs/results/precision.json, an entry for this
processor.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from ibisagent.memory import keep_freed_memory

keep_freed_memory()

import torch  # noqa: E402

from ibisagent.policies.checkpoints import load_checkpoint  # noqa: E402
from ibisagent.segmenters.litemedsam_net import LiteMedSam  # noqa: E402
from ibisagent.segmenters.precision import fast_dtype  # noqa: E402

ROOT = Path(__file__).parents[1]
TYPES = (torch.float32, torch.bfloat16)
ROWS, PICTURES, WORDS = 4, 7, 40


def training_step() -> Callable[[torch.dtype], None]:
    """A forward and a backward pass of nano, in a type."""
    model = load_checkpoint(ROOT / "src/ibisagent/weights/nano", device="cpu", dtype="float32").model
    model.to(memory_format=torch.channels_last).train()
    config = model.config
    turn = [config.image_token_id] * config.image_tokens_side**2 + [5] * WORDS
    ids = torch.tensor([turn * PICTURES] * ROWS)
    shape = (ROWS * PICTURES, 3, config.image_size, config.image_size)
    pixels = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    pixels = pixels.contiguous(memory_format=torch.channels_last)

    def step(dtype: torch.dtype) -> None:
        """One step; gradients are dropped."""
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
            out = model(input_ids=ids, pixel_values=pixels, return_states=True, use_cache=False)
        out.hidden.float().square().mean().backward()
        model.zero_grad()

    return step


def encoder() -> Callable[[torch.dtype], None]:
    """LiteMedSAM's look at one picture, in a type."""
    models = {dtype: LiteMedSam.load(dtype=dtype) for dtype in TYPES}
    image = torch.rand(256, 256, 3, generator=torch.Generator().manual_seed(0))

    def look(dtype: torch.dtype) -> None:
        """One look at the picture."""
        with torch.no_grad():
            models[dtype].encoder(image.clone())

    return look


def seconds(work: Callable[[torch.dtype], None], repeats: int) -> dict[str, float]:
    """Medians by type, of turns that alternate, and how many times as fast bfloat16 is."""
    found: dict[torch.dtype, list[float]] = {dtype: [] for dtype in TYPES}
    for turn in range(repeats + 1):
        for dtype in TYPES:
            began = time.perf_counter()
            work(dtype)
            if turn:  # the first warms up
                found[dtype].append(time.perf_counter() - began)
    single, half = (median(found[dtype]) for dtype in TYPES)
    return {"float32_s": round(single, 4), "bfloat16_s": round(half, 4), "bfloat16_speed": round(single / half, 3)}


def processor() -> dict[str, str]:
    """Vendor, model and the flags that matter."""
    told = dict(
        [part.strip() for part in line.split(":", 1)]
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
        if ":" in line
    )
    flags = sorted(set(told.get("flags", "").split()) & {"avx512f", "avx512_bf16", "amx_bf16"})
    keys = {"vendor": "vendor_id", "family": "cpu family", "model": "model", "name": "model name"}
    return {name: told.get(key, "") for name, key in keys.items()} | {"flags": " ".join(flags)}


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--repeats", type=int, default=7)
    p.add_argument("--write", action="store_true")
    a = p.parse_args()
    told: dict[str, Any] = {"processor": processor(), "torch": torch.__version__, "chosen": str(fast_dtype("cpu"))}
    for threads in (1, 2):
        torch.set_num_threads(threads)
        told[f"threads_{threads}"] = {
            "training_step": seconds(training_step(), a.repeats),
            "encoder": seconds(encoder(), a.repeats),
        }
    print(json.dumps(told, indent=1))
    if a.write:
        path = ROOT / "docs/results/precision.json"
        cpu = told["processor"]
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        known[f"{cpu['vendor']} {cpu['family']}/{cpu['model']} {cpu['flags']}"] = told
        path.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
