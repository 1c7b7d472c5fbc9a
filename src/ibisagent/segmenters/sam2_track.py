"""Follow a target through a stack of images with SAM2's memory, through transformers' ``Sam2VideoModel``.

The library's session does the work; what it computes is what it computes for a whole video that is propagated from the
prompted frames, forward and then backward, in one session. Added here is what a stack of slices needs: images are read
when their turn comes, and what no later slice looks at is dropped, so that memory does not grow with the stack.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ibisagent.errors import ToolError
from ibisagent.segmenters.preprocess import Frame
from ibisagent.segmenters.prompting import PromptedSegmenter, one_line, to_prediction
from ibisagent.types import Image, PixelClick, Prediction, Prompt

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

__all__ = ["Sam2Track"]

_TARGET = 1  # the session's name of the one target
_SLOT = 0  # where the session keeps it


class _Frames:
    """The session's frames: it asks for their number and for one of them; this holds one at a time."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._index = -1
        self._values: torch.Tensor | None = None

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> torch.Tensor | None:
        if index != self._index:
            raise KeyError(index)
        return self._values

    def hold(self, index: int, values: torch.Tensor | None) -> None:
        """Keep the one frame that the session may look at."""
        self._index, self._values = index, values


class Sam2Track:
    """A :class:`ibisagent.segmenters.protocol.Track` on a ``Sam2VideoModel``.

    A prompted image is one of SAM2's conditioning frames: the memory of every image looks at all of them (or at the
    nearest, where the model's configuration limits them), and at the six images that were carried just before.

    Parameters
    ----------
    segmenter
        Prepares the images, checks the prompts and refines given masks.
    model
        ``Sam2VideoModel`` on the segmenter's device.
    images
        Images of one size.
    """

    def __init__(self, segmenter: PromptedSegmenter, model: Any, images: Sequence[Image]) -> None:
        from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

        self._segmenter = segmenter
        self._model = model
        self._images = images
        self._frames = _Frames(len(images))
        device = model.device
        self._session: Any = Sam2VideoInferenceSession(
            inference_device=device, inference_state_device=device, video_storage_device=device, dtype=model.dtype
        )
        self._session.processed_frames = self._frames
        self._session.obj_id_to_idx(_TARGET)
        # What the session remembers: "cond_frame_outputs" of prompted images, "non_cond_frame_outputs" of carried ones.
        self._outputs: dict[str, dict[int, Any]] = self._session.output_dict_per_obj[_SLOT]
        self._size: tuple[int, int] | None = None
        self._prompted: dict[int, Prediction] = {}
        # As far back as an image looks: its spatial memories and, further, its pointers to the object.
        self._reach = max(int(model.num_maskmem), int(model.config.max_object_pointers_in_encoder))

    def prompt(self, index: int, prompt: Prompt) -> Prediction:
        """Say what the target is on one image. See :meth:`ibisagent.segmenters.protocol.Track.prompt`."""
        self._check_index(index)
        image = self._read(index)
        frame = self._segmenter.frame(image.height, image.width)
        mask = self._given_mask(prompt, image, frame)
        former = {name: part.pop(index, None) for name, part in self._outputs.items()}
        # The library treats an image that it has tracked as a correction and keeps it among the passing memories.
        tracked = self._session.frames_tracked_per_obj[_SLOT].pop(index, None)
        try:
            if mask is not None:
                self._session.add_mask_inputs(_SLOT, index, self._mask_input(mask))
            else:
                self._session.add_point_inputs(_SLOT, index, self._point_inputs(prompt, frame))
            self._session.obj_with_new_inputs = [_TARGET]
            prediction = self._forward(index, image, reverse=False)
        except BaseException:
            for name, part in self._outputs.items():
                part.pop(index, None)
                if former[name] is not None:
                    part[index] = former[name]
            if tracked is not None:
                self._session.frames_tracked_per_obj[_SLOT][index] = tracked
            raise
        finally:
            self._session.obj_with_new_inputs = []
            self._session.remove_mask_inputs(_SLOT, index)
            self._session.remove_point_inputs(_SLOT, index)
        if mask is not None:  # the model's own copy went through its coarser grid
            prediction = replace(prediction, mask=mask.copy(), score=None, probability=None)
        self._prompted[index] = prediction
        return _copy(prediction)

    def carry(self, start: int, *, reverse: bool = False) -> Iterator[tuple[int, Prediction]]:
        """Carry the target on from one image. See :meth:`ibisagent.segmenters.protocol.Track.carry`."""
        self._check_index(start)
        if not self._prompted:
            raise ToolError(f"{self._segmenter.name}: nothing to carry: no image of the stack was prompted")
        step = -1 if reverse else 1
        return self._carry(range(start + step, -1 if reverse else len(self._frames), step), reverse)

    def _carry(self, indices: range, reverse: bool) -> Iterator[tuple[int, Prediction]]:
        for index in indices:
            if index in self._prompted:
                yield index, _copy(self._prompted[index])
            else:
                prediction = self._forward(index, None, reverse=reverse)
                self._forget(index - indices.step * self._reach)
                yield index, prediction

    def _forget(self, index: int) -> None:
        """Drop a carried image that this run has left behind, unless a run from a prompted image will look at it."""
        if all(abs(index - prompted) >= self._reach for prompted in self._prompted):
            self._outputs["non_cond_frame_outputs"].pop(index, None)

    def _check_index(self, index: int) -> None:
        if not 0 <= index < len(self._frames):
            raise ToolError(f"{self._segmenter.name}: no image {index} in a stack of {len(self._frames)}")

    def _read(self, index: int) -> Image:
        image = self._images[index]
        size = (image.height, image.width)
        if self._size is None:
            self._size = size
        elif size != self._size:
            raise ToolError(
                f"{self._segmenter.name}: image {index} has {size[1]} x {size[0]} pixels, others of the stack "
                f"{self._size[1]} x {self._size[0]}"
            )
        return image

    def _given_mask(self, prompt: Prompt, image: Image, frame: Frame) -> NDArray[np.bool_] | None:
        """The mask that is the truth on the image, or None if clicks and box are for the video model to answer."""
        has_points = bool(prompt.clicks) or prompt.box is not None
        has_prior = prompt.prior_mask is not None or prompt.prior_logits is not None
        if has_points and has_prior:
            return self._segmenter.predict(self._segmenter.encode(image), [prompt])[0].mask
        if not has_prior:
            self._segmenter.check(prompt, frame)
            return None
        # The check wants something to point at; the prior is all that is looked at here.
        self._segmenter.check(replace(prompt, clicks=(PixelClick(0, 0, True),)), frame)
        if prompt.prior_logits is None:
            return prompt.prior_mask
        import torch

        return to_prediction(torch.tensor(prompt.prior_logits), frame, None, None).mask

    def _mask_input(self, mask: NDArray[np.bool_]) -> torch.Tensor:
        """``float32`` (1, 1, size, size) of zeros and ones, as the library's processor makes it."""
        import torch
        import torch.nn.functional as F

        side = self._model.image_size
        x = torch.tensor(mask, dtype=torch.float32)[None, None]
        x = F.interpolate(x, (side, side), mode="bilinear", align_corners=False, antialias=True)
        # A target so thin that it covers half of no pixel would pass for absent; its fullest pixels stand for it.
        return (x >= x.amax().clamp(1e-6, 0.5)).float()

    def _point_inputs(self, prompt: Prompt, frame: Frame) -> dict[str, torch.Tensor]:
        """Clicks and box as points (1, 1, n, 2) on the input and labels (1, 1, n): 0, 1, and 2, 3 for the corners."""
        import torch

        points = [frame.to_input(click.x, click.y) for click in prompt.clicks]
        labels = [int(click.positive) for click in prompt.clicks]
        if (box := prompt.box) is not None:
            points = [frame.to_input(box.x0, box.y0), frame.to_input(box.x1, box.y1), *points]
            labels = [2, 3, *labels]
        return {
            "point_coords": torch.tensor(points, dtype=torch.float32)[None, None],
            "point_labels": torch.tensor(labels, dtype=torch.int32)[None, None],
        }

    def _forward(self, index: int, image: Image | None, *, reverse: bool) -> Prediction:
        """Run the model on one image; `image` is read if need be."""
        import torch

        is_new = self._session.cache.get_vision_features(index) is None
        if is_new and image is None:
            image = self._read(index)
        assert self._size is not None  # something was prompted, hence read
        scores: list[Any] = []
        # The library's output leaves the estimates of the mask's quality out.
        hook = self._model.mask_decoder.register_forward_hook(lambda module, args, output: scores.append(output[1]))
        try:
            with torch.inference_mode():
                if is_new and image is not None:
                    self._frames.hold(index, self._segmenter.pixel_values(image)[0])
                out = self._model(self._session, frame_idx=index, reverse=reverse)
                low, present = out.pred_masks[0, 0].float(), bool(out.object_score_logits.flatten()[0] > 0)
                score = float(scores[-1].max().clamp(0.0, 1.0))
                if not torch.isfinite(low).all():
                    raise ToolError(f"{self._segmenter.name}: the decoder returned a value that is not a number")
                frame, limit = self._segmenter.frame(*self._size), self._segmenter.max_state_logit
                prediction = to_prediction(low, frame, score if present else None, limit)
        except BaseException as error:
            self._outputs["non_cond_frame_outputs"].pop(index, None)  # half a memory
            if isinstance(error, ToolError) or not isinstance(error, Exception):
                raise
            raise ToolError(f"{self._segmenter.name}: tracking failed: {one_line(error)}") from error
        finally:
            hook.remove()
            self._frames.hold(-1, None)
        for kept in self._outputs.values():
            if index in kept:  # megabytes that only this step needed
                kept[index].pop("high_res_masks", None)
                kept[index].pop("pred_masks", None)
        return prediction


def _copy(prediction: Prediction) -> Prediction:
    """A prediction that shares no array with the one that is kept."""
    state, probability = prediction.state, prediction.probability
    return Prediction(
        mask=prediction.mask.copy(),
        score=prediction.score,
        state=None if state is None else state.copy(),
        probability=None if probability is None else probability.copy(),
    )
