"""Small pieces of Markdown: tables, numbers, escaped texts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ibisagent.io.files import one_line

__all__ = ["cell", "code_block", "counts_table", "facts_table", "number", "table"]

_MAX_CELL = 300
_MAX_ITEMS = 10


def cell(value: Any) -> str:
    """A value as the text of a table's cell: one line, nothing in it that Markdown would read as its own."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, Mapping):
        return "; ".join(f"{cell(name)}: {cell(inner)}" for name, inner in value.items()) or "–"
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        shown = [cell(item) for item in items[:_MAX_ITEMS]]
        more = [f"and {len(items) - _MAX_ITEMS:,} more"] if len(items) > _MAX_ITEMS else []
        return ", ".join(shown + more) or "none"
    text = one_line(value, _MAX_CELL)
    for character in "\\|`*_<>[]$#":
        text = text.replace(character, "\\" + character)
    return text


def number(value: float) -> str:
    """1,234 or 0.9427: whole numbers whole, others with four digits that count; NaN as a dash."""
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,}"
    if value != value:
        return "–"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"


def table(header: Sequence[str], rows: Sequence[Sequence[Any]], left: int = 1) -> str:
    """A table whose first `left` columns are aligned left and the others right; empty without rows."""
    if not rows:
        return ""
    lines = ["| " + " | ".join(header) + " |"]
    lines.append("|" + "|".join(" --- " if i < left else " ---: " for i in range(len(header))) + "|")
    lines += ["| " + " | ".join(cell(value) for value in row) + " |" for row in rows]
    return "\n".join(lines)


def counts_table(name: str, counts: Mapping[str, int], what: str = "trajectories", limit: int | None = None) -> str:
    """A table of counts with their shares; the rest in one row if there are more than `limit`."""
    total = sum(counts.values())
    rows: list[list[Any]] = [[key, count, f"{100 * count / total:.1f}%"] for key, count in counts.items() if total]
    if limit is not None and len(rows) > limit:
        rest = sum(row[1] for row in rows[limit:])
        rows = [*rows[:limit], [f"{len(rows) - limit} others", rest, f"{100 * rest / total:.1f}%"]]
    return table([name, what, "share"], rows)


def facts_table(facts: Mapping[str, Any]) -> str:
    """A table of names and values."""
    return table(["", ""], [[str(name).replace("_", " "), value] for name, value in facts.items()], left=2)


def code_block(value: Any, language: str = "") -> str:
    """Text as it is, or anything else as JSON, in a block that its own content cannot close."""
    text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False, default=str)
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
