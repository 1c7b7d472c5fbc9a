"""Reading first: sentences about every name, and a language model that changes while the tower does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from ibisagent.actions import DIALECTS  # noqa: E402
from ibisagent.engine.language.naming import SYNONYMS  # noqa: E402
from ibisagent.policies.nano_model import NanoConfig, NanoForConditionalGeneration  # noqa: E402
from ibisagent.train import nano_reading  # noqa: E402
from ibisagent.train.nano_reading import learn_to_read, sentences  # noqa: E402
from ibisagent.train.nano_scenes import SceneSource  # noqa: E402
from ibisagent.train.vocabulary import build_processor  # noqa: E402

IMAGE_TOKENS = 16


@pytest.fixture(scope="module")
def source(toy_cases: Path) -> SceneSource:
    return SceneSource(toy_cases)


@pytest.fixture(scope="module")
def processor() -> Any:
    return build_processor(["Segment the body in this CT scan."] * 3, size=300, image_tokens=IMAGE_TOKENS)


def test_a_sentence_names_its_target_and_the_reply_is_one_of_the_grammar(source: SceneSource, processor: Any) -> None:
    names = sorted(source.homes)
    rows = sentences(source, processor, "Segment.", np.random.default_rng(0), 150)
    placeholder = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    counts, seen = set(), set()
    for ids, mask, which in rows:
        text = processor.tokenizer.decode(ids)
        name = names[which]
        user, reply = text.split("<|user|>")[1].split("<|assistant|>")
        assert any(way.lower() in user.lower() for way in (name, *SYNONYMS.get(name, ())))
        turn = DIALECTS["plain"].parse(reply.removesuffix("<|end|>"))
        assert turn.action is not None and name in (turn.thought or "")
        assert processor.tokenizer.decode(ids[mask]) == reply
        counts.add(int((ids == placeholder).sum()))
        seen.add((turn.action.kind, "given mask" in user))
    assert IMAGE_TOKENS in counts and len(counts) > 4 and 0 not in counts
    assert {("click", False), ("terminate", False), ("click", True), ("discard", True)} <= seen


def test_reading_trains_the_language_model_alone(
    source: SceneSource, processor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nano_reading, "NUM_ROWS", 200)
    tokenizer = processor.tokenizer
    torch.manual_seed(0)
    model = NanoForConditionalGeneration(
        NanoConfig(
            vocab_size=len(tokenizer) - 64 * 64, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=32, vision_widths=(8, 8, 8, 8, 8), key_size=8, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id,
            image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
            coordinate_token_id=tokenizer.convert_tokens_to_ids("<|coordinate|>"),
        )
    )  # fmt: skip
    before = {k: v.clone() for k, v in model.state_dict().items()}
    learn_to_read(model, processor, source, "Segment.", minutes=0.03, lr=1e-3, seed=0)
    moved = {k.split(".")[0] for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert "language" in moved and not moved & {"vision", "pointer", "summary"}
    assert all(v.isfinite().all() for v in model.state_dict().values())
