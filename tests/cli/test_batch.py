"""``ibisagent batch`` over pictures, volumes and a DICOM folder, with a scripted policy."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from cli_samples import CLICK, Ran, save, stop

from dicom_maker import write_series
from ibisagent.errors import ToolError

Cli = Callable[..., Ran]
Script = Callable[..., str]
RULES = ("--segmenter", "rules")


@pytest.fixture
def studies(folder: Path, square: np.ndarray) -> Path:
    place = folder / "in"
    place.mkdir()
    save(place / "a.png", square)
    save(place / "b.png", 255 - square)
    (place / "cut.png").write_bytes((folder / "image.png").read_bytes()[:80])
    return place


def rows(out: Path) -> dict[str, dict[str, Any]]:
    return {r["id"]: r for r in map(json.loads, (out / "manifest.jsonl").read_text().splitlines())}


def test_every_study_has_its_outcome(cli: Cli, folder: Path, studies: Path, script: Script) -> None:
    policy = script(*[CLICK, stop("Found: it.")] * 20)
    ran = cli("batch", "in", "the square", "--policy", policy, *RULES, "--out", "o", "--json")
    assert ran.code == 5 and ran.json["studies"] == 3 and ran.json["outcomes"]["failed"] == 1
    found = rows(folder / "o")
    assert list(found) == ["a", "b", "cut"] and found["a"]["outcome"] == "done" and found["a"]["answer"] == "it."
    assert "cut.png" in found["cut"]["error"] and found["cut"]["files"] == {}
    assert (folder / "o" / found["a"]["files"]["mask"]).is_file() and not (folder / "o/cut").exists()
    with (folder / "o/manifest.csv").open(newline="") as file:
        assert [r["outcome"] for r in csv.DictReader(file)] == ["done", found["b"]["outcome"], "failed"]
    assert ran.err.count("cut.png") == 1 and "--retry" in ran.err


def test_a_rerun_goes_on_and_retries_where_asked(
    cli: Cli, folder: Path, studies: Path, script: Script, square: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = script(*[CLICK, stop("Found.")] * 20)
    command = ("batch", "in", "the square", "--policy", policy, *RULES, "--out", "o")
    from ibisagent.segmenters.rules import RulesSegmenter

    whole = RulesSegmenter.predict

    failures: list[Any] = [ToolError("out of order"), KeyboardInterrupt()]

    def broken(*args: Any, **more: Any) -> Any:
        raise failures.pop(0)

    monkeypatch.setattr(RulesSegmenter, "predict", broken)
    ran = cli(*command)
    assert ran.code == 130 and "goes on" in ran.err
    assert {name: row["outcome"] for name, row in rows(folder / "o").items()} == {"a": "error"}
    monkeypatch.setattr(RulesSegmenter, "predict", whole)
    assert cli(*command).code == 5
    before = rows(folder / "o")
    save(studies / "cut.png", square)
    ran = cli(*command)
    assert ran.code == 5 and rows(folder / "o") == before and "3 of 3" in ran.err
    assert cli(*command, "--retry").code == 0
    after = rows(folder / "o")
    assert {row["outcome"] for row in after.values()} == {"done"} and after["b"] == before["b"]
    cli(*command[:2], "the circle", *command[3:], "--max-steps", "3").assert_refused("max_steps 8, not 3", "--out")


def test_volumes_and_dicom_folders(cli: Cli, folder: Path, script: Script) -> None:
    values = np.zeros((24, 20, 6), np.int16)
    values[8:16, 6:14, 2:5] = 200
    affine = np.diag([-1.0, -1.0, 2.0, 1.0])
    (folder / "in").mkdir()
    nibabel.save(nibabel.Nifti1Image(values, affine), folder / "in/scan.nii.gz")
    write_series(folder / "in/DOE^JANE", values, np.diag([1.0, 1.0, 2.0, 1.0]))
    (folder / "list.csv").write_text(
        "study,id,slice,instruction\nin/scan.nii.gz,one,axial:3,the block\nin/DOE^JANE,two,,the block\n"
    )
    policy = script(*[CLICK, stop("Found.")] * 40)
    ran = cli("batch", "list.csv", "--policy", policy, *RULES, "--out", "o", "--modality", "CT", "--scan-slices", "3")
    assert ran.code == 0, ran.err
    found = rows(folder / "o")
    assert found["one"]["visits"] is None and (folder / "o/one/mask.nii.gz").is_file()
    assert np.asarray(nibabel.load(folder / "o/one/mask.nii.gz").dataobj)[..., 3].any()
    two = found["two"]
    assert two["outcome"] == "done" and two["visits"] >= 4 and two["volume_ml"] == pytest.approx(two["voxels"] * 0.002)
    assert two["files"]["mask"] == "two/mask.dcm" and two["files"]["mask.nifti"] == "two/mask.nii.gz"
    assert sorted(p.name for p in (folder / "o/two").iterdir()) == [
        "mask.dcm", "mask.nii.gz", "measurements.json", "overlay.png", "volume.html", "volume.json",
    ]  # fmt: skip
    for name in ("volume.json", "volume.html", "measurements.json"):
        assert "DOE" not in (folder / "o/two" / name).read_text()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["gone", "x"], ["gone"]),
        (["in"], ["INSTRUCTION"]),
        (["in", "x", "--format", "jpeg"], ["jpeg", "nifti"]),
        (["in", "x", "--policy", "oracle"], ["oracle", "targets"]),
        (["in", "x", "--policy", "nobody"], ["nobody"]),
        (["in", "x", "--include", "*.gz"], ["in"]),
        (["image.png", "x"], ["image.png", ".csv"]),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(cli: Cli, studies: Path, argv: list[str], words: list[str]) -> None:
    ran = cli("batch", *argv, *([] if "--policy" in argv else ["--policy", "nano"]), *RULES, "--out", "o")
    ran.assert_refused(*words)
    assert not (studies.parent / "o").exists()


@pytest.mark.slow
def test_processes_give_the_same(cli: Cli, folder: Path, studies: Path, script: Script) -> None:
    script(CLICK, stop("Found."))  # read by each worker anew, so that each study would need one of its own
    command = ("batch", "in", "the square", *RULES, "--max-steps", "2")
    assert cli(*command, "--out", "one").code == 5 and cli(*command, "--out", "two", "--processes", "2").code == 5
    one, two = ([{**r, "seconds": 0} for r in rows(folder / name).values()] for name in ("one", "two"))
    assert one == two
    for name in ("a/mask.png", "b/mask.png"):
        assert (folder / "one" / name).read_bytes() == (folder / "two" / name).read_bytes()
