"""A quick look at nano by which settings of RL are chosen: greedy runs, many side by side, on case lists of one's own.

    python benchmarks/development_list.py --out runs/development.jsonl
    ibisagent synthesize "phantoms:70?seed=5000&split=test" --teacher terse --out runs/phantoms
    ibisagent data convert runs/phantoms --to mini --table test --out runs/phantom-cases
    python benchmarks/rl_development.py runs/nano/model runs/rl/model \
        --cases runs/development.jsonl runs/phantom-cases/cases.jsonl --draws 3

Of each list: mean IoU over the targets that are there, the mean over targets, steps, false and right refusals. Rows
without an instruction are asked ``--draws`` times, each time in other words of the held-out templates; rows with a
given mask are left out. Five times as fast as ``ibisagent evaluate``, whose figures are the ones to report: what a
batch computes differs in the last digits.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from ibisagent.engine.language.instructions import draw_instruction
from ibisagent.errors import InputError
from ibisagent.evaluate.run import instruction_seed
from ibisagent.io.datasets import RowError, load_case, read_cases
from ibisagent.train.course.exam import play_exam
from ibisagent.train.rl.prompts import RlPrompt
from ibisagent.types import Case


def prompts(path: Path, draws: int, most: int | None) -> list[RlPrompt]:
    """What a list asks."""
    asked = []
    for row in read_cases(path):
        if isinstance(row, RowError):
            raise InputError(f"{path}, line {row.line}: {row.message}")
        image, target, given = load_case(row, path.parent)
        if given is not None or (most is not None and len(asked) >= most):
            continue
        case = Case(image, row.instruction or "", None, case_id=row.case_id, target=row.target, group=row.group)
        for draw in range(1 if row.instruction else draws):
            words = row.instruction
            if not words:
                seed = instruction_seed(draw, row.case_id)
                words = draw_instruction(row.target, row.modality, seed, split="test", library="core").text
            key = f"{row.case_id}/{draw}"
            asked.append(RlPrompt(replace(case, instruction=words, case_id=key), target, key))
    return asked


def figures(asked: list[RlPrompt], scores: list[Any]) -> dict[str, float | int | None]:
    """Of one list."""
    here = [(p, s) for p, s in zip(asked, scores, strict=True) if p.target is not None and p.target.any()]
    gone = [s for p, s in zip(asked, scores, strict=True) if p.target is None or not p.target.any()]
    by_target = defaultdict(list)
    for prompt, score in here:
        by_target[prompt.case.group, prompt.case.target].append(score.iou or 0.0)
    return {
        "n": len(here),
        "iou": round(fmean(s.iou or 0.0 for _, s in here), 4) if here else None,
        "target_mean_iou": round(fmean(map(fmean, by_target.values())), 4) if here else None,
        "steps": round(fmean(s.num_steps for _, s in here), 3) if here else None,
        "false_refusals": round(fmean(bool(s.false_refusal) for _, s in here), 4) if here else None,
        "n_absent": len(gone),
        "right_refusals": round(fmean(bool(s.right_refusal) for s in gone), 4) if gone else None,
    }


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("models", type=Path, nargs="+", help="folders of NanoVLMs")
    p.add_argument("--cases", type=Path, nargs="+", required=True, help="case lists; never a val split")
    p.add_argument("--draws", type=int, default=1, help="instructions a case (default: 1)")
    p.add_argument("--most", type=int, help="at most so many prompts of a list")
    p.add_argument("--max-steps", type=int, default=8)
    p.add_argument("--segmenter", default="litemedsam")
    a = p.parse_args()
    exam = {str(path): prompts(path, a.draws, a.most) for path in a.cases}
    for model in a.models:
        began = time.perf_counter()
        found = play_exam(model, exam, a.segmenter, a.max_steps, 96, live=32)
        told = {name: figures(exam[name], found[name]) for name in exam}
        seconds = round(time.perf_counter() - began)
        print(json.dumps({"model": str(model), "seconds": seconds, "lists": told}), flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        print(f"ibisagent: error: {error}", file=sys.stderr)
        sys.exit(2)
