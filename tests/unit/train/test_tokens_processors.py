"""The renderer with every kind of processor: a conversation that grows token by token is the one that is trained on."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("transformers")

from ibisagent.errors import InputError
from ibisagent.policies.nano import WEIGHTS_DIR
from ibisagent.policies.nano_processor import load_processor
from ibisagent.train.tokens import Renderer

KINDS = ("qwen2_5_vl", "qwen3_vl", "nano")


@pytest.fixture(scope="module")
def renderers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Renderer]:
    from transformers import Qwen2VLImageProcessorPil
    from transformers.models.auto.processing_auto import processor_class_from_name

    from ibisagent.policies.processors import _without_video

    path = Path(__file__).parents[1] / "policies" / "tiny_vlms.py"
    spec = importlib.util.spec_from_file_location("tiny_vlms", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = {"nano": Renderer(load_processor(WEIGHTS_DIR))}
    for kind, name, patch in (("qwen2_5_vl", "Qwen2_5_VLProcessor", 14), ("qwen3_vl", "Qwen3VLProcessor", 16)):
        tokenizer = module.make_tokenizer()
        size = {"shortest_edge": 4 * patch**2, "longest_edge": 64 * patch**2}
        worker = Qwen2VLImageProcessorPil(patch_size=patch, size=size)
        cls = _without_video(processor_class_from_name(name))
        made[kind] = Renderer(cls(worker, tokenizer, chat_template=tokenizer.chat_template))
    return made


def message(role: str, *parts: Any) -> dict[str, Any]:
    content = [{"type": "text", "text": p} if isinstance(p, str) else {"type": "image", "image": p} for p in parts]
    return {"role": role, "content": content}


words = st.text(alphabet="ab <>|/.0123456789é\n", max_size=12) | st.sampled_from(
    ["<think>x</think><action>Positive Point (0.5078, 0.2578)</action>", "<|im_end|>", "<image>", "<|image_pad|>", ""]
)
pictures = st.builds(
    lambda h, w, v: np.full((h, w, 3), v, np.uint8), st.integers(8, 160), st.integers(8, 160), st.integers(0, 255)
)


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    chat = [message("system", draw(words))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        parts = [draw(words), *([draw(pictures)] if draw(st.booleans()) else [])]
        chat += [message("user", *parts), message("assistant", draw(words))]
    return chat


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(chat=conversations())
def test_prompt_reply_observation_and_so_on_are_the_conversation(
    renderers: dict[str, Renderer], kind: str, chat: list[dict[str, Any]]
) -> None:
    renderer = renderers[kind]
    first = next(i for i, m in enumerate(chat) if m["role"] == "assistant")
    start = renderer.prompt(chat[:first])
    ids, turn, images = [start.ids], [np.full(len(start.ids), -1)], list(start.images)
    number = 0
    for at in range(first, len(chat)):
        if chat[at]["role"] == "assistant":
            ids.append(renderer.reply(chat[at]["content"][0]["text"]))
            turn.append(np.full(len(ids[-1]), number))
            number += 1
        else:
            assert (
                np.concatenate([*ids, renderer.observation([chat[at]]).ids]).tolist()
                == renderer.prompt(chat[: at + 1]).ids.tolist()
            )
            piece = renderer.observation([chat[at]])
            ids.append(piece.ids)
            turn.append(np.full(len(piece.ids), -1))
            images += piece.images
    whole = renderer.conversation(chat)
    assert np.concatenate(ids).tolist() == whole.ids.tolist()
    assert np.concatenate(turn).tolist() == whole.turn.tolist()
    assert whole.loss_mask.tolist() == (whole.turn >= 0).tolist()
    assert [i is j for i, j in zip(images, whole.images, strict=True)] == [True] * len(images)
    assert (whole.ids == renderer.end_id).sum() == len(chat)  # no text ends a turn
    assert whole.ids[-1] == renderer.end_id and whole.loss_mask[-1]
    batch = renderer.tensors([whole.ids, start.ids], [whole.images, start.images])  # checks the images' places
    assert ("pixel_values" in batch) == bool(whole.images)


QWEN = [
    "<|im_start|>", "system\n", "S", "<|im_end|>", "\n",
    "<|im_start|>", "user\n", "ab", "<|vision_start|>", *["<|image_pad|>"] * 6, "<|vision_end|>", "<|im_end|>", "\n",
    "<|im_start|>", "assistant\n", "c", "<|im_end|>", "\n",
    "<|im_start|>", "user\n", "d", "<|vision_start|>", *["<|image_pad|>"] * 4, "<|vision_end|>", "<|im_end|>", "\n",
    "<|im_start|>", "assistant\n", "e", "<|im_end|>",
]  # fmt: skip


@pytest.mark.parametrize(("kind", "patch"), [("qwen2_5_vl", 14), ("qwen3_vl", 16)])
def test_qwen_s_tokens_are_those_of_the_list_written_by_hand(
    renderers: dict[str, Renderer], kind: str, patch: int
) -> None:
    renderer = renderers[kind]
    side = 2 * patch  # of what one placeholder stands for
    first, second = np.zeros((2 * side, 3 * side, 3), np.uint8), np.zeros((2 * side, 2 * side, 3), np.uint8)
    chat = [
        message("system", "S"), message("user", "ab", first), message("assistant", "c"),
        message("user", "d", second), message("assistant", "e"),
    ]  # fmt: skip
    got = renderer.conversation(chat, [False, True])
    tokens: list[str] = []
    learnt: list[str] = []
    for text in QWEN:
        pieces = renderer.tokenizer(text, add_special_tokens=False)["input_ids"]
        tokens += pieces
    assert got.ids.tolist() == tokens
    learnt = renderer.tokenizer.convert_ids_to_tokens(got.ids[got.loss_mask].tolist())
    assert learnt == ["e", "<|im_end|>"]
    assert renderer.text(got.ids[got.turn == 0]) == "c"
    assert renderer.image_lengths([first, second]) == [6, 4]


@pytest.mark.parametrize("kind", KINDS)
def test_images_that_do_not_fit_their_places_are_refused(renderers: dict[str, Renderer], kind: str) -> None:
    renderer = renderers[kind]
    image = np.zeros((64, 64, 3), np.uint8)
    ids = renderer.prompt([message("user", "a", image)]).ids
    renderer.tensors([ids], [[image]])
    for images in ([], [image, image]):
        with pytest.raises(ValueError, match="placeholders"):
            renderer.tensors([ids], [images])
    with pytest.raises(ValueError, match="row 0"):
        renderer.tensors([ids, ids], [[image, image], []])


def test_rows_are_padded_on_either_side_and_image_places_are_typed(renderers: dict[str, Renderer]) -> None:
    renderer = renderers["qwen3_vl"]
    image = np.zeros((64, 64, 3), np.uint8)
    long, short = renderer.prompt([message("user", "a", image)]).ids, renderer.prompt([message("user", "a")]).ids
    gap = len(long) - len(short)
    for padding, where in (("left", slice(0, gap)), ("right", slice(len(short), None))):
        batch = renderer.tensors([long, short], [[image], []], padding=padding)
        assert batch["attention_mask"].sum(1).tolist() == [len(long), len(short)]
        assert batch["attention_mask"][1, where].sum() == 0
        assert (batch["input_ids"][1, where] == renderer.pad_id).all()
        assert batch["mm_token_type_ids"].sum(1).tolist() == [4, 0]


def test_a_template_that_rewrites_earlier_turns_is_refused(renderers: dict[str, Renderer]) -> None:
    import copy

    processor = copy.copy(renderers["qwen3_vl"].processor)
    processor.chat_template = processor.chat_template.replace(
        "{{ part['text'] }}", "{% if loop.index < 99 and not (message['role'] == 'assistant' and not "
        "loop.last) %}{{ part['text'].split('</think>')[-1] }}{% endif %}"
    )  # fmt: skip
    with pytest.raises(InputError, match="take the 'instruct' model's"):
        Renderer(processor).conversation([message("user", "a"), message("assistant", "<think>b</think>c")])


def test_a_prompt_ends_with_the_user_and_a_conversation_with_a_reply(renderers: dict[str, Renderer]) -> None:
    chat = [message("user", "a"), message("assistant", "b")]
    with pytest.raises(ValueError, match="ends with what the user says"):
        renderers["nano"].prompt(chat)
    with pytest.raises(ValueError, match="ends with a reply"):
        renderers["nano"].conversation(chat[:1])
    with pytest.raises(ValueError, match="1 assistant turns, 2 flags"):
        renderers["nano"].conversation(chat, [True, False])
