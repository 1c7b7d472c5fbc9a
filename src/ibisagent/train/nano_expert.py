"""Nano's expert: the data engine's, on the centres of nano's cells, and with nano's shares of what may happen.

:func:`correct` lets a policy act first and the expert go on from where that led: states that no expert would have come
to (DAgger, Ross et al. 2011).
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ibisagent.actions import DIALECTS, Click, ClickAction, DiscardAction, UndoAction
from ibisagent.engine.damage import damaged_mask, other_mask
from ibisagent.engine.expert import Expert, ExpertConfig
from ibisagent.engine.language.instructions import draw_instruction
from ibisagent.engine.moments import Intent
from ibisagent.engine.reasoning.terse import TerseTeacher
from ibisagent.engine.record import Reasoner, record_walk
from ibisagent.engine.scenarios import Dropped, Filters, Scenario, Stage, keep_or_drop, make_walk
from ibisagent.engine.walk import Move, Walk, expert_walk
from ibisagent.environment import SegmentationEnv
from ibisagent.errors import ActionError
from ibisagent.metrics import iou
from ibisagent.policies.protocol import Policy
from ibisagent.segmenters.memo import MemoSegmenter
from ibisagent.train.nano_trajectories import GRID, SYSTEM_PROMPT, Mask, Scene, Trajectory, cell_click
from ibisagent.types import Case, PixelClick

__all__ = [
    "FOUND_IOU",
    "MAX_CLICKS",
    "PLATEAU",
    "STOP_IOU",
    "CellExpert",
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
"""A policy's click that lowers the IoU by more is taken back."""

GIVEN: dict[Scenario, float] = {"corrupted_mask": 0.12, "mismatched_mask": 0.07}
"""Share of the trajectories that start from a damaged mask, and from that of another structure where there is one."""

SHARES: dict[Scenario, float] = {**GIVEN, "self_correction": 0.16}
"""Share of the scenarios; the others are plain."""

# Dice of an IoU; whatever the mask is worth, the trajectory is kept.
_FILTERS = Filters(min_final_dice=2 * FOUND_IOU / (1 + FOUND_IOU), max_fall=None, uncertain_share=1.0)


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


class CellExpert(Expert):
    """Clicks on centres of cells alone, and keeps what led to its best mask.

    Parameters
    ----------
    max_clicks
        Right clicks at most.
    """

    def __init__(self, max_clicks: int = MAX_CLICKS) -> None:
        # As patient as it has clicks: it never gives up before.
        options: dict[str, Any] = {"plateau": PLATEAU, "patience": MAX_CLICKS, "keep": "best"}
        super().__init__(ExpertConfig(stop_iou=STOP_IOU, max_clicks=max_clicks, **options))

    def next_action(
        self, mask: Mask | None, target: Mask, rng: np.random.Generator, num_made: int
    ) -> ClickAction | None:
        """A click on the :func:`expert_cell`; see :meth:`ibisagent.engine.expert.Expert.next_action`."""
        cell = expert_cell(mask, target, rng)
        return None if cell is None else cell_click(*cell)

    def click_at(self, click: PixelClick, width: int, height: int) -> ClickAction:
        """A click on the cell that holds a pixel."""
        column, row = int((click.x + 0.5) * GRID / width), int((click.y + 0.5) * GRID / height)
        return cell_click(row * GRID + column, click.positive)


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
    memo, seed = MemoSegmenter(segmenter), int(rng.integers(2**62))
    # Nano is to drop what shows something else, and to work on all that shows some of the target.
    stage = Stage(scene, CellExpert(), memo, lambda: np.random.default_rng(seed), worthless=0.0)
    drawn = _drawn(SHARES, rng)
    # What cannot be shown on this scene makes way; a mask to stop at can always be given.
    order: tuple[Scenario, ...] = (drawn, "right_stop") if drawn == "corrupted_mask" else (drawn, "plain", "right_stop")
    for scenario in ("absent",) if scene.target is None else order:
        try:
            walk = make_walk(scenario, stage, _FILTERS, rng)
            return _recorded(walk, scene, memo, scenario, f"Segment the {scene.name}.", rng)
        except Dropped:
            continue
    raise AssertionError("a right stop is possible wherever there is a target, a refusal wherever there is none")


def correct(scene: Scene, segmenter: Any, policy: Policy, rng: np.random.Generator, most: int = 5) -> Trajectory:
    """Let a policy act for some turns, then the expert go on from where that led.

    Parameters
    ----------
    scene
        With a target.
    segmenter, rng
        As for :func:`synthesize`.
    policy
        Acts for 1 to ``most`` turns, unless it stops, repeats itself or asks for what cannot be done before: stopping
        is left to the expert.
    most
        See above.

    Returns
    -------
    Trajectory
        Of the policy's turns, the actions are kept and not the words; they are learnt only where the expert could
        have made them: a click of the right sign in an error region that is no less than half of the larger one. A
        click that made the mask worse is taken back.

    Raises
    ------
    ToolError, PolicyError
        If the segmenter or the policy fails.
    ValueError
        If the scene has no target.
    """
    target = scene.target
    if target is None:
        raise ValueError("a scene without a target has nothing to correct")
    memo, given = MemoSegmenter(segmenter), None
    drawn = _drawn(GIVEN, rng)
    if drawn != "plain":
        given = damaged_mask(target, rng) if drawn == "corrupted_mask" else other_mask(scene.others, target, rng)
        given = given if given is not None and given.any() else None
    stage: Any = "start" if given is None else "refine"
    instruction = draw_instruction(scene.name, scene.image.modality, rng, stage=stage, library="core").text
    turns = int(rng.integers(1, most + 1))
    if given is not None and drawn == "mismatched_mask":
        # What is given and wrong altogether is the expert's to drop.
        led = Walk(given, [Move(DiscardAction(), Intent.DISCARD)], [None], [0.0])
    else:
        led = _led(Case(scene.image, instruction, given, target=scene.name), target, memo, policy, turns)
    expert = CellExpert(MAX_CLICKS - min(len(led.moves), MAX_CLICKS - 3))
    try:
        walk = keep_or_drop(expert_walk(scene, expert, memo, rng, given, led), target, _FILTERS, rng)
        return _recorded(walk, scene, memo, "correction", instruction, rng)
    except Dropped:
        return synthesize(scene, segmenter, rng)


def _drawn(shares: dict[Scenario, float], rng: np.random.Generator) -> Scenario:
    """One of these scenarios, or ``plain``."""
    names: list[Scenario] = [*shares, "plain"]
    return names[int(np.searchsorted(np.cumsum(list(shares.values())), rng.random(), side="right"))]


def _recorded(
    walk: Walk, scene: Scene, segmenter: Any, scenario: str, instruction: str, rng: np.random.Generator
) -> Trajectory:
    case = Case(scene.image, instruction, walk.initial_mask, target=scene.name)
    reasoner = Reasoner(TerseTeacher(), attempts=1)  # it has one sentence for each moment
    episode = record_walk(walk, scene, case, segmenter, reasoner, rng, DIALECTS["plain"], SYSTEM_PROMPT)
    return Trajectory(scene, walk, episode, scenario)


def _led(case: Case, target: Mask, segmenter: Any, policy: Policy, turns: int) -> Walk:
    """What a policy does in some turns."""
    env = SegmentationEnv(segmenter, dialect=DIALECTS["plain"])
    view, walk = env.reset(case), Walk(case.initial_mask)
    score = 0.0 if view.mask is None else iou(view.mask, target)
    while len(walk.moves) < turns and score < STOP_IOU:
        (reply,) = policy.act([view], 0)
        try:
            action = env.dialect.parse(reply.text).action
        except ActionError:
            break
        again = bool(walk.moves) and walk.moves[-1].action == action
        if again or not isinstance(action, ClickAction) or len(action.clicks) > 1:
            break
        mask, before = view.mask, score
        view = env.step(reply)
        if env.done or env.episode.steps[-1].invalid is not None or view.mask is None:
            break  # nothing that a policy may not do is worth showing
        score = iou(view.mask, target)
        click, harmful = action.clicks[0], score < before - HARM
        good = not harmful and _could_be_expert(mask, target, click)
        right = Intent.START if mask is None else Intent.MISSED if click.positive else Intent.EXCESS
        walk = walk.with_moves(
            len(walk.moves), [Move(action, right if good else Intent.WRONG, good)], [view.mask], [score]
        )
        if harmful:
            return walk.with_moves(len(walk.moves), [Move(UndoAction(), Intent.UNDO)], [mask], [before])
    return walk


def _could_be_expert(current: Mask | None, target: Mask, click: Click) -> bool:
    now = np.zeros_like(target) if current is None else current
    regions = {True: target & ~now, False: now & ~target}
    h, w = target.shape
    inside = bool(regions[click.positive][min(h - 1, int(click.y * h)), min(w - 1, int(click.x * w))])
    return inside and 2 * int(regions[click.positive].sum()) >= max(int(r.sum()) for r in regions.values())
