"""Lines, event files and missing trackers, with transformers' own trainer on a model of one weight."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from ibisagent.errors import InputError  # noqa: E402
from ibisagent.train.watch import trackers  # noqa: E402
from ibisagent.train.watch.log import RL_NAMES, SFT_NAMES, LogFile, own_lines_only  # noqa: E402
from ibisagent.train.watch.trackers import check_trackers, tensorboard_callback, tracker_arguments  # noqa: E402


class Slope(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, x: Any, labels: Any = None) -> dict[str, Any]:
        return {"loss": ((self.weight * x - labels) ** 2).mean()}


def fit(out: Path, steps: int, resume: bool = False, names: Any = RL_NAMES, unit: str = "update") -> Any:
    from transformers import Trainer, TrainingArguments

    args = TrainingArguments(
        output_dir=str(out / "checkpoints"), max_steps=steps, per_device_train_batch_size=1, logging_steps=1,
        save_steps=2, use_cpu=True, disable_tqdm=True, **tracker_arguments(("tensorboard",), out),
    )  # fmt: skip
    rows = [{"x": torch.ones(1), "labels": torch.full((1,), float(i))} for i in range(9)]
    log = LogFile(out / "log.jsonl", names, unit)
    events = tensorboard_callback(("tensorboard",), out / "tensorboard")
    trainer = Trainer(Slope(), args, train_dataset=rows, callbacks=[log, *events])
    own_lines_only(trainer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.train(resume_from_checkpoint=str(out / "checkpoints" / "checkpoint-2") if resume else None)
    return trainer


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def test_figures_reach_the_file_the_events_and_the_screen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = dict(os.environ)
    trainer = fit(tmp_path, 3)
    shown = capsys.readouterr()
    assert "{" not in shown.out + shown.err  # no dictionaries
    lines = shown.err.strip().splitlines()
    assert [line.split(":")[0] for line in lines[-4:]] == ["update 1/3", "update 2/3", "update 3/3", "update 3/3"]
    assert lines[-1].startswith("update 3/3: seconds in all ")
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    logged = {row["step"]: row["loss"] for row in rows if "loss" in row}
    assert list(logged) == [1, 2, 3]
    assert scalars(tmp_path / "tensorboard")["train/loss"] == pytest.approx(logged)
    assert dict(os.environ) == before  # a second run in this process has a folder of its own
    trainer.log({"eval_loss": 0.5})  # after the end: still there, and nowhere else
    assert scalars(tmp_path / "tensorboard")["eval/loss"] == {3: 0.5}


def test_a_resumed_run_takes_the_place_of_what_is_done_again(tmp_path: Path) -> None:
    fit(tmp_path, 3)
    (tmp_path / "log.jsonl").open("a").write('{"step": 9, "lo')  # killed while writing
    folder = tmp_path / "tensorboard"
    assert set(scalars(folder)["train/loss"]) == {1, 2, 3}
    fit(tmp_path, 4, resume=True)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4]  # the third stands there once


def test_a_line_says_what_was_measured(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "log.jsonl", RL_NAMES, "update")
    record = {"step": 7, "reward": 0.3246, "iou": 0.4, "steps": 4.25, "refusal/right": None, "refusal/false": 0.0,
              "entropy": 0.193, "failed": 0.0, "seconds_per_step": 23.1289, "seconds/policy": 6.0}  # fmt: skip
    expected = "reward 0.3246, IoU 0.4, steps 4.25, false refusals 0, entropy 0.193, s an update 23.1"
    assert log.line(record, 300) == f"update 7/300: {expected}"
    assert "tool failed 0.25" in log.line({**record, "failed": 0.25}, 300)
    assert LogFile(tmp_path / "x", SFT_NAMES).line({"step": 1, "loss": 2.0, "images": 4.0}, 9) == (
        "step 1/9: loss 2, images a batch 4"
    )


def test_missing_trackers_are_said_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    check_trackers(())
    check_trackers(("tensorboard",))
    with pytest.raises(InputError, match="--report-to tensorbord: there are tensorboard, wandb, trackio"):
        check_trackers(("tensorbord",))
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    for name in trackers.TRACKERS:
        with pytest.raises(InputError, match=f"needs the package {name}: pip install {name}"):
            check_trackers((name,))


@pytest.mark.parametrize("job", ["sft", "rl"])
def test_jobs_ask_for_their_trackers_first(job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import import_module

    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    words = ["--model", "/no/such/model", "--out", str(tmp_path), "--report-to", "wandb", "--device", "cpu"]
    words += ["--corpus", "/no/corpus"] if job == "sft" else ["--prompts", "corpus:/no/corpus"]
    with pytest.raises(InputError, match="pip install wandb"):
        import_module(f"ibisagent.train.{job}.run").main(words)
    assert not any(tmp_path.iterdir())


def test_hosted_trackers_get_the_name_of_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    assert tracker_arguments((), tmp_path) == tracker_arguments(("tensorboard",), tmp_path) == {"report_to": "none"}
    found = tracker_arguments(("tensorboard", "trackio"), tmp_path / "seed0")
    assert found == {"report_to": ["trackio"], "run_name": "seed0", "project": "ibisagent"}
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    assert tracker_arguments(("wandb",), tmp_path)["project"] == "mine"
    assert tensorboard_callback(("wandb",), tmp_path) == []


def test_an_update_s_time_is_split(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trl")
    from collections import defaultdict
    from types import SimpleNamespace

    from trl import GRPOTrainer

    from ibisagent.train.rl import trainer as module

    trainer = object.__new__(module.AgentGrpoTrainer)
    trainer.model = SimpleNamespace(training=True)
    trainer.accelerator = SimpleNamespace(device="cpu", gather=lambda values: values)
    found: list[dict[str, Any]] = []

    def log(self: Any, logs: dict[str, float], start_time: float | None = None) -> None:
        found.append({**logs, **{name: values[-1] for name, values in self._metrics["train"].items()}})
        self._metrics["train"].clear()

    monkeypatch.setattr(GRPOTrainer, "log", log)
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: 130.0))
    trainer._metrics = {"train": defaultdict(list, {"reward": [0.5], "refusal/right": [float("nan")]})}
    # Saved a checkpoint until 112, played until 120.
    trainer._clock, trainer._begun, trainer._away, trainer._agreement = 110.0, 112.0, 8.0, module.Agreement()
    trainer.log({"loss": 0.1})
    assert found[0] == {"loss": 0.1, "reward": 0.5, "seconds/update": 20.0, "seconds/optimizer": 10.0}
    assert (trainer._clock, trainer._begun, trainer._away) == (130.0, None, 0.0)
    trainer.log({"train_runtime": 3.0})  # the end of a run is no update
    assert found[1] == {"train_runtime": 3.0}
