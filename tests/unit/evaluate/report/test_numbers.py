"""Numbers as a reader sees them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibisagent.evaluate.report.axes import forest_axis, nice_axis, x_axis
from ibisagent.evaluate.report.model import Curve, Forest, ForestRow, Scale, Value
from ibisagent.evaluate.report.numbers import (
    DASH,
    MINUS,
    SHARE,
    cell_text,
    count_text,
    number_text,
    p_text,
    sample_text,
    sentence,
    value_text,
)

POINTS = Scale("Difference", signed=True)


@pytest.mark.parametrize(
    ("value", "scale", "expected"),
    [
        (0.7194, SHARE, "71.9%"),
        (1.0, SHARE, "100.0%"),
        (0.0424, POINTS, "+4.2"),
        (-0.0424, POINTS, f"{MINUS}4.2"),
        (-0.0001, POINTS, "0.0"),
        (0.034, Scale("Regret", unit="points"), "3.4"),
        (4.305, Scale("Steps", percent=False, unit="steps"), "4.30"),
        (12.345, Scale("HD95", percent=False, unit="mm"), "12.35 mm"),
        (123.45, Scale("HD95", percent=False, unit="mm"), "123.5 mm"),
        (812.6, Scale("Tokens", percent=False, unit="tokens"), "813"),
        (None, SHARE, DASH),
        (math.nan, SHARE, DASH),
    ],
)
def test_numbers(value: float | None, scale: Scale, expected: str) -> None:
    assert number_text(value, scale) == expected


def test_values_with_intervals() -> None:
    assert value_text(Value(0.719, (0.66, 0.778)), SHARE) == "71.9% [66.0, 77.8]"
    assert value_text(Value(0.042, (-0.01, 0.093)), POINTS) == f"+4.2 [{MINUS}1.0, +9.3]"
    assert value_text(Value(0.5), SHARE) == "50.0%"
    assert value_text(Value(None, (0.1, 0.2)), SHARE) == DASH
    assert cell_text((Value(0.5), SHARE)) == "50.0%" and cell_text(1234) == "1,234" and cell_text(None) == DASH


@pytest.mark.parametrize(("p", "text"), [(None, DASH), (0.0001, "< 0.001"), (0.0123, "0.012"), (0.5, "0.50")])
def test_p_is_never_zero(p: float | None, text: str) -> None:
    assert p_text(p) == text


def test_samples_and_counts() -> None:
    assert sample_text(Value(0.5, None, 92, 27, "image")) == "92 cases, 27 images"
    assert sample_text(Value(0.5, None, 1, 1, "patient")) == "1 case, 1 patient"
    assert sample_text(Value(0.5, None, 92, 92, "case")) == "92 cases"
    assert count_text(1204, "case") == "1,204 cases"
    assert Value(0.5, None, 92, 9).is_few and not Value(0.5, None, 92, 10).is_few and not Value(None, None, 0, 0).is_few
    assert (
        sentence("4 patients  known\n") == "4 patients known." and sentence("") == "" and sentence("done!") == "Done!"
    )


def test_headings_name_the_unit_once() -> None:
    assert SHARE.heading == ", %" and Scale("IoU").heading == "IoU, %"
    assert POINTS.heading == "Difference, points"
    assert Scale("Regret", unit="points").heading == "Regret, points"
    assert Scale("Steps", percent=False, unit="steps").heading == "Steps"
    assert Scale("Steps", percent=False, unit="steps").difference().signed


@given(st.floats(-1e4, 1e4), st.floats(1e-3, 1e4))
def test_an_axis_holds_its_numbers(low: float, width: float) -> None:
    axis = nice_axis(low, low + width, Scale("", percent=False))
    assert axis.low <= low + 1e-6 * width and axis.high >= low + width * (1 - 1e-6)
    assert 2 <= len(axis.ticks) <= 14 and axis.ticks[0][0] == axis.low
    assert all(0 <= axis.share(v) <= 1 for v, _ in axis.ticks)


def test_axes_of_forests() -> None:
    rows = (ForestRow("a", Value(0.3, (0.2, 0.4))), ForestRow("b", Value(None)))
    shares = forest_axis(Forest("k", "t", "", SHARE, rows))
    assert [text for _, text in shares.ticks] == ["0", "20", "40", "60", "80", "100"]
    gaps = forest_axis(Forest("k", "t", "", POINTS, (ForestRow("a", Value(-0.05, (-0.12, 0.02))),), 0.0))
    assert gaps.low <= -0.12 and gaps.high >= 0.02 and any(text == "0" for _, text in gaps.ticks)
    nothing = forest_axis(Forest("k", "t", "", POINTS, (), 0.0))
    assert nothing.high > nothing.low


def test_whole_numbers_have_whole_ticks() -> None:
    curve = Curve("k", "t", "", "Actions", SHARE, (), (0.0, 24.0), x_whole=True)
    assert [text for _, text in x_axis(curve).ticks] == ["0", "3", "6", "9", "12", "15", "18", "21", "24"]
