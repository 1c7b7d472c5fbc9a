"""The build from end to end with the rule-based segmenter: same bytes, whatever happens in between."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ibisagent.engine.builder.build import synthesize
from ibisagent.engine.builder.config import SynthesisConfig, load_config
from ibisagent.engine.corpus.decisions import Decision, append_decision
from ibisagent.engine.corpus.reader import Corpus
from ibisagent.errors import InputError

MINI = Path(__file__).parents[4] / "data" / "mini" / "cases.jsonl"
SETTINGS = {"segmenter": "rules", "teacher": "terse", "shard_images": 4, "filters": {"min_final_dice": 0.5}}


def settings(*sources: str, **more: object) -> SynthesisConfig:
    return load_config(sources, "ibis", None, **{**SETTINGS, **more})


def digest(folder: Path) -> dict[str, str]:
    """Hash of every file of a corpus but the one that says how long it took."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "run.json" and not path.name.endswith(".lock")
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """22 phantoms, made in this machine's processes."""
    out = tmp_path_factory.mktemp("corpus") / "out"
    synthesize(settings("phantoms:22?size=96"), out, num_workers=2)
    return out


def test_what_is_in_a_corpus(built: Path) -> None:
    corpus = Corpus(built)
    rows = list(corpus.rows("sft"))
    images = {row["image_id"] for row in corpus.rows("images")}
    assert len(images) == 22 and {row["image_id"] for row in rows} <= images
    assert len(rows) > 20 and len({row["trajectory_id"] for row in rows}) == len(rows)
    scenarios = {row["scenario"] for row in rows}
    assert {"plain", "self_correction", "corrupted_mask", "right_stop", "absent", "deceptive"} <= scenarios
    for row in rows:
        replies = [i for i, message in enumerate(row["messages"]) if message["role"] == "assistant"]
        assert len(replies) == row["num_steps"] + 1 == len(row["steps"]), "the stop is no step"
        assert replies[-1] == len(row["messages"]) - 1
        learnt = {span["message"] for span in row["loss_spans"]}
        wrong = {reply for reply, step in zip(replies, row["steps"], strict=True) if not step["learn"]}
        assert learnt == set(replies) - wrong, "everything an assistant says is learnt, but what was wrong"
        assert bool(wrong) == (row["scenario"] == "self_correction")
        for span in row["loss_spans"]:
            text = "".join(part["text"] or "" for part in row["messages"][span["message"]]["content"])
            assert (span["start"], span["end"]) == (0, len(text))
        assert (row["target_mask"] is None) == (row["scenario"] == "absent") == (row["outcome"] == "absent")
        assert (row["final_iou"] is None) == (row["scenario"] == "absent")
    assert {row["scenario"] for row in corpus.rows("rl")} >= {"plain", "absent", "corrupted_mask"}
    report = json.loads((built / "report.json").read_text())
    assert report["num_trajectories"] == len(rows) and report["num_images"] == 22
    drops = [json.loads(line) for line in (built / "drops.jsonl").read_text().splitlines()]
    assert sum(report["drops"].values()) == len(drops) > 0
    assert all(drop["reason"] and drop["sample"] for drop in drops)


def test_the_number_of_workers_changes_nothing(built: Path, tmp_path: Path) -> None:
    synthesize(settings("phantoms:22?size=96"), tmp_path / "one", num_workers=1)
    assert digest(tmp_path / "one") == digest(built)


def test_a_device_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    number = torch.cuda.device_count() + 7
    config = settings("phantoms:2?size=96", segmenter="litemedsam", shard_images=1)
    with pytest.raises(InputError, match=rf"cuda:{number}") as caught:
        synthesize(config, tmp_path / "out", num_workers=1, device=f"cuda:{number}")
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"Ray's workers have CPUs alone; .* --executor processes$"):
        synthesize(config, tmp_path / "ray", num_workers=1, executor="ray", device="cuda")
    assert not (tmp_path / "ray").exists()


def test_two_devices_do_not_share_a_corpus(tmp_path: Path) -> None:
    # Region growing computes on no device; what is noted is where it was told to.
    config, out = settings("phantoms:8?size=96"), tmp_path / "out"
    synthesize(config, out, num_workers=1, device="mps")
    assert json.loads((out / "run.json").read_text())["device"] == "mps"
    notes = [path for path in sorted((out / "work").glob("*.json")) if "made_with" in path.read_text()]
    made = [json.loads(note.read_text())["made_with"] for note in notes]
    assert len(made) == 2 and all(facts["device"] == "mps" for facts in made)
    notes[0].unlink()
    with pytest.raises(InputError, match=r"different code, weights or devices"):
        synthesize(config, out, num_workers=1)


def test_a_finished_build_is_left_as_it_is(built: Path) -> None:
    before = digest(built)
    result = synthesize(settings("phantoms:22?size=96"), built)
    assert result.num_made == 0 and digest(built) == before


def test_another_build_does_not_get_the_folder(built: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="another seed"):
        synthesize(settings("phantoms:22?size=96", seed=1), built)
    (tmp_path / "thesis.doc").write_text("precious")
    with pytest.raises(InputError, match="not empty"):
        synthesize(settings("phantoms:2?size=96"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.doc"]


def test_rejected_trajectories_leave_and_come_back(built: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(built, folder)
    name = next(iter(Corpus(folder).rows("sft")))["trajectory_id"]
    decisions = folder / "decisions.jsonl"
    append_decision(decisions, Decision(trajectory_id=name, decision="reject"))
    config = settings("phantoms:22?size=96")
    result = synthesize(config, folder, num_workers=1)
    assert result.num_made == 0, "nothing is made again"
    left = {row["trajectory_id"] for row in Corpus(folder).rows("sft")}
    assert name not in left and result.report.drops_by_reason["rejected_by_person"] == 1
    fresh = tmp_path / "fresh"
    synthesize(config, fresh, num_workers=1, decisions=decisions)
    fresh_files, files = digest(fresh), digest(folder)
    del files["decisions.jsonl"]
    assert fresh_files == files, "as if the decision had been known from the start"
    append_decision(decisions, Decision(trajectory_id=name, decision="undecided"))
    assert synthesize(config, folder, num_workers=1).num_made == 4, "its shard is made again"
    files = digest(folder)
    del files["decisions.jsonl"]
    assert files == digest(built)


def test_faults_are_named_and_fail_only_where_that_is_wanted(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in MINI.read_text().splitlines()]
    rows = [row for row in lines if row["split"] == "train" and row["group"] == "dsb2018"][:6]
    for row in rows:
        for field in ("image", "mask"):
            target = tmp_path / "data" / row[field]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(MINI.parent / row[field], target)
    (tmp_path / "data" / rows[0]["mask"]).unlink()
    (tmp_path / "data" / rows[-1]["image"]).write_bytes(b"not a picture")
    rows.append({**rows[1], "target": "something else"})  # its case_id stands twice
    (tmp_path / "data" / "cases.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\nnonsense\n")
    spec = f"mini:{tmp_path / 'data' / 'cases.jsonl'}"
    result = synthesize(settings(spec), tmp_path / "out", num_workers=1)
    codes = result.report.faults_by_code
    assert codes["missing_mask"] == codes["duplicate_id"] == codes["bad_row"] == 1 and codes["unreadable"] >= 1
    faults = [json.loads(line) for line in (tmp_path / "out" / "faults.jsonl").read_text().splitlines()]
    assert any(rows[0]["case_id"] in fault["item"] or rows[0]["mask"] in fault["message"] for fault in faults)
    with pytest.raises(InputError, match="cannot be used"):
        synthesize(settings(spec, on_fault="fail"), tmp_path / "out2", num_workers=1)
    assert not (tmp_path / "out2").exists()
    # One that only reading finds ends the build at once too; nothing hinders the same folder from going on without it.
    whole = [json.loads(line) for line in (tmp_path / "data" / "cases.jsonl").read_text().splitlines()[1:6]]
    (tmp_path / "data" / "whole.jsonl").write_text("\n".join(json.dumps(row) for row in whole))
    spec = f"mini:{tmp_path / 'data' / 'whole.jsonl'}"
    with pytest.raises(InputError, match="on-fault skip"):
        synthesize(settings(spec, on_fault="fail"), tmp_path / "out3", num_workers=1)
    assert synthesize(settings(spec), tmp_path / "out3", num_workers=1).report.faults_by_code["unreadable"] >= 1


def test_a_split_that_serves_no_table_is_a_fault(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in MINI.read_text().splitlines()]
    rows = [row for row in rows if row["group"] == "brain1"][:4]
    for row in rows:
        row["image"], row["mask"] = str(MINI.parent / row["image"]), str(MINI.parent / row["mask"])
    for row in rows[1:]:
        row["split"] = "train"
    rows[0]["split"] = "validation"
    (tmp_path / "cases.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    config = settings(f"mini:{tmp_path / 'cases.jsonl'}")
    result = synthesize(config, tmp_path / "out", num_workers=1)
    assert any("'validation'" in fault["message"] for fault in result.report.faults)
    assert len(result.report.records) == 3


def test_what_says_when_to_stop_may_change_and_what_says_what_may_not(built: Path) -> None:
    base = settings("phantoms:22?size=96")
    assert settings("phantoms:22?size=96", audit="report", on_fault="fail", allow_groups=("x",)).sha256 == base.sha256
    assert settings("phantoms:22?size=96", seed=3).sha256 != base.sha256
    before = digest(built)
    synthesize(settings("phantoms:22?size=96", audit="report"), built, num_workers=1)
    assert {k for k, v in digest(built).items() if before[k] != v} <= {"report.json", "README.md", "statistics.json"}
    synthesize(base, built, num_workers=1)
    assert digest(built) == before


def test_filters_are_merged_and_a_split_is_for_one_purpose(tmp_path: Path) -> None:
    config = load_config(("phantoms:1",), "paper", None, filters={"min_final_dice": 0.9})
    assert (config.filters.min_final_dice, config.filters.max_fall, config.filters.uncertain_share) == (0.9, None, 0.0)
    with pytest.raises(InputError, match="both"):
        load_config(("phantoms:1",), "ibis", None, rl_splits=("train", "val"))


def test_a_shard_of_other_code_is_noticed(built: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(built, folder)
    note = next((folder / "work").glob("train-00001*.json"))
    content = json.loads(note.read_text())
    content["made_with"]["version"] = "0.0.1"
    note.write_text(json.dumps(content))
    with pytest.raises(InputError, match="different code"):
        synthesize(settings("phantoms:22?size=96"), folder, num_workers=1)


def test_a_patient_in_two_splits_stops_the_build_unless_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lung1|brain1|icbm152"):
        synthesize(settings(f"mini:{MINI}"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# -- killed ----------------------------------------------------------------------------------------

COMMAND = [
    sys.executable, "-m", "ibisagent", "synthesize", "phantoms:22?size=96", "--processes", "2", "--segmenter", "rules",
    "--teacher", "terse",
]  # fmt: skip


def run(out: Path, config: Path) -> subprocess.Popen[bytes]:
    command = [*COMMAND, "--config", str(config), "--out", str(out)]
    env = {**os.environ, "IBISAGENT_MALLOC": "0"}
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, env=env, start_new_session=True)


def killed_and_resumed(tmp_path: Path, moments: int, seed: int) -> list[tuple[int, dict[str, str]]]:
    """For each moment, how often the build was killed, and the digest of what it came to."""
    config = tmp_path / "config.yaml"
    config.write_text("shard_images: 4\nfilters: {min_final_dice: 0.5}\n")
    rng = random.Random(seed)
    found = []
    for number in range(moments):
        out = tmp_path / f"out{number}"
        kills = 0
        while True:
            process = run(out, config)
            try:
                # The first kills fall anywhere in the run; then it is let go on.
                process.wait(rng.uniform(0.3, 6.0) if kills < 2 else 120)
            except subprocess.TimeoutExpired:
                if kills % 2:
                    os.killpg(process.pid, signal.SIGKILL)  # all of it
                else:
                    process.kill()  # the parent alone: its workers notice
                process.wait()
                kills += 1
                continue
            assert process.returncode == 0
            break
        found.append((kills, digest(out)))
    return found


def test_kill_9_loses_nothing(tmp_path: Path, built: Path) -> None:
    ((_, found),) = killed_and_resumed(tmp_path, 1, seed=1)
    assert found == digest(built)


@pytest.mark.slow
def test_kill_9_at_20_random_moments(tmp_path: Path, built: Path) -> None:
    found = killed_and_resumed(tmp_path, 10, seed=2)
    assert sum(kills for kills, _ in found) >= 10  # up to two kills each
    expected = digest(built)
    for number, (kills, content) in enumerate(found):
        assert content == expected, f"moment {number}, killed {kills} times"


def test_ctrl_c_says_so_and_the_same_command_goes_on(tmp_path: Path, built: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("shard_images: 4\nfilters: {min_final_dice: 0.5}\n")
    process = run(tmp_path / "out", config)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "out").glob("work/*.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 130
    again = run(tmp_path / "out", config)
    assert again.wait(120) == 0
    assert digest(tmp_path / "out") == digest(built)
