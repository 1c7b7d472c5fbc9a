"""``ibisagent segment``: one image or volume, one sentence, one mask."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibisagent.cli.outputs import check_out, fill_folder
from ibisagent.cli.players import policy_options, rollout_config
from ibisagent.cli.volume_options import refuse_volume_options
from ibisagent.errors import InputError

if TYPE_CHECKING:
    from ibisagent.io.volume import Volume

__all__ = ["EXIT_CODES", "owned", "report", "run"]

EXIT_CODES = {"done": 0, "uncertain": 0, "absent": 3, "out_of_steps": 4, "error": 5, "stopped": 130}
"""Exit code of every outcome."""


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code.

    Raises
    ------
    InputError
        If something given cannot be used; nothing has been written then.
    """
    out = Path(options.out) if options.out else _default_out(options.image)
    check_out(out)
    if options.target is not None and options.policy != "oracle":
        raise InputError("--target serves --policy oracle alone")
    _spare_inputs(options, out)
    volume = _volume(options)
    if volume is not None and options.slice is None and volume.grid.num_slices((options.planes or ("axial",))[0]) > 1:
        from ibisagent.cli.segment_volume import run as run_volume

        return run_volume(options, volume, out)
    return _run(options, volume, out)


def _volume(options: argparse.Namespace) -> Volume | None:
    """The volume to work on; None for a picture, a part of a slide, or what has no place in a volume."""
    if options.region is not None or options.mpp is not None:
        for flag in ("slice", "series"):
            if getattr(options, flag) is not None:
                raise InputError(f"--{flag} is for volumes and --region for slides; leave one of them out")
        return None
    from ibisagent.io.studies import open_volume

    return open_volume(options.image, series=options.series, modality=options.modality)


def _run(options: argparse.Namespace, volume: Volume | None, out: Path) -> int:
    """One picture, or one slice of a volume; returns and raises as :func:`run`."""
    refuse_volume_options(options, "one slice" if volume is not None else "a 2-D image")
    config = rollout_config(options)
    more = policy_options(options)

    from tqdm import tqdm

    from ibisagent.api import segment
    from ibisagent.batch.results import segment_label, write_image_results
    from ibisagent.batch.slices import read_slice, read_slice_mask
    from ibisagent.io.writers import chosen_formats
    from ibisagent.registry import wanted_windows
    from ibisagent.scoring import score_episode

    formats = chosen_formats(options.format, volume)
    image = read_slice(
        options.image,
        volume,
        options.slice,
        options.window,
        options.modality,
        options.instruction,
        preferred_window=wanted_windows(options.policy),
        region=options.region,
        mpp=options.mpp,
    )
    target = None if options.target is None else read_slice_mask(options.target, image, volume)
    # Loading the models is the first wait; the bar starts with the first reply.
    with tqdm(total=config.max_steps, unit="step", desc="loading", file=sys.stderr, disable=None, leave=False) as bar:

        def on_step(_: int, episode: object) -> None:
            """Count a step on the bar."""
            bar.set_description("segmenting")
            bar.update(episode.num_steps - bar.n)  # type: ignore[attr-defined]

        result = segment(
            image,
            options.instruction,
            mask=None if options.mask is None else read_slice_mask(options.mask, image, volume),
            policy=options.policy,
            segmenter=options.segmenter,
            device=options.device,
            target=target,
            config=config,
            on_step=on_step,
            **more,
        )
    episode = result.episode
    label = segment_label(options.instruction, options.label, episode.policy.name, episode.segmenter.name)
    scores = None if target is None else score_episode(result.episode, target)
    with fill_folder(out, owned(out, options.mask)) as scratch:
        files = write_image_results(
            episode, image, result.mask, scratch, formats, label, volume=volume, scores=scores
        )  # fmt: skip
    found = {kind: str(out / name) for kind, name in files.items()}
    steps = f"{episode.num_steps} step{'' if episode.num_steps == 1 else 's'}, {episode.seconds_total:.1f} s"
    outcome = str(result.outcome)
    notes = volume.notes if volume is not None else ()
    report(options, outcome, steps, result.answer, episode.error, found, {"num_steps": episode.num_steps}, notes)
    return EXIT_CODES[outcome]


def _default_out(image: str) -> Path:
    name = Path(os.path.abspath(image)).name if os.path.isdir(image) else Path(image).name
    for ending in (".nii.gz", Path(name).suffix):
        if ending and name.lower().endswith(ending.lower()) and not os.path.isdir(image):
            name = name[: -len(ending)]
            break
    return Path(f"{name or 'image'}_ibisagent")


def owned(out: Path, given: str | None) -> Sequence[str]:
    """Old results that go, but never the user's own mask where the run gives none in its place."""
    from ibisagent.batch.results import OWNED

    return [name for name in OWNED if given is None or not _is_same(given, out / name)]


def _spare_inputs(options: argparse.Namespace, out: Path) -> None:
    """Refuse to write over the image or the reference mask; a mask to refine may give way to the refined one."""
    from ibisagent.batch.results import OWNED

    for name in (options.image, options.target):
        if name is not None and any(_is_same(name, out / owned) for owned in OWNED):
            raise InputError(f"--out {out}: {name} would be overwritten; choose another folder")
    if _is_same(options.image, out):
        raise InputError(f"--out {out}: this is the study's own folder; choose another")


def _is_same(name: str, output: Path) -> bool:
    try:
        return output.exists() and output.samefile(name)
    except (OSError, ValueError):  # it cannot be opened: its reader says so
        return False


def report(
    options: argparse.Namespace,
    outcome: str,
    effort: str,
    answer: str,
    error: str | None,
    files: dict[str, str],
    more: dict[str, Any],
    notes: Sequence[str],
) -> None:
    """Say in a few lines what came out, and as JSON where it is wanted.

    What was decided about the study (`notes`) comes with it and not before: a study that turns out to be damaged when
    its voxels are read is one line alone.
    """
    lines = [f"ibisagent: note: {note}" for note in notes]
    lines += [f"{outcome.replace('_', ' ')} ({effort})"]
    if answer:
        lines.append(f"answer: {answer}")
    if error:
        lines.append(f"ibisagent: error: {' '.join(error.split())}")
    lines += [f"{kind}: {path}" for kind, path in files.items()]
    print("\n".join(lines), file=sys.stderr, flush=True)
    if options.json:
        found = {"outcome": outcome, "answer": answer, **more, "files": files, **({"error": error} if error else {})}
        print(json.dumps(found), flush=True)
