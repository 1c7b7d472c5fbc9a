"""Grid and report: commands, tables of what has run, and which shapes reproduce, on made-up cells."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ibisagent.errors import InputError
from ibisagent.train.course import grid, report
from ibisagent.train.course.exam import figure, ratio
from ibisagent.train.course.stages import ROWS

ROOT = Path(__file__).parents[4]
PLACES = "".join(
    f"<!-- course {name} -->\nold\n<!-- /course -->\nkept\n" for name in ("stages", "rewards", "shapes", "made")
)


def write_cell(folder: Path, row: str, seed: int, iou: float, steps: float = 3.0, sha: str = "a", n: int = 40) -> None:
    rng = np.random.default_rng([seed, 5])
    ious = np.clip(iou + rng.normal(0, 0.1, n), 0, 1).round(4).tolist()
    content = {
        "row": row,
        "seed": seed,
        "figures": {"iou": figure(ious), "validity": {"value": 0.99, "ci95": [0.98, 1.0], "n": 90}},
        "runs": {"iou": ious, "steps": (steps + rng.integers(0, 2, n)).tolist(), "image": [i // 2 for i in range(n)]},
        "training": {"base": {"parameters": 0.9}},
        "seconds_own": 100.0 + seed,
        "cpu_seconds_own": 150.0,
        "commit": "0123456789ab",
        "config_sha256": sha,
    }
    folder.mkdir(exist_ok=True)
    (folder / f"{row}-seed{seed}.json").write_text(json.dumps(content))


def line(text: str, begins: str) -> str:
    return next(part for part in text.splitlines() if part.startswith(f"| {begins} |"))


def test_tables_show_what_has_run_beside_the_paper(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, document = tmp_path / "results", tmp_path / "course.md"
    document.write_text(PLACES)
    for seed in (0, 1):
        write_cell(results, "base", seed, 0.1)
        write_cell(results, "sft", seed, 0.5)
        write_cell(results, "rl", seed, 0.3)
        write_cell(results, "reflection", seed, 0.5)
    write_cell(results, "sft+rl", 0, 0.9, sha="other")
    words = ["--results", str(results), "--document", str(document)]
    assert report.main([*words, "--check"]) == 1
    assert report.main(words) == 0
    text = document.read_text()
    assert report.main([*words, "--check"]) == 0
    assert text.count("kept") == 4 and "old" not in text
    sft = line(text, "sft").split(" | ")
    assert sft[1:3] == ["2", "40"] and sft[-2] == "53.42"
    assert float(sft[3].split()[0]) == pytest.approx(50, abs=3)
    assert "0.990 (0.980–1.000)" in line(text, "sft")
    assert line(text, "sft+rl").startswith("| sft+rl | 0 | – |")
    assert "Left out, made with other settings: sft+rl-seed0." in text
    assert "8 cells have run, with a model of 0.90 M parameters" in text
    assert line(text, "sft against base, IoU").endswith("| 2 | yes |")
    assert line(text, "rl against reflection, IoU").endswith("| 2 | no |")
    assert line(text, "reflection against sft, IoU").endswith("| 2 | undecided |")
    assert line(text, "all against sft+rl, IoU").endswith("| – | 0 | not run |")
    assert {f"| {name.removeprefix('reward-')} |" in text for name in ROWS} == {True}


def test_cells_on_real_images_have_places_of_their_own(tmp_path: Path) -> None:
    document = tmp_path / "course.md"
    places = "".join(f"<!-- course mini {name} -->\nold\n<!-- /course -->\n" for name in ("stages", "shapes", "made"))
    document.write_text(PLACES + places)
    write_cell(tmp_path / "phantoms", "sft", 0, 0.5)
    write_cell(tmp_path / "mini", "base", 0, 0.1)
    write_cell(tmp_path / "mini", "sft", 0, 0.3)
    words = ["--results", tmp_path / "phantoms", "--mini", tmp_path / "mini", "--document", document]
    assert report.main([str(word) for word in words]) == 0
    first, rest = document.read_text().split("<!-- course mini stages -->")
    assert "old" not in first + rest
    assert float(line(first, "sft").split(" | ")[3].split()[0]) == pytest.approx(50, abs=5)
    assert float(line(rest, "sft").split(" | ")[3].split()[0]) == pytest.approx(30, abs=5)
    assert "2 cells have run" in rest and "reward" not in rest
    assert line(rest, "sft against base, IoU").endswith("| 1 | yes |")


def test_rewards_on_real_images_are_told_where_there_is_a_place_for_them(tmp_path: Path) -> None:
    names = ("stages", "rewards", "shapes", "made")
    document = tmp_path / "course.md"
    document.write_text(PLACES + "".join(f"<!-- course mini {name} -->\nold\n<!-- /course -->\n" for name in names))
    for seed in (0, 1):
        for row, iou in (("reflection", 0.3), ("reward-none", 0.2), ("reward-click", 0.4)):
            write_cell(tmp_path / "mini", row, seed, iou)
    words = ["--results", tmp_path / "none", "--mini", tmp_path / "mini", "--document", document]
    assert report.main([str(word) for word in words]) == 0
    first, rest = document.read_text().split("<!-- course mini rewards -->")
    assert line(first.split("mini stages")[1], "reflection").startswith("| reflection | 2 | 40 |")
    assert line(rest, "click").startswith("| click | 2 | 40 |") and "| length |" not in rest and "old" not in rest
    assert line(rest, "reward click against reward none, IoU").endswith("| 2 | yes |")
    assert line(rest, "reward none against reflection, IoU").endswith("| 2 | no |")
    assert "reward length" not in rest


def test_what_a_reward_adds_is_told_over_the_four_pairs_of_rows_that_differ_by_it(tmp_path: Path) -> None:
    document = tmp_path / "course.md"
    document.write_text(PLACES)
    rewards = [row.name for row in ROWS.values() if row.table == "rewards"]
    for seed in (0, 1):
        for row in rewards:
            parts = {"click", "progress", "length"} if row == "reward-all" else set(row[7:].split("+"))
            iou = 0.3 + 0.2 * ("progress" in parts) - 0.1 * ("click" in parts)
            write_cell(tmp_path / "results", row, seed, iou, steps=6 - 2 * ("length" in parts))
    assert report.main(["--results", str(tmp_path / "results"), "--document", str(document)]) == 0
    text = document.read_text()
    progress = line(text, "reward progress in four pairs of rows, IoU").split(" | ")
    assert progress[1] == "+1.68"  # of the published table
    assert float(progress[2].split()[0]) == pytest.approx(20, abs=0.5) and progress[-1].startswith("yes")
    assert line(text, "reward click in four pairs of rows, IoU").endswith("| 2 | no |")
    shorter = line(text, "reward length in four pairs of rows, steps")
    assert "| -5.47 | -2.00 (-2.00 to -2.00) | 2 | yes |" in shorter
    (tmp_path / "results" / "reward-none-seed1.json").unlink()
    (tmp_path / "results" / "reward-all-seed0.json").unlink()
    assert report.main(["--results", str(tmp_path / "results"), "--document", str(document)]) == 0
    assert "four pairs" not in document.read_text()


def test_rows_that_were_not_to_run_are_left_out_of_the_places_preset(tmp_path: Path) -> None:
    document = tmp_path / "course.md"
    places = "".join(f"<!-- course places {name} -->\nold\n<!-- /course -->\n" for name in ("stages", "shapes", "made"))
    document.write_text(PLACES + places)
    for seed in (0, 1):
        write_cell(tmp_path / "places", "reflection", seed, 0.5, steps=5)
        write_cell(tmp_path / "places", "all", seed, 0.6, steps=3)
    words = ["--results", tmp_path / "none", "--places", tmp_path / "places", "--document", document]
    assert report.main([str(word) for word in words]) == 0
    first, rest = document.read_text().split("<!-- course places stages -->")
    assert line(first, "reflection").startswith("| reflection | 0 | – |") and "not run" in first
    assert line(rest, "all").startswith("| all | 2 | 40 |")
    assert "| sft |" not in rest and "not run" not in rest and "old" not in rest
    assert line(rest, "all against reflection, IoU").endswith("| 2 | yes |")
    fewer = line(rest, "all against reflection, steps")
    assert fewer.startswith("| all against reflection, steps | – | -2.00") and fewer.endswith("| 2 | fewer |")


def test_nothing_has_run(tmp_path: Path) -> None:
    document = tmp_path / "course.md"
    document.write_text(PLACES)
    assert report.main(["--results", str(tmp_path / "none"), "--document", str(document)]) == 0
    assert "No cell has run yet." in document.read_text()


@pytest.mark.parametrize("content", ["{", "{}", '{"row": "nothing"}'])
def test_a_file_that_is_no_cell_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(InputError, match=r"x\.json is no cell"):
        report.read_cells(tmp_path)


def test_a_document_without_places_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no place for the table 'stages'"):
        report.with_tables("text", {})


def test_the_document_is_what_the_results_say() -> None:
    words = ["--results", str(ROOT / "docs/results/ablation"), "--document", str(ROOT / "docs/course.md"), "--check"]
    assert report.main(words) == 0


def test_a_ratio_weighs_runs_by_their_replies() -> None:
    told = ratio([1, 9], [1, 10])
    assert told is not None
    assert told["value"] == round(10 / 11, 4) and told["n"] == 11
    assert told["ci95"][0] <= told["value"] <= told["ci95"][1]
    assert ratio([0], [0]) is None and figure([]) is None


def test_prompts_about_one_image_are_drawn_together() -> None:
    """Pairs that agree hold half as much: the interval of 20 pairs is that of 20 runs, not of 40."""
    values = np.random.default_rng(0).random(20).tolist()
    doubled, images = [v for v in values for _ in range(2)], [i // 2 for i in range(40)]
    alone, pairs, apart = figure(values), figure(doubled, images), figure(doubled)
    assert alone is not None and pairs is not None and apart is not None
    assert pairs["ci95"] == pytest.approx(alone["ci95"], abs=0.02) and pairs["n"] == 40
    assert apart["ci95"][1] - apart["ci95"][0] < 0.8 * (pairs["ci95"][1] - pairs["ci95"][0])
    replies, told = ratio([1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 1, 1]), ratio([2, 0], [2, 2])
    assert replies is not None and replies == told


def test_seeds_with_other_images_are_refused(tmp_path: Path) -> None:
    write_cell(tmp_path, "sft", 0, 0.5)
    write_cell(tmp_path, "sft", 1, 0.5)
    path = tmp_path / "sft-seed1.json"
    cell = json.loads(path.read_text())
    cell["runs"]["image"] = list(range(40))
    path.write_text(json.dumps(cell))
    with pytest.raises(InputError, match="different images"):
        report.table(report.read_cells(tmp_path)[0], "stages")


def test_rows_of_two_folders_are_held_against_each_other(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_cell(tmp_path / "with", "all", seed, 0.6)
        write_cell(tmp_path / "without", "all", seed, 0.5)
    write_cell(tmp_path / "short", "all", 0, 0.5, n=20)
    with_, without, short = (report.read_cells(tmp_path / name)[0]["all"] for name in ("with", "without", "short"))
    mean, low, high = report.paired_difference(with_, without, "iou")
    assert mean == pytest.approx(0.1, abs=0.005) and low <= mean <= high and high - low < 0.01
    assert report.paired_difference(with_, without, "steps") == (0, 0, 0)
    for other in ({0: with_[0]}, short):
        with pytest.raises(InputError, match="same"):
            report.paired_difference(with_, other, "iou")
    script = [sys.executable, ROOT / "benchmarks/course_difference.py"]
    run = subprocess.run([*script, tmp_path / "with/all", tmp_path / "without/all"], capture_output=True, text=True)
    assert run.returncode == 0 and run.stdout.startswith(f"iou: {100 * mean:+.2f} ["), run.stderr
    run = subprocess.run([*script, tmp_path / "with/all", tmp_path / "without/rl"], capture_output=True, text=True)
    assert run.returncode == 1 and run.stderr == f"error: {tmp_path / 'without'} has no cell of the row rl\n"


def test_the_grid_prints_its_cells(capsys: pytest.CaptureFixture[str]) -> None:
    assert grid.main(["--dry-run", "--only", "stages", "--seeds", "0", "2", "--rl-updates", "7"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12
    assert all(text.endswith("--rl-updates 7") for text in lines)
    assert "--row sft+rl --seed 2" in lines[-2]
    grid.main(["--dry-run"])
    assert len(capsys.readouterr().out.splitlines()) == 3 * (6 + 8)
    with pytest.raises(InputError, match="there is no cell 'stage'"):
        grid.main(["--dry-run", "--only", "stage"])


@pytest.mark.parametrize("script", ["ablation.sh", "speedrun.sh"])
def test_scripts_print_their_commands(script: str, any_python: dict[str, Any]) -> None:
    run = subprocess.run([ROOT / "runs" / script, "--dry-run"], capture_output=True, text=True, **any_python)
    assert run.returncode == 0, run.stderr
    assert len(run.stdout.splitlines()) >= 9
    if script == "speedrun.sh":
        assert [word in run.stdout for word in ("train nano", "synthesize", "train rl", "evaluate")] == [True] * 4
        assert "--nproc_per_node 2" in run.stdout and "cuda" not in run.stdout
        command = [ROOT / "runs" / script, "--dry-run", "--device", "cuda"]
        told = subprocess.run(command, capture_output=True, text=True, check=True, **any_python).stdout
        # Two processes on one GPU would not start.
        assert "--nproc_per_node 1" in told and "--device cpu" not in told
        assert [line.count("--device") for line in told.splitlines() if "train" in line or "evaluate " in line] == [
            1
        ] * 6


@pytest.fixture
def any_python() -> dict[str, Any]:
    import os
    import sys

    return {"env": {**os.environ, "PYTHON": sys.executable}}
