"""The report as Markdown: headings, sentences and tables; what others wrote cannot become markup."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ibisagent.evaluate.report.model import Cell, Report
from ibisagent.evaluate.report.numbers import cell_text, few_text, value_text
from ibisagent.evaluate.report.tabular import Sheet, sheets

__all__ = ["escape_markdown", "render_markdown"]

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~$!&])")


def escape_markdown(text: str) -> str:
    """One line in which nothing is markup, so that it may stand in a table; control characters become spaces."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text)
    return _SPECIAL.sub(r"\\\1", " ".join(shown.split()))


def render_markdown(report: Report) -> str:
    """The report's text: summary first, one table a block.

    Intervals stand in square brackets behind their numbers; GitHub and pandoc read the tables.
    """
    lines = [f"# {escape_markdown(report.title)}", "", escape_markdown(report.subject), "", "## Summary", ""]
    lines += ["| figure | value [95% interval] | of | |", "|---|---|---|---|"]
    for head in report.headlines:
        cells = (head.scale.title, value_text(head.value, head.scale), few_text(head.value), head.remark)
        lines.append("| " + " | ".join(escape_markdown(text) for text in cells) + " |")
    lines += _paragraphs(report.cautions, "> ")
    if report.findings:
        lines += ["", *(f"- {escape_markdown(text)}" for text in report.findings)]
    for section in report.sections:
        lines += ["", f"## {escape_markdown(section.title)}"]
        lines += _paragraphs([section.text] if section.text else [], "")
        lines += _paragraphs(section.cautions, "> ")
        for block in section.blocks:
            for sheet in sheets(block):
                lines += [
                    "",
                    f"### {escape_markdown(sheet.title)}",
                    *_paragraphs([sheet.about], ""),
                    "",
                    *_table(sheet),
                ]
    return "\n".join(lines) + "\n"


def _paragraphs(texts: Sequence[str], before: str) -> list[str]:
    return [line for text in texts if text for line in ("", before + escape_markdown(text))]


def _table(sheet: Sheet) -> list[str]:
    lines = [_row(sheet.columns), "|" + "---|" * len(sheet.columns)]
    opens = dict(sheet.groups)
    for number, row in enumerate(sheet.rows):
        if opens.get(number):
            lines.append(_row([f"**{escape_markdown(opens[number])}**", *[""] * (len(row) - 1)], escaped=True))
        lines.append(_row(row))
    return lines


def _row(cells: Sequence[Cell], escaped: bool = False) -> str:
    texts = [cell_text(cell) for cell in cells]
    return "| " + " | ".join(text if escaped else escape_markdown(text) for text in texts) + " |"
