from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ibisagent.errors import InputError
from ibisagent.rewards import PRESETS, TABLE_5, load_rubric
from ibisagent.rewards.table import main, preset_table, with_tables

DOCUMENT = Path(__file__).parents[3] / "docs" / "rewards.md"


def test_the_document_says_what_the_code_does() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert with_tables(text) == text, "run: python -m ibisagent.rewards.table docs/rewards.md"
    assert all(f"`{spec}`" in text for spec in TABLE_5.values())


@pytest.mark.parametrize("name", PRESETS)
def test_a_table_has_a_row_a_part(name: str) -> None:
    rows = preset_table(name).splitlines()
    assert len(rows) == 2 + len(load_rubric(name).names)
    assert all(row.count("|") == 7 for row in rows)


def test_stale_tables_are_written_anew(tmp_path: Path) -> None:
    copy = tmp_path / "rewards.md"
    shutil.copy(DOCUMENT, copy)
    fresh = copy.read_text(encoding="utf-8")
    copy.write_text(fresh.replace("| 1 |", "| 7 |"), encoding="utf-8")
    assert copy.read_text(encoding="utf-8") != fresh
    assert main([str(copy)]) == 0 and copy.read_text(encoding="utf-8") == fresh


def test_a_document_without_a_place_is_refused() -> None:
    with pytest.raises(InputError, match="no place for the reward 'ibis'"):
        with_tables("nothing")
