from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import PIL.Image
import pytest
from cli_samples import CLICK, OTHER, Ran, save, stop

from ibisagent.episode import encode_mask
from ibisagent.errors import ToolError

Cli = Callable[..., Ran]
Script = Callable[..., str]


@pytest.fixture
def recorded(cli: Cli, folder: Path, script: Script) -> Path:
    policy = script(CLICK, OTHER, stop("Found."))
    assert cli("segment", "image.png", "x", "--policy", policy, "--segmenter", "rules", "--out", "o").code == 0
    return folder / "o/episode.json"


def test_the_same(cli: Cli, recorded: Path) -> None:
    ran = cli("replay", recorded)
    assert ran.code == 0 and ran.out.startswith("the same")
    ran = cli("replay", recorded, "--image", "image.png", "--json")
    assert ran.code == 0 and ran.json["matches"] is True and ran.json["num_matched"] == 3


def test_a_changed_mask_is_found(cli: Cli, recorded: Path, folder: Path) -> None:
    data = json.loads(recorded.read_text())
    data["steps"][1]["action"]["clicks"][0].update(x=0.01, y=0.01)
    recorded.write_text(json.dumps(data))
    ran = cli("replay", recorded, "--json")
    assert ran.code == 1
    assert ran.json["first_mismatch"] == 1 and ran.json["num_pixels"] > 0 and ran.json["same_image"]


def test_another_image_is_said(cli: Cli, recorded: Path, folder: Path, square: np.ndarray) -> None:
    save(folder / "other.png", 255 - square)
    ran = cli("replay", recorded, "--image", "other.png", "--json")
    assert ran.json["same_image"] is False


def test_a_slice_is_read_as_it_was(cli: Cli, folder: Path, script: Script) -> None:
    rng = np.random.default_rng(0)
    volume = rng.integers(-900, 900, (24, 20, 8)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([-1.0, 1.0, 2.0, 1.0])), folder / "scan.nii")
    for more in ([], ["--window", "-100,300"], ["--window", "lung", "--modality", "CT"]):
        args = ("segment", "scan.nii", "x", "--slice", "coronal:7", "--segmenter", "rules", "--out", "o", *more)
        assert cli(*args, "--policy", script(CLICK, stop("Found."))).code == 0
        ran = cli("replay", "o/episode.json", "--json")
        assert ran.code == 0 and ran.json["same_image"] is True, more


def test_a_record_replays_without_its_image(cli: Cli, recorded: Path, folder: Path, square: np.ndarray) -> None:
    (folder / "image.png").unlink()
    ran = cli("replay", recorded, "--json")
    assert ran.code == 0 and ran.json["matches"] and ran.json["same_image"]
    data = json.loads(recorded.read_text())
    save(folder / "image.png", square)
    for damaged in ("!", "AAAA", data["image"]["png"][:80], data["image"]["png"].replace("A", "B")):
        data["image"]["png"] = damaged
        recorded.write_text(json.dumps(data))
        ran = cli("replay", recorded, "--json")
        assert ran.code == 0 and ran.json["same_image"], "the file near by is taken"


def test_a_changed_final_mask_is_found(cli: Cli, recorded: Path) -> None:
    data = json.loads(recorded.read_text())
    other = np.zeros((48, 64), bool)
    other[3, 4] = True
    data["final_mask"] = encode_mask(other).model_dump()
    recorded.write_text(json.dumps(data))
    ran = cli("replay", recorded, "--json")
    assert ran.code == 1 and ran.json["same_final"] is False and ran.json["first_mismatch"] is None


def test_an_inverted_picture_is_read_as_it_was(cli: Cli, folder: Path, script: Script) -> None:
    deep = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64)
    PIL.Image.fromarray(deep).save(folder / "deep.tif", tiffinfo={262: 0})  # the smallest value is white
    policy = script(CLICK, stop("Found."))
    args = ("segment", "deep.tif", "x", "--policy", policy, "--segmenter", "rules", "--out", "o")
    assert cli(*args, "--window", "100,2000").code == 0
    window = json.loads((folder / "o/episode.json").read_text())["image"]["window"]
    assert (window["low"], window["high"]) == (2000.0, 100.0)
    ran = cli("replay", "o/episode.json", "--image", "deep.tif", "--json")
    assert ran.code == 0 and ran.json["same_image"] is True


def test_missing_image(cli: Cli, recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    alone = tmp_path_factory.mktemp("alone") / "deep" / "episode.json"
    alone.parent.mkdir()
    data = json.loads(recorded.read_text())
    del data["image"]["png"]
    alone.write_text(json.dumps(data))
    (recorded.parents[1] / "image.png").unlink()
    cli("replay", alone).assert_refused("image.png", "--image")


def test_damaged_episodes(cli: Cli, recorded: Path, folder: Path) -> None:
    text = recorded.read_text()
    for damage in (text[: len(text) // 2], "", "[]", text.replace('"schema_version": 1', '"schema_version": 99')):
        (folder / "bad.json").write_text(damage)
        cli("replay", "bad.json", "--image", "image.png").assert_refused("bad.json")
    cli("replay", "gone.json").assert_refused("gone.json")


def test_a_failing_segmenter(cli: Cli, recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ToolError("broken")

    monkeypatch.setattr("ibisagent.segmenters.rules.RulesSegmenter.predict", broken)
    ran = cli("replay", recorded)
    assert ran.code == 5 and "broken" in ran.err
