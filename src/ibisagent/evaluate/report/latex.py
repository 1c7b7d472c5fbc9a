r"""Tables for a paper: booktabs, and nothing in a text that TeX could take for a command.

``tables.tex`` holds one ``table`` environment a block, to be read with ``\input`` or copied from; it needs
``\usepackage{booktabs}`` and no other package. Letters beyond ASCII that TeX cannot be trusted with are written as
commands or, where there is none, as ``?``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace

from ibisagent.evaluate.report.model import Cell, Facts, Gallery, Report
from ibisagent.evaluate.report.numbers import cell_text, few_text, interval_text, number_text, value_text
from ibisagent.evaluate.report.tabular import Sheet, sheets

__all__ = ["escape_latex", "render_latex"]

_COMMANDS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": r"\textbar{}",
    '"': r"\char34{}",
    "[": "{[}",  # after a line's end these would be arguments
    "]": "{]}",
    "*": "{*}",
    "\u2212": "$-$",
    "\u2013": "--",
    "\u2014": "---",
    "\u2018": "`",
    "\u2019": "'",
    "\u201c": "``",
    "\u201d": "''",
    "\u2026": r"\ldots{}",
    "\u00b1": r"$\pm$",
    "\u00d7": r"$\times$",
    "\u00b7": r"$\cdot$",
    "\u00b5": r"$\mu$",
    "\u03bc": r"$\mu$",
    "\u00b2": r"$^{2}$",
    "\u00b3": r"$^{3}$",
    "\u00b0": r"$^{\circ}$",
    "\u2264": r"$\leq$",
    "\u2265": r"$\geq$",
    "\u2192": r"$\rightarrow$",
    "\u00df": r"\ss{}",
    "\u00e6": r"\ae{}",
    "\u00c6": r"\AE{}",
    "\u00f8": r"\o{}",
    "\u00d8": r"\O{}",
    "\u0142": r"\l{}",
    "\u0141": r"\L{}",
}
_ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": ".",
    "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0327": "c",
}  # fmt: skip
_LIGATURES = frozenset(("--", "``", "''", "?`", "!`", ",,", "<<", ">>"))
"""Pairs of letters of which TeX's fonts make another one."""

_SENTENCE = 40
"""Letters of a cell that is a sentence: its column is left out, or set in lines if it is the first."""

_LONGEST = 40
"""Rows; longer tables do not fit a page and are split."""

_WIDE, _WIDEST = 2, 6
"""With more numbers in a row, intervals stand under them; with more than the second, letters are smaller, too."""


def escape_latex(text: str) -> str:
    r"""One line that TeX sets as it is written, whatever it holds.

    Accented Latin letters become commands (``\"{u}``), other letters ``?``: the fonts of a journal's class are not
    known. Control characters and line breaks become spaces, and no two letters run into one (``--`` is two hyphens).
    """
    told = ""
    for letter in " ".join(text.split()):
        piece = _letter(letter)
        told += "{}" + piece if told[-1:] + piece[:1] in _LIGATURES else piece
    return told


def render_latex(report: Report) -> str:
    """All tables but those of galleries and of facts about the machine, which no paper prints."""
    lines = [
        f"% {_comment(report.title)}: {_comment(report.subject)}",
        "% Made by ibisagent report. Needs \\usepackage{booktabs}.",
        "% Numbers in brackets are 95% intervals; report.json and the page say how they were made.",
        "",
        *_table(_summary(report)),
    ]
    for section in report.sections:
        for block in section.blocks:
            if isinstance(block, Gallery | Facts):
                continue
            for sheet in sheets(block):
                about = " ".join(text for text in (sheet.about, *section.cautions[:1]) if text)
                told = replace(_without_sentences(sheet), title=f"{section.title}: {sheet.title}", about=about)
                for part in _parts(told):
                    lines += _table(part)
    return "\n".join(lines)


def _summary(report: Report) -> Sheet:
    rows: list[tuple[Cell, ...]] = [
        (head.scale.title, value_text(head.value, head.scale), few_text(head.value)) for head in report.headlines
    ]
    about = " ".join((report.subject + ".", *report.cautions))
    return Sheet("summary", report.title, about, ("", "Value [95% interval]", "Of"), tuple(rows))


def _parts(sheet: Sheet) -> list[Sheet]:
    if len(sheet.rows) <= _LONGEST:
        return [sheet]
    parts = []
    for start in range(0, len(sheet.rows), _LONGEST):
        rows = sheet.rows[start : start + _LONGEST]
        groups = tuple((row - start, name) for row, name in sheet.groups if start <= row < start + _LONGEST)
        number = start // _LONGEST + 1
        parts.append(
            Sheet(f"{sheet.key}-{number}", f"{sheet.title} ({number})", sheet.about, sheet.columns, rows, groups)
        )
    return parts


def _without_sentences(sheet: Sheet) -> Sheet:
    kept = [k for k in range(len(sheet.columns)) if not k or _longest(sheet, k) <= _SENTENCE]
    return replace(
        sheet,
        columns=tuple(sheet.columns[k] for k in kept),
        rows=tuple(tuple(row[k] for k in kept) for row in sheet.rows),
    )


def _table(sheet: Sheet) -> list[str]:
    width = len(sheet.columns)
    texts = [any(isinstance(row[k], str) and not _is_number(row[k]) for row in sheet.rows) for k in range(width)]
    columns = "".join(_column(sheet, k, texts[k]) for k in range(width))
    caption = f"{sheet.title.rstrip('.')}. {sheet.about}".strip()
    numbers = max((sum(isinstance(cell, tuple) for cell in row) for row in sheet.rows), default=0)
    stacked, size = numbers > _WIDE, r"\scriptsize" if numbers > _WIDEST else r"\footnotesize"
    lines = [
        r"\begin{table}",
        r"\centering",
        *([size, r"\setlength{\tabcolsep}{4pt}"] if stacked else []),
        rf"\caption{{{escape_latex(caption)}}}",
        rf"\label{{tab:{re.sub(r'[^a-z0-9-]', '-', sheet.key.lower())}}}",
        rf"\begin{{tabular}}{{@{{}}{columns}@{{}}}}",
        r"\toprule",
        " & ".join(_stack(_lines(column), "b") if stacked else escape_latex(column) for column in sheet.columns)
        + r" \\",
        r"\midrule",
    ]
    opens = dict(sheet.groups)
    for number, row in enumerate(sheet.rows):
        if opens.get(number):
            gap = r"\addlinespace" + "\n" if number else ""
            lines.append(rf"{gap}\multicolumn{{{width}}}{{@{{}}l}}{{\textit{{{escape_latex(opens[number])}}}}} \\")
        lines.append(" & ".join(_cell(cell, stacked) for cell in row) + r" \\")
    return [*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""]


def _column(sheet: Sheet, number: int, words: bool) -> str:
    if _longest(sheet, number) > _SENTENCE:
        return r"p{0.42\linewidth}"
    return "l" if number == 0 or words else "r"


def _longest(sheet: Sheet, number: int) -> int:
    return max((len(cell) for row in sheet.rows if isinstance(cell := row[number], str)), default=0)


def _cell(cell: Cell, stacked: bool) -> str:
    if isinstance(cell, tuple):
        value, scale = cell
        number = escape_latex(number_text(value.value, scale))
        interval = interval_text(value, scale)
        if value.is_few:
            interval = f"{interval} (few)".strip()
        if interval and stacked:
            return (
                rf"\begin{{tabular}}[t]{{@{{}}r@{{}}}}{number}\\{{\scriptsize {escape_latex(interval)}}}\end{{tabular}}"
            )
        return rf"{number} {{\footnotesize {escape_latex(interval)}}}" if interval else number
    text = cell_text(cell)
    return _stack(text.split(", "), "t", "l") if stacked and ", " in text else escape_latex(text)


def _stack(lines: Sequence[str], where: str, side: str = "r") -> str:
    """Lines over one another in a cell; a single one stays as it is."""
    told = [escape_latex(line) for line in lines]
    body = r"\\".join(told)
    return body if len(told) < 2 else rf"\begin{{tabular}}[{where}]{{@{{}}{side}@{{}}}}{body}\end{{tabular}}"


def _lines(heading: str) -> list[str]:
    """A heading in lines of a dozen letters, where its words allow."""
    lines = [""]
    for word in heading.split():
        if lines[-1] and len(lines[-1]) + len(word) >= 12:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _is_number(cell: Cell) -> bool:
    return isinstance(cell, str) and bool(re.fullmatch(r"[\d.,%+\u2212\u2013 -]*", cell))


def _letter(letter: str) -> str:
    if letter in _COMMANDS:
        return _COMMANDS[letter]
    if " " <= letter <= "~":
        return letter
    parts = unicodedata.normalize("NFD", letter)
    if len(parts) == 2 and parts[0].isascii() and parts[0].isalpha() and parts[1] in _ACCENTS:
        return rf"\{_ACCENTS[parts[1]]}{{{parts[0]}}}"
    plain = unicodedata.normalize("NFKC", letter)
    if plain != letter and plain.isascii() and plain.isprintable():
        return "".join(_letter(one) for one in plain)
    return "?" if letter.isprintable() else " "


def _comment(text: str) -> str:
    """A text after a percent sign: one line, ASCII."""
    return " ".join(text.encode("ascii", "replace").decode().split())
