"""Medians of five: a warm case, a click's mask, the import and ``--help``.

    python benchmarks/timings.py

(The image encoder against the released one is in ``bench_litemedsam.py``: that comparison needs both in one run.)
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from ibisagent.clicks import next_click
from ibisagent.config import RolloutConfig
from ibisagent.io.datasets import load_case, read_cases
from ibisagent.registry import make_policy, make_segmenter
from ibisagent.rollout import run_episode
from ibisagent.segmenters.session import Session
from ibisagent.types import Case

REPEATS = 5
IMAGE = "lung1_axial_014"


def process_seconds(*command: str) -> float:
    """Median wall seconds of a whole process, after one warm-up."""
    values = []
    for _ in range(REPEATS + 1):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        values.append(time.perf_counter() - started)
    return statistics.median(values[1:])


def main() -> int:
    cases = Path("data/mini/cases.jsonl")
    row = next(r for r in read_cases(cases) if r.case_id.startswith(IMAGE) and r.target == "left lung")
    image, target, _ = load_case(row, cases.parent)
    segmenter = make_segmenter("litemedsam", "cpu")
    policy = make_policy("nano", device="cpu")
    warm, clicks, encodes = [], [], []
    for k in range(REPEATS + 1):
        started = time.perf_counter()
        episode = run_episode(
            Case(image, "Segment the left lung.", case_id=row.case_id), policy, segmenter, RolloutConfig()
        )
        warm.append(time.perf_counter() - started)
        started = time.perf_counter()
        session = Session(segmenter, image, None)
        encodes.append(time.perf_counter() - started)
        for _ in range(3):
            click = next_click(session.mask, target)
            started = time.perf_counter()
            session.add_clicks([click])
            if k:
                clicks.append(time.perf_counter() - started)
    python = sys.executable
    bare = process_seconds(python, "-c", "pass")
    report = {
        "warm_case_s": round(statistics.median(warm[1:]), 3),
        "warm_case_steps": episode.num_steps,
        "encode_for_clicks_s": round(statistics.median(encodes[1:]), 4),
        "click_mask_s": round(statistics.median(clicks), 4),
        "import_s": round(process_seconds(python, "-c", "import ibisagent") - bare, 3),
        "help_s": round(process_seconds(str(Path(python).with_name("ibisagent")), "--help"), 3),
        "bare_python_s": round(bare, 3),
    }
    print(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
