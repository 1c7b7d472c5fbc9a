from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ibisagent.errors import InputError, MissingExtraError
from ibisagent.hashing import file_hash
from ibisagent.segmenters import sam2
from ibisagent.segmenters.conformance import check_segmenter
from ibisagent.segmenters.preprocess import IMAGENET, Frame
from ibisagent.segmenters.protocol import Segmenter
from ibisagent.types import Image, PixelBox, PixelClick, Prompt

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def segmenter(tiny_sam2_folder: Path) -> sam2.Sam2Segmenter:
    return sam2.make(str(tiny_sam2_folder))


def test_conforms(segmenter: sam2.Sam2Segmenter, tiny_sam2_folder: Path) -> None:
    assert isinstance(segmenter, Segmenter)
    assert check_segmenter(segmenter) == []
    assert segmenter.name == f"sam2:{tiny_sam2_folder}"
    assert segmenter.weights_sha256 == file_hash(tiny_sam2_folder / "model.safetensors")


def test_preprocessing_is_within_one_gray_level_of_pillow(noise_image: Image) -> None:
    from PIL import Image as Pillow

    resized = Pillow.fromarray(noise_image.pixels).resize((64, 64), Pillow.Resampling.BILINEAR)
    wanted = (np.asarray(resized) / 255 - np.array(IMAGENET.mean)) / np.array(IMAGENET.std)
    found = Frame.fit(80, 48, 64, "stretch").pixel_values(noise_image.pixels, IMAGENET)[0].permute(1, 2, 0).numpy()
    assert np.abs(found - wanted).max() <= 1.01 / 255 / 0.224


@pytest.mark.parametrize("form", ["click", "clicks", "box", "box and click"])
def test_answers_are_the_models_own(segmenter: sam2.Sam2Segmenter, noise_image: Image, form: str) -> None:
    a, b, box = PixelClick(20, 30, True), PixelClick(5, 70, False), PixelBox(4, 6, 40, 50)
    prompt = {
        "click": Prompt(clicks=(a,)),
        "clicks": Prompt(clicks=(a, b)),
        "box": Prompt(box=box),
        "box and click": Prompt(clicks=(b,), box=box),
    }[form]
    embedding = segmenter.encode(noise_image)
    found = segmenter.predict(embedding, [prompt])[0]

    def to_input(x: int, y: int) -> list[float]:  # 48 x 80 pixels stretched to 64 x 64
        return [(x + 0.5) * 64 / 48 - 0.5, (y + 0.5) * 64 / 80 - 0.5]

    inputs: dict[str, Any] = {}
    if prompt.clicks:
        inputs["input_points"] = torch.tensor([[[to_input(c.x, c.y) for c in prompt.clicks]]])
        inputs["input_labels"] = torch.tensor([[[int(c.positive) for c in prompt.clicks]]])
    if prompt.box:
        inputs["input_boxes"] = torch.tensor([[to_input(box.x0, box.y0) + to_input(box.x1, box.y1)]])
    values = embedding.frame.pixel_values(noise_image.pixels, IMAGENET)
    with torch.no_grad():
        out = segmenter._model(pixel_values=values, multimask_output=form == "click", **inputs)
    best = int(out.iou_scores[0, 0].argmax())
    logits = out.pred_masks[0, :, best]
    assert found.state is not None
    np.testing.assert_allclose(found.state, logits[0].clamp(-32, 32).numpy(), atol=1e-3)
    full = torch.nn.functional.interpolate(logits[:, None], (80, 48), mode="bilinear", align_corners=False)[0, 0]
    sure = full.abs().numpy() > 1e-3
    assert (found.mask == (full.numpy() > 0))[sure].all() and sure.mean() > 0.9
    assert out.pred_masks.shape[2] == (3 if form == "click" else 1)


def test_states_are_clipped_as_in_training(tiny_sam2_folder: Path, noise_image: Image) -> None:
    loud = sam2.make(str(tiny_sam2_folder))
    with torch.no_grad():
        for mlp in loud._model.mask_decoder.output_hypernetworks_mlps:
            mlp.proj_out.weight.mul_(1e4)
    state = loud.predict(loud.encode(noise_image), [Prompt(clicks=(PixelClick(3, 3, True),))])[0].state
    assert state is not None and np.abs(state).max() == 32.0


def test_the_image_is_encoded_once(segmenter: sam2.Sam2Segmenter, noise_image: Image) -> None:
    runs: list[int] = []
    handle = segmenter._model.vision_encoder.register_forward_hook(lambda *_: runs.append(1))
    try:
        embedding = segmenter.encode(noise_image)
        segmenter.predict(embedding, [Prompt(clicks=(PixelClick(1, 1, True),))] * 40)
    finally:
        handle.remove()
    assert runs == [1]


def test_the_image_model_of_a_video_models_folder(
    tiny_sam2_video_model: Any, tiny_sam2_video_folder: Path, noise_image: Image
) -> None:
    from transformers import Sam2Model

    loaded = sam2.make(str(tiny_sam2_video_folder))
    reference = Sam2Model.from_pretrained(tiny_sam2_video_folder).eval()
    found = loaded.predict(loaded.encode(noise_image), [Prompt(clicks=(PixelClick(20, 30, True),))])[0]
    with torch.no_grad():
        out = reference(
            pixel_values=loaded.pixel_values(noise_image),
            input_points=torch.tensor([[[loaded.frame(80, 48).to_input(20, 30)]]]),
            input_labels=torch.tensor([[[1]]]),
        )
    best = int(out.iou_scores[0, 0].argmax())
    np.testing.assert_allclose(found.state, out.pred_masks[0, 0, best].clamp(-32, 32).numpy(), atol=1e-3)


def test_a_stage_that_opens_with_global_attention_is_refused(tiny_sam2_config: Callable[..., Any]) -> None:
    sam2.check_backbone(tiny_sam2_config(), "good")
    sam2.check_backbone(tiny_sam2_config(global_attention_blocks=[0, 2, 4]), "good")
    with pytest.raises(InputError, match="block 3 opens stage 2"):
        sam2.check_backbone(tiny_sam2_config(global_attention_blocks=[3]), "bad")


def test_bad_folders(tiny_sam_folder: Path, tmp_path: Path) -> None:
    for arg in (None, "", str(tmp_path), str(tmp_path / "nowhere"), str(tiny_sam_folder)):
        with pytest.raises(InputError) as error:
            sam2.make(arg)
        assert "\n" not in str(error.value)


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"'sam2' needs .*ibisagent\[train\]"):
        sam2.make("anything")
