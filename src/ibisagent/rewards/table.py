"""The tables of docs/rewards.md, written from the presets: ``python -m ibisagent.rewards.table docs/rewards.md``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from ibisagent.errors import InputError
from ibisagent.rewards.rubric import PRESETS, load_preset

__all__ = ["main", "preset_table", "with_tables"]


def preset_table(name: str) -> str:
    """The parts of a preset with their default weights, as a Markdown table.

    Raises
    ------
    InputError
        If there is no such preset.
    """
    preset = load_preset(name)
    weights = preset.rubric().weights
    rows = ["| part | formula | range | per | weight | source |", "|---|---|---|---|---|---|"]
    for part in preset.functions:
        per = "reply" if part.per_turn else "episode"
        cells = (f"`{part.name}`", part.formula, part.bounds, per, f"{weights[part.name]:g}", part.source)
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


def with_tables(text: str) -> str:
    """`text` with what stands between ``<!-- rewards NAME -->`` and ``<!-- end -->`` written anew.

    Raises
    ------
    InputError
        If a preset has no place in it.
    """
    for name in PRESETS:
        opening = f"<!-- rewards {name} -->\n"
        if opening not in text:
            raise InputError(f"the document has no place for the reward '{name}': {opening.strip()}")
        pattern = re.escape(opening) + r".*?(?=<!-- end -->)"
        table = opening + preset_table(name)
        text = re.sub(pattern, lambda _, table=table: table, text, count=1, flags=re.S)  # type: ignore[misc]
    return text


def main(argv: list[str]) -> int:
    """Rewrite the tables of the one file that is named."""
    path = Path(argv[0])
    path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
