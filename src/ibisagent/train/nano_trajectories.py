"""Scenes, recorded trajectories, and the files that hold them.

A trajectory is an :class:`~ibisagent.episode.Episode` that the same parser, messages and overlay produced as at
inference (faults 8, 9 of the public code), with what training needs beside it. :mod:`ibisagent.train.nano_expert`
makes them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ibisagent.actions import Click, ClickAction
from ibisagent.episode import Episode, decode_mask, encode_mask
from ibisagent.errors import InputError
from ibisagent.rle import Rle

__all__ = ["GRID", "Mask", "Scene", "Trajectory", "cell_click", "read_shard", "write_shard"]

GRID = 64
"""Cells a side that experts click on; nano's vocabulary has exactly these."""

Mask = NDArray[np.bool_]


def cell_click(cell: int, positive: bool) -> ClickAction:
    """A click on the centre of a cell; cells count row by row, ``GRID`` a side."""
    x, y = (cell % GRID + 0.5) / GRID, (cell // GRID + 0.5) / GRID
    return ClickAction(clicks=(Click(x=round(x, 4), y=round(y, 4), positive=positive),))


@dataclass(frozen=True, eq=False)
class Scene:
    """An image with a named target (or its absence), from which one trajectory is made.

    Parameters
    ----------
    pixels
        ``uint8`` (S, S, 3).
    target
        ``bool`` (S, S), or None where the named structure is not in the image.
    others
        Masks of other structures in the image, for mismatched given masks.
    kind_of_case
        Key for balancing, for example ``"lung1/left lung"`` or ``"absent/chest_ct"``.
    turn
        Largest later rotation, in degrees, that keeps the target's name true.
    """

    pixels: NDArray[np.uint8]
    target: Mask | None
    target_name: str
    modality: str
    kind_of_case: str
    others: tuple[Mask, ...] = ()
    turn: float = 6.0


@dataclass(eq=False)
class Trajectory:
    """A recorded episode with what training needs beside it; lists have one entry a step.

    Parameters
    ----------
    pixels
        ``uint8`` (S, S, 3) without any overlay.
    episode
        The record, as the environment wrote it up to the last mask that is kept.
    masks
        ``bool`` (S, S) mask after each step, None while there is none.
    clicks
        (x, y, positive) in pixels of ``pixels``, None for other actions.
    learn
        False where the action was wrong: on purpose, or a policy's own.
    target, initial_mask
        ``bool`` (S, S), or None.
    target_name, modality, kind_of_case, turn
        From the :class:`Scene`.
    ious
        IoU with the target after each step; empty where there is none.
    """

    pixels: NDArray[np.uint8]
    episode: Episode
    masks: list[Mask | None]
    clicks: list[tuple[float, float, bool] | None]
    learn: list[bool]
    target: Mask | None
    initial_mask: Mask | None
    target_name: str
    modality: str
    kind_of_case: str
    turn: float = 6.0
    ious: list[float] = field(default_factory=list)


def _rle(mask: Mask | None) -> dict[str, Any] | None:
    return None if mask is None else encode_mask(mask).model_dump()


def _mask(data: dict[str, Any] | None) -> Mask | None:
    return None if data is None else decode_mask(Rle.model_validate(data))


def write_shard(path: Path, items: Sequence[Trajectory]) -> None:
    """Write trajectories as JSON lines (image as PNG, masks as COCO RLE), atomically."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        for t in items:
            ok, png = cv2.imencode(".png", t.pixels[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
            if not ok:
                raise OSError(f"cannot encode an image for {path}")
            row = {
                "episode": t.episode.model_dump(mode="json"),
                "image_png": base64.b64encode(png.tobytes()).decode(),
                "clicks": t.clicks,
                "learn": t.learn,
                "target": _rle(t.target),
                "target_name": t.target_name,
                "modality": t.modality,
                "kind_of_case": t.kind_of_case,
                "turn": t.turn,
                "ious": t.ious,
            }
            file.write(json.dumps(row) + "\n")
    temporary.replace(path)


def read_shard(path: Path) -> list[Trajectory]:
    """Read what :func:`write_shard` wrote.

    Raises
    ------
    InputError
        If an image in it cannot be decoded.
    """
    items = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        bgr: Any = cv2.imdecode(np.frombuffer(base64.b64decode(row["image_png"]), np.uint8), cv2.IMREAD_COLOR)
        if bgr is None:
            raise InputError(f"{path} holds an image that cannot be decoded")
        episode = Episode.model_validate(row["episode"])
        items.append(
            Trajectory(
                np.ascontiguousarray(bgr[..., ::-1]),
                episode,
                [None if s.mask is None else decode_mask(s.mask) for s in episode.steps],
                [None if c is None else (float(c[0]), float(c[1]), bool(c[2])) for c in row["clicks"]],
                row["learn"],
                _mask(row["target"]),
                None if episode.initial_mask is None else decode_mask(episode.initial_mask),
                row["target_name"],
                row["modality"],
                row["kind_of_case"],
                row["turn"],
                row["ious"],
            )
        )
    return items
