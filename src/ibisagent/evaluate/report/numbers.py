"""Numbers as a reader sees them: one rule for page, Markdown, LaTeX and plots.

Shares are shown times 100 with one decimal and a percent sign, their intervals without it: ``71.9% [66.0, 77.8]``;
differences of shares are percentage points: ``+4.2 [-1.0, +9.3]``. Other numbers keep two decimals, one from 100 on.
A minus is a minus sign, what is undefined a dash. Comparisons and the terminal follow it, too.
"""

from __future__ import annotations

import math

from ibisagent.evaluate.report.model import Cell, Scale, Value

__all__ = [
    "DASH", "MINUS", "SHARE", "cell_text", "count_text", "few_text", "interval_text", "number_text", "p_text",
    "sample_text", "sentence", "value_text",
]  # fmt: skip

MINUS, DASH = "\u2212", "\u2013"

SHARE = Scale("")
"""Of a plain share."""

_MANY = {"reply": "replies", "pass": "passes"}


def number_text(value: float | None, scale: Scale, unit: bool = True) -> str:
    """A number alone.

    Parameters
    ----------
    value
        None and what is not finite give a dash.
    scale
        How it is read.
    unit
        Whether a percent sign or a unit of measure follows. Differences of shares have none: they are points.
    """
    if value is None or not math.isfinite(value):
        return DASH
    shown = 100 * value if scale.percent else value
    digits = 1 if scale.percent or abs(shown) >= 100 else 2
    if scale.unit == "tokens":
        digits = 0
    text = f"{shown:{'+' if scale.signed else ''}.{digits}f}"
    if float(text) == 0:
        text = text.replace("-", "").replace("+", "")  # neither a minus zero nor a plus zero
    text = text.replace("-", MINUS)
    if not unit:
        return text
    if scale.percent:
        return text if scale.signed or scale.unit else f"{text}%"
    return f"{text} {scale.unit}" if scale.unit in ("mm", "s") else text


def interval_text(value: Value, scale: Scale) -> str:
    """``[low, high]``, or nothing."""
    if value.value is None or value.ci95 is None:
        return ""
    low, high = (number_text(end, scale, unit=False) for end in value.ci95)
    return f"[{low}, {high}]"


def value_text(value: Value, scale: Scale) -> str:
    """A number with its interval."""
    interval = interval_text(value, scale)
    return f"{number_text(value.value, scale)} {interval}" if interval else number_text(value.value, scale)


def p_text(p: float | None) -> str:
    """A p-value: two digits, never 0, ``< 0.001`` below that."""
    if p is None:
        return DASH
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def count_text(number: int, noun: str) -> str:
    """``1 case``, ``1,204 cases``."""
    return f"{number:,} {noun if number == 1 else _MANY.get(noun, noun + 's')}"


def sample_text(value: Value) -> str:
    """Of how much a number was made: ``92 cases, 27 images``."""
    parts = [] if value.n is None else [count_text(value.n, "case")]
    if value.num_clusters is not None and value.unit and value.unit != "case":
        parts.append(count_text(value.num_clusters, value.unit))
    return ", ".join(parts)


def few_text(value: Value) -> str:
    """:func:`sample_text`, which says of few clusters that they are few."""
    return sample_text(value) + (" (few)" if value.is_few else "")


def sentence(text: object) -> str:
    """A remark of a program as a sentence: one line, a capital letter, a full stop."""
    plain = " ".join(str(text).split())
    return plain[:1].upper() + plain[1:] + ("" if plain.endswith((".", "!", "?")) or not plain else ".")


def cell_text(cell: Cell) -> str:
    """A cell of a table as plain text; numbers of few clusters are marked."""
    if cell is None:
        return DASH
    if isinstance(cell, tuple):
        return value_text(*cell) + (" (few)" if cell[0].is_few else "")
    return f"{cell:,}" if isinstance(cell, int) else cell
