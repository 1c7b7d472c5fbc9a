"""NanoVLM's batches from a corpus: right places, maps, and the loss of ``ibisagent train nano``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from ibisagent.policies.nano_model import NanoConfig, NanoForConditionalGeneration  # noqa: E402
from ibisagent.train.nano import _loss  # noqa: E402
from ibisagent.train.nano_data import cell_shares  # noqa: E402
from ibisagent.train.sft.config import SftConfig  # noqa: E402
from ibisagent.train.sft.conversations import open_conversations  # noqa: E402
from ibisagent.train.sft.nano_batch import NanoCollator  # noqa: E402
from ibisagent.train.sft.nano_loss import nano_loss  # noqa: E402
from ibisagent.train.tokens import Renderer  # noqa: E402
from ibisagent.train.vocabulary import build_processor  # noqa: E402
from sample_corpus import LIVER  # noqa: E402


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(build_processor(["Segment the liver."] * 9, size=300))


@pytest.fixture(scope="module")
def model(renderer: Renderer) -> Any:
    tokenizer = renderer.tokenizer
    torch.manual_seed(0)
    return NanoForConditionalGeneration(
        NanoConfig(
            vocab_size=len(tokenizer) - 64 * 64,
            image_token_id=renderer.image_id,
            coordinate_token_id=tokenizer.convert_tokens_to_ids("<|coordinate|>"),
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            num_hidden_layers=1,
            hidden_size=64,
            chooses=True,
        )
    ).eval()


@pytest.fixture
def batch(corpus: Path, renderer: Renderer) -> Any:
    config = SftConfig(model="nano", corpus=(str(corpus),), out=Path("o"))
    rows = open_conversations(config, "S", 64)[0]
    assert [c.name for c in rows] == ["toy-0-liver", "toy-1-lesion", "toy-2-cyst", "toy-3-spleen"]
    return NanoCollator([rows], renderer, 4096, 64)([{"part": 0, "row": i} for i in range(4)])


def test_learnt_clicks_have_places_and_wrong_ones_have_none(batch: Any) -> None:
    assert batch["cell_row"].tolist() == [0, 1, 2]  # the wrong click of the second run is not among them
    assert torch.allclose(batch["cell_weights"].sum(1), torch.ones(3))
    expert = batch["input_ids"][batch["cell_row"], batch["cell_at"]]
    assert torch.equal(expert, batch["labels"][batch["cell_row"], batch["cell_at"]])
    first = batch["cell_weights"][0].reshape(64, 64)
    inside = torch.from_numpy(cell_shares(LIVER).reshape(64, 64) > 0)
    assert first[inside].sum() > 0.99 and (first > 0).sum() > 100
    assert batch["cell_weights"].max(1).values.min() > 0.2


def test_maps_say_where_target_and_mask_are(batch: Any) -> None:
    assert len(batch["target_maps"]) == len(batch["pixel_values"]) == 2 + 4 + 3 + 1
    assert np.array_equal((batch["target_maps"][0] * 255).round().numpy(), cell_shares(LIVER))
    assert batch["shown_maps"][0].sum() == 0 and batch["shown_maps"][1].sum() > 0
    assert np.array_equal((batch["shown_maps"][6] * 255).round().numpy(), cell_shares(LIVER))  # the given mask
    assert batch["target_maps"][-1].sum() == 0 and bool(batch["target_known"].all())


def test_the_loss_is_that_of_train_nano(batch: Any, model: Any) -> None:
    with torch.no_grad():
        found = nano_loss(model, batch)
        theirs = {**batch, "loss_mask": batch["labels"] != -100}
        for name in ("target_maps", "shown_maps"):
            theirs[name] = theirs[name] * 255
        whole, parts = _loss(model, theirs, 1.0, 1.0)
    turns = int((batch["labels"] == model.config.eos_token_id).sum())
    assert turns == 2 + 3 + 3 + 1
    assert float(found.likelihood) / turns == pytest.approx(parts["words"], rel=1e-5)
    assert float(found.places) / 3 == pytest.approx(parts["divergence"], rel=1e-4)
    assert float(found.maps) == pytest.approx(parts["belief"], rel=1e-5)
    assert float(found.likelihood / turns + found.places / 3 + found.maps) == pytest.approx(float(whole), rel=1e-5)


def test_without_places_it_is_the_likelihood_of_every_token(batch: Any, model: Any) -> None:
    plain = {k: batch[k][3:] for k in ("input_ids", "attention_mask", "labels")}
    plain["pixel_values"] = batch["pixel_values"][9:]
    with torch.no_grad():
        found = nano_loss(model, plain)
        logits = model(**{k: v for k, v in plain.items() if k != "labels"}).logits
    log_p = logits[:, :-1].log_softmax(-1)
    goal = plain["labels"][:, 1:]
    wanted = goal != -100
    by_hand = -log_p[wanted].gather(1, goal[wanted][:, None]).sum()
    assert float(found.likelihood) == pytest.approx(float(by_hand), rel=1e-3)
    assert found.places is None and found.maps is None
