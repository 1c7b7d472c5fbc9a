"""Single questions: what is asked of one picture, and which turn is the right one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from ibisagent.actions import ClickAction, DiscardAction, TerminateAction
from ibisagent.geometry import Geometry
from ibisagent.metrics import iou
from ibisagent.train.nano_expert import FOUND_IOU
from ibisagent.train.nano_questions import ABSENT, draw_questions
from ibisagent.train.nano_scenes import Picture, SceneSource, askable
from ibisagent.train.nano_trajectories import Trajectory
from ibisagent.types import Image


@pytest.fixture(scope="module")
def asked(toy_cases: Path) -> list[tuple[str, list[Trajectory]]]:
    source = SceneSource(toy_cases, seed=1)
    made = []
    for i in range(80):
        rng = np.random.default_rng(i)
        picture = source.picture(rng)
        made.append((picture.asked, draw_questions(picture, source, rng, 4)))
        for q in made[-1][1]:
            assert q.scene.image is picture.image
            assert (q.scene.target is None) == (q.scene.name not in picture.masks)
            assert q.scene.target is None or (q.scene.target is picture.masks[q.scene.name] and askable(q.scene.target))
    return made


def test_present_and_absent_names_are_asked_of_the_same_picture(asked: list[tuple[str, list[Trajectory]]]) -> None:
    assert all(len(questions) == 4 for _, questions in asked)
    absent = [[q.scene.target is None for q in questions] for _, questions in asked]
    assert np.mean(absent) == pytest.approx(ABSENT, abs=0.1)
    assert np.mean([any(a) and not all(a) for a in absent]) > 0.6
    for name, questions in asked:
        first = [q.scene.name for q in questions if q.scene.target is not None][:1]
        assert first in ([], [name])


def test_the_turn_follows_from_what_is_shown(asked: list[tuple[str, list[Trajectory]]]) -> None:
    seen = set()
    for q in (q for _, questions in asked for q in questions):
        (step,) = q.episode.steps
        given = q.walk.initial_mask
        overlap = None if given is None or q.scene.target is None else iou(given, q.scene.target)
        if q.scene.target is None:
            assert isinstance(step.action, TerminateAction) and step.action.verdict == "absent"
            assert q.walk.initial_mask is None
        elif isinstance(step.action, TerminateAction):
            assert overlap is not None and step.action.verdict == ("found" if overlap >= FOUND_IOU else "uncertain")
        elif isinstance(step.action, DiscardAction):
            assert overlap is not None and overlap < 0.2 and q.walk.masks == [None]
        else:
            assert isinstance(step.action, ClickAction)
            assert overlap is None or overlap >= 0.2  # else it would have had to be dropped
            (x, y, positive), before = q.clicks[0], q.walk.initial_mask
            inside = q.scene.target[int(y), int(x)]
            assert inside == positive and (before is None or before[int(y), int(x)] != positive)
        seen.add((type(step.action).__name__, q.walk.initial_mask is not None, q.scene.target is None))
    assert {("ClickAction", False, False), ("ClickAction", True, False), ("TerminateAction", True, False),
            ("TerminateAction", False, True)} <= seen  # fmt: skip


def test_a_target_between_the_cells_is_not_called_found_before_anything_is_shown(toy_cases: Path) -> None:
    source = SceneSource(toy_cases, seed=1)
    line, square = np.zeros((256, 256), bool), np.zeros((256, 256), bool)
    line[:, 0], square[100:140, 100:140] = True, True  # no centre of a cell lies on the first column
    image = Image(np.zeros((256, 256, 3), np.uint8), Geometry.plane_2d(), "CT")
    picture = Picture(image, {"line": line, "square": square}, "line", "toy")
    for seed in range(30):
        for q in draw_questions(picture, source, np.random.default_rng(seed), 4):
            (step,) = q.episode.steps
            stopped = isinstance(step.action, TerminateAction) and step.action.verdict != "absent"
            assert not stopped or q.walk.initial_mask is not None
