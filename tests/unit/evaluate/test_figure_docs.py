"""The documents' table of figures is the code's."""

from __future__ import annotations

from pathlib import Path

import pytest

from ibisagent.errors import InputError
from ibisagent.evaluate.figure_docs import OPENING, figure_tables, main, with_tables
from ibisagent.evaluate.figures import FIGURES

DOCS = Path(__file__).parents[3] / "docs"


def test_the_documents_are_up_to_date() -> None:
    texts = [path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.md"))]
    with_figures = [text for text in texts if OPENING in text]
    assert with_figures, "no document lists the figures"
    for text in with_figures:
        assert with_tables(text) == text, "run: python -m ibisagent.evaluate.figure_docs FILE"


def test_every_figure_has_one_row() -> None:
    rows = [line for line in figure_tables().splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == list(FIGURES)
    assert all(row.replace("\\|", "").count("|") == 5 for row in rows)


def test_a_document_without_a_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no place"):
        with_tables("# Nothing\n")
    path = tmp_path / "a.md"
    path.write_text(f"before\n{OPENING}old\n<!-- end -->\nafter\n", encoding="utf-8")
    assert main([str(path)]) == 0
    text = path.read_text(encoding="utf-8")
    assert text.startswith("before\n") and text.endswith("<!-- end -->\nafter\n") and "`regret`" in text
