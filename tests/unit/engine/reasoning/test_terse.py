"""Thoughts say what is done and where, in words that end no tag."""

from __future__ import annotations

import pytest

from ibisagent.actions import DIALECTS, Click, ClickAction, TerminateAction, Turn
from ibisagent.engine.reasoning.terse import answer_text, thought_text, where_text

KINDS = ("start", "missed", "excess", "undo", "discard", "fits", "rough", "absent")


@pytest.mark.parametrize(
    ("x", "y", "where"),
    [
        (0.0, 0.0, "upper left"), (0.5, 0.1, "upper centre"), (0.99, 0.0, "upper right"),
        (0.1, 0.5, "middle left"), (0.5, 0.5, "centre"), (0.9, 0.5, "middle right"),
        (0.0, 1.0, "lower left"), (0.5, 0.9, "lower centre"), (1.0, 1.0, "lower right"),
        (1 / 3 - 1e-6, 2 / 3 + 1e-6, "lower left"),
    ],
)  # fmt: skip
def test_a_place_is_named_by_its_ninth(x: float, y: float, where: str) -> None:
    assert where_text(x, y) == where


def test_thoughts_differ_by_kind_and_name_target_and_place() -> None:
    said = {kind: thought_text(kind, "left lung", "upper left") for kind in KINDS}
    assert len(set(said.values())) == len(KINDS)
    for kind in KINDS:
        assert ("left lung" in said[kind]) == (kind != "undo")
        assert ("upper left" in said[kind]) == (kind in ("start", "missed", "excess"))

    assert "  " not in "".join(thought_text(kind, "left lung") for kind in KINDS)
    assert all(" in the upper left" not in thought_text(kind, "left lung") for kind in KINDS)


def test_every_thought_and_answer_can_be_said_and_read() -> None:
    dialect = DIALECTS["plain"]
    click = ClickAction(clicks=(Click(x=0.5078, y=0.2578, positive=True),))
    for kind in KINDS:
        turn = Turn(thought=thought_text(kind, "lung tumor", "centre"), action=click)
        assert dialect.parse(dialect.format(turn)) == turn
    for verdict in ("found", "absent", "uncertain"):
        action = TerminateAction(verdict=verdict, answer=answer_text(verdict, "lung tumor"))
        turn = Turn(thought="x", action=action)
        assert dialect.parse(dialect.format(turn)) == turn


def test_another_kind_is_refused() -> None:
    with pytest.raises(KeyError):
        thought_text("certain", "left lung")
