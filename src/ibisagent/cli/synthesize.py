"""``ibisagent synthesize``: data sets in, corpora out."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ibisagent.engine.builder.build import Result

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Run the command: 0 if the corpora are whole.

    Raises
    ------
    InputError, ToolError, TeacherError
        See :func:`ibisagent.engine.builder.build.synthesize`.
    """
    from tqdm import tqdm

    from ibisagent.engine.builder.build import synthesize
    from ibisagent.engine.builder.config import load_config

    sources = tuple(options.sources)
    if options.num_phantoms:
        sources += (f"phantoms:{options.num_phantoms}",)
    config = load_config(
        sources,
        options.preset,
        options.config,
        seed=options.seed,
        splits=options.splits,
        segmenter=options.segmenter,
        teacher=options.teacher,
        teacher_options=_teacher_options(options),
        on_fault=options.on_fault,
        audit=options.audit,
        allow_groups=options.allow_group,
    )
    with tqdm(unit="image", desc="synthesizing", file=sys.stderr, disable=None, smoothing=0.05) as bar:

        def show(done: int, total: int) -> None:
            """Move the bar to `done` of `total` images."""
            if bar.total is None:
                # What was there already counts for the bar, not for the rate.
                bar.total, bar.initial, bar.n = total, done, done
                bar.refresh()
            bar.update(done - bar.n)

        result = synthesize(
            config,
            options.out,
            executor=options.executor,
            num_workers=options.processes,
            ray_address=options.ray_address,
            device=options.device,
            decisions=options.decisions,
            on_progress=show,
        )
    facts = result.report.facts()
    if options.json:
        print(json.dumps({**facts, "samples_made": result.num_made, "seconds": round(result.seconds, 2)}), flush=True)
    _report(facts, result, options.out)
    return 0


def _teacher_options(options: argparse.Namespace) -> dict[str, Any]:
    names = ("base_url", "api_key_env", "max_cost", "price_prompt", "price_completion")
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def _report(facts: dict[str, Any], result: Result, out: str) -> None:
    made, seconds = result.num_made, result.seconds
    rate = f", {made / seconds:.2f} images a second" if made and seconds > 0 else " (nothing was left to do)"
    drops, faults = facts["drops"], facts["faults"]
    lines = [
        f"{facts['num_trajectories']} trajectories from {facts['num_images']} images{rate}",
        f"not kept: {sum(drops.values())}" + "".join(f"; {n} {name}" for name, n in list(drops.items())[:4]),
    ]
    if faults:
        lines.append(f"faults: {', '.join(f'{n} {code}' for code, n in faults.items())} (see {out}/faults.jsonl)")
    if facts["reasoning"]["rejection_rate"] is not None:
        share = facts["reasoning"]["rejection_rate"]
        lines.append(f"thoughts: {facts['reasoning']['written']} written, {share:.1%} rejected by the verifier")
    if result.spent is not None:
        lines.append("the teacher has used " + ", ".join(f"{v:g} {k}" for k, v in result.spent.items()))
    lines.append(f"written to {out}; README.md is the data card, 'ibisagent data show {out}' shows the trajectories")
    print("\n".join(lines), file=sys.stderr, flush=True)
