"""Answers, counted and compared by hand; intervals over groups, not over questions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ibisagent.engine.questions import open_questions
from ibisagent.evaluate.vqa import Answer, answer_questions, compare_answers, describe, summarise_answers
from sample_questions import write_questions


def answers(*replies: str) -> list[Answer]:
    asked = [("Yes", True, "a"), ("no", True, "a"), ("no", True, "b"), ("the left lung", False, "b")]
    pairs = zip(asked, replies, strict=True)
    return [Answer(i, f"q{i}", group, "?", answer, closed, r) for i, ((answer, closed, group), r) in enumerate(pairs)]


def test_figures_by_hand() -> None:
    got = summarise_answers(answers("yes", "<think>so</think>No.", "yes", "left side"))
    assert (got["num"], got["num_groups"]) == (4, 2)
    assert got["accuracy"] == {"value": 0.5, "ci95": [0.0, 1.0], "n": 4}  # both of a, none of b
    assert got["closed"] == {"value": 0.6667, "ci95": [0.0, 1.0], "n": 3}
    assert got["open"]["value"] == 0.0 and got["open_recall"]["value"] == 0.5
    assert describe(got["closed"]) == "0.667 [0.000, 1.000]" and describe(None) == "-"


def test_nothing_asked_is_no_zero() -> None:
    got = summarise_answers([a for a in answers("yes", "no", "no", "x") if a.closed])
    assert got["open"] is None and got["open_recall"] is None
    assert summarise_answers([])["accuracy"] is None


def test_differences_are_paired() -> None:
    before, after = answers("yes", "yes", "no", "heart"), answers("yes", "no", "yes", "left lung")
    got = compare_answers(before, after)
    assert (got["won"], got["lost"]) == (2, 1)
    assert got["accuracy"] == {"value": 0.25, "ci95": [0.0, 0.5], "n": 4}  # group a: +1 of 2, b: -1 and +1 of 2
    assert got["open_recall"]["value"] == 1.0
    assert describe(got["accuracy"], signed=True) == "+0.250 [+0.000, +0.500]"
    same = compare_answers(before, before)["accuracy"]
    assert same["value"] == 0.0 and same["ci95"] == [0.0, 0.0]
    with pytest.raises(ValueError, match="other questions"):
        compare_answers(before, after[:3])


def test_every_question_is_asked_with_its_picture_and_nothing_else(tmp_path: Path) -> None:
    questions = open_questions(f"vqa-rad:{write_questions(tmp_path / 'rad')}?split=train")
    asked: list[Any] = []

    def ask(conversations: Any) -> list[str]:
        asked.append(conversations)
        return [f"reply {len(asked)}.{i}" for i in range(len(conversations))]

    found = list(answer_questions(questions, ask, batch=2, numbers=[4, 0, 2]))
    assert [a.reply for a in found] == ["reply 1.0", "reply 1.1", "reply 2.0"]
    assert [a.number for a in found] == [4, 0, 2] and found[1].question == "Is there a square?"
    (message,) = asked[0][0]
    image, text = message["content"]
    assert message["role"] == "user" and text == {"type": "text", "text": "Is there a disc?"}
    assert (image["image"] == questions[4].pixels).all()
