from __future__ import annotations

import pytest
from pydantic import ValidationError

from ibisagent.actions import (
    DIALECTS,
    KINDS,
    Action,
    BoxAction,
    Click,
    ClickAction,
    Dialect,
    DiscardAction,
    TerminateAction,
    Turn,
    UndoAction,
)
from ibisagent.errors import ActionError
from ibisagent.types import PixelBox, PixelClick

PLAIN, PAPER, JSON = DIALECTS["plain"], DIALECTS["ibis-paper"], DIALECTS["json"]
CLICK = ClickAction(clicks=(Click(x=0.5, y=0.25, positive=True),))


def frame(body: str, answer: str | None = None) -> str:
    return f"<think>why</think><action>{body}</action>" + ("" if answer is None else f"<answer>{answer}</answer>")


def code(dialect: Dialect, text: str) -> str:
    with pytest.raises(ActionError) as caught:
        dialect.parse(text)
    assert caught.value.reason and "\n" not in caught.value.reason
    return caught.value.code


# -- what the grammar says, written out -----------------------------------------------------


@pytest.mark.parametrize(
    ("body", "action"),
    [
        ("Positive Point (0.5000, 0.2500)", CLICK),
        ("Negative Point (0.0000, 1.0000)", ClickAction(clicks=(Click(x=0, y=1, positive=False),))),
        ("Box (0.1000, 0.2000, 0.3000, 0.4000)", BoxAction(x0=0.1, y0=0.2, x1=0.3, y1=0.4)),
        ("Undo", UndoAction()),
        ("Discard", DiscardAction()),
    ],
)
def test_plain_text(body: str, action: Action) -> None:
    assert PLAIN.parse(frame(body)) == Turn(thought="why", action=action)
    assert PLAIN.format(Turn(thought="why", action=action)) == frame(body)


@pytest.mark.parametrize(
    ("body", "action"),
    [
        ('[{"Attribute": 1, "Coordinate_2d": [0.5000, 0.2500]}]', CLICK),
        (
            '[{"Target": "left lung", "Attribute": 1, "Coordinate_2d": [0.5000, 0.2500]}, '
            '{"Target": "left lung", "Attribute": -1, "Coordinate_2d": [0.1000, 0.2000]}]',
            ClickAction(
                clicks=(Click(x=0.5, y=0.25, positive=True), Click(x=0.1, y=0.2, positive=False)), target="left lung"
            ),
        ),
        ('{"Box_2d": [0.1000, 0.2000, 0.3000, 0.4000]}', BoxAction(x0=0.1, y0=0.2, x1=0.3, y1=0.4)),
        ('"Undo"', UndoAction()),
        ('"Discard"', DiscardAction()),
    ],
)
def test_json(body: str, action: Action) -> None:
    assert JSON.parse(frame(body)) == Turn(thought="why", action=action)
    assert JSON.format(Turn(thought="why", action=action)) == frame(body)


@pytest.mark.parametrize(
    ("answer", "verdict", "rest"),
    [
        ("Found: the liver", "found", "the liver"),
        ("Found.", "found", ""),
        ("Found", "found", ""),
        ("absent: no tumour here", "absent", "no tumour here"),
        ("Absent. There is none.", "absent", "There is none."),
        ("UNCERTAIN", "uncertain", ""),
    ],
)
@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_verdicts(dialect: Dialect, answer: str, verdict: str, rest: str) -> None:
    body = '"Terminate"' if dialect.syntax == "json" else "Terminate"
    action = dialect.parse(frame(body, answer)).action
    assert action == TerminateAction(verdict=verdict, answer=rest)  # type: ignore[arg-type]


def test_paper_dialect_takes_a_free_answer_as_found() -> None:
    assert PAPER.parse(frame("Terminate", "The liver is outlined.")).action == TerminateAction(
        verdict="found", answer="The liver is outlined."
    )
    assert PAPER.parse(frame("Terminate")).action == TerminateAction(verdict="found", answer="")
    assert PAPER.parse(frame("Terminate", "Found the liver.")).action == TerminateAction(
        verdict="found", answer="Found the liver."
    )


@pytest.mark.parametrize("answer", ["Absent in this image", "uncertain borders"])
def test_paper_dialect_never_takes_a_doubt_as_found(answer: str) -> None:
    assert code(PAPER, frame("Terminate", answer)) == "answer_verdict"


def test_paper_dialect_writes_what_the_weights_write() -> None:
    assert PAPER.format(Turn(thought="", action=TerminateAction(answer="Done."))).endswith("<answer>Done.</answer>")
    turn = Turn(thought="", action=TerminateAction(answer="Absent: is a word"))
    assert PAPER.format(turn).endswith("<answer>Found: Absent: is a word</answer>")
    assert PAPER.parse(PAPER.format(turn)) == turn


# -- lenience, all of it --------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "  \n<think>why</think>\n\n<action>Positive Point (0.5000, 0.2500)</action>\n ",
        "<think> why\n</think><action>\n Positive Point ( 0.5000 ,0.2500\t) </action>",
        "<think>why</think><action>Positive Point (0.5000,0.2500)</action>",
    ],
)
def test_white_space_is_normalised(text: str) -> None:
    assert PLAIN.parse(text) == PLAIN.parse(frame("Positive Point (0.5000, 0.2500)"))


# -- rejections, each with its reason -------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "missing_tag"),
        ("Positive Point (0.5000, 0.2500)", "missing_tag"),
        ("<action>Undo</action>", "missing_tag"),
        ("<think>why</think><action>Undo", "missing_tag"),
        ("<Think>why</Think><action>Undo</action>", "missing_tag"),
        ("<think>a</think><think>b</think><action>Undo</action>", "repeated_tag"),
        (frame("Undo") + frame("Undo"), "repeated_tag"),
        ("<action>Undo</action><think>why</think>", "tag_order"),
        ("<think>why<action>Undo</action></think>", "tag_order"),
        ("Sure! " + frame("Undo"), "junk"),
        (frame("Undo") + " ok?", "junk"),
        ("<think>why</think> so <action>Undo</action>", "junk"),
        (frame("Terminate") + " so <answer>Found.</answer>", "junk"),
        (frame("Jump"), "unknown_action"),
        (frame("undo"), "unknown_action"),
        (frame(""), "unknown_action"),
        (frame("Positive Point 0.5000, 0.2500"), "unknown_action"),
        (frame("Positive Point (0.5000, 0.2500) Undo"), "unknown_action"),
        (frame("positive point (0.5000, 0.2500)"), "unknown_action"),
        (frame("Positive Point (0.5, 0.2500)"), "coordinate_format"),
        (frame("Positive Point (0.50000, 0.2500)"), "coordinate_format"),
        (frame("Positive Point (.5000, 0.2500)"), "coordinate_format"),
        (frame("Positive Point (+0.5000, 0.2500)"), "coordinate_format"),
        (frame("Positive Point (5e-1, 0.2500)"), "coordinate_format"),
        (frame("Positive Point (nan, 0.2500)"), "coordinate_format"),
        (frame("Positive Point (٠.٥٠٠٠, 0.2500)"), "coordinate_format"),
        (frame("Positive Point (0.5000, )"), "coordinate_format"),
        (frame("Positive Point (1.0001, 0.2500)"), "coordinate_range"),
        (frame("Positive Point (-0.0001, 0.2500)"), "coordinate_range"),
        (frame("Positive Point (512.0000, 0.2500)"), "coordinate_range"),
        (frame("Positive Point (0.5000)"), "coordinate_count"),
        (frame("Positive Point (0.5000, 0.5000, 0.5000)"), "coordinate_count"),
        (frame("Box (0.1000, 0.1000)"), "coordinate_count"),
        (frame("Box (0.3000, 0.2000, 0.1000, 0.4000)"), "box_order"),
        (frame("Terminate"), "missing_answer"),
        (frame("Terminate", ""), "answer_verdict"),
        (frame("Terminate", "The liver is outlined."), "answer_verdict"),
        (frame("Terminate", "Foundation"), "answer_verdict"),
        (frame("Undo", "Found."), "answer_without_terminate"),
        (frame("Positive Point (0.5000, 0.2500)", "Found."), "answer_without_terminate"),
        (frame("Terminate", "Found: " + "x" * 3000), "malformed"),
        ("<think>" + "x" * 9000 + "</think><action>Undo</action>", "malformed"),
        ("x" * 200_000, "too_long"),
        (frame("Undo") + "\ud800", "not_unicode"),
    ],
)
def test_plain_rejections(text: str, expected: str) -> None:
    assert code(PLAIN, text) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("Undo", "json"),
        ("[" * 50_000, "json"),
        ("[]", "unknown_action"),
        ("7", "unknown_action"),
        ('"Jump"', "unknown_action"),
        ('{"Box": [0.1000, 0.1000, 0.2000, 0.2000]}', "unknown_action"),
        ('{"Box_2d": [0.1000, 0.1000, 0.2000]}', "coordinate_count"),
        ('{"Box_2d": "0.1000"}', "coordinate_count"),
        ('{"Box_2d": ["0.1000", "0.1000", "0.2000", "0.2000"]}', "coordinate_format"),
        ('[{"Attribute": 1}]', "json_fields"),
        ('[{"Attribute": 1, "Coordinate_2d": [0.5000, 0.2500], "Why": "x"}]', "json_fields"),
        ('[{"Attribute": 1, "Attribute": -1, "Coordinate_2d": [0.5000, 0.2500]}]', "json"),
        ('[{"Attribute": 1.0, "Coordinate_2d": [0.5000, 0.2500]}]', "attribute"),
        ('[{"Attribute": true, "Coordinate_2d": [0.5000, 0.2500]}]', "attribute"),
        ('[{"Attribute": "1", "Coordinate_2d": [0.5000, 0.2500]}]', "attribute"),
        ('[{"Target": 3, "Attribute": 1, "Coordinate_2d": [0.5000, 0.2500]}]', "target"),
        ('[{"Target": "<\\/think>", "Attribute": 1, "Coordinate_2d": [0.5000, 0.2500]}]', "target"),
        ('[{"Target": "\\ud800", "Attribute": 1, "Coordinate_2d": [0.5000, 0.2500]}]', "target"),
        ('[{"Attribute": 1, "Coordinate_2d": [0.5, 0.2500]}]', "coordinate_format"),
        ('[{"Attribute": 1, "Coordinate_2d": [1, 0]}]', "coordinate_format"),
        ('[{"Attribute": 1, "Coordinate_2d": [NaN, 0.2500]}]', "coordinate_format"),
        ('[{"Attribute": 1, "Coordinate_2d": [1.5000, 0.2500]}]', "coordinate_range"),
        ('[{"Attribute": 1, "Coordinate_2d": [-0.5000, 0.2500]}]', "coordinate_range"),
        ("[" + ", ".join(['{"Attribute": 1, "Coordinate_2d": [0.5000, 0.2500]}'] * 9) + "]", "too_many_clicks"),
    ],
)
def test_json_rejections(body: str, expected: str) -> None:
    assert code(JSON, frame(body)) == expected


def test_targets_of_one_action_agree() -> None:
    item = '{{"Target": "{}", "Attribute": 1, "Coordinate_2d": [0.5000, 0.2500]}}'
    assert code(JSON, frame(f"[{item.format('a')}, {item.format('b')}]")) == "target"


@pytest.mark.parametrize("body", ["Undo", "Discard", "Box (0.1000, 0.2000, 0.3000, 0.4000)"])
def test_paper_dialect_has_clicks_and_terminate_only(body: str) -> None:
    assert code(PAPER, frame(body)) == "action_not_allowed"
    with pytest.raises(ActionError):
        PAPER.format(PLAIN.parse(frame(body)))


# -- dialects as objects --------------------------------------------------------------------


def test_restrict() -> None:
    only = PLAIN.restrict({"click", "terminate", "fly"})
    assert only.kinds == {"click", "terminate"} and only.name == "plain"
    assert code(only, frame("Undo")) == "action_not_allowed"
    with pytest.raises(ValueError):
        PAPER.restrict({"box"})


def test_impossible_dialects_are_refused() -> None:
    with pytest.raises(ValueError):
        Dialect("x", "plain", frozenset({"click"}), max_clicks=2)
    with pytest.raises(ValueError):
        Dialect("x", "json", frozenset({"fly"}))


def test_format_refuses_what_plain_cannot_say() -> None:
    two = ClickAction(clicks=CLICK.clicks * 2)
    named = ClickAction(clicks=CLICK.clicks, target="liver")
    for action, expected in ((two, "too_many_clicks"), (named, "not_expressible")):
        with pytest.raises(ActionError) as caught:
            PLAIN.format(Turn(thought="", action=action))
        assert caught.value.code == expected


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_description_names_exactly_the_actions_that_exist(dialect: Dialect) -> None:
    words = {"click": "Attribute" if dialect.syntax == "json" else "Positive Point", "box": "Box"}
    text = dialect.describe()
    for kind in KINDS:
        assert (words.get(kind, kind.capitalize()) in text) == (kind in dialect.kinds)
        assert dialect.restrict(dialect.kinds - {"undo"}).describe().find("Undo") == -1


# -- actions as objects ---------------------------------------------------------------------


@pytest.mark.parametrize("value", [-0.1, 1.1, 0.12345, float("nan"), float("inf")])
def test_impossible_coordinates_are_refused(value: float) -> None:
    with pytest.raises(ValidationError):
        Click(x=value, y=0.5, positive=True)


def test_minus_zero_is_zero() -> None:
    click = Click(x=-0.0, y=0.5, positive=True)
    assert str(click.x) == "0.0"


def test_impossible_actions_are_refused() -> None:
    with pytest.raises(ValidationError):
        ClickAction(clicks=())
    with pytest.raises(ValidationError):
        BoxAction(x0=0.5, y0=0, x1=0.4, y1=1)
    with pytest.raises(ValidationError):
        TerminateAction(verdict="maybe", answer="")  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["</think>", "a <action> b", "<answer>", "</answer>"])
def test_text_that_would_break_the_tags_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        Turn(thought=text, action=UndoAction())
    with pytest.raises(ValidationError):
        TerminateAction(answer=text)


def test_pixels_there_and_back() -> None:
    click, box = PixelClick(39, 20, False), PixelBox(3, 4, 60, 47)
    assert Click.at_pixel(click, 64, 48).to_pixel(64, 48) == click
    assert BoxAction.at_pixels(box, 64, 48).to_pixels(64, 48) == box


def test_actions_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        CLICK.clicks = ()  # type: ignore[misc]
