"""Two small runs of one list, side by side: pictures, a gain, a loss, a tie, a refusal, a row that one lacks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ibisagent.episode import Episode
from ibisagent.evaluate.pairing import Side
from ibisagent.evaluate.records import Run, read_run, scored
from ibisagent.evaluate.result import CaseResult
from ibisagent.evaluate.store import RunFolder
from ibisagent.rle import encode_mask
from ibisagent.types import Image
from sample_episodes import HOSTILE, absent_episode, chest_image, click_episode, mini_image, mini_mask, shifted

__all__ = ["memory_run", "memory_side", "write_pair"]


def _ended(episode: Episode, mask: np.ndarray) -> Episode:
    """The same run with another final mask."""
    return episode.model_copy(update={"final_mask": encode_mask(mask)})


def write_pair(folder: Path, *, images: bool = True) -> tuple[Path, Path]:
    """Folders of runs A and B. B is better on the lung, worse on the nucleus, lacks one case and has another."""
    chest, lung = chest_image(), mini_mask("lung1_axial_024__left-lung")
    nuclei, nucleus = mini_image("dsb2018_000_000"), mini_mask("dsb2018_000_000__uppermost-nucleus")
    asked = click_episode(chest, lung, "Segment the left lung.", "left lung")
    small = click_episode(nuclei, nucleus, HOSTILE, HOSTILE)
    cases: list[tuple[str, str, Image, np.ndarray | None, tuple[Episode | None, Episode | None]]] = [
        ("lung", "left lung", chest, lung, (_ended(asked, shifted(lung, 60)), _ended(asked, shifted(lung, 4)))),
        ("nucleus", HOSTILE, nuclei, nucleus, (_ended(small, nucleus), _ended(small, shifted(nucleus, 5)))),
        ("tie", "left lung", chest, lung, (asked, asked)),
        ("absent", "left kidney", chest, None, (asked, absent_episode(chest))),
        ("only-a", "left lung", chest, lung, (asked, None)),
        ("only-b", "left lung", chest, lung, (None, asked)),
    ]
    paths = []
    for number, name in enumerate(("before", "after")):
        facts = {"max_steps": 8, "cases_sha256": "1", "num_rows": sum(c[4][number] is not None for c in cases)}
        with RunFolder.open(folder / name, facts, environment={}, keep_images=images) as run:
            for position, (key, target, image, mask, played) in enumerate(cases):
                episode = played[number]
                if episode is None:
                    continue
                result = CaseResult(
                    key,
                    "sample",
                    target,
                    absent=mask is None,
                    instruction=episode.instruction,
                    episode=episode,
                    patient="sample",
                    image=f"{key}.png",
                    target_mask=None if mask is None else encode_mask(mask),
                )
                run.append(position, scored(result), image.pixels)
            run.finish({})
        paths.append(folder / name)
    return paths[0], paths[1]


def memory_run(results: list[CaseResult], name: str = "run", **facts: object) -> Run:
    """A run that no folder holds."""
    return Run(Path(name), {"max_steps": 8, "num_rows": len(results), **facts}, results)


def memory_side(name: str, *runs: list[CaseResult], **facts: object) -> Side:
    """A side of one run, or of several seeds."""
    return Side(name, tuple(memory_run(run, f"{name}{i}", **facts) for i, run in enumerate(runs)))


def pair_sides(folder: Path) -> tuple[Side, Side]:
    """The two runs of :func:`write_pair`, read back."""
    return tuple(Side(path.name, (read_run(path),)) for path in write_pair(folder))  # type: ignore[return-value]
