"""SAM2's memory over a stack: the same as the library's own session over the whole video, read lazily and bounded."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ibisagent.errors import InputError, ToolError
from ibisagent.geometry import Geometry
from ibisagent.segmenters import sam2
from ibisagent.segmenters.conformance import check_segmenter
from ibisagent.segmenters.memo import MemoSegmenter
from ibisagent.segmenters.protocol import VideoSegmenter, video_segmenter
from ibisagent.types import Image, PixelBox, PixelClick, Prediction, Prompt

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

HEIGHT, WIDTH, COUNT, KEY = 40, 56, 10, 5
CLICK = Prompt(clicks=(PixelClick(30, 20, True),))


@pytest.fixture(scope="module")
def segmenter(tiny_sam2_video_folder: Path) -> sam2.Sam2Segmenter:
    return sam2.make(str(tiny_sam2_video_folder))


@pytest.fixture(scope="module")
def stack() -> list[Image]:
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    images = []
    for i in range(COUNT):
        disc = np.hypot(y - 20, x - 20 - 2 * i) < 6 + i % 4
        gray = np.clip(40 + 150 * disc + rng.normal(0, 25, disc.shape), 0, 255).astype(np.uint8)
        images.append(Image(np.repeat(gray[..., None], 3, axis=2), Geometry.plane_2d()))
    return images


@pytest.fixture
def mask() -> Any:
    found = np.zeros((HEIGHT, WIDTH), bool)
    found[12:30, 20:41] = True
    return found


class Library:
    """The stock session over the whole video, as transformers' documentation drives it; only the processor is ours."""

    def __init__(self, segmenter: sam2.Sam2Segmenter, images: Sequence[Image]) -> None:
        from transformers import Sam2VideoInferenceSession

        self.model, self.frame = segmenter._video_model, segmenter.frame(HEIGHT, WIDTH)
        video = torch.cat([segmenter.pixel_values(image) for image in images])
        self.session = Sam2VideoInferenceSession(
            video=video, video_height=HEIGHT, video_width=WIDTH, dtype=torch.float32, max_vision_features_cache_size=1
        )

    def prompt(self, index: int, prompt: Prompt) -> Any:
        slot = self.session.obj_id_to_idx(1)
        if prompt.prior_mask is not None:
            full = torch.nn.functional.interpolate(
                torch.tensor(prompt.prior_mask)[None, None].float(), (64, 64), mode="bilinear", antialias=True
            )
            self.session.add_mask_inputs(slot, index, (full >= 0.5).float())
        else:
            points = [self.frame.to_input(c.x, c.y) for c in prompt.clicks]
            labels = [int(c.positive) for c in prompt.clicks]
            if (box := prompt.box) is not None:
                points = [self.frame.to_input(box.x0, box.y0), self.frame.to_input(box.x1, box.y1), *points]
                labels = [2, 3, *labels]
            inputs = {"point_coords": torch.tensor([[points]]), "point_labels": torch.tensor([[labels]])}
            self.session.add_point_inputs(slot, index, inputs)
        self.session.obj_with_new_inputs = [1]
        return self.model(self.session, frame_idx=index).pred_masks[0, 0].numpy()

    def propagate(self, reverse: bool) -> dict[int, Any]:
        steps = self.model.propagate_in_video_iterator(self.session, start_frame_idx=KEY, reverse=reverse)
        return {out.frame_idx: out.pred_masks[0, 0].numpy() for out in steps}


def close(found: Prediction, logits: Any) -> None:
    assert found.state is not None
    np.testing.assert_allclose(found.state, logits.clip(-32, 32), atol=2e-3)


@pytest.mark.parametrize("form", ["click", "clicks", "box", "box and click", "mask", "two images"])
def test_it_is_the_librarys_own_propagation(
    segmenter: sam2.Sam2Segmenter, stack: list[Image], mask: Any, form: str
) -> None:
    far, box = PixelClick(3, 37, False), PixelBox(20, 10, 42, 31)
    prompts = {
        "click": {KEY: CLICK},
        "clicks": {KEY: Prompt(clicks=(*CLICK.clicks, far))},
        "box": {KEY: Prompt(box=box)},
        "box and click": {KEY: Prompt(box=box, clicks=(far,))},
        "mask": {KEY: Prompt(prior_mask=mask)},
        "two images": {KEY: Prompt(prior_mask=mask), 1: CLICK},
    }[form]
    library, track = Library(segmenter, stack), segmenter.track(stack)
    for index, prompt in prompts.items():
        close(track.prompt(index, prompt), library.prompt(index, prompt))
    for reverse in (False, True):
        wanted = library.propagate(reverse)
        found = dict(track.carry(KEY, reverse=reverse))
        assert list(found) == list(wanted)[1:]  # the library answers for the image it sets out from, too
        for index, prediction in found.items():
            close(prediction, wanted[index])
            if index not in prompts:
                full = segmenter.frame(HEIGHT, WIDTH).to_image(torch.tensor(wanted[index])[None])[0].numpy()
                sure = np.abs(full) > 2e-3
                assert (prediction.mask == (full > 0))[sure].all() and prediction.mask.shape == (HEIGHT, WIDTH)
                assert prediction.score is not None and 0 <= prediction.score <= 1


def test_the_memory_matters(segmenter: sam2.Sam2Segmenter, stack: list[Image], mask: Any) -> None:
    def end(*prompts: tuple[int, Prompt]) -> Any:
        track = segmenter.track(stack)
        for index, prompt in prompts:
            track.prompt(index, prompt)
        return dict(track.carry(KEY))[COUNT - 1].state

    one, other = end((KEY, Prompt(prior_mask=mask))), end((KEY, Prompt(prior_mask=~mask)))
    both = end((KEY, Prompt(prior_mask=mask)), (2, CLICK))
    assert np.abs(one - other).max() > 0.1 and np.abs(one - both).max() > 0.1


def test_conforms_and_declares_it(segmenter: sam2.Sam2Segmenter, noise_image: Image) -> None:
    assert segmenter.capabilities.video and video_segmenter(segmenter) is segmenter
    assert isinstance(segmenter, VideoSegmenter)
    assert check_segmenter(segmenter, [noise_image]) == []
    assert video_segmenter(MemoSegmenter(segmenter)) is None  # it remembers one image, not a stack


def test_weights_of_single_images_declare_none(tiny_sam2_folder: Path, stack: list[Image]) -> None:
    images_only = sam2.make(str(tiny_sam2_folder))
    assert not images_only.capabilities.video and video_segmenter(images_only) is None
    with pytest.raises(ToolError, match="no memory"):
        images_only.track(stack)


def test_both_models_share_their_weights(segmenter: sam2.Sam2Segmenter) -> None:
    video = dict(segmenter._video_model.named_parameters())
    image = dict(segmenter._model.named_parameters())
    assert image and all(value is video[name] for name, value in image.items())
    assert not any(value.is_meta for value in segmenter._model.state_dict().values())


def test_settings_left_out_of_the_file_are_the_mask_decoders(tiny_sam2_video_folder: Path, tmp_path: Path) -> None:
    from ibisagent.segmenters.sam2_memory import video_config

    content = json.loads((tiny_sam2_video_folder / "config.json").read_text())
    del content["mask_decoder_config"]["num_multimask_outputs"]
    config = video_config(content)
    assert config.mask_decoder_config.num_multimask_outputs == 3
    assert config.mask_decoder_config.mlp_dim == 48 and config.num_maskmem == 3


class Lazy(Sequence[Image]):
    """Makes its images on demand and counts them."""

    def __init__(self, images: Sequence[Image], count: int) -> None:
        self.images, self.count, self.made = images, count, list[int]()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: Any) -> Any:
        self.made.append(index)
        return self.images[index % len(self.images)]


def kept_bytes(track: Any) -> int:
    """Memory of the session's tensors; those that are views of one another count once."""
    found = {}
    for part in track._outputs.values():
        for output in part.values():
            for value in output.values():
                found[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
    return sum(found.values())


def test_images_are_read_in_turn_and_memory_stays_bounded(segmenter: sam2.Sam2Segmenter, stack: list[Image]) -> None:
    lazy = Lazy(stack, 22)
    track = segmenter.track(lazy)
    assert lazy.made == []
    track.prompt(KEY, CLICK)
    sizes = []
    for index, _ in track.carry(KEY):
        assert lazy.made[-1] == index
        sizes.append(kept_bytes(track))
        if index == 18:
            break
    assert lazy.made == list(range(KEY, 19))
    assert max(sizes[8:]) == sizes[8]  # it looks back four images: no growth after twice that
    assert [index for index, _ in track.carry(18)] == [19, 20, 21]
    assert [index for index, _ in track.carry(KEY, reverse=True)] == [4, 3, 2, 1, 0]
    assert lazy.made == [*range(KEY, 22), 4, 3, 2, 1, 0]


def test_a_stopped_run_goes_on_as_if_it_had_not(segmenter: sam2.Sam2Segmenter, stack: list[Image]) -> None:
    whole, parts = segmenter.track(stack), segmenter.track(stack)
    for track in (whole, parts):
        track.prompt(0, CLICK)
    wanted = dict(whole.carry(0))
    found = dict(itertools.islice(parts.carry(0), 6))
    found |= dict(parts.carry(6))
    assert found.keys() == wanted.keys()
    for index, prediction in found.items():
        np.testing.assert_array_equal(prediction.state, wanted[index].state)


def test_what_a_prompt_means(segmenter: sam2.Sam2Segmenter, stack: list[Image], mask: Any) -> None:
    track = segmenter.track(stack)
    given = track.prompt(KEY, Prompt(prior_mask=mask))
    assert np.array_equal(given.mask, mask) and given.score is None and given.mask is not mask
    given.mask[:] = False
    assert np.array_equal(dict(track.carry(KEY - 1))[KEY].mask, mask)

    seen = segmenter.predict(segmenter.encode(stack[2]), [CLICK])[0]
    clicked = segmenter.track(stack).prompt(2, CLICK)
    np.testing.assert_allclose(clicked.state, seen.state, atol=2e-3)  # without memory it is the image model
    assert clicked.score == pytest.approx(seen.score, abs=1e-4)

    both = Prompt(clicks=CLICK.clicks, prior_mask=mask)
    refined = segmenter.predict(segmenter.encode(stack[KEY]), [both])[0]
    assert np.array_equal(track.prompt(KEY, both).mask, refined.mask)
    again = track.prompt(KEY, Prompt(prior_logits=refined.state))
    wanted = segmenter.frame(HEIGHT, WIDTH).to_image(torch.tensor(refined.state)[None])[0].numpy() > 0
    assert np.array_equal(again.mask, wanted)


def test_thin_and_empty_masks(segmenter: sam2.Sam2Segmenter, mask: Any) -> None:
    wide = Image(np.zeros((300, 400, 3), np.uint8), Geometry.plane_2d())
    line, nothing = np.zeros((300, 400), bool), np.zeros((300, 400), bool)
    line[150, 40:360] = True  # a fifth of a pixel of the input
    track = segmenter.track([wide, wide, wide])
    assert track._mask_input(line).sum() > 0 and track._mask_input(nothing).sum() == 0
    assert torch.equal(track._mask_input(mask) > 0, on_the_input(mask))
    track.prompt(0, Prompt(prior_mask=line))
    assert bool((track._outputs["cond_frame_outputs"][0]["object_score_logits"] > 0).all())
    assert not track.prompt(2, Prompt(prior_mask=nothing)).mask.any()
    assert bool((track._outputs["cond_frame_outputs"][2]["object_score_logits"] < 0).all())


def on_the_input(mask: Any) -> Any:
    full = torch.nn.functional.interpolate(
        torch.tensor(mask)[None, None].float(), (64, 64), mode="bilinear", antialias=True
    )
    return full >= 0.5


def test_a_target_that_is_gone_is_an_empty_mask(tiny_sam2_video_folder: Path, stack: list[Image], mask: Any) -> None:
    gone = sam2.make(str(tiny_sam2_video_folder))
    with torch.no_grad():
        gone._video_model.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(-99.0)
    track = gone.track(stack)
    track.prompt(KEY, Prompt(prior_mask=mask))
    index, prediction = next(track.carry(KEY))
    assert index == KEY + 1 and not prediction.mask.any() and prediction.score is None
    assert prediction.state is not None and prediction.state.max() == -32


def test_a_carried_image_can_be_corrected(segmenter: sam2.Sam2Segmenter, stack: list[Image], mask: Any) -> None:
    track = segmenter.track(stack)
    track.prompt(KEY, CLICK)
    before = dict(track.carry(KEY))
    track.prompt(8, Prompt(prior_mask=mask))
    after = dict(track.carry(KEY))
    assert np.array_equal(after[8].mask, mask)
    fresh = segmenter.track(stack)
    fresh.prompt(KEY, CLICK)
    fresh.prompt(8, Prompt(prior_mask=mask))
    for index, prediction in fresh.carry(KEY):  # as if both had been prompted from the start
        np.testing.assert_allclose(prediction.state, after[index].state, atol=1e-4)
    assert np.abs(after[9].state - before[9].state).max() > 0.05  # type: ignore[operator]


def test_failures_leave_the_track_as_it_was(
    segmenter: sam2.Sam2Segmenter, stack: list[Image], mask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted_track, track = segmenter.track(stack), segmenter.track(stack)
    for each in (wanted_track, track):
        each.prompt(KEY, Prompt(prior_mask=mask))
        list(itertools.islice(each.carry(KEY), 2))

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("out of memory\nmuch more text")

    for step in (lambda: track.prompt(KEY, CLICK), lambda: track.prompt(7, CLICK), lambda: next(track.carry(7))):
        with monkeypatch.context() as patch:
            patch.setattr(segmenter._video_model.memory_encoder, "forward", broken)
            with pytest.raises(ToolError, match="RuntimeError: out of memory") as error:
                step()
            assert "\n" not in str(error.value)
    for found, wanted in zip(track.carry(7), wanted_track.carry(7), strict=True):
        np.testing.assert_array_equal(found[1].state, wanted[1].state)
    for bad in (Prompt(), Prompt(clicks=(PixelClick(WIDTH, 0, True),)), Prompt(prior_mask=mask.T)):
        with pytest.raises(ToolError):
            track.prompt(KEY, bad)
    for index in (-1, COUNT):
        with pytest.raises(ToolError, match=f"no image {index} in a stack of 10"):
            track.prompt(index, CLICK)
        with pytest.raises(ToolError, match=f"no image {index}"):
            track.carry(index)
    with pytest.raises(ToolError, match="nothing to carry"):
        segmenter.track(stack).carry(KEY)


def test_images_of_two_sizes_and_images_that_cannot_be_read(segmenter: sam2.Sam2Segmenter, stack: list[Image]) -> None:
    small = Image(np.zeros((9, 8, 3), np.uint8), Geometry.plane_2d())
    track = segmenter.track([stack[0], small])
    track.prompt(0, CLICK)
    with pytest.raises(ToolError, match="image 1 has 8 x 9 pixels, others of the stack 56 x 40"):
        next(track.carry(0))

    class Damaged(Lazy):
        def __getitem__(self, index: Any) -> Any:
            if index == 1:
                raise InputError("slice 1 is cut off")
            return super().__getitem__(index)

    damaged = segmenter.track(Damaged(stack, 3))
    damaged.prompt(0, CLICK)
    with pytest.raises(InputError, match="cut off"):  # the file's fault, not the segmenter's
        next(damaged.carry(0))
