"""``ibisagent segment`` on whole volumes: a bright block in a small scan, with a scripted policy or the oracle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from cli_samples import CLICK, Ran, save, stop

import ibisagent
from dicom_maker import write_series
from ibisagent.errors import InputError, ToolError
from ibisagent.volume.record import VolumeEpisode

Cli = Callable[..., Ran]
Script = Callable[..., str]
RULES = ("--segmenter", "rules")
FILES = ["mask.nii.gz", "measurements.json", "overlay.png", "volume.html", "volume.json"]
BLOCK = (slice(8, 16), slice(6, 14), slice(2, 5))


def names(place: Path) -> list[str]:
    return sorted(p.name for p in place.iterdir())


@pytest.fixture
def scan(folder: Path) -> Path:
    """``scan.nii.gz`` of 24 x 20 x 6 voxels and ``label.nii.gz``, with the block as the one bright thing."""
    values = np.zeros((24, 20, 6), np.int16)
    values[BLOCK] = 200
    affine = np.diag([-1.0, -1.0, 2.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(values, affine), folder / "scan.nii.gz")
    nibabel.save(nibabel.Nifti1Image((values > 0).astype(np.uint8), affine), folder / "label.nii.gz")
    return folder


ORACLE = ("--policy", "oracle", "--target", "label.nii.gz", *RULES, "--modality", "CT", "--scan-slices", "3")


def test_a_volume_gives_a_mask_on_its_grid(cli: Cli, scan: Path) -> None:
    ran = cli("segment", "scan.nii.gz", "Segment the bright block.", *ORACLE, "--out", "o", "--json")
    assert ran.code == 0, ran.err
    assert names(scan / "o") == FILES and ran.json["outcome"] == "done" and ran.json["clicked_slices"] >= 1
    assert ran.json["files"]["mask"] == "o/mask.nii.gz" and ran.json["files"]["html"] == "o/volume.html"
    mask = nibabel.load(scan / "o/mask.nii.gz")
    assert np.array_equal(mask.affine, nibabel.load(scan / "scan.nii.gz").affine)
    data = np.asarray(mask.dataobj) > 0
    wanted = np.asarray(nibabel.load(scan / "label.nii.gz").dataobj) > 0
    assert 2 * (data & wanted).sum() / (data.sum() + wanted.sum()) > 0.9
    record = VolumeEpisode.load(scan / "o/volume.json")
    assert np.array_equal(record.final_mask.decode(), data) and record.study.source == "scan.nii.gz"
    measured = json.loads((scan / "o/measurements.json").read_text())
    assert measured["target"] == "bright block" and measured["whole"]["voxel_count"] == data.sum()
    assert "bright block" in (scan / "o/volume.html").read_text()


def test_part_of_a_volume_in_another_plane(cli: Cli, scan: Path) -> None:
    more = ("--planes", "coronal", "--slices", "5:9", "--key-slices", "2", "--format", "nrrd,nifti")
    ran = cli("segment", "scan.nii.gz", "x", *ORACLE, *more, "--out", "o", "--json")
    assert ran.code == 0, ran.err
    record = VolumeEpisode.load(scan / "o/volume.json")
    assert {v.plane for v in record.visits} == {"coronal"} and {v.index for v in record.visits} <= set(range(5, 10))
    assert ran.json["files"]["mask"] == "o/mask.seg.nrrd" and (scan / "o/mask.nii.gz").is_file()


def test_an_absent_target_is_said_and_written_as_zeros(cli: Cli, scan: Path, script: Script) -> None:
    policy = script(*[stop("Absent: no block.")] * 9)
    ran = cli("segment", "scan.nii.gz", "x", "--policy", policy, *RULES, "--modality", "CT", "--out", "o", "--json")
    assert ran.code == 3 and ran.json["outcome"] == "absent" and names(scan / "o") == FILES
    assert not np.asarray(nibabel.load(scan / "o/mask.nii.gz").dataobj).any()
    assert json.loads((scan / "o/measurements.json").read_text())["is_present"] is False


def test_a_run_that_fails_leaves_the_record_and_no_mask(cli: Cli, scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("segment", "scan.nii.gz", "x", *ORACLE, "--out", "o", "--json")
    assert cli(*command).code == 0

    def broken(*_: Any) -> Any:
        raise ToolError("the tool is broken")

    with monkeypatch.context() as patch:
        patch.setattr("ibisagent.segmenters.rules.RulesSegmenter.predict", broken)
        ran = cli(*command)
    assert ran.code == 5 and "the tool is broken" in ran.json["error"] and "goes on" in ran.err
    assert names(scan / "o") == ["volume.html", "volume.journal", "volume.json"]
    assert cli(*command).code == 0 and names(scan / "o") == FILES


def test_an_interrupted_run_goes_on(cli: Cli, scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ibisagent.segmenters.rules import RulesSegmenter

    command = ("segment", "scan.nii.gz", "x", *ORACLE, "--json", "--out")
    assert cli(*command, "whole").code == 0
    predict, left = RulesSegmenter.predict, [3]

    def pressed(*args: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return predict(*args)

    monkeypatch.setattr(RulesSegmenter, "predict", pressed)
    ran = cli(*command, "o")
    assert ran.code == 130 and names(scan / "o") == ["volume.journal"] and "goes on" in ran.err
    monkeypatch.setattr(RulesSegmenter, "predict", predict)
    cli(*command[:2], "y", *command[3:], "o").assert_refused("volume.journal", "another run")
    ran = cli(*command, "o")
    assert ran.code == 0 and names(scan / "o") == FILES
    assert (scan / "o/mask.nii.gz").read_bytes() == (scan / "whole/mask.nii.gz").read_bytes()


def test_dicom_in_and_out(cli: Cli, folder: Path, script: Script) -> None:
    values = np.zeros((24, 20, 6), np.int16)
    values[BLOCK] = 200
    write_series(folder / "DOE^JANE", values, np.diag([1.0, 1.0, 2.0, 1.0]))
    (folder / "DOE^JANE" / "readme.txt").write_text("no image")
    policy = script(*[CLICK, stop("Found.")] * 30)
    more = ("--format", "dicom-seg,rtstruct,nifti", "--label", "liver", "--scan-slices", "3")
    ran = cli("segment", "DOE^JANE", "the block", "--policy", policy, *RULES, *more, "--out", "o", "--json")
    assert ran.code == 0, ran.err
    assert ran.err.startswith("ibisagent: note: ") and "DOE" not in ran.err  # the file that is no image
    assert list(ran.json["files"])[:3] == ["mask", "mask.rtstruct", "mask.nifti"]
    for name in ("volume.json", "volume.html", "measurements.json"):
        assert "DOE" not in (folder / "o" / name).read_text()
    import highdicom

    seg = highdicom.seg.segread(folder / "o/mask.dcm")
    assert seg.get_segment_description(1).segment_label == "liver"
    ran = cli("segment", "DOE^JANE", "the block", "--policy", policy, *RULES, "--slice", "axial:3", "--out", "one")
    assert ran.code == 0 and "DOE" not in (folder / "one/episode.json").read_text()
    assert {"mask.dcm", "mask.nii.gz", "episode.html"} <= set(names(folder / "one"))
    cli("segment", "DOE^JANE", "x", "--policy", policy, *RULES, "--out", "DOE^JANE").assert_refused("own folder")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["scan.nii.gz", "x", "--slices", "4:9"], ["slice", "5"]),
        (["scan.nii.gz", "x", "--slices", "4:2"], ["--slices"]),
        (["scan.nii.gz", "x", "--slices", "1:2", "--planes", "all"], ["--planes"]),
        (["scan.nii.gz", "x", "--planes", "oblique"], ["--planes"]),
        (["scan.nii.gz", "x", "--min-agreement", "2"], ["--min-agreement"]),
        (["scan.nii.gz", "x", "--format", "dicom-seg"], ["dicom-seg", "NIfTI"]),
        (["scan.nii.gz", "x", "--format", "jpeg"], ["jpeg"]),
        (["scan.nii.gz", "x", "--series", "1"], ["--series"]),
        (["scan.nii.gz", "x", "--slice", "axial:3", "--planes", "axial"], ["--planes", "one slice"]),
        (["image.png", "x", "--scan-slices", "3"], ["--scan-slices", "2-D image"]),
        (["image.png", "x", "--format", "nrrd"], ["nrrd"]),
        (["scan.nii.gz", "x", "--mask", "image.png"], ["image.png"]),
        (["scan.nii.gz", " "], ["instruction"]),
        (["empty", "x"], ["empty"]),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(cli: Cli, scan: Path, argv: list[str], words: list[str]) -> None:
    save(scan / "target.png", np.zeros((48, 64), np.uint8))
    (scan / "empty").mkdir()
    before = sorted(scan.rglob("*"))
    target = "target.png" if argv[0] == "image.png" else "label.nii.gz"
    ran = cli("segment", *argv, "--policy", "oracle", "--target", target, *RULES, "--out", "o")
    ran.assert_refused(*words)
    assert sorted(scan.rglob("*")) == before


def test_from_python(scan: Path) -> None:
    wanted = np.asarray(nibabel.load(scan / "label.nii.gz").dataobj)
    found = ibisagent.segment_volume(
        scan / "scan.nii.gz", "x", policy="oracle", segmenter="rules", target=wanted, modality="CT"
    )
    assert found.mask is not None and found.mask.dtype == bool and found.mask.shape == (24, 20, 6)
    assert str(found.outcome) == "done" and found.record.clicked_slices and found.window.name
    again = ibisagent.segment_volume(found.volume, "x", mask=wanted, policy="oracle", segmenter="rules", target=wanted)
    assert np.array_equal(again.mask, wanted > 0)
    with pytest.raises(InputError, match="shape"):
        ibisagent.segment_volume(found.volume, "x", mask=np.zeros((2, 2, 2), bool))
    with pytest.raises(InputError, match="2-D"):
        ibisagent.segment_volume(scan / "image.png", "x")
    with pytest.raises(InputError, match="oracle"):
        ibisagent.segment_volume(found.volume, "x", target=wanted)
