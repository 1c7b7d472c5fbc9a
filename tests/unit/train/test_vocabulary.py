"""The tokenizer: coordinates of the grid are words of their own, and every text can be written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

pytest.importorskip("transformers")

from ibisagent.policies.nano_processor import cell_text, load_processor
from ibisagent.train.vocabulary import SPECIALS, build_processor, save_processor

GRID = 64
TEXTS = ["Segment the left lung in this CT scan.", "<action>Positive Point (0.5078, 0.2578)</action>"] * 3


@pytest.fixture(scope="module")
def processor() -> Any:
    return build_processor(TEXTS, size=400)


def decode(processor: Any, ids: list[int]) -> str:
    return processor.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def test_cells_count_row_by_row_and_name_their_centres() -> None:
    assert cell_text(0, 2) == "0.2500, 0.2500"
    assert cell_text(1, 2) == "0.7500, 0.2500"
    assert cell_text(2, 2) == "0.2500, 0.7500"
    assert cell_text(GRID * 16 + 32, GRID) == "0.5078, 0.2578"


def test_every_coordinate_is_one_token_with_the_right_id(processor: Any) -> None:
    texts = [cell_text(i, GRID) for i in range(GRID * GRID)]
    assert len(set(texts)) == GRID * GRID
    first = len(processor.tokenizer) - GRID * GRID
    assert processor.tokenizer(texts, add_special_tokens=False)["input_ids"] == [[first + i] for i in range(GRID**2)]


def test_every_coordinate_decodes_to_its_text_inside_an_action(processor: Any) -> None:
    first = len(processor.tokenizer) - GRID * GRID
    for i in range(0, GRID * GRID, 37):
        text = f"<action>Negative Point ({cell_text(i, GRID)})</action>"
        ids = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert [t for t in ids if t >= first] == [first + i]
        assert decode(processor, ids) == text


def test_a_coordinate_off_the_grid_is_spelt(processor: Any) -> None:
    first = len(processor.tokenizer) - GRID * GRID
    for text in ("0.5001, 0.2578", "0.5000, 0.5000", "0.5078,0.2578", "1.0000, 0.0000"):
        ids = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert len(ids) > 8 and max(ids) < first
        assert decode(processor, ids) == text


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
@example("0.5078, 0.25780.5078, 0.2578")
@example("  Größe: 5 µm\n\t — <|end|> 漢字 🫁")
def test_any_text_comes_back_as_it_was(processor: Any, text: str) -> None:
    ids = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert decode(processor, ids) == text


def test_the_first_entries_are_the_control_words_in_their_order(processor: Any) -> None:
    assert processor.tokenizer.convert_tokens_to_ids(SPECIALS) == list(range(len(SPECIALS)))
    assert processor.tokenizer.eos_token == "<|end|>" and processor.tokenizer.pad_token == "<|pad|>"


def test_the_same_texts_give_the_same_vocabulary(processor: Any) -> None:
    assert build_processor(TEXTS, size=400).tokenizer.get_vocab() == processor.tokenizer.get_vocab()


def test_a_saved_processor_loads_as_it_was(processor: Any, tmp_path: Path) -> None:
    save_processor(processor, tmp_path)
    loaded = load_processor(tmp_path)
    assert loaded.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    assert loaded.chat_template == processor.chat_template
    assert loaded.image_tokens == processor.image_tokens == 64
    chat = [{"role": "user", "content": [{"type": "text", "text": "a 0.5078, 0.2578"}, {"type": "image"}]}]
    for add in (False, True):
        wanted = processor.apply_chat_template(chat, add_generation_prompt=add, tokenize=False)
        assert loaded.apply_chat_template(chat, add_generation_prompt=add, tokenize=False) == wanted
    assert wanted == "<|user|>a 0.5078, 0.2578<image><|end|><|assistant|>"
    assert loaded.tokenizer(wanted)["input_ids"] == processor.tokenizer(wanted)["input_ids"]
