"""Single questions for nano: one picture, several names, one turn each.

A trajectory teaches how to go on; what a name means in a picture, and that it means nothing in another, is taught
faster by many names asked of the same picture. A question is a conversation of one turn: the first click, the first
correction of a given mask, a right stop, a mask to drop, or a refusal.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ibisagent.actions import Action, DiscardAction, TerminateAction
from ibisagent.engine.damage import damaged_mask, other_mask
from ibisagent.engine.moments import Intent
from ibisagent.engine.walk import Move, Walk
from ibisagent.episode import Episode, ImageRecord, Step, encode_mask
from ibisagent.metrics import iou
from ibisagent.train.nano_expert import FOUND_IOU, STOP_IOU, expert_cell
from ibisagent.train.nano_scenes import Picture, SceneSource, askable
from ibisagent.train.nano_trajectories import Scene, Trajectory, cell_click

__all__ = ["ABSENT", "draw_questions"]

ABSENT = 0.4
"""Share of the questions whose target is not in the picture."""

GIVEN = 0.4
"""Share of the others that come with a mask."""


def draw_questions(picture: Picture, source: SceneSource, rng: np.random.Generator, count: int) -> list[Trajectory]:
    """Ask several things of one picture.

    Parameters
    ----------
    picture
        What is asked about; the first question with a target is about the name that it was drawn for.
    source
        Knows which names cannot be there.
    rng
        The only source of randomness.
    count
        Number of questions.

    Returns
    -------
    list of Trajectory
        Of one step each.
    """
    names = [n for n, m in picture.masks.items() if askable(m)]
    order = [picture.asked, *(str(n) for n in rng.permutation([n for n in names if n != picture.asked]))]
    questions: list[Trajectory] = []
    present = 0
    while len(questions) < count:
        if rng.random() < ABSENT:
            absent = _question(picture, source.foreign(rng, picture), None, None, rng)
            assert absent is not None
            questions.append(absent)
            continue
        name = order[present % len(order)]
        present += 1
        target = picture.masks[name]
        given, mismatched = _given(picture, name, target, rng) if rng.random() < GIVEN else (None, False)
        question = _question(picture, name, target, given, rng, mismatched)
        if question is not None:
            questions.append(question)
    return questions


def _given(
    picture: Picture, name: str, target: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[NDArray[np.bool_] | None, bool]:
    """A mask to start from: wrong here and there, right but for its edge, or (True) of something else."""
    kind = rng.random()
    if kind < 0.15:
        other = other_mask((m for n, m in picture.masks.items() if n != name), target, rng)
        if other is not None:
            return other, True
    if kind < 0.45:
        # What a good segmenter leaves: edges that are smoothed.
        soft = cv2.GaussianBlur(target.astype(np.float32), (0, 0), float(rng.uniform(0.5, 2.5)))
        given = soft > rng.uniform(0.4, 0.6)
    else:
        given = damaged_mask(target, rng)
    # One that has nothing in common with the target would have to be dropped, and does not look it.
    return (given, False) if iou(given, target) >= 0.2 else (None, False)


def _question(
    picture: Picture,
    name: str,
    target: NDArray[np.bool_] | None,
    given: NDArray[np.bool_] | None,
    rng: np.random.Generator,
    mismatched: bool = False,
) -> Trajectory | None:
    """One turn, its texts are written when it is rendered; None where no cell can be clicked and nothing is shown."""
    action: Action
    after = given
    if target is None:
        action, intent = TerminateAction(verdict="absent", answer=""), Intent.ABSENT
    else:
        overlap = 0.0 if given is None else iou(given, target)
        cell = None if overlap >= STOP_IOU - 0.02 else expert_cell(given, target, rng)
        if mismatched:
            action, intent, after = DiscardAction(), Intent.DISCARD, None
        elif cell is None and given is None:
            return None
        elif cell is None:
            found = overlap >= FOUND_IOU
            action = TerminateAction(verdict="found" if found else "uncertain", answer="")
            intent = Intent.FITS if found else Intent.ROUGH
        else:
            action = cell_click(*cell)
            intent = Intent.START if given is None else Intent.MISSED if cell[1] else Intent.EXCESS
    image = picture.image
    episode = Episode(
        instruction="",
        image=ImageRecord(sha256="", height=image.height, width=image.width),
        initial_mask=None if given is None else encode_mask(given),
        steps=[Step(index=0, raw_text="", action=action, mask=None if after is None else encode_mask(after))],
    )
    scene = Scene(image, name, target, home=picture.home)
    return Trajectory(scene, Walk(given, [Move(action, intent)], [after]), episode, "question")
