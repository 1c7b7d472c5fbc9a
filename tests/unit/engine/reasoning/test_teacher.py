"""Teachers by name, and the terse one, whose sentences nano learnt from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ibisagent.actions import BoxAction, Click, ClickAction
from ibisagent.engine.moments import Intent, Moment
from ibisagent.engine.reasoning.teacher import TEACHERS, Teacher, TeacherError, make_teacher
from ibisagent.engine.reasoning.verifier import verify
from ibisagent.errors import IbisError, InputError

Make = Callable[..., Moment]
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("spec", ["template", "terse"])
def test_teachers_by_name(spec: str) -> None:
    teacher = make_teacher(spec, attempts=None)
    assert isinstance(teacher, Teacher) and teacher.name == spec
    assert spec in TEACHERS and issubclass(TeacherError, IbisError)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("oracle", "no teacher 'oracle'"), ("template:x", "argument 'x'"), ("terse:y", "argument 'y'"),
        ("chat", "chat:MODEL"), ("", "is not a name"), ("template:", "is not a name"),
    ],
)  # fmt: skip
def test_wrong_specs_are_refused(spec: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make_teacher(spec)


def test_options_are_not_swallowed() -> None:
    with pytest.raises(InputError, match="option 'budget'"):
        make_teacher("terse", budget=3)


@pytest.mark.parametrize(
    ("intent", "text"),
    [
        ("start", "There is no mask yet. I see the left lung and start in the centre."),
        ("missed", "The mask misses a part of the left lung in the centre."),
        ("excess", "The mask covers more than the left lung in the centre."),
        ("wrong", "The mask misses a part of the left lung in the centre."),
        ("undo", "The last click made the mask worse. I take it back."),
        ("discard", "The given mask does not show the left lung. I drop it."),
        ("fits", "The mask fits the left lung."),
        ("rough", "The mask shows the left lung only roughly, and more clicks do not help."),
        ("absent", "I see no left lung in this image."),
    ],
)
def test_the_terse_sentences(make_moment: Make, intent: str, text: str) -> None:
    moment = make_moment(intent)
    teacher = make_teacher("terse")
    assert teacher.think(moment, RNG) == text
    assert verify(text, moment) == []
    answers = {"fits": "the mask shows the left lung", "absent": "no left lung in this image"}
    if intent in answers:
        assert teacher.answer(moment, RNG) == answers[intent]
    if intent in ("start", "undo"):
        assert teacher.answer(moment, RNG) == ""


def test_the_terse_teacher_follows_sign_box_and_missing_mask(make_moment: Make) -> None:
    teacher = make_teacher("terse")
    negative = ClickAction(clicks=(Click(x=0.1, y=0.9, positive=False),))
    assert "covers more" in teacher.think(make_moment("wrong", action=negative), RNG)
    assert "lower left" in teacher.think(make_moment("wrong", action=negative), RNG)
    assert teacher.think(make_moment("wrong", mask=None), RNG).startswith("There is no mask yet")
    box = BoxAction(x0=0.7, y0=0.0, x1=0.9, y1=0.2)
    assert teacher.think(make_moment("start", action=box), RNG).endswith("start in the upper right.")
    assert {i.value for i in Intent} >= {"start", "wrong"}
