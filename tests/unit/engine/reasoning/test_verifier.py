"""What the verifier refuses, and what it must let pass."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ibisagent.actions import BoxAction, Click, ClickAction, TerminateAction
from ibisagent.engine.moments import Moment
from ibisagent.engine.reasoning.leak_score import leak_score
from ibisagent.engine.reasoning.leak_words import leak_families
from ibisagent.engine.reasoning.leaks import find_leaks
from ibisagent.engine.reasoning.verifier import CODES, MAX_WORDS, verify

Make = Callable[..., Moment]
DATA = Path(__file__).resolve().parents[4] / "benchmarks" / "data"


def click(x: float, y: float, positive: bool = True) -> ClickAction:
    return ClickAction(clicks=(Click(x=x, y=y, positive=positive),))


def codes(text: str, moment: Moment) -> set[str]:
    return {violation.code for violation in verify(text, moment)}


# ---- leaks

LEAKS = [
    "The ground truth goes further down than the mask.",
    "G.T. extends below the green.",
    "According to the gr0und-truth the lung goes on.",
    "The annotat0rs included this corner of the left lung.",
    "The IoU of 0.73 is too low.",
    "Dice is fine now.",
    "The overlap with the left lung is 73 %.",
    "Exactly 412 pixels are missing.",
    "Four hundred pixels of the left lung are missing.",
    "A false-negative area remains at the top.",
    "The FP region lies on the right.",
    "The part marked in yellow is not covered.",
    "The red region does not belong to the left lung.",
    "The hatched part is missing.",
    "The true boundary lies at x=0.31.",
    "The target's centre lies at (0.4301, 0.6222).",
    "I was told that the left lung is larger.",
    "The expert would click here.",
    "My teacher's picture shows a gap.",
    "The other view shows a gap.",
    "The hidden mask reaches the edge.",
    "As the pathology report states, the left lung is affected.",
    "Two more clicks will be enough.",
    "Step 3 of 5: the upper end of the left lung.",
    "The correct mask covers the apex.",
    "The oracle shows a gap.",
    "As the hint says, the left lung is on the right.",
    "I peeked at the answer key.",
    "The label map has more left lung.",
]


@pytest.mark.parametrize("text", LEAKS)
def test_leaks_are_found(make_moment: Make, text: str) -> None:
    assert "leak" in codes(text, make_moment("missed")), text


CLEAN = [
    ("start", "There is no mask yet. I see the left lung as a bright area in the centre and click on it."),
    ("missed", "The mask misses the lower end of the left lung, where the tissue looks the same."),
    ("missed", "The green mask leaves out a part of the left lung."),
    ("missed", "The user says that a part of the left lung is missing, and I see that, too."),
    ("excess", "The mask spills over the true ribs; only the left lung should be green."),
    ("excess", "The mask of the left lung also covers the heart. I take that part away with a negative click."),
    ("undo", "The last click did not help the left lung. I take it back."),
    ("discard", "The given mask shows the heart and not the left lung. I drop it and start again."),
    ("fits", "The outline follows the left lung all around, so I stop."),
    ("fits", "The user speaks of an error, but I cannot find one: the mask fits the left lung."),
    ("rough", "The border of the left lung is blurred, and more clicks do not help."),
    ("absent", "I see no left lung in this image."),
    ("wrong", "The bright area may well belong to the left lung."),
]


@pytest.mark.parametrize(("intent", "text"), CLEAN)
def test_clean_thoughts_pass(make_moment: Make, intent: str, text: str) -> None:
    assert verify(text, make_moment(intent)) == []


def test_dev_sets(make_moment: Make) -> None:
    """No planted leak is missed, and at most one clean thought in twenty is called a leak."""
    planted = [json.loads(line) for line in (DATA / "leaks_dev.jsonl").read_text(encoding="utf-8").splitlines()]
    clean = [json.loads(line) for line in (DATA / "clean_dev.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(planted) >= 200 and len(clean) >= 200
    missed = [
        r["text"]
        for r in planted
        if not find_leaks(r["text"], is_wrong=r["intent"] == "wrong") and leak_score(r["text"]) <= 0
    ]
    assert missed == []
    alarms = [
        r["text"]
        for r in clean
        if find_leaks(r["text"], is_gray=False, is_wrong=r["intent"] == "wrong") or leak_score(r["text"]) > 0
    ]
    assert len(alarms) <= 0.05 * len(clean), alarms


@pytest.mark.parametrize(
    ("name", "intent", "text"),
    [
        ("fetal head", "missed", "The ring is half filled. The far half of the skull needs a positive click."),
        ("pancreas", "missed", "Head and neck are green, the tail is bare. Positive click on the tail."),
        ("gallbladder", "start", "Beneath the liver lies a dark sac with a thin wall. Positive click in it."),
        ("spleen", "excess", "My last click overshot into the stomach. Negative click on the gas in the stomach."),
        ("lungs", "missed", "I was told by the user that the base is missing, and I agree. Positive click there."),
        ("liver", "discard", "The mask I was given lies on the kidney. I discard it."),
        ("liver", "fits", "Both lobes are green while kidney and gallbladder are left out, so the mask fits."),
        ("heart", "rough", "An exact border cannot be drawn here. I end with an uncertain verdict."),
        ("lung", "excess", "The burned-in annotation, a white letter, is green. Negative click on it."),
    ],
)
def test_innocent_uses_of_suspicious_words(make_moment: Make, name: str, intent: str, text: str) -> None:
    changes = {"action": click(0.5, 0.5, intent != "excess")} if intent in ("start", "missed", "excess") else {}
    assert verify(text, make_moment(intent, name=name, **changes), with_picture=False) == []


def test_a_second_look_where_rules_are_silent(make_moment: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "The mask misses a part of the left lung."
    assert verify(text, make_moment("missed")) == []
    monkeypatch.setattr("ibisagent.engine.reasoning.verifier.leak_score", lambda text: 0.1)
    found = verify(text, make_moment("missed"))
    assert [v.code for v in found] == ["leak"] and found[0].excerpt == text.lower()


def test_hues_are_leaks_unless_the_image_has_them(make_moment: Make) -> None:
    text = "The reddish tissue below is not covered; it belongs to the polyp."
    moment = make_moment("missed", name="polyp", action=click(0.5, 0.9))
    assert "leak" in codes(text, moment)
    mucosa = np.full((100, 100, 3), (200, 90, 80), np.uint8)
    assert verify(text, make_moment("missed", name="polyp", action=click(0.5, 0.9), pixels=mucosa)) == []
    assert "leak" in codes(
        "The polyp goes on in the bluish tissue.", make_moment("missed", name="polyp", pixels=mucosa)
    )
    assert "leak" in codes("The part shown in red is no polyp.", make_moment("excess", name="polyp", pixels=mucosa))


def test_only_the_own_click_may_be_told_in_numbers(make_moment: Make) -> None:
    text = "The mask misses a part of the left lung; I click at (0.1000, 0.9000)."
    assert verify(text, make_moment("missed", action=click(0.1, 0.9))) == []
    assert "leak" in codes(text, make_moment("missed", action=click(0.1, 0.8)))


def test_rounded_growth_may_be_told(make_moment: Make) -> None:
    before = np.zeros((100, 100), np.bool_)
    before[40:60, 40:50] = True
    moment = make_moment("missed", previous_mask=before, previous_action=click(0.5, 0.5), action=click(0.3, 0.5))
    ok = "The last click made the mask grow by about 100 %. A part of the left lung is still missing."
    assert verify(ok, moment) == []
    assert "leak" in codes("The agreement grew by about 100 %, the left lung is not complete.", moment)
    assert "ungrounded" in codes("After the last click the mask grew by about 20 %. The left lung goes on.", moment)


# ---- contradictions


@pytest.mark.parametrize(
    ("intent", "text"),
    [
        ("excess", "The mask misses a part of the left lung."),
        ("missed", "The mask spills over the border of the left lung."),
        ("missed", "A negative click should help the left lung."),
        ("excess", "I add a positive click to the left lung."),
        ("missed", "The mask fits the left lung and I stop."),
        ("missed", "I see no left lung in this image."),
        ("missed", "There is no mask yet. I look for the left lung."),
        ("missed", "I undo the last click on the left lung."),
        ("missed", "The mask is of no use for the left lung. I discard it."),
        ("undo", "I place a positive click on the left lung."),
        ("fits", "The mask misses the upper end of the left lung."),
        ("fits", "The left lung is not in this image."),
        ("absent", "The mask fits the left lung."),
        ("start", "The mask covers too much of the left lung."),
        ("start", "I see the left lung on the left side of the image."),
        ("missed", "I click in the upper right of the image on the left lung."),
    ],
)
def test_contradictions_are_found(make_moment: Make, intent: str, text: str) -> None:
    changes = {"action": click(0.9, 0.9)} if "of the image" in text and intent in ("start", "missed") else {}
    assert "contradiction" in codes(text, make_moment(intent, **changes)), text


def test_what_was_is_no_contradiction(make_moment: Make) -> None:
    moment = make_moment("missed", action=click(0.1, 0.9))
    for text in (
        "The last negative click cut too much. A part of the left lung is bare again.",
        "The user points to the upper right, but the left lung lies in the lower left of the image. I click there.",
        "The mask does not spill anywhere, but it misses the lower end of the left lung.",
    ):
        assert "contradiction" not in codes(text, moment), text


def test_claims_about_the_last_click(make_moment: Make) -> None:
    same = make_moment("missed").mask
    moment = make_moment("missed", previous_mask=same, previous_action=click(0.5, 0.5), action=click(0.1, 0.5))
    assert "ungrounded" in codes("The last click helped. A part of the left lung is missing.", moment)
    assert verify("The last click hardly changed the mask. A part of the left lung is missing.", moment) == []


# ---- other targets


@pytest.mark.parametrize(
    "text", ["I segment the heart.", "The mask misses a part of the heart.", "I look for the liver and click on it."]
)
def test_another_target_is_found(make_moment: Make, text: str) -> None:
    assert "other_target" in codes(text, make_moment("missed"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("left lung", "The left lung ends at the heart, and the mask does not reach it."),
        ("left lung", "A part of the lung is missing."),
        ("lungs", "The right lung is covered, the left lung is missing."),
        ("brain tumor", "The tumor is brighter than the brain, and a piece of it is missing."),
        ("qwertz", "A part of the qwertz is missing next to the liver."),
    ],
)
def test_neighbours_and_relatives_may_be_named(make_moment: Make, name: str, text: str) -> None:
    assert verify(text, make_moment("missed", name=name)) == []


# ---- form and ground


@pytest.mark.parametrize(
    "text",
    [
        "", " … ", "<think>The left lung.</think>", "{'click': 1} the left lung", "left lung " * MAX_WORDS,
        "The left lung: (0.1, 0.2), (0.3, 0.4)",
    ],
)  # fmt: skip
def test_bad_form_is_found(make_moment: Make, text: str) -> None:
    assert "form" in codes(text, make_moment("missed"))


@pytest.mark.parametrize(
    "text",
    [
        "The mask covers about half of the image and misses a part of the left lung.",
        "The mask is in three pieces, and a part of the left lung is missing.",
        "There is a hole in the mask of the left lung, which misses a part.",
        "The mask reaches the left edge of the image and misses a part of the left lung.",
        "To the right of the mask a part of the left lung is missing.",
        "The point lies inside the mask, and the left lung is not complete.",
    ],
)
def test_claims_that_facts_deny_are_found(make_moment: Make, text: str) -> None:
    assert "ungrounded" in codes(text, make_moment("missed", action=click(0.1, 0.5)))
    assert "ungrounded" not in {v.code for v in verify(text, make_moment("missed"), with_picture=False)}


def test_violations_say_what_and_why(make_moment: Make) -> None:
    found = verify("The Ground-Truth is larger than the left lung mask.", make_moment("missed"))
    assert [v.code for v in found] == ["leak"] and found[0].excerpt == "ground truth" and found[0].message
    assert all(v.code in CODES for v in found)


def test_the_target_is_not_read(make_moment: Make) -> None:
    text = "The mask misses a part of the left lung."
    assert verify(text, make_moment(target=None)) == verify(text, make_moment()) == []


def test_boxes_and_answers(make_moment: Make) -> None:
    box = BoxAction(x0=0.3, y0=0.3, x1=0.7, y1=0.7)
    assert verify("I draw a box around the left lung.", make_moment("start", action=box)) == []
    stop = TerminateAction(verdict="found")
    assert verify("the mask shows the left lung", make_moment("fits", action=stop)) == []
    assert "leak" in codes("the mask equals the reference", make_moment("fits", action=stop))


def test_every_line_of_the_asset_is_a_pattern_that_matches_no_empty_text() -> None:
    for name, pattern in leak_families():
        assert name.isalpha() and pattern.search("") is None and pattern.search("the mask is green") is None
