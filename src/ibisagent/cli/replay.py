"""``ibisagent replay``: does a recorded episode come out the same?"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ibisagent.errors import InputError

if TYPE_CHECKING:
    from ibisagent.episode import Episode
    from ibisagent.types import Image

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Run the command: 0 if every mask came out the same, else 1.

    Raises
    ------
    InputError
        If the episode, the image or the segmenter cannot be used.
    ToolError
        If the segmenter fails where it did not fail before.
    """
    from ibisagent.episode import Episode
    from ibisagent.registry import make_segmenter
    from ibisagent.replay import replay

    path = Path(options.episode)
    episode = Episode.load(path)
    image = _image(episode, path, options.image)
    spec = options.segmenter or episode.segmenter.name
    if not spec:
        raise InputError(f"{path} does not say which segmenter made its masks: give --segmenter")
    print(f"replaying {len(episode.steps)} steps with {spec} ...", file=sys.stderr, flush=True)
    report = replay(episode, image, make_segmenter(spec, options.device))
    if options.json:
        print(json.dumps({"matches": report.matches, **asdict(report)}), flush=True)
    else:
        # The report is what the command is for, so it is its output.
        print(f"{'the same' if report.matches else 'DIFFERENT'}: {report.detail}", flush=True)
    return 0 if report.matches else 1


def _image(episode: Episode, path: Path, given: str | None) -> Image:
    """The image inside the record, or its file, read the way it was read then."""
    from ibisagent.replay import recorded_image

    inside = recorded_image(episode) if given is None else None
    if inside is not None:
        return inside
    place = Path(given) if given else _find(episode, path)
    record = episode.image
    geometry = record.geometry or {}
    plane, index = geometry.get("plane"), geometry.get("slice_index")
    slice_spec = f"{plane}:{index}" if plane is not None and geometry.get("volume_shape") is not None else None
    windows: list[str | None] = [None]
    if record.window is not None:
        windows.append(record.window.option())

    from ibisagent.io import read_image

    image: Image | None = None
    problem: InputError | None = None
    # The rule that chose the window may have been the default or the user's; the hash tells which it was.
    for window in windows:
        try:
            image = read_image(place, slice_spec=slice_spec, window=window, modality=record.modality)
        except InputError as error:
            problem = problem or error
            continue
        if image.sha256 == record.sha256:
            return image
    if image is None:
        raise problem or InputError(f"{place} cannot be read")
    return image


def _find(episode: Episode, path: Path) -> Path:
    name = episode.image.source
    for folder in (path.parent, path.parent.parent, Path()):
        if name and (folder / name).is_file():
            return folder / name
    what = f"the image {name!r} is not beside the episode" if name else "the episode's image was no file"
    raise InputError(f"{what}: give --image IMAGE")
