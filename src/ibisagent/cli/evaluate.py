"""``ibisagent evaluate``: a case list, played and scored; or visual questions, asked (:mod:`.questions`)."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibisagent import __version__
from ibisagent.cli import questions
from ibisagent.cli.outputs import check_out, fill_folder
from ibisagent.cli.players import policy_options, rollout_config
from ibisagent.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ibisagent.evaluate.result import CaseResult
    from ibisagent.evaluate.run import Targets
    from ibisagent.io import CaseRow, RowError

__all__ = ["run"]

_OWNED = ("summary.json", "cases.csv", "run.json", "episodes")


def run(options: argparse.Namespace) -> int:
    """Run the command: 0 if every case ended without error or every question was answered, else 5.

    Raises
    ------
    InputError
        If the list or an option cannot be used; nothing has been written then.
    """
    out = Path(options.out)
    check_out(out)
    if questions.are_questions(options.cases):
        return questions.run(options, out)
    config = rollout_config(options)
    more = policy_options(options)

    from tqdm import tqdm

    from ibisagent.api import resolve_policy
    from ibisagent.evaluate import evaluate, summarise
    from ibisagent.hashing import file_hash
    from ibisagent.io import read_cases
    from ibisagent.registry import make_segmenter

    path = Path(options.cases)
    rows = _of_split(read_cases(path), options.split, path)[: options.limit]
    targets: Targets | None = {} if options.policy == "oracle" else None
    policy = resolve_policy(options.policy, device=options.device, targets=targets, **more)
    segmenter = make_segmenter(options.segmenter, options.device)
    facts = {
        "ibisagent_version": __version__,
        "cases": path.name,
        "cases_sha256": file_hash(path),
        "split": options.split,
        "limit": options.limit,
        "policy": policy.name,
        "policy_weights_sha256": policy.weights_sha256,
        "dialect": policy.dialect.name,
        "segmenter": segmenter.name,
        "segmenter_weights_sha256": segmenter.weights_sha256,
        "device": options.device,
        "max_steps": config.max_steps,
        "max_seconds": config.max_seconds,
        "seed": config.seed,
        "instructions": f"the row's own, else drawn by seed from the {options.library} templates kept out of training",
    }
    started = time.perf_counter()
    with tqdm(total=len(rows), unit="case", desc="evaluating", file=sys.stderr, disable=None) as bar:

        def on_case(result: CaseResult) -> None:
            bar.update()
            if result.error:
                bar.write(f"ibisagent: {result.case_id or 'a row'}: {result.error}", file=sys.stderr)

        results = evaluate(
            rows,
            path.parent,
            policy,
            segmenter,
            config,
            targets=targets,
            on_case=on_case,
            max_live=options.batch,
            library=options.library,
        )
    summary = summarise(results, max_steps=config.max_steps, seconds=time.perf_counter() - started)
    _write(out, summary, results, facts, episodes=options.episodes)
    _report(summary, out)
    if options.json:
        print(json.dumps(summary), flush=True)
    return 5 if summary["num_errors"] else 0


def _of_split(rows: list[CaseRow | RowError], split: str | None, path: Path) -> list[CaseRow | RowError]:
    """The rows of a split, and those too damaged to say which split they are of: they must not go unseen."""
    from ibisagent.io import RowError

    if split is None:
        return rows
    found = {row.split for row in rows}
    if split not in found:
        names = ", ".join(sorted(name for name in found if name is not None))
        raise InputError(f"{path}: no row of the split '{split}'; there is {names or 'no split at all'}")

    return [row for row in rows if row.split == split or (row.split is None and isinstance(row, RowError))]


def _write(
    out: Path, summary: dict[str, Any], results: Sequence[CaseResult], facts: dict[str, Any], *, episodes: bool
) -> None:
    from ibisagent.evaluate.summary import cases_csv

    # A folder "episodes" is ours to remove only where an earlier evaluation stands beside it.
    owned = _OWNED if (out / "run.json").is_file() else ()
    with fill_folder(out, owned) as scratch:
        for name, content in (("summary.json", summary), ("run.json", facts)):
            (scratch / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        (scratch / "cases.csv").write_text(cases_csv(results), encoding="utf-8", newline="")
        if episodes:
            (scratch / "episodes").mkdir()
            for number, result in enumerate(results):
                if result.episode is not None:
                    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in result.case_id or "")[:100]
                    result.episode.save(scratch / "episodes" / f"{number:05d}_{safe}.json")


def _report(summary: dict[str, Any], out: Path) -> None:
    def show(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    interval = summary["ci95_iou"]
    spread = "" if interval is None else f" [{interval[0]:.3f}, {interval[1]:.3f}]"
    lines = [
        f"{summary['num_cases']} cases, {summary['num_errors']} errors, {show(summary['seconds_per_case'])} s a case",
        f"mean IoU {show(summary['mean_iou'])}{spread}, Dice {show(summary['mean_dice'])}, "
        f"mean over targets {show(summary['target_mean_iou'])}",
        f"action validity {show(summary['action_validity'])}, steps {show(summary['mean_steps'])}, "
        f"refinements that helped {show(summary['refinement_success'])}",
        f"right refusals {show(summary['right_refusals'])}, false refusals {show(summary['false_refusals'])}",
        f"written to {out}",
    ]
    print("\n".join(lines), file=sys.stderr, flush=True)
