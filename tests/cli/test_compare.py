from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from cli_samples import Ran

from sample_comparison import write_pair


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_pair(tmp_path_factory.mktemp("runs"))


def test_words_on_the_terminal(cli: Callable[..., Ran], runs: tuple[Path, Path]) -> None:
    ran = cli("compare", *runs)
    assert ran.code == 0, ran
    assert ran.out.startswith("after against before: 4 cases played by both")
    assert "note: without a partner, left out of the comparison: 1 of before (only-a); 1 of after (only-b)" in ran.out


def test_json_and_a_folder(cli: Callable[..., Ran], runs: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = cli("compare", *runs, "--figures", "iou,right_refusals", "--names", "A,B", "--out", out, "--json")
    assert ran.code == 0 and f"written to {out}" in ran.err
    (one,) = ran.json["comparisons"]
    assert [line["figure"] for line in one["figures"]] == ["iou", "right_refusals"]
    assert one["figures"][1]["value_a"] == 0.0 and one["figures"][1]["value_b"] == 1.0
    assert json.loads((out / "compare.json").read_text()) == ran.json
    pictures = sorted(path.name for path in (out / "changes").iterdir())
    assert pictures == ["1_01_nucleus.png", "1_02_lung.png"]
    assert np.asarray(PIL.Image.open(out / "changes" / "1_02_lung.png")).shape[1] > 1400
    assert all(f"changes/{name}" in (out / "compare.md").read_text() for name in pictures)
    assert "B against A" in (out / "compare.html").read_text()
    again = cli("compare", *runs, "--figures", "steps", "--changes", "0", "--out", out)
    assert again.code == 0 and list((out / "changes").iterdir()) == []  # no picture of the comparison before


def test_several_seeds_with_commas(cli: Callable[..., Ran], runs: tuple[Path, Path]) -> None:
    ran = cli("compare", runs[0], f"{runs[1]},{runs[1]}", "--json")
    (one,) = ran.json["comparisons"]
    assert one["b"]["runs"] == ["after", "after"] and one["figures"][0]["seeds"] == [1, 2]
    assert one["figures"][0]["test"] == "draws of clusters and seeds"
    assert any("names one folder more than once" in note for note in one["notes"])


def test_a_folder_that_is_not_ours_stays(cli: Callable[..., Ran], runs: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert cli("compare", *runs, "--changes", "1", "--out", tmp_path).code == 0
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_what_cannot_be_compared_is_refused(cli: Callable[..., Ran], runs: tuple[Path, Path], tmp_path: Path) -> None:
    cli("compare", runs[0]).assert_refused("compare needs two runs or more")
    cli("compare", runs[0], tmp_path).assert_refused("holds no run of ibisagent evaluate")
    cli("compare", *runs, "--figures", "iuo").assert_refused("no figure is called 'iuo'")
    cli("compare", *runs, "--names", "A").assert_refused("--names has 1 names for 2 sides")
    cli("compare", *runs, "--figures", ",").assert_refused("--figures names nothing")
    cli("compare", runs[0], ",").assert_refused("a run is an empty name")
