"""Visual questions through whole trainings: learnt, rewarded, and answered before and after, also by a resumed run."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")
torch = pytest.importorskip("torch")

from ibisagent.cli import main as cli  # noqa: E402
from ibisagent.errors import InputError  # noqa: E402
from ibisagent.train.rl.run import main as rl  # noqa: E402
from ibisagent.train.rl.sampler import Sample  # noqa: E402
from ibisagent.train.sft.run import main as sft  # noqa: E402
from ibisagent.train.sft.trainer import SftTrainer  # noqa: E402
from ibisagent.train.vqa_probe import VqaProbe  # noqa: E402
from sample_corpus import write_sample_corpus  # noqa: E402
from sample_questions import write_questions  # noqa: E402


@pytest.fixture(scope="module")
def rad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_questions(tmp_path_factory.mktemp("vqa") / "rad")


@pytest.fixture(scope="module")
def corpora(rad: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Trajectories, and a corpus of questions alone that ``ibisagent synthesize`` made of the published files."""
    write_sample_corpus(tmp_path_factory.mktemp("vqa") / "acts")
    acts, asks = tmp_path_factory.getbasetemp() / "vqa1" / "acts", tmp_path_factory.mktemp("vqa") / "asks"
    assert cli(["synthesize", f"vqa-rad:{rad}", "--segmenter", "rules", "--audit", "report", "--out", str(asks)]) == 0
    return acts, asks


def result(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "vqa.json").read_text(encoding="utf-8"))
    for when in ("before", "after"):
        if found[when]:
            found[when].pop("seconds")
    return found


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def losses(out: Path) -> dict[int, float]:
    return {row["step"]: row["loss"] for row in rows(out) if "loss" in row}


@pytest.fixture
def learn(corpora: tuple[Path, Path], tiny: Callable[[str], Path]) -> Callable[..., int]:
    """``learn(out, *words)`` runs ``train sft`` on both corpora with the tiny Qwen2.5-VL."""

    def run(out: Path, *words: Any) -> int:
        head = ["--preset", "tiny", "--model", tiny("qwen2_5_vl"), "--corpus", *corpora, "--vqa-share", 0.5,
                "--scenarios", "absent", "--device", "cpu", "--out", out]  # fmt: skip
        return sft([str(word) for word in [*head, *words]])

    return run


def test_fine_tuning_on_a_mix_learns_the_questions_and_says_so(
    learn: Callable[..., int], corpora: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spec = f"corpus:{corpora[1]}?split=train"
    words = ("--vqa-share", 0.9, "--max-steps", 40, "--learning-rate", 3e-3, "--warmup", 0, "--global-batch", 4,
             "--per-device-batch", 4, "--no-group-by-length", "--save-steps", 40, "--no-freeze-vision")  # fmt: skip
    assert learn(tmp_path, *words, "--vqa-probe", spec) == 0
    found = result(tmp_path)
    assert found["before"]["step"] == 0 and found["before"]["accuracy"]["value"] == 0.0
    assert found["after"]["step"] == 40 and found["after"]["accuracy"]["value"] >= 0.8
    assert found["after"]["num"] == 5 and found["after"]["num_groups"] == 2
    gain = found["difference"]["accuracy"]
    assert gain["value"] == found["after"]["accuracy"]["value"] and gain["ci95"][0] > 0
    assert found["difference"]["won"] >= 4 and found["difference"]["lost"] == 0
    assert {line["question"] for line in found["answers"] if line["right_after"]} >= {
        "Is there a square?",
        "Is there a disc?",
    }
    logged = {row["step"]: row["vqa/accuracy"] for row in rows(tmp_path) if "vqa/accuracy" in row}
    assert logged == {0: 0.0, 40: found["after"]["accuracy"]["value"]}
    said = capfd.readouterr().err
    assert "5 visual questions about 2 images or patients" in said and "images or patients): right 0.000 [" in said
    # The model that was written answers as the probe says, in the hands of the policy.
    out = tmp_path / "e"
    assert cli(["evaluate", spec, "--policy", f"vlm:{tmp_path / 'model'}", "--out", str(out)]) == 0
    told = json.loads((out / "summary.json").read_text())
    assert told["accuracy"] == found["after"]["accuracy"]


def test_a_killed_run_keeps_what_was_answered_before_it_and_the_probe_changes_nothing(
    learn: Callable[..., int], rad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    words = ("--learning-rate", 1e-2, "--lora-rank", 2, "--lora-dropout", 0.2, "--max-steps", 3)
    probe = ("--vqa-probe", f"vqa-rad:{rad}")
    assert learn(tmp_path / "bare", *words) == 0
    assert learn(tmp_path / "whole", *words, *probe) == 0
    assert losses(tmp_path / "whole") == losses(tmp_path / "bare")
    assert not (tmp_path / "bare" / "vqa.json").exists()
    real, asked = SftTrainer.training_step, []

    def killed(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == 2:
            raise SystemExit("killed")
        return real(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(SftTrainer, "training_step", killed)
        with pytest.raises(SystemExit):
            learn(tmp_path / "killed", *words, *probe)
    half = result(tmp_path / "killed")
    assert half["before"] and half["after"] is None and half["difference"] is None
    ask = VqaProbe._ask

    def watched(self: Any, when: str) -> Any:
        asked.append(when)
        return ask(self, when)

    monkeypatch.setattr(VqaProbe, "_ask", watched)
    assert learn(tmp_path / "killed", *words, *probe, "--resume") == 0
    assert asked == ["after"]
    assert result(tmp_path / "killed") == result(tmp_path / "whole")
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    # Killed after its last step, or asked something else: the end is asked again, and nothing is made up.
    capfd.readouterr()
    assert learn(tmp_path / "killed", *words, "--vqa-probe", f"vqa-rad:{rad}?split=train", "--resume") == 0
    found = result(tmp_path / "killed")
    assert found["before"] is None and found["difference"] is None and found["after"]["num"] == 5
    assert "no answers to these questions from the start of this run" in capfd.readouterr().err


class Prompted:
    """Every second sibling answers questions with yes, and acts by script; the others draw from the model."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def session(self, seed: int) -> Prompted:
        self.own = self.inner.session(seed)
        return self

    def sample(self, contexts: Sequence[Any]) -> list[Sample]:
        drawn = [c for c in contexts if int(c.key.partition("/")[2]) % 2]
        found = dict(zip((c.key for c in drawn), self.own.sample(drawn) if drawn else (), strict=True))
        renderer = self.inner.renderer
        for context in contexts:
            if context.key not in found:
                asked = "Is there" in renderer.tokenizer.decode(context.ids)
                text = "yes" if asked else "<think>a</think><action>Terminate</action><answer>Absent: no</answer>"
                found[context.key] = Sample(tuple(int(i) for i in renderer.reply(text)), True)
        return [found[c.key] for c in contexts]


def test_acting_on_a_mix_of_cases_and_questions(
    corpora: tuple[Path, Path], rad: Path, tiny: Callable[[str], Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capfd: Any,
) -> None:  # fmt: skip
    from ibisagent.train.rl import setup
    from ibisagent.train.rl.trainer import AgentGrpoTrainer

    real, batches = setup.sampler_maker, []
    monkeypatch.setattr(setup, "sampler_maker", lambda *args: lambda model: Prompted(real(*args)(model)))
    loss = AgentGrpoTrainer._compute_loss

    def watch(self: Any, model: Any, inputs: dict[str, Any]) -> Any:
        batches.append(dict(inputs))
        return loss(self, model, inputs)

    monkeypatch.setattr(AgentGrpoTrainer, "_compute_loss", watch)
    words = ["--preset", "tiny", "--model", tiny("qwen2_5_vl"), "--segmenter", "rules", "--device", "cpu",
             "--prompts", f"corpus:{corpora[0]}", f"vqa-rad:{rad}", "--vqa-share", 0.5, "--prompts-per-update", 8,
             "--micro-batch", 8, "--max-steps", 1, "--max-new-tokens", 8, "--learning-rate", 1e-3, "--out", tmp_path,
             "--vqa-probe", f"vqa-rad:{rad}?split=all", "--page-updates", 1, "--credit", "turn"]  # fmt: skip
    assert rl([str(word) for word in words]) == 0
    logged = [row for row in rows(tmp_path) if "loss" in row]
    assert [row["step"] for row in logged] == [1, 2]
    for row in logged:
        assert row["questions"] == 0.5 and row["reward/vqa"] == 0.25  # one sibling says yes to everything
        assert row["reward"] is not None and row["reward/format"] < 0 and row["grad_norm"] > 0
    assert len(batches) == 4
    for batch in batches:
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
        features = batch["image_grid_thw"].prod(1) // 4
        assert (batch["mm_token_type_ids"] == 1).sum() == features.sum() > 0 and ids.shape[0] == 8
        assert sum(batch["num_images"]) == len(features)
        assert not batch["advantages"][batch["tool_mask"] == 0].any()
    found = result(tmp_path)
    assert found["before"]["num"] == found["after"]["num"] == 8 and found["after"]["step"] == 2
    assert json.loads((tmp_path / "result.json").read_text())["last_updates"]["reward/vqa"] == 0.25
    assert json.loads((tmp_path / "pages" / "index.json").read_text())["entries"]
    said = capfd.readouterr().err
    assert "1 open questions are left out, for which there is no reward" in said and "right answers 0.25" in said


def test_a_probe_that_cannot_be_opened_ends_before_a_model_is_loaded(learn: Callable[..., int], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no train\.json, validate\.json or test\.json"):
        learn(tmp_path, "--vqa-probe", f"slake:{tmp_path}", "--model", tmp_path / "no model")


def test_a_corpus_of_questions_alone_needs_a_share(
    corpora: tuple[Path, Path], learn: Callable[..., int], tmp_path: Path
) -> None:
    from shutil import rmtree

    asks = tmp_path / "asks"
    (asks / "data").mkdir(parents=True)
    for table in ("images", "vqa"):
        (asks / "data" / table).symlink_to(corpora[1] / "data" / table)
    with pytest.raises(InputError, match=r"no trajectories \(table sft\) in it; --vqa-share mixes its visual"):
        learn(tmp_path / "o", "--corpus", corpora[0], asks, "--vqa-share", 0)
    assert learn(tmp_path / "o", "--corpus", corpora[0], asks, "--max-steps", 1) == 0
    assert json.loads((tmp_path / "o" / "result.json").read_text())["questions"] == 1
    rmtree(tmp_path / "o")
