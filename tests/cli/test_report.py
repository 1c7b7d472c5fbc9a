"""``ibisagent report`` from its arguments to its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ibisagent.cli import main
from sample_report import write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"))


def test_a_report_lies_in_its_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(folder), "--no-plots", "--worst", "2", "--json"]) == 0
    told = capsys.readouterr()
    page = Path(json.loads(told.out)["page"])
    assert page == folder / "report" / "index.html" and page.is_file() and f"open {page}" in told.err
    assert {p.name for p in page.parent.iterdir()} == {
        "index.html", "report.md", "tables.tex", "report.json", "episodes"
    }  # fmt: skip
    assert 0 < len(list((page.parent / "episodes").iterdir())) <= 5


def test_a_second_report_leaves_nothing_of_the_first(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["report", str(folder), "--out", str(out), "--episodes", "all", "--no-plots"]) == 0
    assert len(list((out / "episodes").iterdir())) == 7  # the lost row was never played
    (out / "notes.txt").write_text("mine")
    assert main(["report", str(folder), "--out", str(out), "--episodes", "none", "--no-plots", "--title", "T"]) == 0
    assert list((out / "episodes").iterdir()) == [] and (out / "notes.txt").is_file()
    assert json.loads((out / "report.json").read_text())["title"] == "T"


def test_somebody_elses_folders_stay(folder: Path, tmp_path: Path) -> None:
    """A folder 'plots' that no report made is not removed, because nothing says that it is ours."""
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "mine.txt").write_text("mine")
    assert main(["report", str(folder), "--out", str(tmp_path), "--no-plots"]) == 0
    assert (tmp_path / "plots" / "mine.txt").is_file()


@pytest.mark.parametrize("arguments", [["NOWHERE"], ["FOLDER", "NOWHERE"], ["FOLDER", "--worst", "-1"], []])
def test_what_cannot_be_done_is_said(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    places = {"NOWHERE": str(tmp_path / "nowhere"), "FOLDER": str(folder)}
    out = tmp_path / "out"
    assert main(["report", *(places.get(a, a) for a in arguments), "--out", str(out)]) == 2
    told = capsys.readouterr().err.strip()
    assert told.startswith("ibisagent: error: ") and "\n" not in told
    assert not out.exists()


def test_a_file_is_in_the_way(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert main(["report", str(folder), "--out", str(tmp_path / "file")]) == 2
