"""``ibisagent segment`` on a whole volume."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ibisagent.cli.outputs import fill_folder, hold_folder
from ibisagent.cli.players import policy_options, rollout_config
from ibisagent.cli.volume_options import volume_config
from ibisagent.errors import InputError

if TYPE_CHECKING:
    from ibisagent.io.volume import Volume
    from ibisagent.volume.record import VolumeEpisode

__all__ = ["run"]


def run(options: argparse.Namespace, volume: Volume, out: Path) -> int:
    """Run the command on `volume` and return its exit code.

    Raises
    ------
    InputError
        If something given cannot be used; nothing has been written then.
    """
    config = volume_config(options, rollout_config(options))
    more = policy_options(options)

    from tqdm import tqdm

    from ibisagent.api import segment_volume
    from ibisagent.batch.results import JOURNAL, segment_label, write_volume_results
    from ibisagent.cli.segment import EXIT_CODES, owned, report
    from ibisagent.io.writers import chosen_formats

    formats = chosen_formats(options.format, volume)
    with (
        hold_folder(out),
        tqdm(unit=" slices", desc="loading", file=sys.stderr, disable=None, leave=False) as bar,
        _kept(out / JOURNAL),
    ):

        def on_visit(record: VolumeEpisode) -> None:
            """Count a visit on the bar."""
            last = record.visits[-1] if record.visits else None
            bar.set_description("segmenting" if last is None else f"{last.plane} {last.index}: {last.kind}")
            bar.update(len(record.visits) - bar.n)

        result = segment_volume(
            volume,
            options.instruction,
            mask=options.mask,
            policy=options.policy,
            segmenter=options.segmenter,
            device=options.device,
            target=options.target,
            window=options.window,
            config=config,
            journal=out / JOURNAL,
            on_visit=on_visit,
            **more,
        )
        bar.set_description("writing")
        record = result.record
        label = segment_label(options.instruction, options.label, record.policy.name, record.segmenter.name)
        # a server that was away may be back, and a budget be raised: what was done is kept
        with fill_folder(out, [*owned(out, options.mask), *([] if record.is_unfinished else [JOURNAL])]) as scratch:
            files = write_volume_results(result, scratch, formats, label)
    clicked, visits = len(record.clicked_slices), len(record.visits)
    effort = f"{visits} visit{'' if visits == 1 else 's'}, {clicked} clicked, {record.seconds_total:.1f} s"
    found = {kind: str(out / name) for kind, name in files.items()}
    outcome = str(result.outcome)
    if record.is_unfinished:
        _say_kept(out / JOURNAL)
    more_facts = {"visits": visits, "clicked_slices": clicked}
    report(options, outcome, effort, result.answer, record.error, found, more_facts, volume.notes)
    return EXIT_CODES[outcome]


@contextlib.contextmanager
def _kept(journal: Path) -> Iterator[None]:
    """Say where to go on, if the run is broken off."""
    try:
        yield
    except InputError:
        raise
    except BaseException:
        _say_kept(journal)
        raise


def _say_kept(journal: Path) -> None:
    with contextlib.suppress(OSError):
        if journal.exists() and journal.stat().st_size:
            print(f"ibisagent: {journal} keeps what was done; the same command goes on", file=sys.stderr, flush=True)
