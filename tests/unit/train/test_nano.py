"""Nano's loss by hand, its export, and the recipe from end to end at a toy size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from ibisagent.actions import DIALECTS  # noqa: E402
from ibisagent.config import RolloutConfig  # noqa: E402
from ibisagent.geometry import Geometry  # noqa: E402
from ibisagent.policies.nano import make  # noqa: E402
from ibisagent.policies.nano_model import NanoConfig, NanoForConditionalGeneration  # noqa: E402
from ibisagent.rollout import run_episode  # noqa: E402
from ibisagent.segmenters.clicknet import ClickNet  # noqa: E402
from ibisagent.segmenters.rules import RulesSegmenter  # noqa: E402
from ibisagent.train import nano as recipe  # noqa: E402
from ibisagent.train import nano_corpus  # noqa: E402
from ibisagent.train.nano_expert import synthesize  # noqa: E402
from ibisagent.train.nano_scenes import SceneSource  # noqa: E402
from ibisagent.train.nano_trajectories import read_shards, shard_file, write_shard  # noqa: E402
from ibisagent.train.vocabulary import build_processor  # noqa: E402
from ibisagent.types import Case, Image  # noqa: E402

WORDS, GRID = 40, 16


@pytest.fixture
def model() -> NanoForConditionalGeneration:
    torch.manual_seed(0)
    return NanoForConditionalGeneration(
        NanoConfig(
            vocab_size=WORDS, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
            image_size=64, grid=GRID, image_tokens_side=2, key_size=16, vision_widths=(8, 8, 8, 16, 16),
            pad_token_id=0, bos_token_id=2, eos_token_id=8, chooses=True,
        )
    ).eval()  # fmt: skip


def batch() -> dict[str, Any]:
    """Two rows: one with a click to learn and one with a word; the image comes first."""
    ids = torch.tensor([[7, 3, 3, 3, 3, 10, WORDS + 20, 8], [7, 3, 3, 3, 3, 11, 8, 0]])
    learnt = torch.zeros(2, 8, dtype=torch.bool)
    learnt[0, 6:] = True
    learnt[1, 6] = True
    weights = torch.zeros(1, GRID**2)
    weights[0, 20], weights[0, 21] = 0.75, 0.25
    target = torch.zeros(2, GRID**2, dtype=torch.uint8)
    target[0, 17:40] = 255
    shown = torch.zeros(2, GRID**2, dtype=torch.uint8)
    return {
        "input_ids": ids, "loss_mask": learnt,
        "pixel_values": torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)),
        "cell_row": torch.tensor([0]), "cell_at": torch.tensor([6]), "cell_weights": weights,
        "target_maps": target, "shown_maps": shown, "ones": torch.tensor([True, False]),
    }  # fmt: skip


def test_the_loss_is_that_of_generation_s_own_probabilities(model: NanoForConditionalGeneration) -> None:
    b = batch()
    loss, parts = recipe._loss(model, b, cell_weight=0.5, belief_weight=0.25)
    scores = model(input_ids=b["input_ids"], pixel_values=b["pixel_values"]).logits.detach()
    base = model(input_ids=b["input_ids"], pixel_values=b["pixel_values"], return_states=True)
    pooled = base.pooled[base.image_of.clamp_min(0)]
    plain = model.base_logits(base.hidden, pooled).log_softmax(-1).detach()
    gate = plain[0, 5, model.config.coordinate_token_id]
    words = -(gate + plain[0, 6, 8] + plain[1, 5, 8]) / 2  # two turns end here
    assert parts["words"] == pytest.approx(words.item(), rel=1e-4)
    cells = scores[0, 5, WORDS:] - gate
    weights = b["cell_weights"][0]
    divergence = (weights[20] * (weights[20].log() - cells[20]) + weights[21] * (weights[21].log() - cells[21])).item()
    assert parts["divergence"] == pytest.approx(divergence, rel=1e-3)
    assert parts["right_place"] == pytest.approx((cells[20].exp() + cells[21].exp()).item(), rel=1e-3)
    truth = torch.stack([b["target_maps"], b["shown_maps"]], 1).float() / 255
    maps = base.belief[:, :2]
    cross = torch.nn.functional.binary_cross_entropy_with_logits(maps, truth, reduction="none").mean((0, 2))
    p, t = base.belief[0, 0].sigmoid(), truth[0, 0]
    overlap = ((2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)).item()
    assert parts["belief_dice"] == pytest.approx(overlap, rel=1e-4)
    assert parts["belief"] == pytest.approx((4 * cross[0] + cross[1]).item() + 1 - overlap, rel=1e-4)
    chosen = base.belief[0, 2].exp()[truth[0, 0] > 0.5].sum()  # the second row means none among many
    assert parts["choice"] == pytest.approx(-chosen.log().item(), rel=1e-4)
    whole = parts["words"] + 0.5 * parts["divergence"] + 0.25 * parts["belief"] + 0.3 * parts["choice"]
    assert loss.item() == pytest.approx(whole, rel=1e-4)


def test_a_turn_counts_as_decided_when_its_first_tokens_are_right() -> None:
    loss_mask = torch.zeros(2, 9, dtype=torch.bool)
    loss_mask[0, 2:4] = loss_mask[0, 6:9] = loss_mask[1, 3:5] = True  # three turns of 2, 3 and 2 tokens
    at = loss_mask[:, 1:].nonzero(as_tuple=True)
    goal = torch.arange(7)
    logits = torch.eye(7)
    assert recipe._decisions(logits, goal, loss_mask, at) == 1.0
    wrong = logits.clone()
    wrong[3] = torch.eye(7)[0]  # in the second turn
    assert recipe._decisions(wrong, goal, loss_mask, at) == pytest.approx(2 / 3)


def test_what_is_not_marked_is_not_learnt(model: NanoForConditionalGeneration) -> None:
    one, two = batch(), batch()
    two["input_ids"][0, 7], two["input_ids"][1, 7] = 30, 31  # the last entries have nothing after them
    two["loss_mask"][0, 7] = one["loss_mask"][0, 7] = False
    assert recipe._loss(model, one, 0.5, 0.25)[0].item() == pytest.approx(recipe._loss(model, two, 0.5, 0.25)[0].item())


def test_a_batch_without_clicks_has_a_loss_and_a_gradient(model: NanoForConditionalGeneration) -> None:
    b = batch()
    b["loss_mask"][0] = False
    b |= {"cell_row": b["cell_row"][:0], "cell_at": b["cell_at"][:0], "cell_weights": b["cell_weights"][:0]}
    loss, parts = recipe._loss(model, b, 0.5, 0.25)
    loss.backward()
    assert np.isfinite(loss.item()) and parts["divergence"] == 0
    assert model.language.embed_tokens.weight.grad.abs().sum() > 0


def test_some_steps_learn_the_place_and_the_words(model: NanoForConditionalGeneration) -> None:
    b = batch()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    first = recipe._loss(model, b, 0.5, 0.25)[1]
    for _ in range(25):
        loss, parts = recipe._loss(model, b, 0.5, 0.25)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert parts["divergence"] < 0.5 * first["divergence"] and parts["words"] < 0.5 * first["words"]
    assert parts["right_place"] > 0.5


def test_the_corpus_names_every_target_and_no_instruction_of_the_test_split(toy_cases: Path) -> None:
    from ibisagent.engine.language.instructions import all_templates, fill
    from ibisagent.engine.language.naming import target_phrases

    source = SceneSource(toy_cases)
    texts = nano_corpus.texts(source)
    joined = "\n".join(texts)
    assert all(name in joined for name in source.homes)
    assert texts == nano_corpus.texts(source)
    kept_out = {
        fill(template, phrase, "CT")
        for templates in all_templates(split="test").values()
        for template in templates
        for phrase in target_phrases("body")
    }
    assert not kept_out & set(texts)


def test_an_export_is_a_policy(tmp_path: Path) -> None:
    processor = build_processor(["Segment the body in this CT scan."] * 3, size=300)
    torch.manual_seed(0)
    words = len(processor.tokenizer) - 64 * 64
    tokenizer = processor.tokenizer
    net = NanoForConditionalGeneration(
        NanoConfig(
            vocab_size=words, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
            vision_widths=(8, 8, 8, 8, 8), key_size=8, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id,
        )
    )  # fmt: skip
    recipe.export(net, processor, tmp_path)
    assert next(net.parameters()).dtype == torch.float32  # a copy was narrowed, not the model
    policy = make(str(tmp_path), max_new_tokens=8)
    assert policy.system_prompt == recipe.SYSTEM_PROMPT and policy.name == f"nano:{tmp_path}"
    for key, value in policy.model.state_dict().items():
        want = net.state_dict()[key]
        torch.testing.assert_close(value, want.half().to(value.dtype) if want.is_floating_point() else want)
    case = Case(Image(np.full((40, 30, 3), 90, np.uint8), Geometry.plane_2d()), "Segment the body.")
    episode = run_episode(case, policy, RulesSegmenter(), RolloutConfig(max_steps=1))
    assert episode.error is None and episode.steps[0].num_tokens <= 8
    assert episode.steps[0].num_prompt_tokens > 64


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of two, groups of two."""
    monkeypatch.setattr(nano_corpus, "SHARD", 2)
    monkeypatch.setattr(recipe, "GROUP", 2)


@pytest.mark.usefixtures("small")
def test_a_part_writes_its_shards_and_keeps_what_is_there(
    toy_cases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    torch.save({"average": ClickNet().state_dict()}, tmp_path / "click.pt")
    options = ["--cases", str(toy_cases), "--out", str(tmp_path / "run"), "--num-trajectories", "6"]
    options += ["--segmenter-weights", str(tmp_path / "click.pt"), "--part", "1/2"]
    threads = torch.get_num_threads()
    try:
        assert recipe.main(options) == 0
        folder = tmp_path / "run" / "trajectories"
        shard = shard_file(folder, 1)
        assert list(shard.parent.iterdir()) == [shard]  # of 0, 1, 2 the odd one
        items = read_shards(folder, 1)
        assert len(items) == 2 and items[0].episode.segmenter.name == "litemedsam"
        source = SceneSource(toy_cases, seed=0, absent_share=0.0)
        assert np.array_equal(items[1].scene.image.pixels, source.scene(3).image.pixels)
        before = shard.read_bytes()
        capsys.readouterr()
        assert recipe.main(options) == 0
        assert capsys.readouterr().err == "" and shard.read_bytes() == before
    finally:
        torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_the_recipe_trains_exports_and_resumes(
    toy_cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    source = SceneSource(toy_cases, seed=0)
    items = [synthesize(source.scene(i), RulesSegmenter(), np.random.default_rng(i)) for i in range(2)]
    write_shard(tmp_path / "trajectories", 0, items)
    options = ["--cases", str(toy_cases), "--out", str(tmp_path), "--num-trajectories", "2"]
    options += ["--processes", "1", "--batch-images", "2", "--num-corrections", "0", "--read-minutes", "0.01"]

    def run(minutes: str) -> dict[str, Any]:
        assert recipe.main([*options, "--minutes", minutes]) == 0
        return torch.load(tmp_path / "last.pt", weights_only=True)

    first = run("0.02")
    assert first["samples"] >= 1 and first["steps"] >= 1 and first["seconds"] >= 1.2
    assert "resumed" not in capfd.readouterr().err
    files = {p.name for p in (tmp_path / "model").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "system_prompt.txt"} <= files
    assert json.loads((tmp_path / "model" / "config.json").read_text())["model_type"] == "ibis_nano"
    vocabulary = (tmp_path / "model" / "tokenizer.json").read_bytes()
    again = run("0.02")  # its time is spent: it exports once more, and learns nothing
    assert again["steps"] == first["steps"]
    second = run(str(first["seconds"] / 60 + 0.02))  # a step may have taken longer than it had
    assert "resumed" in capfd.readouterr().err
    assert second["samples"] > first["samples"] and second["steps"] > first["steps"]
    assert second["seconds"] > first["seconds"]
    assert (tmp_path / "model" / "tokenizer.json").read_bytes() == vocabulary
    # the loss that is no number keeps the checkpoint
    monkeypatch.setattr(recipe, "_loss", lambda *a: (torch.tensor(float("nan"), requires_grad=True), {}))
    before = (tmp_path / "last.pt").read_bytes()
    assert recipe.main([*options, "--minutes", str(second["seconds"] / 60 + 0.02)]) == 5
    assert (tmp_path / "last.pt").read_bytes() == before
    # what was exported speaks, and what it says is read by the one parser
    policy = make(str(tmp_path / "model"), max_new_tokens=12)
    case = Case(items[0].scene.image, "Segment the body.")
    episode = run_episode(case, policy, RulesSegmenter(), RolloutConfig(max_steps=1))
    assert episode.error is None and policy.dialect is DIALECTS["plain"]


def test_a_run_can_start_from_a_model_without_a_choice(tmp_path: Path, model: NanoForConditionalGeneration) -> None:
    import argparse

    old = NanoForConditionalGeneration(type(model.config)(**{**model.config.to_dict(), "chooses": False}))
    processor = build_processor(["Segment the body in this CT scan."] * 3, size=300, grid=GRID, image_tokens=4)
    recipe.export(old, processor, tmp_path / "old")
    options = argparse.Namespace(start=tmp_path / "old")
    begun, known = recipe._begin(options, tmp_path / "new", resumed=False)
    assert begun.config.chooses and len(known.tokenizer) == len(processor.tokenizer)
    added = {name for name in begun.state_dict() if name not in old.state_dict()}
    assert added and all(name.startswith("pointer.choice.") for name in added)
    for name, value in old.half().float().state_dict().items():
        torch.testing.assert_close(begun.state_dict()[name], value)
