from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibisagent.rewards.vqa import answer_text, exact_match, normalise_answer, score_answer, token_recall


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Left  Lung.", "left lung"),
        ("T2-weighted", "t2 weighted"),
        ("3.5 cm", "3.5 cm"),
        ("two", "2"),
        ("Crohn's disease", "crohns disease"),
        ("A", "a"),  # the letter of a choice
        ("Ｃ．", "c"),  # full width
        ("是。", "是"),
        (" ?! ", ""),
    ],
)
def test_normalisation(text: str, normal: str) -> None:
    assert normalise_answer(text) == normal


@given(st.text(max_size=40))
def test_normalisation_is_stable_and_ignores_case_and_frame(text: str) -> None:
    once = normalise_answer(text)
    assert normalise_answer(once) == once
    if once:
        assert exact_match(f" {text}! ", text)


@pytest.mark.parametrize(
    ("prediction", "answer", "match"),
    [
        ("Yes", "yes", True),
        ("YES.", "Yes", True),
        ("Yes, there is a fracture.", "yes", True),
        ("No, there is no fracture.", "No", True),
        ("no", "yes", False),
        ("Yes or no", "yes", False),
        ("no/yes", "no", False),
        ("There is a fracture.", "yes", False),
        ("not sure", "no", False),
        ("There is no fracture.", "no", False),  # only a sentence that begins with it
        ("", "no", False),
        ("", "?", False),
        ("the left lung", "Left lung.", True),
        ("left lung and heart", "left lung", False),  # naming everything is no answer
        ("axial plane", "axial", False),
        ("Two", "2", True),
        ("否", "否。", True),
    ],
)
def test_exact_match(prediction: str, answer: str, match: bool) -> None:
    assert exact_match(prediction, answer) is match


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("Yes.", "Yes."),
        ("<think>There is.</think><answer>Yes</answer>", "Yes"),
        ("<think>There is.</think>\nYes", "Yes"),
        ("<answer>no</answer> wait <answer> yes </answer>", "yes"),
        ("<think>yes yes yes", ""),
    ],
)
def test_the_answer_in_a_reply(reply: str, answer: str) -> None:
    assert answer_text(reply) == answer


def test_reward() -> None:
    right = score_answer("<think>hm</think>Yes.", "yes", closed=True)
    assert (right.total, right.parts, right.by_turn, right.excluded) == (1.0, {"vqa": 1.0}, {}, None)
    assert score_answer("No", "yes", closed=True).total == 0.0
    open_question = score_answer("a lung", "a lung", closed=False)
    assert open_question.total is None and open_question.excluded == "open_question"


def test_recall_of_words() -> None:
    assert token_recall("a mass in the left lung", "left upper lung") == pytest.approx(2 / 3)
    assert token_recall("anything", "?") == 0.0
