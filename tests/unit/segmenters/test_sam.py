from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ibisagent.errors import InputError, MissingExtraError, ToolError
from ibisagent.hashing import file_hash
from ibisagent.segmenters import sam
from ibisagent.segmenters.conformance import check_segmenter
from ibisagent.segmenters.preprocess import Frame
from ibisagent.segmenters.protocol import Segmenter
from ibisagent.types import Image, PixelBox, PixelClick, Prompt

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

CLICK, OTHER = PixelClick(20, 30, True), PixelClick(5, 70, False)


@pytest.fixture(scope="module")
def segmenter(tiny_sam_folder: Path) -> sam.SamSegmenter:
    return sam.make(str(tiny_sam_folder))


def copy_of(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target)
    return target


def one_line(error: pytest.ExceptionInfo[InputError]) -> str:
    text = str(error.value)
    assert text and "\n" not in text
    return text


@pytest.mark.parametrize("preprocessing", ["sam", "medsam"])
def test_conforms(tiny_sam_folder: Path, preprocessing: Any) -> None:
    built = sam.make(str(tiny_sam_folder), preprocessing=preprocessing)
    assert isinstance(built, Segmenter)
    assert check_segmenter(built) == []


def test_name_and_hash(segmenter: sam.SamSegmenter, tiny_sam_folder: Path) -> None:
    assert segmenter.name == f"sam:{tiny_sam_folder}"
    assert segmenter.weights_sha256 == file_hash(tiny_sam_folder / "model.safetensors")


def test_preprocessing_is_within_one_gray_level_of_the_stock_one(
    segmenter: sam.SamSegmenter, noise_image: Image
) -> None:
    from transformers import SamImageProcessorPil

    stock = SamImageProcessorPil(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64})
    wanted = stock(noise_image.pixels.copy(), return_tensors="pt")["pixel_values"]
    frame = Frame.fit(80, 48, 64, "pad")
    found = frame.pixel_values(noise_image.pixels, segmenter._normalisation)
    assert (frame.inner_height, frame.inner_width) == (64, 38)
    assert found.shape == wanted.shape == (1, 3, 64, 64)
    assert (found - wanted).abs().max() <= 1.01 / 255 / 0.224
    assert found[..., 38:].abs().max() == 0.0


def test_mask_is_what_the_stock_pipeline_gives(segmenter: sam.SamSegmenter, noise_image: Image) -> None:
    from transformers import SamImageProcessorPil

    embedding = segmenter.encode(noise_image)
    found = segmenter.predict(embedding, [Prompt(clicks=(CLICK, OTHER))])[0]
    # 80 rows become 64, 48 columns become 38; the model adds the other half pixel itself
    points = [[[(c.x + 0.5) * 38 / 48 - 0.5, (c.y + 0.5) * 64 / 80 - 0.5] for c in (CLICK, OTHER)]]
    with torch.no_grad():
        out = segmenter._model(
            pixel_values=embedding.frame.pixel_values(noise_image.pixels, segmenter._normalisation),
            input_points=torch.tensor([points]),
            input_labels=torch.tensor([[[1, 0]]]),
            multimask_output=False,
        )
    stock = SamImageProcessorPil(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64})
    wanted = stock.post_process_masks(out.pred_masks, [(80, 48)], [(64, 38)], binarize=False)[0][0, 0]
    assert found.probability is not None and found.state is not None
    np.testing.assert_allclose(found.state, out.pred_masks[0, 0, 0].numpy(), atol=1e-4)
    np.testing.assert_allclose(found.probability, wanted.sigmoid().numpy(), atol=1e-4)
    assert found.mask.any() and not found.mask.all()


def test_pixel_centres_survive_the_frame() -> None:
    # the prompt encoder adds 0.5; so the last pixel's centre lies half a source pixel inside the inner edge
    frame = Frame.fit(50, 100, 1024, "pad")
    x, y = frame.to_input(99, 49)
    assert x + 0.5 == pytest.approx(99.5 * 10.24)
    assert y + 0.5 == pytest.approx(49.5 * 10.24)
    assert Frame.fit(64, 64, 64, "stretch").to_input(7, 9) == (7.0, 9.0)
    assert Frame.fit(1, 5000, 1024, "pad").inner_height == 1


def test_best_of_three_at_the_first_click_only(segmenter: sam.SamSegmenter, noise_image: Image) -> None:
    asked: list[bool] = []
    offers: list[Any] = []

    def spy(_module: Any, _args: Any, kwargs: dict[str, Any], out: Any) -> None:
        asked.append(kwargs["multimask_output"])
        offers.append(out)

    embedding = segmenter.encode(noise_image)
    handle = segmenter._model.register_forward_hook(spy, with_kwargs=True)
    try:
        first = segmenter.predict(embedding, [Prompt(clicks=(CLICK,))])[0]
        segmenter.predict(embedding, [Prompt(clicks=(CLICK, OTHER))])
        segmenter.predict(embedding, [Prompt(box=PixelBox(3, 3, 30, 60))])
        segmenter.predict(embedding, [Prompt(clicks=(CLICK,), prior_logits=first.state)])
    finally:
        handle.remove()
    assert asked == [True, False, False, False]
    assert offers[0].pred_masks.shape[2] == 3
    best = int(offers[0].iou_scores[0, 0].argmax())
    np.testing.assert_allclose(first.state, offers[0].pred_masks[0, 0, best].numpy(), atol=1e-6)
    assert first.score == pytest.approx(float(offers[0].iou_scores[0, 0].max().clamp(0, 1)))


def test_the_encoder_runs_once(segmenter: sam.SamSegmenter, noise_image: Image) -> None:
    runs: list[int] = []
    handle = segmenter._model.vision_encoder.register_forward_hook(lambda *_: runs.append(1))
    try:
        embedding = segmenter.encode(noise_image)
        for y in range(3):
            segmenter.predict(embedding, [Prompt(clicks=(PixelClick(4, y, True),))] * 2)
    finally:
        handle.remove()
    assert runs == [1]


def test_prior_changes_the_answer_and_logits_win_over_a_mask(segmenter: sam.SamSegmenter, noise_image: Image) -> None:
    embedding = segmenter.encode(noise_image)
    half = np.zeros((80, 48), bool)
    half[:40] = True
    clicks = (CLICK, OTHER)
    state = segmenter.predict(embedding, [Prompt(clicks=(CLICK,))])[0].state
    assert state is not None
    plain, masked, logits, both = segmenter.predict(
        embedding,
        [
            Prompt(clicks=clicks),
            Prompt(clicks=clicks, prior_mask=half),
            Prompt(clicks=clicks, prior_logits=state),
            Prompt(clicks=clicks, prior_logits=state, prior_mask=half),
        ],
    )
    assert not np.allclose(plain.state, masked.state, atol=1e-3)
    assert not np.allclose(masked.state, logits.state, atol=1e-3)
    np.testing.assert_allclose(logits.state, both.state, atol=1e-5)


def test_prior_mask_becomes_low_resolution_logits() -> None:
    frame = Frame.fit(80, 40, 64, "pad")  # fills the left half of the input
    left = np.zeros((80, 40), bool)
    left[:, :20] = True
    logits = frame.mask_logits(left, 16).numpy()
    assert logits.shape == (16, 16) and logits.dtype == np.float32
    assert logits[:, :3].min() == pytest.approx(10)
    assert logits[:, 5:].max() == pytest.approx(-10)  # the other half of the image, and the padding
    full = frame.mask_logits(np.ones((80, 40), bool), 16).numpy()
    assert full[:, :7].min() == pytest.approx(10) and full[:, 9:].max() == pytest.approx(-10)
    assert float(frame.mask_logits(np.zeros((80, 40), bool), 16).max()) == -10


@pytest.mark.parametrize(
    "prior",
    [np.zeros((8, 8), np.float32), np.zeros((16, 16), np.float64), np.full((16, 16), np.nan, np.float32)],
    ids=["shape", "dtype", "nan"],
)
def test_foreign_prior_logits_are_refused(segmenter: sam.SamSegmenter, noise_image: Image, prior: Any) -> None:
    with pytest.raises(ToolError, match="prior logits"):
        segmenter.predict(segmenter.encode(noise_image), [Prompt(clicks=(CLICK,), prior_logits=prior)])


def test_failures_of_the_model_are_tool_errors(
    segmenter: sam.SamSegmenter, noise_image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedding = segmenter.encode(noise_image)
    with pytest.raises(ToolError, match="not an embedding"):
        segmenter.predict("something else", [Prompt(clicks=(CLICK,))])

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("out of memory\nwith details")

    monkeypatch.setattr(segmenter._model, "forward", broken)
    with pytest.raises(ToolError, match=r"decoding failed: RuntimeError: out of memory$"):
        segmenter.predict(embedding, [Prompt(clicks=(CLICK,))])
    monkeypatch.setattr(segmenter._model, "get_image_embeddings", broken)
    with pytest.raises(ToolError, match="encoding failed"):
        segmenter.encode(noise_image)


def test_not_a_number_is_a_tool_error(tiny_sam_folder: Path, noise_image: Image) -> None:
    spoilt = sam.make(str(tiny_sam_folder))
    with torch.no_grad():
        spoilt._model.mask_decoder.iou_token.weight.fill_(float("nan"))
    with pytest.raises(ToolError, match="not a number"):
        spoilt.predict(spoilt.encode(noise_image), [Prompt(clicks=(CLICK,))])


def test_medsam_is_known_by_its_name(tiny_sam_folder: Path, tmp_path: Path, noise_image: Image) -> None:
    folder = copy_of(tiny_sam_folder, tmp_path / "MedSAM-vit")
    frame = Frame.fit(80, 48, 64, "stretch")
    embedding = sam.make(str(folder)).encode(noise_image)
    assert embedding.frame == frame
    assert sam.make(str(folder), preprocessing="sam").encode(noise_image).frame.inner_width == 38
    values = frame.pixel_values(noise_image.pixels, sam.make(str(folder))._normalisation)
    assert float(values.min()) == 0.0 and float(values.max()) == pytest.approx(1.0)


def test_the_folder_may_bring_its_own_normalisation(tiny_sam_folder: Path, tmp_path: Path) -> None:
    folder = copy_of(tiny_sam_folder, tmp_path / "own")
    config = folder / "preprocessor_config.json"
    config.write_text(json.dumps({"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}))
    assert sam.make(str(folder))._normalisation.mean == (0.5, 0.5, 0.5)
    config.write_text("{not json")
    assert sam.make(str(folder))._normalisation.mean == (0.485, 0.456, 0.406)


def test_bad_folders_are_one_line(tiny_sam_folder: Path, tiny_sam2_folder: Path, tmp_path: Path) -> None:
    for nothing in ("", None):
        with pytest.raises(InputError) as error:
            sam.make(nothing)
        assert "needs a folder or a hub id" in one_line(error)
    with pytest.raises(InputError) as error:
        sam.make(str(tmp_path / "nowhere"))
    assert "no such folder" in one_line(error)
    with pytest.raises(InputError) as error:
        sam.make(str(tmp_path))
    assert "config.json" in one_line(error)
    with pytest.raises(InputError) as error:
        sam.make(str(tiny_sam_folder / "config.json"))
    assert "a file" in one_line(error)
    with pytest.raises(InputError) as error:
        sam.make(str(tiny_sam2_folder))
    assert "model_type 'sam2', not sam" in one_line(error)

    empty = copy_of(tiny_sam_folder, tmp_path / "empty")
    (empty / "model.safetensors").unlink()
    with pytest.raises(InputError) as error:
        sam.make(str(empty))
    one_line(error)
    torn = copy_of(tiny_sam_folder, tmp_path / "torn")
    (torn / "model.safetensors").write_bytes((tiny_sam_folder / "model.safetensors").read_bytes()[:500])
    with pytest.raises(InputError) as error:
        sam.make(str(torn))
    one_line(error)
    damaged = copy_of(tiny_sam_folder, tmp_path / "damaged")
    (damaged / "config.json").write_text("[]")
    with pytest.raises(InputError) as error:
        sam.make(str(damaged))
    one_line(error)


def test_missing_weights_are_an_error_and_not_noise(tiny_sam_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = copy_of(tiny_sam_folder, tmp_path / "partial")
    state = load_file(folder / "model.safetensors")
    del state["mask_decoder.iou_token.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError) as error:
        sam.make(str(folder))
    assert "1 weights are missing, the first is mask_decoder.iou_token.weight" in one_line(error)


def test_bad_options(tiny_sam_folder: Path) -> None:
    for options in ({"device": "abacus"}, {"device": "cuda:77"}, {"preprocessing": "x"}, {"batch_size": 0}):
        with pytest.raises(InputError) as error:
            sam.make(str(tiny_sam_folder), **options)  # type: ignore[arg-type]
        one_line(error)


def test_hub_ids(tiny_sam_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda repo, **_: str(tiny_sam_folder))
    assert sam.make("owner/some-sam").name == "sam:owner/some-sam"

    def offline(*_: Any, **__: Any) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(InputError) as error:
        sam.make("owner/some-sam")
    assert "hub" in one_line(error)


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"'sam' needs .*ibisagent\[train\]"):
        sam.make("anything")
