"""The first trajectory generator: a simulated expert works in the real environment and is recorded.

Faults of the public code that are mended here: the state after the last click is kept and stopping is
taught (fault 5), absent targets are refused (fault 7), and every trajectory is an
:class:`~ibisagent.episode.Episode` that the same parser, messages and overlay produced as at inference
(faults 8, 9). Wrong clicks with recovery, damaged and mismatched given masks are part of the diet
(paper, reflection data).
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

from ibisagent.actions import (
    DIALECTS,
    Action,
    Click,
    ClickAction,
    DiscardAction,
    TerminateAction,
    Turn,
    UndoAction,
    Verdict,
)
from ibisagent.config import RolloutConfig
from ibisagent.engine.reasoning import answer_text, thought_text, where_text
from ibisagent.environment import SegmentationEnv
from ibisagent.episode import Episode, Outcome, Step, decode_mask, encode_mask
from ibisagent.errors import InputError, ToolError
from ibisagent.geometry import Geometry
from ibisagent.metrics import iou
from ibisagent.rle import Rle
from ibisagent.types import Case, Image

__all__ = ["GRID", "Scene", "Trajectory", "damaged_mask", "read_shard", "synthesize", "write_shard"]

GRID = 64
"""Cells a side that experts click on; nano's vocabulary has exactly these."""

MAX_CLICKS = 7
"""Right clicks of an expert at most."""

STOP_IOU = 0.92
"""An expert makes no more clicks from this IoU on."""

PLATEAU = 0.015
"""An episode ends at the first mask that no later one beats by more than this IoU."""

Mask = NDArray[np.bool_]


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
        False where the action was wrong on purpose.
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


def _cell_depths(region: Mask) -> NDArray[np.float32]:
    """(GRID, GRID) depth of every cell's centre inside a region, in pixels."""
    depth = cv2.distanceTransform(np.pad(region.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    h, w = region.shape
    ys = ((np.arange(GRID) + 0.5) * h / GRID).astype(int)
    xs = ((np.arange(GRID) + 0.5) * w / GRID).astype(int)
    return depth[np.ix_(ys, xs)]


def _expert_cell(current: Mask | None, target: Mask, rng: np.random.Generator) -> tuple[int, bool] | None:
    """The deepest cell of the larger error region, sometimes one nearly as deep; None if no cell is wrong."""
    now = np.zeros_like(target) if current is None else current
    missed, excess = target & ~now, now & ~target
    order = [(missed, True), (excess, False)]
    if excess.sum() > missed.sum():
        order.reverse()
    for region, positive in order:
        if not region.any():
            continue
        depth = _cell_depths(region)
        if depth.max() <= 0:
            continue
        if rng.random() < 0.3:
            p = depth.ravel().astype(np.float64) ** 3
            return int(rng.choice(p.size, p=p / p.sum())), positive
        return int(depth.argmax()), positive
    return None


def _wrong_cell(current: Mask | None, target: Mask, rng: np.random.Generator) -> tuple[int, bool] | None:
    """A click of the wrong sign for its place: positive well outside the target, or negative inside it."""
    positive = current is None or rng.random() < 0.6
    region = ~cv2.dilate(target.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool) if positive else target
    if current is not None:
        region = region & (~current if positive else current)
    depth = _cell_depths(region)
    if depth.max() <= 2:
        return None
    p = (depth.ravel() > 2).astype(np.float64)
    return int(rng.choice(p.size, p=p / p.sum())), positive


def damaged_mask(target: Mask, rng: np.random.Generator) -> Mask:
    """A plausible wrong mask of a target: grown, shrunk, shifted, cut, or with a blob too much.

    Both are ``bool`` (S, S); the target must not be empty, and the answer may be.
    """
    m = target.astype(np.uint8)
    size = m.shape[0]
    kind = int(rng.integers(4))
    if kind == 0:
        k = int(rng.integers(3, max(4, size // 12)))
        m = (
            cv2.dilate(m, np.ones((k, k), np.uint8))
            if rng.random() < 0.6
            else cv2.erode(m, np.ones((k // 2 + 1,) * 2, np.uint8))
        )
    elif kind == 1:
        m = np.roll(m, tuple(int(v) for v in rng.integers(-size // 10, size // 10 + 1, 2)), (0, 1))
    elif kind == 2:
        ys, xs = np.nonzero(m)
        if rng.random() < 0.5:
            m[: int(np.quantile(ys, rng.uniform(0.2, 0.7)))] = 0
        else:
            m[:, : int(np.quantile(xs, rng.uniform(0.2, 0.7)))] = 0
    else:
        ys, xs = np.nonzero(m)
        i = int(rng.integers(len(xs)))
        cv2.circle(m, (int(xs[i]), int(ys[i])), int(rng.integers(8, max(9, size // 5))), 1, -1)
    return m.astype(bool)


def synthesize(scene: Scene, segmenter: Any, rng: np.random.Generator) -> Trajectory:
    """Let the expert work on one scene and record it.

    Parameters
    ----------
    scene
        What to work on.
    segmenter
        A :class:`~ibisagent.segmenters.protocol.Segmenter` that takes clicks.
    rng
        The only source of randomness.

    Returns
    -------
    Trajectory
        Ending with a Terminate: ``found`` where the final IoU is at least 0.55, ``uncertain`` below,
        ``absent`` where there is no target.

    Raises
    ------
    ToolError
        If the segmenter fails.
    """
    dialect = DIALECTS["plain"]
    image = Image(scene.pixels, Geometry.plane_2d(), modality=scene.modality)
    name, target = scene.target_name, scene.target
    initial: Mask | None = None
    mismatched = False
    if target is not None:
        start = rng.random()
        if start < 0.12:
            initial = damaged_mask(target, rng)
        elif start < 0.19:
            others = [m for m in scene.others if m.any() and iou(m, target) < 0.2]
            initial = others[int(rng.integers(len(others)))] if others else None
            mismatched = initial is not None
        if initial is not None and not initial.any():
            initial = None
    case = Case(image, f"Segment the {name}.", initial, target=name)
    env = SegmentationEnv(segmenter, RolloutConfig(max_steps=4 * MAX_CLICKS, max_repeated_actions=50), dialect=dialect)
    view = env.reset(case)
    masks: list[Mask | None] = []
    clicks: list[tuple[float, float, bool] | None] = []
    learn: list[bool] = []
    ious: list[float] = []

    def do(thought: str, action: Action, click: tuple[float, float, bool] | None = None, good: bool = True) -> None:
        nonlocal view
        view = env.step(Turn(thought=thought, action=action))
        if env.done and env.episode.error:
            raise ToolError(env.episode.error)
        masks.append(view.mask)
        clicks.append(click)
        learn.append(good)
        if target is not None:
            ious.append(0.0 if view.mask is None else iou(view.mask, target))

    def click_cell(cell: int, positive: bool, good: bool = True) -> None:
        x, y = (cell % GRID + 0.5) / GRID, (cell // GRID + 0.5) / GRID
        kind = "start" if view.mask is None else "missed" if positive else "excess"
        action = ClickAction(clicks=(Click(x=round(x, 4), y=round(y, 4), positive=positive),))
        h, w = scene.pixels.shape[:2]
        do(thought_text(kind, name, where_text(x, y)), action, (float(int(x * w)), float(int(y * h)), positive), good)

    if target is None:
        do(thought_text("absent", name), TerminateAction(verdict="absent", answer=answer_text("absent", name)))
    else:
        if mismatched:
            do(thought_text("discard", name), DiscardAction())
        wrong_at = int(rng.integers(0, 4)) if rng.random() < 0.25 else -1
        made = 0
        while made < MAX_CLICKS and (view.mask is None or iou(view.mask, target) < STOP_IOU):
            if made == wrong_at and view.mask is not None:
                wrong_at = -1
                wrong = _wrong_cell(view.mask, target, rng)
                before = iou(view.mask, target)
                if wrong is not None:
                    click_cell(*wrong, good=False)
                    if view.mask is None or iou(view.mask, target) < before - 0.03:
                        do(thought_text("undo", name), UndoAction())
                    continue
            cell = _expert_cell(view.mask, target, rng)
            if cell is None:
                break
            click_cell(*cell)
            made += 1
        keep = _cut(ious, initial, target)
        del masks[keep:], clicks[keep:], learn[keep:], ious[keep:]
        final = (iou(initial, target) if initial is not None else 0.0) if not ious else ious[-1]
        verdict: Verdict = "found" if final >= 0.55 else "uncertain"
        last = Turn(
            thought=thought_text("fits" if verdict == "found" else "rough", name),
            action=TerminateAction(verdict=verdict, answer=answer_text(verdict, name)),
        )
        _end_at(env.episode, keep, dialect.format(last), last)
        masks.append(masks[-1] if masks else initial)
        clicks.append(None)
        learn.append(True)
        ious.append(final)
    return Trajectory(
        scene.pixels,
        env.episode,
        masks,
        clicks,
        learn,
        target,
        initial,
        name,
        scene.modality,
        scene.kind_of_case,
        scene.turn,
        ious,
    )


def _end_at(episode: Episode, keep: int, raw_text: str, last: Turn) -> None:
    """Drop the steps from ``keep`` on and stop there instead: what the run would have been."""
    del episode.steps[keep:]
    mask = episode.current_mask_rle
    episode.steps.append(Step(index=keep, raw_text=raw_text, thought=last.thought, action=last.action, mask=mask))
    assert isinstance(last.action, TerminateAction)
    episode.outcome = Outcome.DONE if last.action.verdict == "found" else Outcome.UNCERTAIN
    episode.end_reason, episode.answer, episode.final_mask = "terminate", last.action.answer, mask


def _cut(ious: Sequence[float], initial: Mask | None, target: Mask) -> int:
    """How many steps to keep: up to the first mask that no later one beats by more than PLATEAU."""
    if not ious:
        return 0
    if initial is not None and iou(initial, target) >= max(ious) - PLATEAU:
        return 0
    best_later = np.maximum.accumulate(np.asarray(ious)[::-1])[::-1]
    return int(np.flatnonzero(np.asarray(ious) >= best_later - PLATEAU)[0]) + 1


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
