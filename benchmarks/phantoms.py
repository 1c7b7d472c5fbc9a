"""Images a second that the phantoms make at 256 pixels, all kinds alike, in one process for each core.

    python benchmarks/phantoms.py

Medians of several rounds; images and all their masks are made and thrown away.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor

from ibisagent import phantoms

SIZE = 256


def make(job: tuple[str, int, int]) -> float:
    """Make ``count`` images of a kind; seconds that it took."""
    kind, first, count = job
    started = time.perf_counter()
    for seed in range(first, first + count):
        phantoms.generate(kind, seed, SIZE)
    return time.perf_counter() - started


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    p.add_argument("--images", type=int, default=20, help="of each kind in a round")
    p.add_argument("--rounds", type=int, default=5)
    a = p.parse_args()
    rates, kinds = [], {k: [] for k in phantoms.KINDS}
    with ProcessPoolExecutor(a.processes) as pool:
        list(pool.map(make, [(k, 0, 1) for k in phantoms.KINDS]))  # imports and caches
        for r in range(a.rounds):
            started = time.perf_counter()
            seconds = list(pool.map(make, [(k, 1000 * r, a.images) for k in phantoms.KINDS]))
            rates.append(len(phantoms.KINDS) * a.images / (time.perf_counter() - started))
            for k, s in zip(phantoms.KINDS, seconds, strict=True):
                kinds[k].append(a.images / s)
    print(
        json.dumps(
            {
                "size": SIZE,
                "processes": a.processes,
                "images_per_second": round(statistics.median(rates), 1),
                "per_kind_in_one_process": {k: round(statistics.median(v), 1) for k, v in kinds.items()},
            },
            indent=1,
        )
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
