"""The table of figures in the documents, written from the code: ``python -m ibisagent.evaluate.figure_docs FILE``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from ibisagent.errors import InputError
from ibisagent.evaluate.figure_table import FIGURES, SECTIONS

__all__ = ["OPENING", "figure_tables", "main", "with_tables"]

OPENING = "<!-- figures -->\n"


def figure_tables() -> str:
    """Every section's figures as a Markdown table."""
    parts = []
    for section, title in SECTIONS.items():
        rows = [f"**{title}**\n", "| name | figure | better | what it counts |", "|---|---|---|---|"]
        for figure in FIGURES.values():
            if figure.section == section:
                better = {True: "higher", False: "lower", None: "neither"}[figure.higher_is_better]
                unit = f" ({figure.unit})" if figure.unit else ""
                about = figure.about.replace("|", "\\|")
                rows.append(f"| `{figure.name}` | {figure.title}{unit} | {better} | {about} |")
        parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


def with_tables(text: str) -> str:
    """`text` with what stands between ``<!-- figures -->`` and ``<!-- end -->`` written anew.

    Raises
    ------
    InputError
        If it has no such place.
    """
    pattern = re.escape(OPENING) + r".*?(?=<!-- end -->)"
    text, count = re.subn(pattern, lambda _: OPENING + figure_tables(), text, count=1, flags=re.S)
    if not count:
        raise InputError(f"the document has no place for the figures: {OPENING.strip()} … <!-- end -->")
    return text


def main(argv: list[str]) -> int:
    """Rewrite the tables of the one file that is named."""
    path = Path(argv[0])
    path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
