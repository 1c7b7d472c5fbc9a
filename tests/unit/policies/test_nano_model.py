"""NanoVLM at a toy size: cached, batched and full passes agree, and what it may not say it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from PIL import Image as pil  # noqa: E402

from ibisagent.errors import InputError  # noqa: E402
from ibisagent.policies import nano  # noqa: E402
from ibisagent.policies.nano_model import NanoConfig, NanoForConditionalGeneration, register  # noqa: E402
from ibisagent.policies.nano_parts import Belief  # noqa: E402
from ibisagent.policies.nano_processor import IMAGE_TOKEN, NanoImageProcessor, NanoProcessor  # noqa: E402

WORDS, GRID, IMAGE, COORDINATE = 40, 16, 3, 4


def config() -> NanoConfig:
    return NanoConfig(
        vocab_size=WORDS, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
        image_size=64, grid=GRID, image_tokens_side=2, key_size=16, vision_widths=(8, 8, 8, 16, 16),
        image_token_id=IMAGE, coordinate_token_id=COORDINATE, pad_token_id=0, bos_token_id=2, eos_token_id=8,
        chooses=True,
    )  # fmt: skip


@pytest.fixture
def model() -> NanoForConditionalGeneration:
    torch.manual_seed(0)
    model = NanoForConditionalGeneration(config()).eval()
    torch.nn.init.normal_(model.language.embed_tokens.weight, std=0.5)  # so that the next words differ
    return model


def row(*parts: int | str) -> list[int]:
    """Ids; ``"image"`` is the placeholders of one image."""
    ids: list[int] = []
    for part in parts:
        ids += [IMAGE] * 4 if part == "image" else [int(part)]
    return ids


ONE = row(5, 11, "image", 12, 13)
TWO = row(5, "image", 11, WORDS + 37, 20, "image", 9, 14)


def images(count: int, seed: int = 0) -> Any:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def padded(*rows: list[int]) -> dict[str, Any]:
    """Rows padded on the left."""
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(r)) + r for r in rows])
    mask = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows])
    return {"input_ids": ids, "attention_mask": mask}


@torch.no_grad()
def test_probabilities_are_normalised_and_coordinates_share_their_gate(model: NanoForConditionalGeneration) -> None:
    ids = torch.tensor([TWO])
    states = model(input_ids=ids, pixel_values=images(2), return_states=True)
    pooled = states.pooled[states.image_of.clamp_min(0)]
    with_image = model.base_logits(states.hidden, pooled)
    seen_image = (states.image_of >= 0)[..., None]
    plain = torch.where(seen_image, with_image, model.base_logits(states.hidden)).softmax(-1)[0]
    logits = model(input_ids=ids, pixel_values=images(2)).logits[0].double()
    assert logits.shape == (len(TWO), WORDS + GRID**2)
    for at in range(1, len(TWO)):
        words, cells = logits[at, :WORDS].exp(), logits[at, WORDS:].exp()
        assert words[COORDINATE] == 0 and words[IMAGE] == 0
        seen = TWO[: at + 1].count(IMAGE) >= 4
        assert cells.sum().item() == pytest.approx(plain[at, COORDINATE].item() if seen else 0.0, abs=1e-6)
        missing = plain[at, IMAGE].item() + (0.0 if seen else plain[at, COORDINATE].item())
        assert (words.sum() + cells.sum()).item() == pytest.approx(1 - missing, abs=1e-6)


@torch.no_grad()
def test_the_loss_of_training_sees_what_generation_scores(model: NanoForConditionalGeneration) -> None:
    ids, pixels = torch.tensor([TWO, TWO[::-1]]), images(4)
    out = model(input_ids=ids, pixel_values=pixels, return_states=True, use_cache=False)
    logits = model(input_ids=ids, pixel_values=pixels).logits
    for b in range(2):
        for at in range(len(TWO)):
            image = int(out.image_of[b, at])
            seen = tuple(v[image][None] for v in (out.pointer_keys, out.belief, out.pooled)) if image >= 0 else None
            torch.testing.assert_close(model.full_logits(out.hidden[b, at][None], seen)[0], logits[b, at])


@torch.no_grad()
def test_a_position_points_into_the_last_image_before_it(model: NanoForConditionalGeneration) -> None:
    first, second = TWO.index(IMAGE), len(TWO) - 1 - TWO[::-1].index(IMAGE)
    out = model(input_ids=torch.tensor([TWO, TWO]), pixel_values=images(4), return_states=True)
    assert out.image_of[0].unique().tolist() == [-1, 0, 1]
    assert (out.image_of[0, :first] == -1).all() and (out.image_of[0, first + 4 : second - 3] == 0).all()
    assert (out.image_of[0, second:] == 1).all() and (out.image_of[1, second:] == 3).all()


@torch.no_grad()
def test_what_an_image_says_includes_the_image_before_it_in_the_same_row_only(
    model: NanoForConditionalGeneration,
) -> None:
    pixels = images(4)
    both = model(input_ids=torch.tensor([TWO, TWO]), pixel_values=pixels, return_states=True).pooled
    assert both[[0, 2], -1].tolist() == [0, 0] and both[[1, 3], -1].tolist() == [1, 1]
    facts = Belief.num_facts
    now, before = both[:, -1 - 2 * facts : -1 - facts], both[:, -1 - facts : -1]
    assert torch.equal(before[[1, 3]], now[[0, 2]]) and not before[[0, 2]].any()


@torch.no_grad()
@pytest.mark.parametrize("ids", [ONE, TWO])
def test_cached_generation_is_the_argmax_of_full_passes(model: NanoForConditionalGeneration, ids: list[int]) -> None:
    pixels = images(ids.count(IMAGE) // 4)
    # Make a coordinate the likeliest next word, so that the remembered keys matter.
    hidden = model(input_ids=torch.tensor([ids]), pixel_values=pixels, return_states=True).hidden[0, -1]
    model.language.embed_tokens.weight[COORDINATE] = 4 * hidden
    got = model.generate(
        **padded(ids), pixel_values=pixels, max_new_tokens=6, do_sample=False, eos_token_id=None, pad_token_id=0
    )[0, len(ids) :].tolist()
    want, so_far = [], list(ids)
    for _ in range(6):
        logits = model(input_ids=torch.tensor([so_far]), pixel_values=pixels).logits[0, -1]
        want.append(int(logits.argmax()))
        so_far.append(want[-1])
    assert got == want
    assert got[0] >= WORDS


@torch.no_grad()
def test_rows_of_a_left_padded_batch_answer_as_they_do_alone(model: NanoForConditionalGeneration) -> None:
    pixels = images(3)
    settings: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    both = model.generate(**padded(ONE, TWO), pixel_values=pixels, **settings)[:, len(TWO) :].tolist()
    alone = model.generate(**padded(ONE), pixel_values=pixels[:1], **settings)[0, len(ONE) :].tolist()
    other = model.generate(**padded(TWO), pixel_values=pixels[1:], **settings)[0, len(TWO) :].tolist()
    assert both == [alone, other]
    batch = model(**padded(ONE, TWO), pixel_values=pixels).logits
    single = model(input_ids=torch.tensor([ONE]), pixel_values=pixels[:1]).logits
    torch.testing.assert_close(batch[0, -len(ONE) :], single[0], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_padding_on_the_right_needs_no_attention_mask(model: NanoForConditionalGeneration) -> None:
    alone = model(input_ids=torch.tensor([ONE]), pixel_values=images(1)).logits
    longer = model(input_ids=torch.tensor([ONE + [0] * 5]), pixel_values=images(1)).logits
    torch.testing.assert_close(longer[:, : len(ONE)], alone, atol=1e-5, rtol=1e-5)


def test_in_bfloat16_a_cpu_says_nearly_the_same(model: NanoForConditionalGeneration) -> None:
    """With rows of unlike lengths; how attention is computed is as before afterwards."""
    batch = padded(row("image", 20, 21, 22, "image", 23), row("image", 30)) | {"pixel_values": images(3)}
    before = model.language.config._attn_implementation
    with torch.no_grad():
        want = model(**batch, return_states=True)
        with torch.autocast("cpu", torch.bfloat16):
            got = model(**batch, return_states=True)
    used = batch["attention_mask"].bool()
    gap = (got.hidden.float() - want.hidden).norm(dim=-1)[used] / want.hidden.norm(dim=-1)[used]
    assert 0 < float(gap.max()) < 0.05
    assert model.language.config._attn_implementation == before


def test_placeholders_must_match_the_images(model: NanoForConditionalGeneration) -> None:
    for ids, count in ((ONE, 2), (TWO, 1), ([IMAGE] * 3, 1)):
        with pytest.raises(ValueError, match="image placeholders"):
            model(input_ids=torch.tensor([ids]), pixel_values=images(count))
    with pytest.raises(ValueError, match="input_ids"):
        model(inputs_embeds=torch.zeros(1, 2, 32))


def test_labels_give_the_cross_entropy_of_the_next_words(model: NanoForConditionalGeneration) -> None:
    labels = torch.full((1, len(TWO)), -100)
    at = TWO.index(WORDS + 37)
    labels[0, at], labels[0, -1] = WORDS + 37, 14
    out = model(input_ids=torch.tensor([TWO]), pixel_values=images(2), labels=labels)
    scores = out.logits[0].log_softmax(-1)
    assert out.loss.item() == pytest.approx(-(scores[at - 1, WORDS + 37] + scores[-2, 14]).item() / 2, rel=1e-5)
    out.loss.backward()
    assert model.pointer.key.weight.grad.abs().sum() > 0 and model.vision.out.weight.grad.abs().sum() > 0


@torch.no_grad()
def test_a_saved_model_loads_through_the_auto_class_and_says_the_same(
    model: NanoForConditionalGeneration, tmp_path: Path
) -> None:
    register()
    register()  # safe to call twice
    model.save_pretrained(tmp_path)
    loaded = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    assert isinstance(loaded, NanoForConditionalGeneration)
    assert loaded.config.vision_widths == [8, 8, 8, 16, 16] and loaded.config.grid == GRID
    ids, pixels = torch.tensor([TWO]), images(2)
    assert torch.equal(
        loaded(input_ids=ids, pixel_values=pixels).logits, model(input_ids=ids, pixel_values=pixels).logits
    )


def test_the_default_has_at_most_nine_million_parameters() -> None:
    with torch.device("meta"):
        model = NanoForConditionalGeneration(NanoConfig())
    assert sum(p.numel() for p in model.parameters()) <= 9e6


class _Letters:
    """As much of a tokenizer as the processor needs: one id a letter, placeholders kept whole."""

    def __call__(self, texts: list[str], **_: Any) -> dict[str, Any]:
        return {"input_ids": [[3] * t.count(IMAGE_TOKEN) + [9] * len(t.replace(IMAGE_TOKEN, "")) for t in texts]}


def processor() -> NanoProcessor:
    made = NanoProcessor.__new__(NanoProcessor)
    made.image_token, made.image_tokens = IMAGE_TOKEN, 64
    made.image_processor, made.tokenizer = NanoImageProcessor(), _Letters()
    return made


def test_the_processor_scales_images_as_training_does_and_expands_placeholders() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    got = processor()(images=[[pil.fromarray(pixels)]], text=[f"ab{IMAGE_TOKEN}"], return_tensors="pt")
    assert (got["input_ids"][0] == 3).sum() == 64 and got["input_ids"].shape == (1, 66)
    want = torch.from_numpy(pixels).permute(2, 0, 1).float().div(127.5).sub(1)
    torch.testing.assert_close(got["pixel_values"][0], want, atol=1e-5, rtol=0)


def test_the_processor_stretches_any_image_to_its_square() -> None:
    got = processor()(images=[pil.new("L", (50, 120), 255)], text=IMAGE_TOKEN, return_tensors="pt")
    assert got["pixel_values"].shape == (1, 3, 256, 256)
    assert (got["pixel_values"] > 0.99).all()


def test_the_processor_refuses_a_wrong_number_of_images() -> None:
    with pytest.raises(ValueError, match="names 1 images, 0 were given"):
        processor()(text=[f"a{IMAGE_TOKEN}"])
    with pytest.raises(ValueError, match="names 0 images, 1 were given"):
        processor()(images=[pil.new("RGB", (4, 4))], text="a")


def test_a_folder_without_a_model_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no nano model: system_prompt\.txt"):
        nano.make(str(tmp_path))
