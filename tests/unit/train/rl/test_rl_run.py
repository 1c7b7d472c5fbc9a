"""Whole runs of ``train rl``: images in every batch, what is learnt and logged, how a run ends and goes on.

Replies of random models are nonsense, and nonsense earns the same for all siblings. So every second sibling speaks
from a script (by the session's seed), the others draw from the model.
"""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("trl")
torch = pytest.importorskip("torch")

from ibisagent.errors import InputError, PolicyError  # noqa: E402
from ibisagent.rewards import load_rubric  # noqa: E402
from ibisagent.train.guards import TrainingError, last_checkpoint  # noqa: E402
from ibisagent.train.rl.run import main  # noqa: E402
from ibisagent.train.rl.sampler import Sample  # noqa: E402
from ibisagent.train.rl.trainer import AgentGrpoTrainer  # noqa: E402
from sample_corpus import write_sample_corpus  # noqa: E402
from sample_rl import ABSENT, FOUND, GRID, make_small_nano  # noqa: E402

KINDS = ("qwen2_5_vl", "qwen3_vl")
MINI = Path(__file__).parents[4] / "data" / "mini" / "cases.jsonl"
LIVER = "<think>a</think><action>Positive Point (0.3661, 0.5125)</action>"
CENTRE = "<think>b</think><action>Positive Point (0.5000, 0.5000)</action>"

Train = Callable[..., int]


class Mixed:
    """Every second sibling reads from a script, drawn by seed and turn; the others sample."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def session(self, seed: int) -> Any:
        self.drawn, self.real, self.own = np.random.default_rng(seed), None, self.inner.session(seed)
        return self

    def sample(self, contexts: Sequence[Any]) -> list[Sample]:
        real = [c for c in contexts if int(c.key.partition("/")[2]) % 2]
        found = dict(zip((c.key for c in real), self.own.sample(real) if real else (), strict=True))
        for context in contexts:
            if context.key not in found:
                text = str(self.drawn.choice([LIVER, CENTRE, ABSENT, FOUND]))
                found[context.key] = Sample(tuple(int(i) for i in self.inner.renderer.reply(text)), True)
        return [found[c.key] for c in contexts]


@pytest.fixture(autouse=True)
def mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    from ibisagent.train.rl import setup

    real = setup.sampler_maker

    def maker(*args: Any) -> Any:
        make = real(*args)
        return lambda model: Mixed(make(model))

    monkeypatch.setattr(setup, "sampler_maker", maker)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Every batch that reached the loss."""
    seen: list[dict[str, Any]] = []
    real = AgentGrpoTrainer._compute_loss

    def watch(self: Any, model: Any, inputs: dict[str, Any]) -> Any:
        seen.append(dict(inputs))
        return real(self, model, inputs)

    monkeypatch.setattr(AgentGrpoTrainer, "_compute_loss", watch)
    return seen


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rl") / "corpus"
    write_sample_corpus(folder)
    return folder


@pytest.fixture(scope="module")
def nano(vocabulary: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nano")
    make_small_nano(vocabulary, seed=4).save_pretrained(folder)
    vocabulary.save_pretrained(folder)
    (folder / "system_prompt.txt").write_text("Segment.\n")
    return folder


@pytest.fixture
def train(corpus: Path, nano: Path) -> Train:
    """``train(out, "--flag", value, …)``: the preset ``tiny`` on the small nano and the sample corpus."""

    def run(out: Path, *words: Any) -> int:
        head: list[Any] = ["--preset", "tiny", "--prompts", f"corpus:{corpus}", "--segmenter", "rules", "--model", nano,
                           "--device", "cpu", "--out", out, "--learning-rate", 1e-2]  # fmt: skip
        return main([str(word) for word in [*head, *words]])

    return run


def lines(out: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [row for row in rows if "loss" in row]


def figures(out: Path) -> list[dict[str, Any]]:
    """What must be the same after a resume: all but times."""
    return [{k: v for k, v in row.items() if "second" not in k and "time" not in k} for row in lines(out)]


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return {name: value for file in sorted(folder.glob("*.safetensors")) for name, value in load_file(file).items()}


def differ(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    assert set(one) == set(other)
    return {name for name in one if not torch.equal(one[name].float(), other[name].float())}


# -- Qwen2.5-VL and Qwen3-VL ------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_tiny_models_learn_from_real_images(
    kind: str, tiny: Callable[[str], Path], train: Train, batches: list[dict[str, Any]], tmp_path: Path
) -> None:
    prompts = f"scenes:{MINI}?number=4&real_share=1&absent_share=0.5"
    out = tmp_path / "out"
    words = ("--model", tiny(kind), "--prompts", prompts, "--group-size", 4, "--loss", "grpo", "--micro-batch", 2)
    assert train(out, *words, "--learning-rate", 1e-3) == 0
    assert len(batches) == 4  # two updates of two micro batches
    for batch in batches:
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
        features = batch["image_grid_thw"].prod(1) // 4
        assert (batch["mm_token_type_ids"] == 1).sum() == features.sum() > 0
        assert len(batch["pixel_values"]) == 4 * features.sum() and sum(batch["num_images"]) == len(features)
        assert batch["pixel_values"].std() > 0.1  # a picture, and no empty square
        assert ids.shape == batch["mm_token_type_ids"].shape
        assert not (batch["tool_mask"] * batch["completion_mask"] == 1)[batch["completion_ids"] == ids.max() + 1].any()
    rows = lines(out)
    assert [row["step"] for row in rows] == [1, 2] and all(math.isfinite(row["loss"]) for row in rows)
    rubric = load_rubric("ibis")
    logged = {name for row in rows for name in row}
    assert {f"reward/{name}" for name in ("refusal", "step_cost", "format")} <= logged
    assert {n.removeprefix("reward/") for n in logged if n.startswith("reward/")} <= set(rubric.names)
    assert {"reward", "steps", "validity", "entropy", "images_per_batch", "tokens/own", "seconds/policy"} <= logged
    assert differ(weights(tiny(kind)), weights(out / "model"))
    from ibisagent.policies.vlm import make

    policy = make(str(out / "model"), device="cpu", max_new_tokens=4)
    assert policy.system_prompt.startswith("You segment medical images")


def test_lost_images_end_a_run(
    tiny: Callable[[str], Path], train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """trl drops all images of a batch without a word where one does not match."""
    real = AgentGrpoTrainer._compute_loss

    def blind(self: Any, model: Any, inputs: dict[str, Any]) -> Any:
        left = {k: v for k, v in inputs.items() if k not in ("pixel_values", "image_grid_thw")}
        return real(self, model, left)

    monkeypatch.setattr(AgentGrpoTrainer, "_compute_loss", blind)
    with pytest.raises(PolicyError, match="images reached the model without pixel values"):
        train(tmp_path / "out", "--model", tiny(KINDS[0]))


def test_an_image_too_few_in_a_micro_batch_ends_a_run(
    tiny: Callable[[str], Path], train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = AgentGrpoTrainer._compute_loss

    def short(self: Any, model: Any, inputs: dict[str, Any]) -> Any:
        grid = inputs["image_grid_thw"][:-1]
        return real(self, model, {**inputs, "image_grid_thw": grid})

    monkeypatch.setattr(AgentGrpoTrainer, "_compute_loss", short)
    with pytest.raises(PolicyError, match="image tokens for"):
        train(tmp_path / "out", "--model", tiny(KINDS[1]))


@pytest.mark.parametrize("kind", [KINDS[0], pytest.param(KINDS[1], marks=pytest.mark.slow)])
def test_an_adapter_is_held_to_its_start(kind: str, tiny: Callable[[str], Path], train: Train, tmp_path: Path) -> None:
    words = ("--model", tiny(kind), "--lora-rank", 2, "--beta", 0.1, "--group-size", 4, "--micro-batch", 4,
             "--freeze-vision", "--gradient-checkpointing")  # fmt: skip
    assert train(tmp_path / "a", *words) == 0
    rows = lines(tmp_path / "a")
    assert abs(rows[0]["kl"]) < 1e-6 < rows[1]["kl"]  # it begins at the reference, and leaves it
    names = set(weights(tmp_path / "a" / "model"))
    assert names and all("lora_" in name and "visual" not in name for name in names)
    # Going on from an adapter, the reference is that adapter, not the base; it is no part of the result.
    model = tmp_path / "a" / "model"
    assert not (model / "ref").exists()
    assert train(tmp_path / "b", *words, "--model", model) == 0
    assert abs(lines(tmp_path / "b")[0]["kl"]) < 1e-6
    assert differ(weights(model), weights(tmp_path / "b" / "model"))


def test_an_adapter_that_is_held_to_its_start_goes_on_as_it_was(
    tiny: Callable[[str], Path], train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint then holds two adapters; transformers alone would load the frozen one."""
    words = ("--model", tiny(KINDS[0]), "--lora-rank", 2, "--beta", 0.1, "--group-size", 4, "--micro-batch", 4,
             "--num-updates", 3)  # fmt: skip
    assert train(tmp_path / "a", *words) == 0
    with monkeypatch.context() as patch:
        stop_at(patch, 3, lambda: SystemExit("killed"))
        with pytest.raises(SystemExit):
            train(tmp_path / "b", *words)
    newest = last_checkpoint(tmp_path / "b" / "checkpoints")
    assert newest is not None and newest.name == "checkpoint-2" and (newest / "ref").is_dir()
    assert train(tmp_path / "b", *words, "--resume") == 0
    same(tmp_path / "b", tmp_path / "a")


def test_checkpointing_goes_not_back_through_a_frozen_tower(
    tiny: Callable[[str], Path], train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor after playing, for which checkpointing is switched off and on again."""
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLVisionBlock

    tracked: list[bool] = []
    real = Qwen2_5_VLVisionBlock.forward

    def watch(self: Any, *args: Any, **kwargs: Any) -> Any:
        out = real(self, *args, **kwargs)
        if torch.is_grad_enabled():
            tracked.append(out.requires_grad)
        return out

    monkeypatch.setattr(Qwen2_5_VLVisionBlock, "forward", watch)
    words = ("--model", tiny(KINDS[0]), "--lora-rank", 2, "--group-size", 4, "--micro-batch", 4, "--freeze-vision",
             "--beta", 0.1)  # fmt: skip
    assert train(tmp_path / "a", *words) == 0
    assert train(tmp_path / "b", *words, "--gradient-checkpointing") == 0
    assert tracked and not any(tracked)
    for one, other in zip(figures(tmp_path / "a"), figures(tmp_path / "b"), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4, abs=1e-6)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_merged_adapter_s_reference_is_what_it_was_merged_into(
    kind: str, tiny: Callable[[str], Path], train: Train, tmp_path: Path
) -> None:
    words = ("--group-size", 4, "--micro-batch", 4)
    assert train(tmp_path / "a", "--model", tiny(kind), "--lora-rank", 2, *words) == 0
    assert train(tmp_path / "b", "--model", tmp_path / "a" / "model", "--beta", 0.1, *words) == 0
    kl = [row["kl"] for row in lines(tmp_path / "b")]
    assert abs(kl[0]) < 1e-6 < kl[1]


# -- losses, credit, batches ------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("--loss", "dapo", "--epsilon-high", 0.28, "--credit", "turn", "--turn-weight", 1),
        ("--loss", "grpo", "--beta", 0.05, "--entropy-coef", 0.01),
        ("--loss", "dr_grpo", "--scale-rewards", "none", "--updates-per-batch", 2, "--save-updates", 2),
        ("--reward", "paper:click+progress", "--credit", "turn", "--micro-batch", 1),
    ],
    ids=["dapo-turn", "grpo-kl-entropy", "dr_grpo-two-updates", "paper"],
)
def test_variants_learn(
    words: tuple[Any, ...], train: Train, nano: Path, batches: list[dict[str, Any]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert train(out, "--group-size", 4, "--micro-batch", 2, *words) == 0
    rows = lines(out)
    assert [row["step"] for row in rows] == [1, 2] and all(math.isfinite(row["loss"]) for row in rows)
    assert all(row["grad_norm"] > 0 for row in rows if row.get("groups_alike") == 0.0)
    if "--beta" in words:
        assert abs(rows[0]["kl"]) < 1e-5
    if "--updates-per-batch" in words:
        assert all("old_per_token_logps" in batch for batch in batches)
    rubric = load_rubric(words[1] if "--reward" in words else "ibis")
    assert any(f"reward/{name}" in row for row in rows for name in rubric.names)
    own = torch.cat([b["tool_mask"].flatten() for b in batches]).bool()
    value = torch.cat([b["advantages"].flatten() for b in batches])
    assert (value[~own] == 0).all() and (value[own] != 0).any()
    if "turn" in words:  # some run's turns got unlike advantages
        runs = [row[mask.bool()] for b in batches for row, mask in zip(b["advantages"], b["tool_mask"], strict=True)]
        assert any(len(set(run.tolist())) > 1 for run in runs)
    after = weights(out / "model")
    assert after and differ({k: v.half() for k, v in weights(nano).items() if k in after}, after)


@pytest.fixture
def placing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The script's clicks lie on the small nano's grid, or they were no places, and come with three further ones."""
    real = Mixed.sample

    def sample(self: Any, contexts: Sequence[Any]) -> list[Sample]:
        """What was drawn, with places."""
        first = len(self.inner.renderer.tokenizer) - GRID**2
        found = real(self, contexts)
        own = [s for s in found if s.log_probs is not None]
        assert all(len(s.places) == sum(i >= first for i in s.ids) for s in own)
        more = (first, first + 40, first + 200)
        return [
            replace(s, places=tuple((k, more) for k, i in enumerate(s.ids) if i >= first)) if s.log_probs is None else s
            for s in found
        ]

    monkeypatch.setattr(Mixed, "sample", sample)
    monkeypatch.setitem(globals(), "LIVER", LIVER.replace("0.3661, 0.5125", "0.3438, 0.5312"))
    monkeypatch.setitem(globals(), "CENTRE", CENTRE.replace("0.5000, 0.5000", "0.5312, 0.4688"))


@pytest.mark.usefixtures("placing")
def test_clicks_learn_from_places_that_were_tried_beside_them(
    train: Train, batches: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Better places become likelier, and the loss is the same however a batch is cut."""
    real = AgentGrpoTrainer._place_loss
    seen: list[tuple[Any, dict[str, Any], float, float]] = []

    def watch(self: Any, inputs: dict[str, Any]) -> Any:
        """The loss, noted with what it was made of."""
        loss = real(self, inputs)
        gained = float((inputs["place_advantages"] * self._place_scores).sum())
        seen.append((self, inputs, float(loss), gained))
        return loss

    monkeypatch.setattr(AgentGrpoTrainer, "_place_loss", watch)
    whole = {}
    for micro in (2, 4, 8):
        words = ("--prompts-per-update", 2, "--num-updates", 1, "--place-weight", 20, "--learning-rate", 1e-3)
        out = tmp_path / str(micro)
        assert train(out, "--group-size", 4, "--micro-batch", micro, "--num-places", 3, *words) == 0
        (row,) = lines(out)
        assert row["places/tried"] > 1 and row["places/spread"] > 0 and row["places/failed"] == 0
        tokens = float(seen[0][1]["num_items_in_batch"])
        assert len(seen) == 8 // micro
        # Each part is of all tokens of the batch; accumulation only adds them up.
        parts = sum(loss for _, _, loss, _ in seen)
        assert parts == pytest.approx(-sum(gained for *_, gained in seen) / tokens, rel=1e-4)
        whole[micro] = parts
        before = sum(gained for *_, gained in seen)
        after = []
        for trainer, inputs, *_ in list(seen):
            trainer._own, trainer._places = inputs["completion_mask"] * inputs["tool_mask"], inputs["place_ids"]
            with torch.no_grad():
                trainer._compute_loss(trainer.model, inputs)
            after.append(seen[-1][3])
        assert sum(after) > before, "what did better than the others of its state became likelier"
        seen.clear()
    assert whole[2] == pytest.approx(whole[4], rel=1e-3) and whole[4] == pytest.approx(whole[8], rel=1e-3)
    tried = [b for b in batches if bool((b["place_ids"] >= 0).any())]
    assert tried and any(bool(b["place_advantages"].any()) for b in tried)
    for batch in tried:
        assert (batch["advantages"][(batch["place_ids"] >= 0).any(-1)] == 0).all()


@pytest.mark.usefixtures("placing")
def test_a_run_with_places_goes_on_as_if_nothing_had_happened(train: Train, tmp_path: Path) -> None:
    words = ("--group-size", 4, "--micro-batch", 4, "--num-places", 3, "--schedule", "constant", "--save-updates", 1)
    assert train(tmp_path / "whole", *words, "--num-updates", 3) == 0
    assert train(tmp_path / "cut", *words, "--num-updates", 1) == 0
    assert train(tmp_path / "cut", *words, "--num-updates", 3, "--resume") == 0
    assert figures(tmp_path / "cut") == figures(tmp_path / "whole")
    assert not differ(weights(tmp_path / "cut" / "model"), weights(tmp_path / "whole" / "model"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--loss", "dr_grpo"), "needs the loss dapo or cispo"),
        (("--updates-per-batch", 2, "--num-updates", 2, "--save-updates", 2), "updates_per_batch 1"),
        (("--model", "TINY"), "for NanoVLM alone"),
    ],
)
def test_places_are_refused_where_they_cannot_be_learnt_from(
    words: tuple[Any, ...], said: str, train: Train, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    words = tuple(str(tiny(KINDS[0])) if word == "TINY" else word for word in words)
    with pytest.raises(InputError, match=said):
        train(tmp_path / "out", "--num-places", 3, *words)
    assert not (tmp_path / "out").exists()


def test_a_batch_of_failed_tools_changes_nothing_and_goes_on(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 6: a failed tool earns nothing and is excluded; a batch of nothing else must not end in a NaN."""
    from ibisagent.segmenters.rules import RulesSegmenter

    def fail(self: Any, image: Any) -> Any:
        raise RuntimeError("broken")

    monkeypatch.setattr(RulesSegmenter, "encode", fail)
    for loss, credit in (("dapo", "turn"), ("grpo", "episode")):
        out = tmp_path / loss
        assert train(out, "--loss", loss, "--credit", credit) == 0
        for row in lines(out):
            assert row["loss"] == 0 and row["failed"] == 1.0 and row["grad_norm"] == 0
            assert row.get("reward") is None


def test_a_tool_that_is_broken_for_good_ends_the_run(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ibisagent.segmenters.rules import RulesSegmenter

    def fail(self: Any, image: Any) -> Any:
        raise RuntimeError("no more\nmemory")

    with monkeypatch.context() as patch:
        patch.setattr(RulesSegmenter, "encode", fail)
        with pytest.raises(TrainingError, match=r"in 3 batches in a row every run failed \(.*no more") as error:
            train(tmp_path, "--num-updates", 5)
    assert "\n" not in str(error.value) and "checkpoint-2 is whole, --resume" in str(error.value)
    assert train(tmp_path, "--num-updates", 5, "--resume") == 0


def test_what_is_scored_is_what_was_drawn(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The update's own log-probabilities of the drawn tokens, before it, are those of the sampler."""
    said: dict[str, list[float]] = {}
    checked = []
    real_sample, real_batch = Mixed.sample, AgentGrpoTrainer._batch

    def sample(self: Any, contexts: Sequence[Any]) -> list[Sample]:
        found = real_sample(self, contexts)
        for context, one in zip(contexts, found, strict=True):
            said.setdefault(context.key, []).extend(one.log_probs or ())
        return found

    def batch(self: Any, rollouts: Any, size: int) -> Any:
        made = real_batch(self, rollouts, size)
        self.model.train()  # as transformers leaves it before every pass
        scores = self._score(self.model, made).detach()
        for row, rollout in enumerate(sorted(rollouts, key=lambda one: len(one.context.ids))):
            if rollout.sibling % 2:
                own = made["tool_mask"][row].bool()
                assert scores[row][own].tolist() == pytest.approx(said[rollout.context.key], abs=1e-4)
                checked.append(int(own.sum()))
        said.clear()
        return made

    widths = []
    real_loss = AgentGrpoTrainer._compute_loss

    def compute_loss(self: Any, model: Any, inputs: dict[str, Any]) -> Any:
        for name in ("prompt_mask", "completion_mask"):
            assert inputs[name].any(0).all(), "a column that is padding in all rows"
        widths.append(inputs["completion_ids"].shape[1])
        return real_loss(self, model, inputs)

    monkeypatch.setattr(Mixed, "sample", sample)
    monkeypatch.setattr(AgentGrpoTrainer, "_batch", batch)
    monkeypatch.setattr(AgentGrpoTrainer, "_compute_loss", compute_loss)
    assert train(tmp_path / "out", "--num-updates", 3, "--group-size", 4, "--micro-batch", 2) == 0
    assert len(checked) == 6 and min(checked) >= 3
    assert len(widths) == 6 and all(short <= long for short, long in zip(widths[::2], widths[1::2], strict=True))


def test_more_prompts_an_update_than_there_are(train: Train, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert train(out, "--prompts-per-update", 8, "--micro-batch", 8) == 0
    assert [row["step"] for row in lines(out)] == [1, 2]


def test_every_prompt_comes_as_often_as_the_others(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    real = AgentGrpoTrainer._numbers

    def numbers(self: Any, count: int) -> list[int]:
        asked.append(real(self, count))
        return asked[-1]

    monkeypatch.setattr(AgentGrpoTrainer, "_numbers", numbers)
    words = ("--num-updates", 6, "--prompts-per-update", 2, "--updates-per-batch", 2, "--save-updates", 2)
    assert train(tmp_path / "out", *words) == 0
    flat = [number for batch in asked for number in batch]
    assert [len(batch) for batch in asked] == [4, 4, 4]
    assert all(sorted(flat[i : i + 3]) == [0, 1, 2] for i in range(0, 12, 3))
    assert len({tuple(flat[i : i + 3]) for i in range(0, 12, 3)}) > 1  # in an order of its own every time


# -- how it ends and goes on ------------------------------------------------------------------


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, what: Callable[[], Any]) -> None:
    """Have something happen in the midst of an update, once."""
    real, done = AgentGrpoTrainer.training_step, []

    def training_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == step - 1 and not done:
            done.append(step)
            found = what()
            if found is not None:
                raise found
        return real(self, *args, **kwargs)

    monkeypatch.setattr(AgentGrpoTrainer, "training_step", training_step)


# Three prompts, one an update: the fourth update begins the second round of prompts, in another order.
LONG = ("--num-updates", 6, "--save-updates", 2, "--group-size", 4, "--micro-batch", 2, "--entropy-coef", 0.01,
        "--learning-rate", 1e-3, "--schedule", "linear", "--warmup-updates", 2)  # fmt: skip


@pytest.fixture(scope="module")
def unbroken(corpus: Path, nano: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six updates that nothing happened to."""
    from ibisagent.train.rl import setup

    out = tmp_path_factory.mktemp("unbroken")
    head = ["--preset", "tiny", "--prompts", f"corpus:{corpus}", "--segmenter", "rules", "--model", nano,
            "--device", "cpu", "--out", out]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        real = setup.sampler_maker
        patch.setattr(setup, "sampler_maker", lambda *args: lambda model: Mixed(real(*args)(model)))
        assert main([str(word) for word in [*head, *LONG]]) == 0
    return out


def same(one: Path, other: Path) -> None:
    assert figures(one) == figures(other)
    assert differ(weights(one / "model"), weights(other / "model")) == set()


def test_the_unbroken_run_learns(unbroken: Path, nano: Path) -> None:
    rows = figures(unbroken)
    assert [row["step"] for row in rows] == list(range(1, 7))
    assert len({row["loss"] for row in rows}) > 3 and all(math.isfinite(row["loss"]) for row in rows)


@pytest.mark.parametrize("step", [3, pytest.param(6, marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    step: int, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unbroken: Path
) -> None:
    """Killed in the first and in the second round of prompts, after a checkpoint (2 or 4)."""
    with monkeypatch.context() as patch:
        stop_at(patch, step, lambda: SystemExit("killed"))
        with pytest.raises(SystemExit):
            train(tmp_path, *LONG)
    (tmp_path / "checkpoints" / "checkpoint-5").mkdir()  # what is half written is passed over
    assert last_checkpoint(tmp_path / "checkpoints").name == f"checkpoint-{step // 4 * 2 + 2}"
    with pytest.raises(InputError, match="--resume"):
        train(tmp_path, *LONG)
    with pytest.raises(InputError, match="seed"):
        train(tmp_path, *LONG, "--resume", "--seed", 7)
    assert train(tmp_path, *LONG, "--resume") == 0
    same(tmp_path, unbroken)


def test_ctrl_c_saves_and_resuming_gives_the_same_run(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any, unbroken: Path
) -> None:
    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        stop_at(patch, 3, lambda: os.kill(os.getpid(), signal.SIGINT))
        assert train(tmp_path, *LONG) == 130
    assert signal.getsignal(signal.SIGINT) is before
    assert "stopped at update 3, saved; --resume goes on" in capfd.readouterr().err
    assert not (tmp_path / "model").exists()
    assert train(tmp_path, *LONG, "--resume") == 0
    same(tmp_path, unbroken)


def test_a_loss_that_is_no_number_ends_with_a_line_and_a_usable_checkpoint(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unbroken: Path
) -> None:
    real = AgentGrpoTrainer._compute_loss

    def broken(self: Any, model: Any, inputs: dict[str, Any]) -> Any:
        return real(self, model, inputs) * (float("nan") if self.state.global_step == 4 else 1.0)

    with monkeypatch.context() as patch:
        patch.setattr(AgentGrpoTrainer, "_compute_loss", broken)
        with pytest.raises(TrainingError, match=r"step 5 is not finite.*checkpoint-4 is whole, --resume") as error:
            train(tmp_path, *LONG)
    assert "\n" not in str(error.value)
    assert train(tmp_path, *LONG, "--resume") == 0
    same(tmp_path, unbroken)


def test_gradients_that_are_no_numbers_end_with_a_line_and_a_usable_checkpoint(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unbroken: Path
) -> None:
    """The loss is finite; one weight's gradient is not."""
    real = AgentGrpoTrainer.training_step

    def broken(self: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
        loss = real(self, model, *args, **kwargs)
        if self.state.global_step == 3:  # a checkpoint is due after this update
            next(p for p in model.parameters() if p.grad is not None).grad.view(-1)[0] = float("inf")
        return loss

    with monkeypatch.context() as patch:
        patch.setattr(AgentGrpoTrainer, "training_step", broken)
        with pytest.raises(TrainingError, match=r"gradient of step 4 is not finite.*checkpoint-2 is whole, --resume"):
            train(tmp_path, *LONG)
    assert train(tmp_path, *LONG, "--resume") == 0
    same(tmp_path, unbroken)


def test_missing_memory_ends_with_a_line(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_at(monkeypatch, 1, lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    with pytest.raises(TrainingError, match=r"memory on the GPU; .* a smaller --micro-batch.*no checkpoint") as error:
        train(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--model", "/not/there"), "/not/there"),
        (("--segmenter", "nothing"), "there is no segmenter 'nothing'"),
        (("--dialect", "latin"), "no dialect is called 'latin'"),
        (("--segmenter", "litemedsam", "--segmenter-device", "abacus"), "device 'abacus' is not known"),
        (("--reward", "praise"), "there is no reward 'praise'"),
        (("--prompts", "corpus:/not/there"), "/not/there"),
        (("--system-prompt", "/not/there.txt"), "cannot read"),
        (("--gradient-checkpointing",), "NanoForConditionalGeneration has no gradient checkpointing"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    words: tuple[Any, ...], reason: str, train: Train, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as error:
        train(tmp_path / "out", *words)
    assert reason in str(error.value) and "\n" not in str(error.value)


def test_a_model_that_was_taught_another_grammar_is_refused(
    tiny: Callable[[str], Path], train: Train, tmp_path: Path
) -> None:
    words = ("--model", tiny(KINDS[0]), "--group-size", 2, "--num-updates", 1)
    assert train(tmp_path / "a", *words) == 0
    assert "Undo" in (tmp_path / "a" / "model" / "system_prompt.txt").read_text()
    assert (tmp_path / "a" / "model" / "dialect.txt").read_text() == "plain\n"
    with pytest.raises(InputError, match="set dialect to plain"):
        train(tmp_path / "b", *words, "--model", tmp_path / "a" / "model", "--dialect", "ibis-paper")
    assert not (tmp_path / "b" / "model").exists()


def test_the_segmenter_computes_where_it_is_told(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renderer: Any
) -> None:
    from accelerate import PartialState

    import ibisagent.registry
    from ibisagent.train.rl.config import RlConfig
    from ibisagent.train.rl.setup import make_player

    asked: list[str] = []
    real = ibisagent.registry.make_segmenter

    def make(spec: str, device: str = "cpu", **options: Any) -> Any:
        asked.append(device)
        return real(spec, "cpu", **options)

    monkeypatch.setattr(ibisagent.registry, "make_segmenter", make)
    config = RlConfig(out=tmp_path, segmenter="rules")
    PartialState(cpu=True)
    monkeypatch.setitem(PartialState._shared_state, "device", torch.device("cuda", 1))
    make_player(config, renderer, None)
    make_player(config.model_copy(update={"segmenter_device": "cpu"}), renderer, None)
    assert asked == ["cuda:1", "cpu"]
