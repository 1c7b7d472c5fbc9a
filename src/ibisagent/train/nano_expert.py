"""The simulated expert: it works in the real environment and is recorded.

Faults of the public code that are mended here: the state after the last click is kept and stopping is
taught (fault 5), and absent targets are refused (fault 7). Wrong clicks with recovery, damaged and mismatched
given masks are part of the diet (paper, reflection data). :func:`correct` lets a policy act first and the expert
go on from where that led: states that no expert would have come to (DAgger, Ross et al. 2011).
"""

from __future__ import annotations

from collections.abc import Sequence
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
from ibisagent.engine.damage import damaged_mask, other_mask
from ibisagent.engine.language.instructions import draw_instruction
from ibisagent.environment import SegmentationEnv
from ibisagent.episode import Episode, Outcome, Step
from ibisagent.errors import ActionError, ToolError
from ibisagent.geometry import Geometry
from ibisagent.metrics import iou
from ibisagent.policies.protocol import Policy, Reply
from ibisagent.train.nano_trajectories import GRID, Mask, Scene, Trajectory, cell_click
from ibisagent.train.nano_wording import answer_text, thought_text, where_text
from ibisagent.types import Case, Image

__all__ = [
    "FOUND_IOU",
    "MAX_CLICKS",
    "PLATEAU",
    "STOP_IOU",
    "cell_depths",
    "correct",
    "expert_cell",
    "synthesize",
]

MAX_CLICKS = 7
"""Right clicks of an expert at most."""

STOP_IOU = 0.92
"""An expert makes no more clicks from this IoU on."""

PLATEAU = 0.015
"""An episode ends at the first mask that no later one beats by more than this IoU."""

FOUND_IOU = 0.55
"""Below, the last word is "uncertain"."""

HARM = 0.03
"""A click that lowers the IoU by more is taken back."""


def cell_depths(region: Mask, grid: int = GRID) -> NDArray[np.float32]:
    """(grid, grid) depth of every cell's centre inside a ``bool`` (H, W) region, in pixels; 0 outside it."""
    depth = cv2.distanceTransform(np.pad(region.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    h, w = region.shape
    ys = ((np.arange(grid) + 0.5) * h / grid).astype(int)
    xs = ((np.arange(grid) + 0.5) * w / grid).astype(int)
    return depth[np.ix_(ys, xs)]


def expert_cell(current: Mask | None, target: Mask, rng: np.random.Generator) -> tuple[int, bool] | None:
    """The deepest cell of the larger error region, sometimes one nearly as deep; None if no cell is wrong."""
    now = np.zeros_like(target) if current is None else current
    missed, excess = target & ~now, now & ~target
    order = [(missed, True), (excess, False)]
    if excess.sum() > missed.sum():
        order.reverse()
    for region, positive in order:
        if not region.any():
            continue
        depth = cell_depths(region)
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
    depth = cell_depths(region)
    if depth.max() <= 2:
        return None
    p = (depth.ravel() > 2).astype(np.float64)
    return int(rng.choice(p.size, p=p / p.sum())), positive


class _Run:
    """One run in the environment, with a row for every step beside the record."""

    def __init__(self, scene: Scene, segmenter: Any, instruction: str, initial: Mask | None) -> None:
        self.scene, self.initial, self.name = scene, initial, scene.target_name
        self.dialect = DIALECTS["plain"]
        image = Image(scene.pixels, Geometry.plane_2d(), modality=scene.modality)
        config = RolloutConfig(max_steps=4 * MAX_CLICKS, max_repeated_actions=50)
        self.env = SegmentationEnv(segmenter, config, dialect=self.dialect)
        self.view = self.env.reset(Case(image, instruction, initial, target=self.name))
        self.masks: list[Mask | None] = []
        self.clicks: list[tuple[float, float, bool] | None] = []
        self.learn: list[bool] = []
        self.ious: list[float] = []

    def do(self, reply: Turn | Reply, good: bool = True) -> None:
        """Take a step. One that was not carried out is in the record, and never learnt."""
        self.view = self.env.step(reply)
        if self.env.done and self.env.episode.error:
            raise ToolError(self.env.episode.error)
        step = self.env.episode.steps[-1]
        click = None
        if isinstance(step.action, ClickAction) and step.invalid is None:
            (x, y), positive = step.pixels_xy[0], step.action.clicks[0].positive
            click = (float(x), float(y), positive)
        self.masks.append(self.view.mask)
        self.clicks.append(click)
        self.learn.append(good and step.invalid is None)
        if self.scene.target is not None:
            self.ious.append(self.iou())

    def iou(self) -> float:
        """Of the current mask; 0 while there is none."""
        assert self.scene.target is not None
        return 0.0 if self.view.mask is None else iou(self.view.mask, self.scene.target)

    def say(self, kind: str, action: Action, where: str = "") -> None:
        """Think and act."""
        self.do(Turn(thought=thought_text(kind, self.name, where), action=action))

    def click(self, cell: int, positive: bool, good: bool = True) -> None:
        """Click on a cell."""
        action = cell_click(cell, positive)
        kind = "start" if self.view.mask is None else "missed" if positive else "excess"
        where = where_text(action.clicks[0].x, action.clicks[0].y)
        self.do(Turn(thought=thought_text(kind, self.name, where), action=action), good)

    def click_on(self, rng: np.random.Generator, most: int, wrong_at: int = -1) -> None:
        """Let the expert click until the mask is good; before click ``wrong_at`` it makes a wrong one."""
        target = self.scene.target
        assert target is not None
        made = 0
        while made < most and (self.view.mask is None or self.iou() < STOP_IOU):
            if made == wrong_at and self.view.mask is not None:
                wrong_at = -1
                wrong, before = _wrong_cell(self.view.mask, target, rng), self.iou()
                if wrong is not None:
                    self.click(*wrong, good=False)
                    if self.iou() < before - HARM:
                        self.say("undo", UndoAction())
                    continue
            cell = expert_cell(self.view.mask, target, rng)
            if cell is None:
                break
            self.click(*cell)
            made += 1

    def finish(self, least: int = 0) -> Trajectory:
        """Cut after the best mask, but not before step ``least``, and stop there."""
        target = self.scene.target
        assert target is not None
        keep = max(least, _cut(self.ious, self.initial, target))
        for rows in (self.masks, self.clicks, self.learn, self.ious):
            del rows[keep:]
        before = iou(self.initial, target) if self.initial is not None else 0.0
        final = self.ious[-1] if self.ious else before
        verdict: Verdict = "found" if final >= FOUND_IOU else "uncertain"
        last = Turn(
            thought=thought_text("fits" if verdict == "found" else "rough", self.name),
            action=TerminateAction(verdict=verdict, answer=answer_text(verdict, self.name)),
        )
        _end_at(self.env.episode, keep, self.dialect.format(last), last)
        self.masks.append(self.masks[-1] if self.masks else self.initial)
        self.clicks.append(None)
        self.learn.append(True)
        self.ious.append(final)
        return self.record()

    def record(self) -> Trajectory:
        """What has happened so far."""
        s = self.scene
        return Trajectory(
            s.pixels,
            self.env.episode,
            self.masks,
            self.clicks,
            self.learn,
            s.target,
            self.initial,
            self.name,
            s.modality,
            s.kind_of_case,
            s.turn,
            self.ious,
        )


def _given(scene: Scene, rng: np.random.Generator) -> tuple[Mask | None, bool]:
    """A mask to start from, if any, and whether it is of something else."""
    assert scene.target is not None
    start, initial = rng.random(), None
    if start < 0.12:
        initial = damaged_mask(scene.target, rng)
    elif start < 0.19:
        initial = other_mask(scene.others, scene.target, rng)
    return (initial, start >= 0.12) if initial is not None and initial.any() else (None, False)


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
    name = scene.target_name
    initial, mismatched = (None, False) if scene.target is None else _given(scene, rng)
    run = _Run(scene, segmenter, f"Segment the {name}.", initial)
    if scene.target is None:
        run.say("absent", TerminateAction(verdict="absent", answer=answer_text("absent", name)))
        return run.record()
    if mismatched:
        run.say("discard", DiscardAction())
    run.click_on(rng, MAX_CLICKS, int(rng.integers(0, 4)) if rng.random() < 0.25 else -1)
    return run.finish()


def correct(scene: Scene, segmenter: Any, policy: Policy, rng: np.random.Generator, most: int = 5) -> Trajectory:
    """Let a policy act for some turns, then the expert go on from where that led.

    Parameters
    ----------
    scene
        With a target.
    segmenter, rng
        As for :func:`synthesize`.
    policy
        Acts for 1 to ``most`` turns, unless it stops before: stopping is left to the expert.
    most
        See above.

    Returns
    -------
    Trajectory
        The policy's turns are learnt only where the expert could have made them: a click of the right sign in an
        error region that is no less than half of the larger one. A click that made the mask worse is taken back.

    Raises
    ------
    ToolError, PolicyError
        If the segmenter or the policy fails.
    ValueError
        If the scene has no target.
    """
    if scene.target is None:
        raise ValueError("a scene without a target has nothing to correct")
    stage: Any = "start"
    initial, mismatched = _given(scene, rng)
    if initial is not None:
        stage = "refine"
    instruction = draw_instruction(scene.target_name, scene.modality, rng, stage=stage, library="core").text
    run = _Run(scene, segmenter, instruction, initial)
    turns = int(rng.integers(1, most + 1))
    for _ in range(0 if mismatched else turns):  # what is given and wrong altogether is the expert's to drop
        if run.view.mask is not None and run.iou() >= STOP_IOU:
            break
        (reply,) = policy.act([run.view], 0)
        try:
            action = run.dialect.parse(reply.text).action
        except ActionError:
            break
        if not isinstance(action, ClickAction):
            break
        good = len(action.clicks) == 1 and _could_be_expert(run.view.mask, scene.target, action.clicks[0])
        before = run.iou()
        run.do(reply, good)
        if run.env.episode.steps[-1].invalid is not None:
            # Nothing that a policy may not do is worth showing.
            return synthesize(scene, segmenter, rng)
        if run.view.mask is not None and run.iou() < before - HARM:
            run.learn[-1] = False
            run.say("undo", UndoAction())
            break
    if mismatched:
        run.say("discard", DiscardAction())
    led = len(run.masks)
    run.click_on(rng, MAX_CLICKS - min(led, MAX_CLICKS - 3))
    return run.finish(led)


def _could_be_expert(current: Mask | None, target: Mask, click: Click) -> bool:
    now = np.zeros_like(target) if current is None else current
    regions = {True: target & ~now, False: now & ~target}
    h, w = target.shape
    inside = bool(regions[click.positive][min(h - 1, int(click.y * h)), min(w - 1, int(click.x * w))])
    return inside and 2 * int(regions[click.positive].sum()) >= max(int(r.sum()) for r in regions.values())


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
