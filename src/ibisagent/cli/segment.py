"""``ibisagent segment``: one image, one sentence, one mask."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ibisagent.cli.outputs import check_out, fill_folder
from ibisagent.cli.players import policy_options, rollout_config
from ibisagent.errors import InputError

if TYPE_CHECKING:
    from ibisagent.api import Segmentation
    from ibisagent.scoring import Scores

__all__ = ["EXIT_CODES", "run"]

EXIT_CODES = {"done": 0, "uncertain": 0, "absent": 3, "out_of_steps": 4, "error": 5, "stopped": 130}
"""Exit code of every outcome."""

_OWNED = ("mask.png", "mask.nii.gz", "overlay.png", "episode.json", "episode.html")


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
    config = rollout_config(options)
    more = policy_options(options)

    from tqdm import tqdm

    from ibisagent.api import as_image, segment

    image = as_image(options.image, slice_spec=options.slice, window=options.window, modality=options.modality)
    # Loading the models is the first wait; the bar starts with the first reply.
    with tqdm(total=config.max_steps, unit="step", desc="loading", file=sys.stderr, disable=None, leave=False) as bar:

        def on_step(_: int, episode: object) -> None:
            bar.set_description("segmenting")
            bar.update(episode.num_steps - bar.n)  # type: ignore[attr-defined]

        result = segment(
            image,
            options.instruction,
            mask=options.mask,
            policy=options.policy,
            segmenter=options.segmenter,
            device=options.device,
            target=options.target,
            config=config,
            on_step=on_step,
            **more,
        )
    scores = _scores(result, options.target)
    files = _write(result, scores, out, options.mask)
    _report(result, files)
    if options.json:
        answer = {
            "outcome": str(result.outcome),
            "answer": result.answer,
            "num_steps": result.episode.num_steps,
            "files": files,
        }
        if result.episode.error:
            answer["error"] = result.episode.error
        print(json.dumps(answer), flush=True)
    return EXIT_CODES[str(result.outcome)]


def _default_out(image: str) -> Path:
    name = Path(image).name
    for ending in (".nii.gz", Path(name).suffix):
        if ending and name.lower().endswith(ending.lower()):
            name = name[: -len(ending)]
            break
    return Path(f"{name or 'image'}_ibisagent")


def _spare_inputs(options: argparse.Namespace, out: Path) -> None:
    """Refuse to write over the image or the reference mask; a mask to refine may give way to the refined one."""
    for name in (options.image, options.target):
        if name is not None and any(_is_same(name, out / owned) for owned in _OWNED):
            raise InputError(f"--out {out}: {name} would be overwritten; choose another folder")


def _is_same(name: str, output: Path) -> bool:
    try:
        return output.exists() and output.samefile(name)
    except (OSError, ValueError):  # it cannot be opened: its reader says so
        return False


def _scores(result: Segmentation, target: str | None) -> Scores | None:
    """Scores against the oracle's target, for the page; None for every other policy."""
    if target is None:
        return None
    from ibisagent.api import as_mask
    from ibisagent.scoring import score_episode

    return score_episode(result.episode, as_mask(target, result.image))


def _write(result: Segmentation, scores: Scores | None, out: Path, given: str | None) -> dict[str, str]:
    """Write all files and return their paths by kind."""
    from ibisagent.io import mask_filename, write_mask
    from ibisagent.rendering import episode_figure, save_png
    from ibisagent.replay import with_image
    from ibisagent.web.episode_page import write_episode_page

    files = {"episode": "episode.json", "html": "episode.html"}
    # Old results go, but never the user's own mask where the run gives none in its place.
    owned = [name for name in _OWNED if given is None or not _is_same(given, out / name)]
    with fill_folder(out, owned) as scratch:
        if result.mask is not None:
            files = {"mask": mask_filename(result.image), "overlay": "overlay.png", **files}
            write_mask(result.mask, result.image, scratch / files["mask"])
            save_png(episode_figure(result.episode, result.image), scratch / files["overlay"])
        with_image(result.episode, result.image).save(scratch / files["episode"])
        write_episode_page(result.episode, result.image, scratch / files["html"], scores)
    return {kind: str(out / name) for kind, name in files.items()}


def _report(result: Segmentation, files: dict[str, str]) -> None:
    """Say in a few lines what came out."""
    episode = result.episode
    steps = f"{episode.num_steps} step{'' if episode.num_steps == 1 else 's'}, {episode.seconds_total:.1f} s"
    lines = [f"{str(result.outcome).replace('_', ' ')} ({steps})"]
    if result.answer:
        lines.append(f"answer: {result.answer}")
    if episode.error:
        lines.append(f"ibisagent: error: {' '.join(episode.error.split())}")
    lines += [f"{kind}: {path}" for kind, path in files.items()]
    print("\n".join(lines), file=sys.stderr, flush=True)
