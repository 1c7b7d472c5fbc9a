"""Batches against token lists written by hand: what carries a loss, and which images stand where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from ibisagent.errors import InputError  # noqa: E402
from ibisagent.train.sft.collator import SftCollator, cut  # noqa: E402
from ibisagent.train.sft.config import SftConfig  # noqa: E402
from ibisagent.train.sft.conversations import open_conversations  # noqa: E402
from ibisagent.train.sft.order import SeededOrder  # noqa: E402
from ibisagent.train.tokens import Renderer  # noqa: E402
from ibisagent.train.vocabulary import SPECIALS, build_processor  # noqa: E402


@pytest.fixture(scope="module")
def letters() -> Renderer:
    """One token a letter, 2 x 2 coordinates, 3 placeholders an image."""
    return Renderer(build_processor(["ab"], size=len(SPECIALS) + 256, grid=2, image_tokens=3))


@pytest.fixture
def rows(corpus: Path) -> Any:
    config = SftConfig(model="m", corpus=(str(corpus),), out=Path("o"))
    return open_conversations(config, "S")[0]


def spelt(text: str) -> list[str]:
    return [{" ": "Ġ", "\n": "Ċ"}.get(letter, letter) for letter in text]


IMAGE = ["<image>"] * 3
# The run toy-1-lesion: a wrong click in the corner, which is undone, and a better one.
WRONG = "<think>I click in the corner.</think><action>Positive Point (0.0446, 0.0625)</action>"
UNDO = "<think>All the skin is green now; I take it back.</think><action>Undo</action>"
CLICK = "<think>The dark patch is the lesion.</think><action>Positive Point (0.5446, 0.4625)</action>"
STOP = "<think>It fits.</think><action>Terminate</action><answer>Found: the mask fits</answer>"
BY_HAND: list[tuple[bool, list[str]]] = [
    (False, ["<|system|>", "S", "<|end|>"]),
    (False, ["<|user|>", *spelt("Segment the skin lesion."), *IMAGE, "<|end|>", "<|assistant|>"]),
    (False, [*spelt(WRONG), "<|end|>"]),  # a wrong action is context, never learnt
    (False, ["<|user|>", *spelt("The new mask is shown in green."), *IMAGE, "<|end|>", "<|assistant|>"]),
    (True, [*spelt(UNDO), "<|end|>"]),
    (False, ["<|user|>", *spelt("There is no mask now."), *IMAGE, "<|end|>", "<|assistant|>"]),
    (True, [*spelt(CLICK), "<|end|>"]),
    (False, ["<|user|>", *spelt("The new mask is shown in green."), *IMAGE, "<|end|>", "<|assistant|>"]),
    (True, [*spelt(STOP), "<|end|>"]),
]


def test_wrong_actions_and_tool_output_carry_no_loss(letters: Renderer, rows: Any) -> None:
    collate = SftCollator([rows], letters, 4096)
    index = [c.name for c in rows].index("toy-1-lesion")
    batch = collate([{"part": 0, "row": index}])
    tokens = letters.tokenizer.convert_ids_to_tokens(batch["input_ids"][0].tolist())
    assert tokens == [token for _, part in BY_HAND for token in part]
    learnt = (batch["labels"][0] != -100).tolist()
    assert learnt == [flag for flag, part in BY_HAND for _ in part]
    assert torch.equal(batch["labels"][batch["labels"] != -100], batch["input_ids"][batch["labels"] != -100])
    assert batch["pixel_values"].shape == (4, 3, 256, 256)


def test_rows_are_padded_and_images_stand_one_after_another(letters: Renderer, rows: Any) -> None:
    collate = SftCollator([rows], letters, 4096, torch.bfloat16)
    examples = [{"part": 0, "row": i} for i in range(4)]
    batch, single = collate(examples), [collate([example]) for example in examples]
    assert batch["pixel_values"].dtype == torch.bfloat16
    assert torch.equal(batch["pixel_values"], torch.cat([one["pixel_values"] for one in single]))
    for number, one in enumerate(single):
        length = one["input_ids"].shape[1]
        for name in ("input_ids", "attention_mask", "labels"):
            assert torch.equal(batch[name][number, :length], one[name][0])
        assert (batch["labels"][number, length:] == -100).all() and not batch["attention_mask"][number, length:].any()


def test_long_conversations_lose_whole_turns_and_their_images(letters: Renderer, rows: Any) -> None:
    found = next(c for c in rows if c.name == "toy-1-lesion")
    whole = letters.conversation(found.messages, found.learn)
    ends = np.cumsum([len(part) for _, part in BY_HAND])[2::2]
    assert int(ends[-1]) == len(whole.ids)
    for turns, images in ((4, 4), (3, 3), (2, 2), (1, 1)):
        for limit in (int(ends[turns - 1]), int(ends[turns - 1]) + 5):
            kept = cut(whole, letters, limit)
            assert len(kept.ids) == ends[turns - 1] and int(kept.turn.max()) == turns - 1
            assert len(kept.images) == images
            letters.tensors([kept.ids], [kept.images])
    collate = SftCollator([rows], letters, int(ends[0]))
    with pytest.raises(InputError, match="toy-1-lesion: no reply that is learnt lies within"):
        collate.render({"part": 0, "row": [c.name for c in rows].index("toy-1-lesion")})


def test_images_that_went_astray_are_noticed(letters: Renderer, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Renderer.image_inputs
    monkeypatch.setattr(Renderer, "image_inputs", lambda self, images: real(self, images[1:]))
    with pytest.raises(ValueError, match="images"):
        SftCollator([rows], letters, 4096)([{"part": 0, "row": 3}])


def test_every_row_comes_once_an_epoch_in_an_order_of_its_own() -> None:
    lengths = np.random.default_rng(0).integers(1, 1000, 1003).tolist()
    for given in (lengths, None):
        order = SeededOrder(given, 1003, 4, seed=1)
        first, again = list(order), list(order)
        order.set_epoch(1)
        second = list(order)
        assert first == again and sorted(first) == sorted(second) == list(range(1003)) and first != second
        assert list(SeededOrder(given, 1003, 4, seed=2)) != first


def test_rows_of_like_length_meet_and_batches_are_mixed() -> None:
    lengths = np.random.default_rng(0).integers(1, 1000, 2000)
    order = np.array(list(SeededOrder(lengths.tolist(), 2000, 4, seed=1))).reshape(-1, 4)
    spread = np.ptp(lengths[order], axis=1).mean()
    assert spread < 25
    means = lengths[order].mean(1)
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.2
