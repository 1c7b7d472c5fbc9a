"""Nano's scenes and trajectories, and the corpora that hold them.

A trajectory is the data engine's: a walk (:mod:`ibisagent.engine.walk`) and the episode that was recorded of it. On
disk it is a row of the table ``sft`` (:mod:`ibisagent.engine.corpus.schema`), so that ``ibisagent data`` shows it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ibisagent.actions import Click, ClickAction
from ibisagent.engine.corpus.reader import Corpus
from ibisagent.engine.corpus.writer import shard_path, write_table
from ibisagent.engine.language.instructions import Instruction
from ibisagent.engine.moments import Intent
from ibisagent.engine.rows import image_row, sft_row
from ibisagent.engine.sources.sample import LabelledImage, Sample
from ibisagent.engine.walk import Move, Subject, Walk
from ibisagent.types import Case

if TYPE_CHECKING:
    from ibisagent.episode import Episode

__all__ = [
    "GRID",
    "SYSTEM_PROMPT",
    "Mask",
    "Scene",
    "Trajectory",
    "cell_click",
    "read_shards",
    "shard_file",
    "write_shard",
]

GRID = 64
"""Cells a side that experts click on; nano's vocabulary has exactly these."""

SYSTEM_PROMPT = "Segment the target by clicks. Look, think, act, and stop when the mask fits."
"""Short on purpose: every token of it is read at every step."""

Mask = NDArray[np.bool_]


def cell_click(cell: int, positive: bool) -> ClickAction:
    """A click on the centre of a cell; cells count row by row, ``GRID`` a side."""
    x, y = (cell % GRID + 0.5) / GRID, (cell // GRID + 0.5) / GRID
    return ClickAction(clicks=(Click(x=round(x, 4), y=round(y, 4), positive=positive),))


@dataclass(frozen=True, eq=False)
class Scene(Subject):
    """What one trajectory is made from; all images are squares of one size.

    Parameters
    ----------
    home
        Where the image comes from, for example ``"lung1"`` or ``"phantom chest_ct"``.
    """

    home: str = ""

    @property
    def kind_of_case(self) -> str:
        """Key for balancing, for example ``"lung1/left lung"`` or ``"absent/chest_ct"``."""
        return f"absent/{self.home.split()[-1]}" if self.target is None else f"{self.home}/{self.name}"


@dataclass(eq=False)
class Trajectory:
    """A walk on a scene and the record of it.

    Parameters
    ----------
    scene
        What it is about; its ``others`` are not kept on disk.
    walk
        Every move with the mask after it, and whether it is learnt.
    episode
        As the environment wrote it.
    scenario
        How it came about: one of the data engine's scenarios, ``"correction"`` or ``"question"``.
    """

    scene: Scene
    walk: Walk
    episode: Episode
    scenario: str

    @property
    def kind_of_case(self) -> str:
        """That of the scene; corrections are kinds of their own."""
        return f"corrected {self.scene.kind_of_case}" if self.scenario == "correction" else self.scene.kind_of_case

    @property
    def learn(self) -> list[bool]:
        """Whether each move is learnt: not where it was wrong, on purpose or by a policy."""
        return [move.learn for move in self.walk.moves]

    @property
    def clicks(self) -> list[tuple[float, float, bool] | None]:
        """(x, y, positive) of each move in pixels, at the centre of its cell; None where it is no click."""
        image = self.scene.image
        return [
            (_middle(click.x, image.width), _middle(click.y, image.height), click.positive) if click else None
            for click in (m.action.clicks[0] if isinstance(m.action, ClickAction) else None for m in self.walk.moves)
        ]


def _middle(at: float, size: int) -> float:
    # The pixel whose depth chose the cell; that of the action's four decimals may be its neighbour.
    return float(int((min(GRID - 1, int(at * GRID)) + 0.5) * size / GRID))


def shard_file(folder: Path, index: int, table: str = "sft") -> Path:
    """Where a shard lies. The total in its name says nothing: a run may be asked for more trajectories later."""
    return shard_path(folder, table, "train", index, 99_999)


def write_shard(folder: Path, index: int, items: Sequence[Trajectory]) -> None:
    """Write trajectories as one shard of the tables ``images`` and ``sft``; the latter comes last, and is all or none.

    Raises
    ------
    InputError
        If the files cannot be written.
    """
    images: dict[str, dict[str, Any]] = {}
    rows = []
    for number, t in enumerate(items):
        scene, episode = t.scene, t.episode
        labelled = LabelledImage(scene.image, {} if scene.target is None else {scene.name: scene.target})
        sample = Sample(
            f"{index:05d}-{number:02d}", "nano", lambda labelled=labelled: labelled, tuple(labelled.masks),
            group=scene.home, split="train",
        )  # fmt: skip
        images.setdefault(scene.image.sha256, image_row(sample, "train", scene.image))
        provenance = {
            "ibisagent_version": episode.ibisagent_version,
            "segmenter": episode.segmenter.name,
            "segmenter_sha256": episode.segmenter.weights_sha256,
            "teacher": "terse",
            "config_sha256": None,
            "seed": None,
        }
        case = Case(scene.image, episode.instruction, t.walk.initial_mask, target=scene.name)
        rows.append(
            sft_row(
                sample, "train", scene, t.scenario, Instruction(episode.instruction, "core"), case, t.walk, episode,
                SYSTEM_PROMPT, "nano", provenance,
            )
        )  # fmt: skip
    write_table(shard_file(folder, index, "images"), "images", list(images.values()))
    write_table(shard_file(folder, index), "sft", rows)


def read_shards(folder: Path, most: int) -> list[Trajectory]:
    """Read what :func:`write_shard` wrote, the first shards of a folder; none if there is no such folder.

    Raises
    ------
    InputError
        If a shard is damaged.
    """
    if not folder.is_dir():
        return []
    corpus = Corpus(folder)
    paths = corpus.shards("sft")[:most]
    return [_trajectory(corpus, row) for path in paths for row in corpus.shard_rows(path, "sft")]


def _trajectory(corpus: Corpus, row: dict[str, Any]) -> Trajectory:
    episode, target = corpus.episode(row), corpus.target(row)
    moves = []
    for step, facts in zip(episode.steps, row["steps"], strict=True):
        assert step.action is not None  # no unreadable reply is in a trajectory
        moves.append(Move(step.action, Intent(facts["intent"]), facts["learn"]))
    case = corpus.case(row)
    masks = [corpus.mask(row, facts["mask"]) for facts in row["steps"]]
    ious = [] if target is None else [facts["iou"] for facts in row["steps"]]
    scene = Scene(case.image, row["target"], target, home=row["group"])
    return Trajectory(scene, Walk(case.initial_mask, moves, masks, ious), episode, row["scenario"])
