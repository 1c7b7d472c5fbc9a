"""Markdown, LaTeX and JSON: what others wrote stays text, and the tables hold together."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibisagent.evaluate.report.latex import escape_latex, render_latex
from ibisagent.evaluate.report.markdown import escape_markdown, render_markdown
from ibisagent.evaluate.report.model import Report
from ibisagent.evaluate.report.record import report_json
from sample_report import make_report

_NAMES = (
    "textbackslash textasciitilde textasciicircum textbar char34 ldots pm times cdot mu circ leq geq rightarrow "
    "ss ae AE o O l L"
).split()
HARMLESS = re.compile(rf"\\({'|'.join(_NAMES)})(?![A-Za-z])" + r"|\\[{}$&#%_]" + r"|\\[`'^~=u.\"rHvc]\{[A-Za-z]\}")
"""Commands that set a letter."""


@pytest.fixture(scope="module")
def report() -> Report:
    return make_report()


@given(st.text())
def test_nothing_in_a_text_is_a_command(text: str) -> None:
    told = escape_latex(text)
    assert told.isascii() and "\n" not in told
    left = HARMLESS.sub("", told)
    assert "\\" not in left and not set(left) & set('&#%_~^"<>|') - set("<>^") and "\\input" not in told
    depth = 0
    for letter in re.sub(r"\\[{}]", "", told):
        depth += {"{": 1, "}": -1}.get(letter, 0)
        assert depth >= 0
    assert depth == 0
    # Mathematics is only ever one of ours, opened and closed.
    assert re.sub(r"\\\$", "", told).count("$") % 2 == 0


def test_letters_survive_where_they_can() -> None:
    assert escape_latex("Müller & Sons: 50% of $5_a") == r"M\"{u}ller \& Sons: 50\% of \$5\_a"
    assert escape_latex("−3.1 – [a]") == "$-$3.1 -- {[}a{]}"
    assert escape_latex("肺\x00") == "? "
    assert escape_latex("*x") == "{*}x"  # after a line's end the bare star would be an argument
    assert escape_latex("a--b ``c'' ?` \u2013-") == "a-{}-b `{}`c'{}' ?{}` --{}-"


def test_latex_tables_hold_together(report: Report) -> None:
    text = render_latex(report)
    tables = re.findall(r"\\begin\{table\}.*?\\end\{table\}", text, re.S)
    assert len(tables) == 7 and text.count(r"\toprule") == text.count(r"\bottomrule") == len(tables)
    assert text.isascii()
    labels = re.findall(r"\\label\{(.*?)\}", text)
    assert len(set(labels)) == len(labels)
    for table in tables:
        spec = re.search(r"\\begin\{tabular\}\{@\{\}(.*)@\{\}\}", table)
        assert spec is not None
        width = len(re.sub(r"p\{.*?\}", "p", spec[1]))
        for line in table.splitlines():
            if line.endswith(r"\\") and "multicolumn" not in line:
                line = re.sub(r"\\begin\{tabular\}\[[bt]\].*?\\end\{tabular\}", "", line)
                assert len(re.findall(r"(?<!\\)&", line)) == width - 1, line
    assert r"71.9\% {\footnotesize {[}66.9, 76.9{]}}" in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles(report: Report, tmp_path: Path) -> None:
    (tmp_path / "tables.tex").write_text(render_latex(report))
    head = r"\documentclass{article}\usepackage{booktabs}\begin{document}"
    (tmp_path / "paper.tex").write_text(head + r"\input{tables}\end{document}")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-no-shell-escape", "-halt-on-error", "paper"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-800:]


@given(st.text(max_size=60))
def test_markdown_of_any_text_stays_in_its_cell(text: str) -> None:
    told = escape_markdown(text)
    assert told.isprintable() and not re.search(r"(?<!\\)[|`*_\[\]<>#~${}!&]", told.replace("\\\\", ""))


def test_markdown_shows_what_was_written() -> None:
    assert escape_markdown("![a](b) ~~c~~ \x1b[1m &lt; $d$") == r"\!\[a\](b) \~\~c\~\~ \[1m \&lt; \$d\$"


def test_markdown_tables_have_as_many_cells_as_heads(report: Report) -> None:
    lines = render_markdown(report).splitlines()
    width = 0
    for line in lines:
        if not line.startswith("|"):
            width = 0
            continue
        cells = len(re.findall(r"(?<!\\)\|", line.replace("\\\\", ""))) - 1
        width = width or cells
        assert cells == width, line
    text = "\n".join(lines)
    assert "| IoU | 71.9% \\[66.9, 76.9\\] | 92 cases, 27 images |" in text
    assert "> Only 4 patients" in text and "<script>" not in text


def test_json_has_everything_but_pictures(report: Report) -> None:
    told = json.loads(report_json(report))
    assert told["schema_version"] == 1 and "pictures" not in told
    assert told["headlines"][0]["value"]["value"] == pytest.approx(0.719)
    forest = told["sections"][0]["blocks"][0]
    assert forest["kind"] == "forest" and forest["rows"][2]["value"]["value"] is None
    table = next(s for s in told["sections"] if s["key"] == "all-figures")["blocks"][0]
    assert table["rows"][0][1]["ci95"] == pytest.approx([0.669, 0.769]) and table["rows"][0][1]["scale"]["percent"]
