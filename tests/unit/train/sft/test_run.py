"""Whole runs of ``train sft``: what is learnt, what is saved, how it ends and how it goes on."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("trl")
torch = pytest.importorskip("torch")

from ibisagent.errors import InputError  # noqa: E402
from ibisagent.train.config import read_yaml  # noqa: E402
from ibisagent.train.guards import TrainingError, last_checkpoint  # noqa: E402
from ibisagent.train.sft.trainer import SftTrainer  # noqa: E402

KINDS = ("qwen2_5_vl", "qwen3_vl")
Run = Callable[..., int]
Losses = Callable[[Path], dict[int, float]]
SINGLE = ("--global-batch", 1, "--per-device-batch", 1, "--warmup", 0, "--save-steps", 99)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Every batch that reached the loss."""
    seen: list[dict[str, Any]] = []
    real = SftTrainer.compute_loss

    def watch(self: Any, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        seen.append(dict(inputs))
        return real(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(SftTrainer, "compute_loss", watch)
    return seen


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    (file,) = folder.glob("*.safetensors")
    return load_file(file)


@pytest.mark.parametrize("kind", KINDS)
def test_tiny_models_learn_from_images_and_are_loaded_as_policies(
    kind: str, tiny: Any, train: Run, losses: Losses, batches: list, tmp_path: Path, corpus: Path
) -> None:
    before = weights(tiny(kind))
    assert train(tmp_path / "out", "--model", tiny(kind)) == 0
    assert len(losses(tmp_path / "out")) == 4 and all(np.isfinite(list(losses(tmp_path / "out").values())))
    for batch in batches:
        places = (batch["mm_token_type_ids"] == 1).sum()
        features = (batch["image_grid_thw"].prod(1) // 4).sum()
        assert places == features > 0 and len(batch["pixel_values"]) == 4 * features
        assert (batch["labels"][batch["mm_token_type_ids"] == 1] == -100).all()
    after = weights(tmp_path / "out" / "model")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and not any("visual" in name for name in changed)  # the tower is frozen
    from ibisagent.policies.vlm import make

    policy = make(str(tmp_path / "out" / "model"), device="cpu", max_new_tokens=4)
    assert policy.system_prompt == (tmp_path / "out" / "model" / "system_prompt.txt").read_text().strip()
    assert policy.system_prompt.startswith("You segment medical images")
    row = json.loads((tmp_path / "out" / "log.jsonl").read_text().splitlines()[0])
    assert row["images"] >= 2 and 0 <= row["mean_token_accuracy"] <= 1


def test_the_policy_shows_the_model_what_training_showed_it(
    tiny: Any, train: Run, batches: list, tmp_path: Path, corpus: Path
) -> None:
    from ibisagent.engine.corpus.reader import Corpus
    from ibisagent.policies.vlm import make

    arguments = ("--max-steps", 1, "--per-device-batch", 1, "--global-batch", 1, "--max-pixels", 1600)
    assert train(tmp_path / "out", "--model", tiny(KINDS[0]), *arguments, "--scenarios", "absent") == 0
    (batch,) = batches
    policy = make(str(tmp_path / "out" / "model"), device="cpu")
    reader = Corpus(corpus)
    (row,) = [row for row in reader.rows("sft") if row["scenario"] == "absent"]
    messages = reader.messages(row)
    inputs = policy.encode([messages[:-1]])
    width = inputs["input_ids"].shape[1]
    assert torch.equal(batch["input_ids"][:, :width], inputs["input_ids"])
    assert torch.equal(batch["pixel_values"], inputs["pixel_values"])
    assert (batch["labels"][0, :width] == -100).all() and (batch["labels"][0, width:] != -100).all()
    reply = policy.processor.tokenizer.decode(batch["labels"][0, width:])
    assert reply == messages[-1]["content"][0]["text"] + "<|im_end|>"


def test_overfitting_one_conversation_makes_the_loss_fall(
    tiny: Any, train: Run, losses: Losses, tmp_path: Path
) -> None:
    arguments = ("--max-steps", 8, "--max-rows", 1, "--epochs", 8, "--learning-rate", 1e-2)
    assert train(tmp_path / "a", "--model", tiny(KINDS[0]), *arguments, *SINGLE) == 0
    found = losses(tmp_path / "a")
    assert found[8] < 0.5 * found[1]


def test_lora_is_saved_as_an_adapter_that_is_loaded_and_trained_on(tiny: Any, train: Run, tmp_path: Path) -> None:
    from ibisagent.policies.checkpoints import load_checkpoint

    arguments = ("--lora-rank", 2, "--max-steps", 2)
    assert train(tmp_path / "a", "--model", tiny(KINDS[1]), *arguments) == 0
    model = tmp_path / "a" / "model"
    names = set(weights(model))
    assert names and all("lora_" in name and "visual" not in name and "lm_head" not in name for name in names)
    checkpoint = load_checkpoint(model, "cpu")
    assert checkpoint.processor.image_processor.size["longest_edge"] <= 512 * 512
    assert (model / "system_prompt.txt").is_file()
    assert train(tmp_path / "b", "--model", model, *arguments) == 0
    first, second = weights(model), weights(tmp_path / "b" / "model")
    assert set(first) == set(second) and any(not torch.equal(first[n], second[n]) for n in first)
    config = json.loads((tmp_path / "b" / "model" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tiny(KINDS[1]).resolve())
    for words, told in (
        (("--lora-rank", 4), "rank 2, not 4"),
        (("--lora-rank", 2, "--lora-alpha", 8), "alpha 16, not 8"),
    ):
        with pytest.raises(InputError, match=f"has {told}: train it on with its own"):
            train(tmp_path / "c", "--model", model, *words, "--max-steps", 2)


def test_checkpointing_changes_nothing_and_goes_not_back_through_a_frozen_tower(
    tiny: Any, train: Run, losses: Losses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLVisionBlock

    arguments = ("--model", tiny(KINDS[0]), "--max-steps", 2, "--lora-rank", 2, *SINGLE)
    assert train(tmp_path / "a", *arguments) == 0
    tracked: list[bool] = []
    real = Qwen2_5_VLVisionBlock.forward

    def watch(self: Any, *args: Any, **kwargs: Any) -> Any:
        out = real(self, *args, **kwargs)
        tracked.append(out.requires_grad)
        return out

    monkeypatch.setattr(Qwen2_5_VLVisionBlock, "forward", watch)
    assert train(tmp_path / "b", *arguments, "--gradient-checkpointing") == 0
    assert losses(tmp_path / "b") == pytest.approx(losses(tmp_path / "a"), rel=1e-6)
    assert tracked and not any(tracked)


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, what: Callable[[], Any]) -> None:
    """Have something happen in the midst of a step, once."""
    real, done = SftTrainer.training_step, []

    def training_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == step - 1 and not done:
            done.append(step)
            found = what()
            if found is not None:
                raise found
        return real(self, *args, **kwargs)

    monkeypatch.setattr(SftTrainer, "training_step", training_step)


LONG = ("--max-steps", 4, "--epochs", 3, "--global-batch", 2, "--per-device-batch", 1, "--lora-rank", 2,
        "--lora-dropout", 0.2)  # fmt: skip


@pytest.fixture(scope="module")
def unbroken(tiny: Any, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps that nothing happened to."""
    from ibisagent.train.sft.run import main

    out = tmp_path_factory.mktemp("unbroken")
    words = ["--preset", "tiny", "--corpus", corpus, "--device", "cpu", "--out", out, "--model", tiny(KINDS[0]), *LONG]
    assert main([str(word) for word in words]) == 0
    return out


def test_a_killed_run_goes_on_with_the_same_losses(
    tiny: Any, train: Run, losses: Losses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unbroken: Path
) -> None:
    model = ("--model", tiny(KINDS[0]))
    with monkeypatch.context() as patch:
        stop_at(patch, 4, lambda: SystemExit("killed"))
        with pytest.raises(SystemExit):
            train(tmp_path, *model, *LONG)
    assert max(losses(tmp_path)) == 3  # one step further than the checkpoint
    (tmp_path / "checkpoints" / "checkpoint-3").mkdir()  # what is half written is passed over
    assert last_checkpoint(tmp_path / "checkpoints").name == "checkpoint-2"
    with pytest.raises(InputError, match="--resume"):
        train(tmp_path, *model, *LONG)
    with pytest.raises(InputError, match="learning_rate"):
        train(tmp_path, *model, *LONG, "--resume", "--learning-rate", 1)
    assert train(tmp_path, *model, *LONG, "--resume") == 0
    assert losses(tmp_path) == losses(unbroken) and len(losses(unbroken)) == 4
    one, other = weights(unbroken / "model"), weights(tmp_path / "model")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_ctrl_c_saves_and_resuming_gives_the_same_losses(
    tiny: Any, train: Run, losses: Losses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any, unbroken: Path
) -> None:
    model = ("--model", tiny(KINDS[0]))
    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        stop_at(patch, 3, lambda: os.kill(os.getpid(), signal.SIGINT))
        assert train(tmp_path, *model, *LONG) == 130
    assert signal.getsignal(signal.SIGINT) is before
    assert "stopped at step 3, saved; --resume goes on" in capfd.readouterr().err
    assert not (tmp_path / "model").exists()
    assert train(tmp_path, *model, *LONG, "--resume") == 0
    assert losses(tmp_path) == losses(unbroken)


def test_a_loss_that_is_no_number_ends_with_a_line_and_a_usable_checkpoint(
    tiny: Any, train: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = SftTrainer.compute_loss

    def broken(self: Any, *args: Any, **kwargs: Any) -> Any:
        return real(self, *args, **kwargs) * (float("nan") if self.state.global_step == 3 else 1.0)

    with monkeypatch.context() as patch:
        patch.setattr(SftTrainer, "compute_loss", broken)
        with pytest.raises(TrainingError, match=r"step 4 is not finite.*checkpoint-2 is whole, --resume") as error:
            train(tmp_path / "out", "--model", tiny(KINDS[0]))
    assert "\n" not in str(error.value)
    assert train(tmp_path / "out", "--model", tiny(KINDS[0]), "--resume") == 0


def test_gradients_that_are_no_numbers_end_with_a_line(
    tiny: Any, train: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = SftTrainer.training_step

    def broken(self: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
        loss = real(self, model, *args, **kwargs)
        next(p for p in model.parameters() if p.grad is not None).grad.view(-1)[0] = float("nan")
        return loss

    monkeypatch.setattr(SftTrainer, "training_step", broken)
    with pytest.raises(TrainingError, match=r"the gradient of step 1 is not finite.*there is no checkpoint yet"):
        train(tmp_path / "out", "--model", tiny(KINDS[0]))


def test_a_run_may_go_on_with_less_at_a_time(
    tiny: Any, train: Run, losses: Losses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the line says that ends a run without memory: the rows and their order stay."""
    words = ("--model", tiny(KINDS[0]), "--max-steps", 4, "--epochs", 3, "--global-batch", 4, "--per-device-batch", 4,
             "--lora-rank", 2)  # fmt: skip
    assert train(tmp_path / "a", *words) == 0
    with monkeypatch.context() as patch:
        stop_at(patch, 3, lambda: torch.OutOfMemoryError("CUDA out of memory"))
        with pytest.raises(TrainingError, match="a smaller --per-device-batch"):
            train(tmp_path / "b", *words)
    assert train(tmp_path / "b", *words, "--per-device-batch", 1, "--resume") == 0
    assert losses(tmp_path / "b") == pytest.approx(losses(tmp_path / "a"), rel=1e-5)
    assert read_yaml(tmp_path / "b" / "config.yaml")["length_group"] == 4
    # Another order is another run.
    with pytest.raises(InputError, match="begun with length_group 4, not 2"):
        train(tmp_path / "b", *words, "--length-group", 2, "--resume")


def test_missing_memory_ends_with_a_line(
    tiny: Any, train: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at(monkeypatch, 2, lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    with pytest.raises(TrainingError, match=r"memory on the GPU; try .* a smaller --per-device-batch.*no checkpoint"):
        train(tmp_path / "out", "--model", tiny(KINDS[0]))


def test_lost_images_end_a_run(tiny: Any, train: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ibisagent.train.sft.collator import SftCollator

    real = SftCollator.__call__

    def blind(self: Any, examples: Any) -> Any:
        return {k: v for k, v in real(self, examples).items() if k not in ("pixel_values", "image_grid_thw")}

    monkeypatch.setattr(SftCollator, "__call__", blind)
    with pytest.raises(TrainingError, match="images were lost on the way"):
        train(tmp_path / "out", "--model", tiny(KINDS[0]))


def test_nano_learns_and_is_saved_as_nano(train: Run, losses: Losses, tmp_path: Path) -> None:
    from ibisagent.policies.nano import make

    arguments = ("--model", "nano", "--max-steps", 3, "--scenarios", "absent", "--no-freeze-vision")
    assert train(tmp_path / "out", *arguments, *SINGLE) == 0
    found = losses(tmp_path / "out")
    assert found[3] < found[1]
    policy = make(str(tmp_path / "out" / "model"), device="cpu")
    assert policy.system_prompt is not None and policy.system_prompt.startswith("Segment the target by clicks")
    assert (tmp_path / "out" / "model" / "dialect.txt").read_text() == "plain\n"


@pytest.fixture(scope="module")
def paper_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms by the rule-based segmenter, in the grammar of the published weights."""
    from ibisagent.engine.builder.build import synthesize
    from ibisagent.engine.builder.config import load_config

    out = tmp_path_factory.mktemp("paper") / "corpus"
    none = {"self_correction": 0.0, "mismatched_mask": 0.0, "corrupted_mask": 0.0}
    settings = {
        "segmenter": "rules",
        "teacher": "terse",
        "dialect": "ibis-paper",
        "proportions": {"plain": 1.0, **none},
    }
    filters = {"min_final_dice": 0.5}
    synthesize(load_config(("phantoms:4?size=96",), "ibis", None, filters=filters, **settings), out, num_workers=1)
    return out


def test_the_grammar_that_is_learnt_is_kept_with_the_model(paper_corpus: Path, tmp_path: Path) -> None:
    from ibisagent.policies.nano import make
    from ibisagent.train.rl.run import main as train_rl
    from ibisagent.train.sft.run import main

    words = [
        "--preset",
        "tiny",
        "--corpus",
        str(paper_corpus),
        "--device",
        "cpu",
        "--model",
        "nano",
        "--max-steps",
        "1",
    ]
    assert main([*words, *map(str, SINGLE), "--out", str(tmp_path / "out")]) == 0
    model = tmp_path / "out" / "model"
    policy = make(str(model), device="cpu")  # its prompt, nano's own, quotes no grammar
    assert policy.dialect.name == "ibis-paper"
    with pytest.raises(InputError, match=r"the model learnt 'ibis-paper'; set dialect to ibis-paper$"):
        train_rl(["--preset", "tiny", "--model", str(model), "--device", "cpu", "--out", str(tmp_path / "rl")])


def test_a_corpus_of_another_grammar_than_the_prompt_is_refused(
    paper_corpus: Path, tiny: Any, train: Run, tmp_path: Path
) -> None:
    from ibisagent.actions import DIALECTS
    from ibisagent.messages import default_system_prompt
    from ibisagent.train.sft.run import main

    (tmp_path / "plain.txt").write_text(default_system_prompt(DIALECTS["plain"]))
    words = ["--preset", "tiny", "--corpus", str(paper_corpus), "--device", "cpu", "--model", str(tiny(KINDS[0]))]
    with pytest.raises(InputError, match=r"replies are in the dialect 'ibis-paper', but .* offers 'plain'"):
        main([*words, "--system-prompt", str(tmp_path / "plain.txt"), "--out", str(tmp_path / "a")])
    assert not (tmp_path / "a").exists()
    assert main([*words, "--max-steps", "1", *map(str, SINGLE), "--out", str(tmp_path / "b")]) == 0
    assert (tmp_path / "b" / "model" / "dialect.txt").read_text() == "ibis-paper\n"


@pytest.mark.parametrize(
    ("fitting", "told", "before", "name"),
    [
        (("plain", "ibis-paper"), "Segment.", None, "plain"),
        (("plain", "ibis-paper"), "Segment.", "ibis-paper", "ibis-paper"),
        (("plain", "ibis-paper"), "ibis-paper", None, "ibis-paper"),
        (("json",), "Segment.", None, "json"),
        (("json",), "Segment.", "plain", "json"),
        ((), "json", None, "json"),
        ((), "Segment.", "ibis-paper", "ibis-paper"),
    ],
)
def test_which_grammar_is_learnt(fitting: tuple[str, ...], told: str, before: str | None, name: str) -> None:
    from ibisagent.actions import DIALECTS
    from ibisagent.messages import default_system_prompt
    from ibisagent.train.sft.run import _dialect

    assert _dialect(fitting, default_system_prompt(DIALECTS[told]) if told in DIALECTS else told, before) == name


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--global-batch", "3"], "global_batch 3 is no multiple of per_device_batch 2"),
        (["--splits", "nowhere"], "no split 'nowhere' of 'sft'; there is train"),
        (["--scenarios", "deceptive"], "nothing to learn"),
        (["--max-length", "64"], "raise --max-length"),
        (["--lora-rank", "2", "--lora-targets", "q_prj"], "no layer of .* is called q_prj"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    tiny: Any, train: Run, tmp_path: Path, words: list[str], reason: str
) -> None:
    with pytest.raises(InputError, match=reason) as error:
        train(tmp_path / "out", "--model", tiny(KINDS[0]), *words)
    assert "\n" not in str(error.value)
