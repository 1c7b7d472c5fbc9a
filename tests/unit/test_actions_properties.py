"""Parsing and formatting are inverse, and no string breaks the parser."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibisagent.actions import (
    DIALECTS,
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

NUM_STRINGS = 100_000

coordinate = st.integers(0, 10_000).map(lambda n: n / 10_000)
# Texts that look like grammar, so that the corners of the verdict and of the tags are met.
pieces = st.sampled_from(
    [
        "Found",
        "Absent",
        "Uncertain",
        ":",
        ".",
        " ",
        "found: ",
        "<",
        ">",
        "think",
        "/",
        "\n",
        '"',
        "\\",
        "é",
        "\x1f",
        "\r",
    ]
)
texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40), st.lists(pieces, max_size=8).map("".join)
).filter(lambda t: not any(f"<{s}{tag}>" in t for s in ("", "/") for tag in ("think", "action", "answer")))
clicks = st.builds(Click, x=coordinate, y=coordinate, positive=st.booleans())
boxes = st.builds(
    lambda xs, ys: BoxAction(x0=min(xs), x1=max(xs), y0=min(ys), y1=max(ys)),
    st.tuples(coordinate, coordinate),
    st.tuples(coordinate, coordinate),
)
terminations = st.builds(TerminateAction, verdict=st.sampled_from(["found", "absent", "uncertain"]), answer=texts)


def actions(dialect: Dialect) -> st.SearchStrategy[Action]:
    target = texts if dialect.syntax == "json" else st.just("")
    click = st.builds(
        ClickAction, clicks=st.lists(clicks, min_size=1, max_size=dialect.max_clicks).map(tuple), target=target
    )
    by_kind: dict[str, st.SearchStrategy[Action]] = {
        "click": click,
        "box": boxes,
        "undo": st.just(UndoAction()),
        "discard": st.just(DiscardAction()),
        "terminate": terminations,
    }
    return st.one_of([by_kind[kind] for kind in sorted(dialect.kinds)])


@pytest.mark.parametrize("name", DIALECTS)
def test_parse_of_format_is_the_turn(name: str) -> None:
    dialect = DIALECTS[name]

    @settings(max_examples=500, deadline=None)
    @given(texts, actions(dialect))
    def check(thought: str, action: Action) -> None:
        turn = Turn(thought=thought, action=action)
        assert dialect.parse(dialect.format(turn)) == turn

    check()


@pytest.mark.parametrize("name", DIALECTS)
def test_no_string_raises_anything_but_action_error(name: str) -> None:
    """100,000 strings: valid ones, valid ones with wounds, noise. What parses must be stable under format."""
    dialect = DIALECTS[name]
    rng = random.Random(20260103)
    num_valid = 0
    for _ in range(NUM_STRINGS):
        text = _generate(rng, dialect)
        try:
            turn = dialect.parse(text)
        except ActionError as error:
            assert error.code and error.reason
            continue
        num_valid += 1
        assert dialect.parse(dialect.format(turn)) == turn, text
    # The generator must exercise both sides.
    assert NUM_STRINGS // 20 < num_valid < NUM_STRINGS * 19 // 20


_TOKENS = [
    *(
        "<think>",
        "</think>",
        "<action>",
        "</action>",
        "<answer>",
        "</answer>",
        "<Think>",
        "Positive Point",
        "Box",
        "Undo",
    ),
    *("Terminate", '"Terminate"', "Found:", "Absent.", "(", ")", ",", "0.5000", "1.0001", "-0.1", "nan", "1e999"),
    *("[", "]", "{", "}", '"', "\\ud800", "\\u0000", "NaN", "Infinity", "null", "9" * 5000, "\ud800", "\x00", "\u202e"),
]


def _generate(rng: random.Random, dialect: Dialect) -> str:
    kind = rng.random()
    if kind < 0.1:
        return "".join(chr(rng.randrange(0x110000)) for _ in range(rng.randrange(30)))
    if kind < 0.2:
        return "".join(rng.choice(_TOKENS) for _ in range(rng.randrange(12)))
    text = _valid(rng, dialect)
    if kind < 0.4:
        return text
    for _ in range(rng.randint(1, 3)):
        text = _wound(rng, text)
    return text


def _valid(rng: random.Random, dialect: Dialect) -> str:
    def number() -> str:
        return f"{rng.randint(0, 10_000) / 10_000:.4f}"

    plain = dialect.syntax == "plain"
    kind = rng.choice(sorted(dialect.kinds))
    answer = ""
    if kind == "click" and plain:
        body = f"{rng.choice(['Positive', 'Negative'])} Point ({number()}, {number()})"
    elif kind == "click":
        item = '{{"Target": "t", "Attribute": {}, "Coordinate_2d": [{}, {}]}}'
        items = [
            item.format(rng.choice([1, -1]), number(), number()) for _ in range(rng.randint(1, dialect.max_clicks))
        ]
        body = f"[{', '.join(items)}]"
    elif kind == "box":
        xs, ys = sorted([number(), number()]), sorted([number(), number()])
        values = f"{xs[0]}, {ys[0]}, {xs[1]}, {ys[1]}"
        body = f"Box ({values})" if plain else f'{{"Box_2d": [{values}]}}'
    else:
        body = kind.capitalize() if plain else f'"{kind.capitalize()}"'
        if kind == "terminate":
            answer = f"<answer>{rng.choice(['Found', 'Absent', 'Uncertain'])}: the {rng.randint(0, 99)}</answer>"
    return f"<think>step {rng.randint(0, 99)}</think><action>{body}</action>{answer}"


def _wound(rng: random.Random, text: str) -> str:
    at = rng.randrange(len(text) + 1)
    to = min(len(text), at + rng.randrange(1, 8))
    how = rng.randrange(6)
    if how == 0:
        return text[:at] + text[to:]
    if how == 1:
        return text[:at] + rng.choice(_TOKENS) + text[at:]
    if how == 2:
        return text[:at] + chr(rng.randrange(0x110000)) + text[to:]
    if how == 3:
        return text[:at] + text[at:to] * 2 + text[to:]
    if how == 4:
        return text[:at]
    return text[:at] + rng.choice([" ", "\n", "\t", "\u00a0", "\u2003"]) + text[at:]
