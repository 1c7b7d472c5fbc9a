"""``ibisagent batch``: many studies, one load of the models a worker, a manifest of what came of each."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibisagent.cli.outputs import check_out, hold_folder
from ibisagent.cli.players import policy_options, rollout_config
from ibisagent.cli.volume_options import volume_config
from ibisagent.errors import InputError

if TYPE_CHECKING:
    from ibisagent.batch.manifest import Manifest
    from ibisagent.batch.study import Study
    from ibisagent.batch.workers import Crew

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Run the command: 0 if every study ended with a mask or an absent target, else 5.

    Raises
    ------
    InputError
        If the studies or an option cannot be used, or the folder holds a batch with other settings; nothing has been
        written then.
    """
    out = Path(options.out)
    check_out(out)
    config = volume_config(options, rollout_config(options))
    more = policy_options(options)

    from ibisagent.batch.job import Job
    from ibisagent.batch.manifest import BROKEN, Manifest
    from ibisagent.batch.study import open_studies
    from ibisagent.batch.workers import crew
    from ibisagent.evaluate.player import default_threads

    _check_formats(options.format)
    studies = open_studies(
        options.studies, options.instruction, include=options.include or (), exclude=options.exclude or (), out=out
    )
    num_workers = options.processes or 1
    job = Job(
        str(out.absolute()),
        options.policy,
        options.segmenter,
        options.device,
        config,
        formats=options.format,
        window=options.window,
        modality=options.modality,
        options=more,
        threads=options.threads or default_threads(options.policy, num_workers),
    )
    with crew(job, options.executor, num_workers, options.ray_address) as workers:
        settings = {
            **workers.facts,
            "config": config.model_dump(mode="json"),
            "formats": options.format,
            "window": options.window,
            "modality": options.modality,
        }
        with hold_folder(out), Manifest.open(out, settings) as manifest:
            _work(manifest, workers, studies, retry=options.retry)
            rows = manifest.finish(studies)
    here = {study.id for study in studies}
    counts: dict[str, int] = {}
    for row in rows:
        if row["id"] in here:
            counts[row["outcome"]] = counts.get(row["outcome"], 0) + 1
    words = ", ".join(f"{number} {outcome.replace('_', ' ')}" for outcome, number in sorted(counts.items()))
    broken = sum(counts.get(outcome, 0) for outcome in BROKEN)
    again = "; --retry tries those again that failed" if broken else ""
    _say(f"{words}\nmanifest: {out / 'manifest.csv'}{again}")
    if options.json:
        print(
            json.dumps({"studies": len(studies), "outcomes": counts, "manifest": str(out / "manifest.jsonl")}),
            flush=True,
        )
    return 5 if broken else 0


def _work(manifest: Manifest, workers: Crew, studies: list[Study], *, retry: bool) -> None:
    from tqdm import tqdm

    left, total = manifest.left(studies, retry=retry), len(studies)
    if len(left) < total:
        _say(f"going on with {manifest.path}: {total - len(left)} of {total} studies have ended")
    with tqdm(
        total=total,
        initial=total - len(left),
        unit="study",
        desc="segmenting",
        file=sys.stderr,
        disable=None,
        smoothing=0.05,
    ) as bar:
        try:
            for study, row in workers.work(left):
                whole: dict[str, Any] = manifest.add(study, row)
                bar.update()
                if whole.get("error"):
                    bar.write(f"ibisagent: {study.id}: {whole['error']}", file=sys.stderr)
        except BaseException:
            bar.write(
                f"ibisagent: {len(manifest.rows)} studies are kept in {manifest.path}; the same command goes on",
                file=sys.stderr,
            )
            raise


def _check_formats(option: str | None) -> None:
    """Names that no source could take are refused before any work; what a source cannot take is said in its row."""
    from ibisagent.io.writers import FORMATS

    for name in (option or "").split(","):
        if name.strip() and name.strip().lower() not in FORMATS:
            raise InputError(f"format '{name.strip()}' is not known; use {', '.join(FORMATS)}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
