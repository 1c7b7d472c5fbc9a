from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import PIL.Image
import pytest
from cli_samples import CLICK, OTHER, Ran, save, stop

from ibisagent.episode import Episode, Outcome
from ibisagent.errors import ToolError

Cli = Callable[..., Ran]
Script = Callable[..., str]

FILES = ["episode.html", "episode.json", "mask.png", "overlay.png"]
RULES = ("--segmenter", "rules")


def read(path: Path) -> np.ndarray:
    return np.asarray(PIL.Image.open(path))


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_done(cli: Cli, folder: Path, script: Script) -> None:
    ran = cli(
        "segment",
        "image.png",
        "Segment the square.",
        "--policy",
        script(CLICK, stop("Found: the square.")),
        *RULES,
        "--out",
        "out",
        "--json",
    )
    assert ran.code == 0
    assert ran.json == {
        "outcome": "done",
        "answer": "the square.",
        "num_steps": 1,
        "files": {
            "mask": "out/mask.png",
            "overlay": "out/overlay.png",
            "episode": "out/episode.json",
            "html": "out/episode.html",
        },
    }
    assert names(folder / "out") == FILES
    mask = read(folder / "out/mask.png")
    assert mask.shape == (48, 64) and mask.dtype == np.uint8 and set(np.unique(mask)) == {0, 255}
    assert mask[24, 30] == 255 and mask[2, 2] == 0
    episode = Episode.load(folder / "out/episode.json")
    assert episode.outcome is Outcome.DONE and episode.instruction == "Segment the square."
    assert episode.image.source == "image.png"
    assert "done" in ran.err and "out/mask.png" in ran.err


def test_without_json_standard_output_stays_empty(cli: Cli, folder: Path, script: Script) -> None:
    ran = cli("segment", "image.png", "x", "--policy", script(stop("Uncertain: too dark.")), *RULES)
    assert (ran.code, ran.out) == (0, "")
    assert names(folder / "image_ibisagent") == FILES
    assert not read(folder / "image_ibisagent/mask.png").any()
    assert "uncertain" in ran.err and "too dark" in ran.err


def test_absent_writes_zeros(cli: Cli, folder: Path, script: Script) -> None:
    ran = cli("segment", "image.png", "x", "--policy", script(CLICK, stop("Absent: no kidney.")), *RULES, "--out", "o")
    assert ran.code == 3
    assert names(folder / "o") == FILES and not read(folder / "o/mask.png").any()


def test_out_of_steps_writes_the_best_mask(cli: Cli, folder: Path, script: Script) -> None:
    policy = script(CLICK, OTHER, CLICK, OTHER)
    ran = cli("segment", "image.png", "x", "--policy", policy, *RULES, "--max-steps", 2, "--out", "o", "--json")
    assert ran.code == 4 and ran.json["outcome"] == "out_of_steps" and ran.json["num_steps"] == 2
    assert read(folder / "o/mask.png").any()


def test_terminate_after_the_last_step_is_no_step(cli: Cli, folder: Path, script: Script) -> None:
    policy = script(CLICK, OTHER, stop("Found."))
    ran = cli("segment", "image.png", "x", "--policy", policy, *RULES, "--max-steps", 2, "--out", "o", "--json")
    assert ran.code == 0 and ran.json["num_steps"] == 2


def test_failing_tool_writes_the_episode_and_no_mask(
    cli: Cli, folder: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    ok = cli("segment", "image.png", "x", "--policy", script(CLICK, stop("Found.")), *RULES, "--out", "o")
    assert ok.code == 0
    (folder / "o/notes.txt").write_text("mine")

    def broken(*_: Any) -> Any:
        raise ToolError("the tool is broken")

    monkeypatch.setattr("ibisagent.segmenters.rules.RulesSegmenter.predict", broken)
    ran = cli("segment", "image.png", "x", "--policy", script(CLICK), *RULES, "--out", "o", "--json")
    assert ran.code == 5
    assert ran.json["outcome"] == "error" and "the tool is broken" in ran.json["error"]
    assert set(ran.json["files"]) == {"episode", "html"}
    # The earlier run's mask must not be taken for this one's; what is not ours stays.
    assert names(folder / "o") == ["episode.html", "episode.json", "notes.txt"]
    assert Episode.load(folder / "o/episode.json").outcome is Outcome.ERROR
    assert "ibisagent: error: " in ran.err


@pytest.mark.parametrize("failure", [RuntimeError("boom"), MemoryError(), KeyError("weights")])
def test_a_tool_that_raises_anything_is_an_error_of_the_run(
    cli: Cli, folder: Path, script: Script, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def broken(*_: Any) -> Any:
        raise failure

    monkeypatch.setattr("ibisagent.segmenters.rules.RulesSegmenter.predict", broken)
    ran = cli("segment", "image.png", "x", "--policy", script(CLICK), *RULES, "--out", "o")
    assert ran.code == 5 and names(folder / "o") == ["episode.html", "episode.json"]


def test_a_policy_that_fails_is_an_error_of_the_run(cli: Cli, folder: Path, script: Script) -> None:
    ran = cli("segment", "image.png", "x", "--policy", script(CLICK), *RULES, "--out", "o")  # the script runs out
    assert ran.code == 5 and names(folder / "o") == ["episode.html", "episode.json"]


def test_a_model_that_cannot_be_made_for_unforeseen_reasons(
    cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("corrupt\nweights")

    monkeypatch.setattr("ibisagent.segmenters.rules.make", broken)
    ran = cli("segment", "image.png", "x", "--policy", "oracle", "--target", "target.png", *RULES, "--out", "o")
    assert ran.code == 5 and not (folder / "o").exists()
    assert ran.err.startswith("ibisagent: error: unexpected RuntimeError: corrupt weights")
    assert ran.err.count("\n") == 1


def test_oracle_sees_the_target(cli: Cli, folder: Path) -> None:
    ran = cli("segment", "image.png", "Square.", "--policy", "oracle", "--target", "target.png", *RULES, "--out", "o")
    assert ran.code == 0
    mask, target = read(folder / "o/mask.png") > 0, read(folder / "target.png") > 0
    assert (mask & target).sum() / (mask | target).sum() >= 0.9


def test_oracle_of_an_empty_target_refuses(cli: Cli, folder: Path) -> None:
    ran = cli("segment", "image.png", "Square.", "--policy", "oracle", "--target", "empty.png", *RULES, "--out", "o")
    assert ran.code == 3


def test_given_mask_is_recorded_and_refined(cli: Cli, folder: Path, script: Script) -> None:
    args = ("segment", "image.png", "Refine.", "--mask", "target.png", *RULES, "--out", "o")
    assert cli(*args, "--policy", script(stop("Found."))).code == 0
    assert np.array_equal(read(folder / "o/mask.png"), read(folder / "target.png"))
    assert Episode.load(folder / "o/episode.json").initial_mask is not None


def test_nifti_mask_keeps_the_whole_grid(cli: Cli, folder: Path, script: Script) -> None:
    affine = np.array([[-1.5, 0, 0, 40], [0, 1.5, 0, -30], [0, 0, 3, 7], [0, 0, 0, 1]], float)
    volume = np.zeros((40, 30, 9), np.int16)
    volume[10:30, 8:22, 3:7] = 900
    nibabel.save(nibabel.Nifti1Image(volume, affine), folder / "scan.nii.gz")
    reading = ("--slice", "axial:5", "--modality", "MRI")
    policy = script(CLICK, stop("Found."))
    ran = cli("segment", "scan.nii.gz", "x", *reading, "--policy", policy, *RULES, "--out", "o", "--json")
    assert ran.code == 0 and ran.json["files"]["mask"] == "o/mask.nii.gz"
    assert names(folder / "o") == ["episode.html", "episode.json", "mask.nii.gz", "measurements.json", "overlay.png"]
    mask = nibabel.load(folder / "o/mask.nii.gz")
    data = np.asarray(mask.dataobj)
    assert data.shape == volume.shape and np.allclose(mask.affine, affine)
    assert set(np.unique(data)) == {0, 1} and not data[..., [0, 1, 2, 3, 4, 6, 7, 8]].any()
    assert Episode.load(folder / "o/episode.json").image.modality == "MRI"


def refuse(cli: Cli, folder: Path, *argv: object) -> Ran:
    before = sorted(folder.rglob("*"))
    ran = cli("segment", *argv)
    assert sorted(folder.rglob("*")) == before, "nothing may be written"
    return ran


ORACLE = ("--policy", "oracle", "--target", "target.png", *RULES)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["gone.png", "x", *ORACLE], ["gone.png"]),
        (["empty", "x", *ORACLE], ["empty"]),
        (["text.txt", "x", *ORACLE], ["text.txt"]),
        (["image.png", "   ", *ORACLE], ["instruction"]),
        (["image.png", "x", "--policy", "oracle", *RULES], ["--target"]),
        (["image.png", "x", "--policy", "nobody", *RULES], ["nobody", "nano"]),
        (["image.png", "x", "--policy", "vlm", *RULES], ["vlm:PATH_OR_ID"]),
        (["image.png", "x", "--policy", "scripted:gone.json", *RULES], ["gone.json"]),
        (["image.png", "x", "--policy", "oracle", "--target", "target.png", "--segmenter", "nothing"], ["nothing"]),
        (["image.png", "x", "--policy", "oracle", "--target", "small.png", *RULES], ["small.png", "8 x 8"]),
        (["image.png", "x", "--policy", "nano", "--target", "target.png", *RULES], ["oracle"]),
        (["image.png", "x", *ORACLE, "--mask", "small.png"], ["small.png"]),
        (["image.png", "x", *ORACLE, "--slice", "axial:3"], ["--slice"]),
        (["image.png", "x", *ORACLE, "--window", "9,1"], ["window"]),
        (["image.png", "x", *ORACLE, "--max-steps", "0"], ["--max-steps"]),
        (["image.png", "x", *ORACLE, "--max-steps", "many"], ["--max-steps"]),
        (["image.png", "x", *ORACLE, "--seed", "-1"], ["--seed"]),
        (["image.png", "x", *ORACLE, "--max-seconds", "nan"], ["--max-seconds"]),
        (["image.png", "x", *ORACLE, "--out", "text.txt"], ["text.txt", "not a folder"]),
        (["image.png", "x", *ORACLE, "--out", "text.txt/below"], ["not a folder"]),
        (["image.png", "x", *ORACLE, "--system-prompt", "text.txt"], ["--system-prompt"]),
        (["image.png", "x", "--policy", "api:m", *RULES, "--system-prompt", "gone.txt"], ["gone.txt"]),
        (["image.png", "x", "--policy", "api:m", *RULES, "--system-prompt", "empty"], ["empty"]),
        (["image.png", "x", "--policy", "api:m", *RULES, "--api-key-env", "IBIS_NO_SUCH_KEY"], ["IBIS_NO_SUCH_KEY"]),
        (["image.png", "x", *ORACLE, "--base-url", "http://localhost/v1"], ["--base-url"]),
        (["image.png", "x", *ORACLE, "--dialect", "latin"], ["latin", "plain"]),
        (["image.png", "x", *ORACLE, "--device", "banana"], ["--device", "banana"]),
        (["image.png", "x", *ORACLE, "--nonsense"], ["--nonsense"]),
        (["image.png"], ["INSTRUCTION"]),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(cli: Cli, folder: Path, argv: list[str], words: list[str]) -> None:
    (folder / "empty").write_bytes(b"")
    (folder / "text.txt").write_text("no image\n")
    save(folder / "small.png", np.zeros((8, 8), np.uint8))
    refuse(cli, folder, *argv).assert_refused(*words)


def test_inputs_are_never_lost(cli: Cli, folder: Path, script: Script) -> None:
    os.rename(folder / "target.png", folder / "mask.png")
    before = (folder / "mask.png").read_bytes()
    oracle = ("--policy", "oracle", "--target", "mask.png", *RULES)
    refuse(cli, folder, "image.png", "x", *oracle, "--out", ".").assert_refused("mask.png", "overwritten")
    clicks = ("--policy", script(CLICK), *RULES)
    refuse(cli, folder, "./mask.png", "x", *clicks, "--out", folder).assert_refused("overwritten")
    given = ("segment", "image.png", "x", "--mask", "mask.png", *RULES, "--out", ".", "--policy")
    assert cli(*given, script("nonsense")).code == 5
    assert (folder / "mask.png").read_bytes() == before, "a run without a mask leaves the given one"
    assert cli(*given, script(CLICK, stop("Found."))).code == 0, "refining in place is fine"


def test_text_that_is_not_unicode(cli: Cli, folder: Path, script: Script) -> None:
    # what Python makes of an argument in Latin-1
    refuse(cli, folder, "image.png", "l\udce9sion", "--policy", script(CLICK), *RULES).assert_refused("UTF-8")


def test_a_file_name_that_is_not_utf8(cli: Cli, folder: Path, script: Script) -> None:
    try:
        os.rename(folder / "image.png", folder / "im\udce9.png")
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    ran = cli("segment", "im\udce9.png", "x", "--policy", script(CLICK, stop("Found.")), *RULES, "--out", "o", "--json")
    assert ran.code == 0 and Episode.load(folder / "o/episode.json").image.source == "im?.png"


def test_truncated_image(cli: Cli, folder: Path) -> None:
    data = (folder / "image.png").read_bytes()
    (folder / "cut.png").write_bytes(data[: len(data) // 2])
    refuse(cli, folder, "cut.png", "x", *ORACLE).assert_refused("cut.png")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission(cli: Cli, folder: Path) -> None:
    (folder / "locked").mkdir(mode=0o500)
    refuse(cli, folder, "image.png", "x", *ORACLE, "--out", "locked/o").assert_refused("permission")


def test_writing_that_fails_leaves_nothing(
    cli: Cli, folder: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ibisagent.batch.results.write_image_mask", full)
    policy = script(CLICK, stop("Found."))
    ran = refuse(cli, folder, "image.png", "x", "--policy", policy, *RULES, "--out", "deep/o")
    assert ran.code == 2 and "No space left" in ran.err and not (folder / "deep/o").exists()


def test_ctrl_c(cli: Cli, folder: Path, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("ibisagent.segmenters.rules.RulesSegmenter.predict", pressed)
    ran = refuse(cli, folder, "image.png", "x", "--policy", script(CLICK), *RULES, "--out", "o")
    assert (ran.code, ran.out, ran.err) == (130, "", "ibisagent: stopped\n")


def test_key_and_server_reach_the_policy(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def make(arg: str, **options: Any) -> Any:
        seen.update(options, arg=arg)
        raise RuntimeError("seen enough")

    monkeypatch.setattr("ibisagent.policies.api.make", make)
    monkeypatch.setenv("MY_KEY", "s3cret")
    (folder / "prompt.txt").write_text("You are an agent.")
    ran = cli(
        "segment",
        "image.png",
        "x",
        "--policy",
        "api:m",
        "--base-url",
        "http://h/v1",
        "--api-key-env",
        "MY_KEY",
        "--system-prompt",
        "prompt.txt",
        "--dialect",
        "json",
        *RULES,
    )
    assert ran.code == 5 and "s3cret" not in ran.err
    assert seen == {
        "arg": "m",
        "base_url": "http://h/v1",
        "api_key": "s3cret",
        "system_prompt": "You are an agent.",
        "dialect": "json",
    }
