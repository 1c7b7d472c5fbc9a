from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ibisagent import __version__
from ibisagent.episode import Episode, ImageRecord, Outcome
from ibisagent.errors import InputError
from ibisagent.evaluate.records import scored
from ibisagent.evaluate.result import CaseResult
from ibisagent.evaluate.store import RunFolder, read_run
from ibisagent.hashing import pixel_hash
from ibisagent.rle import encode_mask

FACTS = {"seed": 0, "max_steps": 3, "num_rows": 3, "spacing": (1, 2)}
PIXELS = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)


def result(name: str = "a", covered: int = 3) -> CaseResult:
    target = np.zeros((4, 5), bool)
    target[:2] = True
    mask = np.zeros((4, 5), bool)
    mask[:covered] = True
    episode = Episode(
        case_id=name,
        instruction="Do it.",
        image=ImageRecord(sha256=pixel_hash(PIXELS), width=5, height=4),
        outcome=Outcome.DONE,
        end_reason="terminate",
        final_mask=encode_mask(mask),
        max_steps=3,
    )
    return scored(
        CaseResult(name, "g", "t", absent=False, line=2, patient="p", target_mask=encode_mask(target), episode=episode)
    )


def begin(path: Path, **more: Any) -> RunFolder:
    return RunFolder.open(path, FACTS, environment={"python": "3"}, **more)


def test_what_is_kept_is_read_back_and_scored(tmp_path: Path) -> None:
    with begin(tmp_path / "r") as folder:
        folder.append(2, result("c/ü"), PIXELS)
        folder.append(0, result("a", 2), PIXELS)
        folder.append(1, CaseResult("b", error="line 3: gone", line=3))
        folder.finish({"n": 3})
    run = read_run(tmp_path / "r")
    assert run.is_complete and run.max_steps == 3 and run.facts["ibisagent_version"] == __version__
    assert [r.case_id for r in run.results] == ["a", "b", "c/ü"]
    assert [r.iou for r in run.results] == [1.0, 0.0, pytest.approx(2 / 3)]
    assert run.results[2] == result("c/ü")
    picture = run.image(run.results[0])
    assert picture is not None and picture.dtype == np.uint8 and np.array_equal(picture, PIXELS)
    assert run.image(run.results[1]) is None
    assert [p.name for p in (tmp_path / "r/images").iterdir()] == [f"{pixel_hash(PIXELS)}.png"]
    assert json.loads((tmp_path / "r/summary.json").read_text()) == {"n": 3}
    lines = [json.loads(line) for line in (tmp_path / "r/results.jsonl").read_text().splitlines()]
    assert [line["position"] for line in lines] == [0, 1, 2]


def test_gray_pixels_come_back_with_three_planes_and_images_may_be_left_out(tmp_path: Path) -> None:
    gray = np.repeat(PIXELS[..., :1], 3, axis=2)
    one = result()
    assert one.episode is not None
    record = one.episode.image.model_copy(update={"sha256": pixel_hash(gray)})
    one = replace(one, episode=one.episode.model_copy(update={"image": record}))
    for name, keep in (("with", True), ("without", False)):
        with begin(tmp_path / name, keep_images=keep) as folder:
            folder.append(0, one, gray)
        picture = read_run(tmp_path / name).image(one)
        assert np.array_equal(picture, gray) if keep else picture is None, name


def test_a_run_goes_on_and_its_cut_off_line_is_dropped(tmp_path: Path) -> None:
    with begin(tmp_path) as folder:
        folder.append(1, result("b"))
    whole = (tmp_path / "results.jsonl").read_bytes()
    (tmp_path / "results.jsonl").write_bytes(whole + whole[: len(whole) // 2])
    assert not read_run(tmp_path).is_complete and len(read_run(tmp_path).results) == 1
    with begin(tmp_path) as folder:
        assert set(folder.done) == {1} and folder.done[1] == result("b")
        folder.append(0, result("a"))
    assert [r.case_id for r in read_run(tmp_path).results] == ["a", "b"]
    assert [s["begun_with"] for s in read_run(tmp_path).facts["sessions"]] == [0, 1]


def test_a_case_whose_episode_is_lost_is_played_again(tmp_path: Path) -> None:
    with begin(tmp_path) as folder:
        folder.append(0, result("a"))
        folder.append(1, result("b"))
    (tmp_path / "episodes/00000_a.json").write_text("")
    with pytest.raises(InputError, match="00000_a"):
        read_run(tmp_path)
    with begin(tmp_path) as folder:
        assert set(folder.done) == {1}
        folder.append(0, result("a"))
    assert len(read_run(tmp_path).results) == 2


def test_other_settings_are_refused_and_overwrite_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with begin(tmp_path) as folder:
        folder.append(0, result("a"), PIXELS)
        folder.finish({})
    before = sorted(p.name for p in tmp_path.rglob("*"))
    for other, message in (({"seed": 1}, "seed 0, not 1"), ({"new": "x"}, "new null, not x")):
        with pytest.raises(InputError, match=message):
            RunFolder.open(tmp_path, {**FACTS, **other})
    with pytest.raises(InputError, match="spacing"):
        RunFolder.open(tmp_path, {name: value for name, value in FACTS.items() if name != "spacing"})
    assert sorted(p.name for p in tmp_path.rglob("*")) == before, "a refusal changes nothing"
    with RunFolder.open(tmp_path, {**FACTS, "seed": 1}, overwrite=True) as folder:
        assert folder.done == {}
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {"mine.txt", "run.json", "results.jsonl", "episodes"}
    assert read_run(tmp_path).facts["seed"] == 1 and read_run(tmp_path).results == []


def test_overwriting_never_costs_what_is_no_runs(tmp_path: Path) -> None:
    for name in ("images/scan.png", "episodes/mine.json", "cases.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    for seed in (0, 1, 2):
        with RunFolder.open(tmp_path, {**FACTS, "seed": seed}, environment={}, overwrite=seed > 0) as folder:
            folder.append(0, result("a"), PIXELS)
            folder.finish({})
    for name in ("images/scan.png", "episodes/mine.json", "cases.jsonl"):
        assert (tmp_path / name).read_text() == "mine"
    assert len(list((tmp_path / "images").iterdir())) == len(list((tmp_path / "episodes").iterdir())) == 2


def test_newer_older_and_foreign_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no run\.json"):
        read_run(tmp_path)
    for facts, message in (({"schema_version": 2}, "schema version 2"), ({"policy": "x"}, "schema_version|older")):
        (tmp_path / "run.json").write_text(json.dumps(facts))
        for use in (read_run, begin):
            with pytest.raises(InputError, match=message):
                use(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        begin(tmp_path)
    (tmp_path / "run.json").unlink()
    (tmp_path / "results.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match=r"no run\.json"):
        begin(tmp_path)


def test_damage_is_named(tmp_path: Path) -> None:
    with begin(tmp_path) as folder:
        folder.append(0, result("a"))
        folder.append(1, result("b"))
    journal = tmp_path / "results.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("junk\n" + lines[1])
    with pytest.raises(InputError, match="line 1"):
        read_run(tmp_path)
    record = json.loads(lines[0])
    for field, value in (("episode", "../../x.json"), ("target_mask", {"size": [2, 2], "counts": "13"})):
        journal.write_text(json.dumps({**record, field: value}) + "\n")
        with pytest.raises(InputError):
            read_run(tmp_path)


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with begin(tmp_path), pytest.raises(InputError, match="another process"):
        begin(tmp_path)
    begin(tmp_path).close()


def test_what_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="--out"):
        begin(tmp_path / "file/run")
