"""LiteMedSAM against values of the released network, and the default segmenter's rules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ibisagent.errors import InputError, ToolError
from ibisagent.geometry import Geometry
from ibisagent.types import Image, PixelBox, PixelClick, Prompt

torch = pytest.importorskip("torch")

from ibisagent.segmenters import litemedsam as module  # noqa: E402
from ibisagent.segmenters.clicknet import MAX_CLICKS, ClickNet  # noqa: E402
from ibisagent.segmenters.conformance import check_segmenter, default_images  # noqa: E402
from ibisagent.segmenters.litemedsam import LiteMedSamEmbedding, LiteMedSamSegmenter, load_clicknet, make  # noqa: E402
from ibisagent.segmenters.litemedsam_net import LiteMedSam, letterbox_frame, read_weights  # noqa: E402
from ibisagent.segmenters.preprocess import Frame  # noqa: E402
from ibisagent.segmenters.tinyvit import TinyVit  # noqa: E402

MINI = Path(__file__).parents[3] / "data" / "mini"

# Of the released code and weights on this image (float32, torch 2.13), rounded.
GOLDEN_CELLS = ((5, 5), (31, 20), (40, 50))  # row, column; channels 0, 77, 200
GOLDEN_EMBEDDING = ((-0.0258, 0.0833, -0.0362), (-0.0187, 0.1842, 0.2656), (-0.0082, 0.1089, 0.0211))
GOLDEN_PIXELS = ((20, 20), (128, 100), (60, 150), (200, 60))
GOLDEN_BOX_LOGITS = (-25.243, 4.382, -3.798, -5.345)
GOLDEN_BOX_AREA = 6167
GOLDEN_BOX_IOU = (0.68577, 0.19996, 0.21840, 0.19724)
GOLDEN_POINT_LOGITS = (-21.07, -0.868, -10.388, -12.778)
GOLDEN_POINT_IOU = (0.22710, 0.14948, 0.15005, 0.11294)


@pytest.fixture(scope="module")
def brain() -> NDArray[np.uint8]:
    cv2 = pytest.importorskip("cv2")
    bgr = cv2.imread(str(MINI / "images" / "icbm152_axial_036.png"))
    return np.ascontiguousarray(bgr[..., ::-1])


@pytest.fixture(scope="module")
def net() -> LiteMedSam:
    return LiteMedSam.load(dtype=torch.float32)


@pytest.fixture(scope="module")
def embedding(net: LiteMedSam, brain: NDArray[np.uint8]) -> torch.Tensor:
    return net.embed(brain)


@pytest.fixture(scope="module")
def segmenter(net: LiteMedSam) -> LiteMedSamSegmenter:
    torch.manual_seed(0)
    return LiteMedSamSegmenter(clicknet=ClickNet(), litemedsam=net)


@pytest.fixture(scope="module")
def encoded(segmenter: LiteMedSamSegmenter) -> LiteMedSamEmbedding:
    """The picture, with LiteMedSAM's embedding made by the first test that needs it."""
    return segmenter.encode(picture())


def picture(height: int = 40, width: int = 60) -> Image:
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 60, (height, width, 3), dtype=np.uint8)
    pixels[height // 4 : height // 2, width // 4 : width // 2] += 150
    return Image(pixels, Geometry.plane_2d())


def test_embedding_is_that_of_the_released_encoder(embedding: torch.Tensor) -> None:
    assert embedding.shape == (1, 256, 64, 64)
    assert embedding.dtype == torch.float32
    for (row, column), want in zip(GOLDEN_CELLS, GOLDEN_EMBEDDING, strict=True):
        got = embedding[0, [0, 77, 200], row, column].numpy()
        np.testing.assert_allclose(got, want, atol=0.003)
    assert float(embedding.std()) == pytest.approx(0.09722, abs=2e-4)


def test_box_logits_are_those_of_the_released_decoder(net: LiteMedSam, embedding: torch.Tensor) -> None:
    boxes = torch.tensor([[40.0, 30, 200, 220]])
    logits, iou = net.logits(embedding, boxes=boxes)
    assert logits.shape == (1, 4, 256, 256)
    got = [float(logits[0, 0, y, x]) for y, x in GOLDEN_PIXELS]
    np.testing.assert_allclose(got, GOLDEN_BOX_LOGITS, atol=0.1)
    np.testing.assert_allclose(iou[0].numpy(), GOLDEN_BOX_IOU, atol=2e-3)
    assert int((logits[0, 0] > 0).sum()) == pytest.approx(GOLDEN_BOX_AREA, rel=0.01)
    single, score = net.box_logits(embedding, boxes)
    assert torch.equal(single[0], logits[0, 0])
    assert torch.equal(score, iou[:, 0])


def test_points_and_a_mask_are_encoded_as_released(net: LiteMedSam, embedding: torch.Tensor) -> None:
    prior, _ = net.box_logits(embedding, torch.tensor([[40.0, 30, 200, 220]]))
    logits, iou = net.logits(
        embedding,
        points=torch.tensor([[[100.0, 120], [60, 60]]]),
        labels=torch.tensor([[1, 0]]),
        mask=prior[:, None],
    )
    got = [float(logits[0, 0, y, x]) for y, x in GOLDEN_PIXELS]
    np.testing.assert_allclose(got, GOLDEN_POINT_LOGITS, atol=0.15)
    np.testing.assert_allclose(iou[0].numpy(), GOLDEN_POINT_IOU, atol=3e-3)


def test_bands_of_rows_do_not_show(net: LiteMedSam, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.rand(64, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole = [net.encoder.bottlenecks[0](x), net.encoder.merges[0](x)]
        monkeypatch.setattr("ibisagent.segmenters.tinyvit._BAND_TOKENS", 64 * 6)
        banded = [net.encoder.bottlenecks[0](x), net.encoder.merges[0](x)]
    for a, b in zip(whole, banded, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_bfloat16_embedding_stays_close(embedding: torch.Tensor, brain: NDArray[np.uint8]) -> None:
    half = LiteMedSam.load(dtype=torch.bfloat16)
    got = half.embed(brain)
    assert got.dtype == torch.float32
    assert float((got - embedding).norm() / embedding.norm()) < 0.1


def test_input_is_scaled_per_image(net: LiteMedSam, brain: NDArray[np.uint8], embedding: torch.Tensor) -> None:
    darker = (brain.astype(np.float32) * 0.5).round().astype(np.uint8)
    assert float((net.embed(darker) - embedding).norm() / embedding.norm()) < 0.1
    assert torch.isfinite(net.embed(np.full((9, 30, 3), 7, np.uint8))).all()


def test_encoder_has_the_published_size() -> None:
    with torch.device("meta"):
        encoder, whole = TinyVit(), LiteMedSam()
    assert 5.7e6 < sum(p.numel() for p in encoder.parameters()) < 5.75e6
    assert 9.7e6 < sum(p.numel() for p in whole.parameters()) < 9.8e6


def test_damaged_or_missing_weights_are_named(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(InputError, match="cannot read weights"):
        LiteMedSam.load(tmp_path / "none.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{}")
    with pytest.raises(InputError, match="cannot read weights"):
        read_weights(tmp_path / "cut.safetensors")
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="does not hold"):
        LiteMedSam.load(tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"config\.json"):
        load_clicknet(tmp_path)


def test_clicknet_weights_round_trip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, net: LiteMedSam) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(1)
    widths = (4, 6, 8, 8, 8, 8)
    stored = {k: v.half() if v.is_floating_point() else v for k, v in ClickNet(widths).state_dict().items()}
    save_file(stored, tmp_path / "clicknet.safetensors")
    (tmp_path / "config.json").write_text('{"widths": [4, 6, 8, 8, 8, 8]}')
    monkeypatch.setattr(module, "CLICKNET_DIR", tmp_path)
    loaded = load_clicknet(tmp_path)
    assert loaded.widths == widths
    assert torch.equal(loaded.head.weight, stored["head.weight"].float())
    (tmp_path / "config.json").write_text('{"widths": [4, 6, 8, 8, 8, 16]}')
    with pytest.raises(InputError, match="does not hold"):
        load_clicknet(tmp_path)


def test_segmenter_passes_the_kit(monkeypatch: pytest.MonkeyPatch) -> None:
    # The kit encodes one image many times; the slow test below repeats the real work.
    box_net = LiteMedSam.load()
    known: dict[bytes, torch.Tensor] = {}
    embed = box_net.embed_square

    def embed_once(square: NDArray[np.uint8], frame: Frame) -> torch.Tensor:
        key = square.tobytes()
        if key not in known:
            known[key] = embed(square, frame)
        return known[key]

    monkeypatch.setattr(box_net, "embed_square", embed_once)
    torch.manual_seed(0)
    assert check_segmenter(LiteMedSamSegmenter(clicknet=ClickNet(), litemedsam=box_net), [picture()]) == []


@pytest.mark.slow
def test_segmenter_passes_the_whole_kit() -> None:
    assert check_segmenter(LiteMedSamSegmenter(clicknet=ClickNet()), default_images()) == []


def test_the_dear_encoder_waits_for_a_box(segmenter: LiteMedSamSegmenter) -> None:
    embedding = segmenter.encode(picture())
    segmenter.predict(embedding, [Prompt(clicks=(PixelClick(20, 15, True),))])
    assert embedding.features is None
    first = segmenter.predict(embedding, [Prompt(box=PixelBox(15, 10, 29, 19))])
    features = embedding.features
    assert features is not None
    again = segmenter.predict(embedding, [Prompt(box=PixelBox(15, 10, 29, 19))])
    assert embedding.features is features
    np.testing.assert_array_equal(first[0].state, again[0].state)


def test_a_box_alone_is_litemedsams(
    segmenter: LiteMedSamSegmenter, net: LiteMedSam, encoded: LiteMedSamEmbedding
) -> None:
    image = picture()
    frame = letterbox_frame(image.height, image.width)
    assert (frame.inner_height, frame.inner_width) == (171, 256)
    box = PixelBox(15, 10, 29, 19)
    corners = torch.tensor([[15 * 256 / 60, 10 * 171 / 40, 30 * 256 / 60 - 1, 20 * 171 / 40 - 1]])
    logits, iou = net.box_logits(net.embed(image), corners)
    (got,) = segmenter.predict(encoded, [Prompt(box=box)])
    np.testing.assert_array_equal(got.state, logits[0].numpy())
    assert got.score == pytest.approx(float(iou[0]))
    truth = np.zeros(got.mask.shape, bool)
    truth[10:20, 15:30] = True
    assert (got.mask & truth).sum() / (got.mask | truth).sum() > 0.85


def test_what_clicknet_sees(net: LiteMedSam, encoded: LiteMedSamEmbedding, monkeypatch: pytest.MonkeyPatch) -> None:
    """The prior: former logits, else the mask, else the box's answer; nothing outside the image."""
    seen: list[torch.Tensor] = []
    torch.manual_seed(0)
    clicknet = ClickNet()
    forward = clicknet.forward

    def spy(planes: torch.Tensor, prompts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(prompts.clone())
        return forward(planes, prompts)

    monkeypatch.setattr(clicknet, "forward", spy)
    segmenter, embedding = LiteMedSamSegmenter(clicknet=clicknet, litemedsam=net), encoded
    click, box = (PixelClick(20, 15, True),), PixelBox(15, 10, 29, 19)
    mask = np.zeros((40, 60), bool)
    mask[5:9] = True
    logits = np.full((256, 256), 2.0, np.float32)
    (alone,) = segmenter.predict(embedding, [Prompt(box=box)])
    prompts = [
        Prompt(clicks=click),
        Prompt(clicks=click, box=box),
        Prompt(clicks=click, box=box, prior_mask=mask),
        Prompt(clicks=click, box=box, prior_mask=mask, prior_logits=logits),
    ]
    segmenter.predict(embedding, prompts)
    none, boxed, masked, told = (s[0, 8] for s in seen)
    inside = round(40 * 256 / 60)
    assert float(none.abs().max()) == 0
    np.testing.assert_allclose(boxed[:inside], 1 / (1 + np.exp(-alone.state[:inside])), atol=1e-6)
    assert float(masked[30, 100]) == 1 and float(masked[100, 100]) == 0
    assert torch.allclose(told[:inside], torch.tensor(2.0).sigmoid())
    assert all(float(s[0, 8, inside:].abs().max()) == 0 for s in seen)
    plane = seen[1][0, 9]
    rows, columns = torch.nonzero(plane, as_tuple=True)
    assert (int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())) == (42, 85, 64, 127)
    y, x = divmod(int(seen[0][0, 0].argmax()), 256)
    assert (x, y) == (87, 66)  # (20.5 * 256/60 - 0.5, 15.5 * 171/40 - 0.5), rounded


def test_refine_boxes_lets_clicknet_answer(net: LiteMedSam, encoded: LiteMedSamEmbedding) -> None:
    torch.manual_seed(0)
    refining = LiteMedSamSegmenter(clicknet=ClickNet(), litemedsam=net, refine_boxes=True)
    plain = LiteMedSamSegmenter(clicknet=ClickNet(), litemedsam=net)
    prompt = Prompt(box=PixelBox(15, 10, 29, 19))
    (a,), (b,) = (s.predict(encoded, [prompt]) for s in (refining, plain))
    assert a.state is not None and b.state is not None
    assert not np.array_equal(a.state, b.state)


def test_a_batch_is_bit_for_bit_its_parts(segmenter: LiteMedSamSegmenter, encoded: LiteMedSamEmbedding) -> None:
    embedding = encoded
    prompts = [
        Prompt(clicks=(PixelClick(20, 15, True),)),
        Prompt(box=PixelBox(3, 4, 50, 30)),
        Prompt(clicks=(PixelClick(20, 15, True), PixelClick(0, 39, False)), box=PixelBox(15, 10, 29, 19)),
    ]
    together = segmenter.predict(embedding, prompts)
    for prompt, answer in zip(prompts, together, strict=True):
        (single,) = segmenter.predict(embedding, [prompt])
        np.testing.assert_array_equal(single.state, answer.state)
        assert single.score == answer.score


def test_only_the_newest_clicks_count(segmenter: LiteMedSamSegmenter) -> None:
    embedding = segmenter.encode(picture())
    newest = tuple(PixelClick(i, 15, True) for i in range(MAX_CLICKS))
    (many,) = segmenter.predict(embedding, [Prompt(clicks=(PixelClick(59, 39, True), *newest))])
    (kept,) = segmenter.predict(embedding, [Prompt(clicks=newest)])
    np.testing.assert_array_equal(many.state, kept.state)


@pytest.mark.parametrize(
    "prompt",
    [
        Prompt(),
        Prompt(prior_logits=np.zeros((256, 256), np.float32)),
        Prompt(clicks=(PixelClick(60, 0, True),)),
        Prompt(clicks=(PixelClick(0, -1, False),)),
        Prompt(box=PixelBox(5, 5, 4, 9)),
        Prompt(box=PixelBox(0, 0, 60, 9)),
        Prompt(clicks=(PixelClick(0, 0, True),), prior_mask=np.zeros((60, 40), bool)),
        Prompt(clicks=(PixelClick(0, 0, True),), prior_logits=np.zeros((64, 64), np.float32)),
        Prompt(clicks=(PixelClick(0, 0, True),), prior_logits=np.zeros((256, 256), np.float64)),
        Prompt(clicks=(PixelClick(0, 0, True),), prior_logits=np.full((256, 256), np.nan, np.float32)),
    ],
)
def test_illegal_prompts_are_refused(segmenter: LiteMedSamSegmenter, prompt: Prompt) -> None:
    embedding = segmenter.encode(picture())
    with pytest.raises(ToolError, match="litemedsam"):
        segmenter.predict(embedding, [Prompt(clicks=(PixelClick(1, 1, True),)), prompt])
    with pytest.raises(ToolError, match="not an embedding"):
        segmenter.predict(object(), [])


def test_a_network_gone_wrong_is_an_error(net: LiteMedSam) -> None:
    broken = ClickNet()
    torch.nn.init.constant_(broken.head.bias, float("nan"))
    segmenter = LiteMedSamSegmenter(clicknet=broken, litemedsam=net)
    with pytest.raises(ToolError, match="not a number"):
        segmenter.predict(segmenter.encode(picture()), [Prompt(clicks=(PixelClick(1, 1, True),))])


def test_the_hash_covers_both_networks(net: LiteMedSam) -> None:
    torch.manual_seed(0)
    first = LiteMedSamSegmenter(clicknet=ClickNet(), litemedsam=net).weights_sha256
    torch.manual_seed(0)
    same = LiteMedSamSegmenter(clicknet=ClickNet(), litemedsam=net).weights_sha256
    torch.manual_seed(0)
    other = LiteMedSamSegmenter(clicknet=ClickNet()).weights_sha256
    another = LiteMedSamSegmenter(clicknet=ClickNet(), litemedsam=net).weights_sha256
    assert first == same
    assert len({first, other, another}) == 3


def test_make_takes_no_argument() -> None:
    with pytest.raises(InputError, match="no argument"):
        make("/some/folder")


def test_conversion_folds_norms_and_refuses_other_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ibisagent.train.convert_litemedsam import _fold_batch_norms, _rename, main

    torch.manual_seed(0)
    conv, norm = torch.nn.Conv2d(3, 5, 3, padding=1, bias=False), torch.nn.BatchNorm2d(5).eval()
    with torch.no_grad():
        for name in ("running_mean", "weight", "bias"):
            getattr(norm, name).normal_()
        norm.running_var.uniform_(0.5, 2.0)
        folded = _fold_batch_norms(
            {"x.c.weight": conv.weight, **{f"x.bn.{k}": v for k, v in norm.state_dict().items()}}
        )
        image = torch.randn(1, 3, 8, 8)
        got = torch.nn.functional.conv2d(image, folded["x.weight"], folded["x.bias"], padding=1)
        torch.testing.assert_close(got, norm(conv(image)))
    assert set(folded) == {"x.weight", "x.bias"}
    assert _rename("mask_decoder.output_hypernetworks_mlps.3.layers.2.bias") == "decoder.heads.3.4.bias"
    assert _rename("image_encoder.layers.3.blocks.1.mlp.fc2.bias") == "encoder.stages.2.1.narrow.bias"
    with pytest.raises(InputError, match="unexpected tensor"):
        _rename("classifier.weight")
    (tmp_path / "w.pth").write_bytes(b"not it")
    assert main([str(tmp_path / "w.pth"), "--out", str(tmp_path)]) == 2
    assert main([str(tmp_path / "none.whl"), "--out", str(tmp_path)]) == 2
    assert "SHA-256" in capsys.readouterr().err
    assert not (tmp_path / "litemedsam.safetensors").exists()
