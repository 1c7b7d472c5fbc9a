"""What SAM, SAM2 and MedSAM2 share: check the prompts, batch them, bring the masks back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ibisagent.errors import InputError, ToolError
from ibisagent.segmenters.preprocess import Frame, Normalisation
from ibisagent.segmenters.protocol import Capabilities
from ibisagent.types import Image, Prediction, Prompt

if TYPE_CHECKING:
    import torch

__all__ = ["Embedding", "PromptedSegmenter", "check_prompt", "one_line", "to_prediction"]


def check_prompt(prompt: Prompt, capabilities: Capabilities, height: int, width: int) -> None:
    """Refuse a prompt that a segmenter cannot honour.

    Raises
    ------
    ibisagent.errors.ToolError
        If there is neither a click nor a box, something lies outside the image, an undeclared
        kind of prompt is used, or a prior has the wrong type or shape.
    """
    if not prompt.clicks and prompt.box is None:
        raise ToolError("the prompt has neither a click nor a box")
    if prompt.clicks and not capabilities.clicks:
        raise ToolError("this segmenter does not understand clicks")
    if capabilities.max_clicks is not None and len(prompt.clicks) > capabilities.max_clicks:
        raise ToolError(f"this segmenter takes at most {capabilities.max_clicks} clicks, not {len(prompt.clicks)}")
    for click in prompt.clicks:
        if not click.positive and not capabilities.negative_clicks:
            raise ToolError("this segmenter does not understand negative clicks")
        if not (0 <= click.x < width and 0 <= click.y < height):
            raise ToolError(f"click ({click.x}, {click.y}) lies outside the image of {width} x {height} pixels")
    box = prompt.box
    if box is not None:
        if not capabilities.boxes:
            raise ToolError("this segmenter does not understand boxes")
        if not (0 <= box.x0 <= box.x1 < width and 0 <= box.y0 <= box.y1 < height):
            raise ToolError(
                f"box ({box.x0}, {box.y0}, {box.x1}, {box.y1}) is inverted or lies outside "
                f"the image of {width} x {height} pixels"
            )
    if prompt.prior_mask is not None:
        if not capabilities.prior_mask:
            raise ToolError("this segmenter does not understand a prior mask")
        if prompt.prior_mask.dtype != np.bool_ or prompt.prior_mask.shape != (height, width):
            raise ToolError(
                f"the prior mask is {prompt.prior_mask.dtype} {prompt.prior_mask.shape}, not bool {(height, width)}"
            )


def to_prediction(low: torch.Tensor, frame: Frame, score: float | None, limit: float | None) -> Prediction:
    """Bring one mask of the decoder to the image's grid.

    Parameters
    ----------
    low
        ``float32`` (h, w) logits on the decoder's grid.
    frame
        How the image lies in the input.
    score
        The decoder's estimate of the mask's IoU, or None.
    limit
        Largest absolute logit of the returned state; None for no limit.
    """
    full = frame.to_image(low[None])[0]
    state = low if limit is None else low.clamp(-limit, limit)
    return Prediction(
        mask=np.ascontiguousarray((full > 0).cpu().numpy()),
        score=score,
        state=np.array(state.cpu().numpy(), dtype=np.float32, order="C"),
        probability=np.ascontiguousarray(full.sigmoid().cpu().numpy(), dtype=np.float32),
    )


@dataclass(frozen=True, eq=False)
class Embedding:
    """An encoded image: the encoder's features and how the image lies in the input."""

    features: tuple[torch.Tensor, ...]
    frame: Frame


class PromptedSegmenter:
    """A SAM-like transformers model behind our protocol. Subclasses say how it encodes.

    The mask is the best of the decoder's proposals (by its own predicted IoU) where a single first
    click leaves open what is meant; with more clicks, a box or a prior it is the decoder's single
    mask. Prompts of the same form are decoded together: padding them to one form would add tokens
    that the decoder attends to, and change the answer.

    Parameters
    ----------
    model
        The loaded model; it is moved to ``device`` and set to inference.
    name
        How ``--segmenter`` names it.
    weights_sha256
        Hash of its weights.
    layout, normalisation
        How images are laid out and normalised.
    device
        torch device.
    batch_size
        Most prompts decoded at once; bounds memory.
    """

    capabilities = Capabilities(clicks=True, negative_clicks=True, boxes=True, prior_mask=True)
    max_state_logit: float | None = None

    def __init__(
        self,
        model: Any,
        *,
        name: str,
        weights_sha256: str | None,
        layout: Literal["pad", "stretch"],
        normalisation: Normalisation,
        device: torch.device,
        batch_size: int = 16,
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, not {batch_size}")
        self.name = name
        self.weights_sha256 = weights_sha256
        self._model = model.to(device).eval()
        self._layout: Literal["pad", "stretch"] = layout
        self._normalisation = normalisation
        self._device = device
        self._batch_size = batch_size
        prompt_config = model.config.prompt_encoder_config
        self._size = int(prompt_config.image_size)
        self._state_side = 4 * (self._size // int(prompt_config.patch_size))

    def encode(self, image: Image) -> Embedding:
        """Run the image encoder once.

        Raises
        ------
        ibisagent.errors.ToolError
            If the encoder fails, for example for want of memory.
        """
        import torch

        frame = self.frame(image.height, image.width)
        try:
            with torch.inference_mode():
                return Embedding(self._encode(self.pixel_values(image)), frame)
        except Exception as error:
            raise ToolError(f"{self.name}: encoding failed: {one_line(error)}") from error

    def frame(self, height: int, width: int) -> Frame:
        """How an image of ``height`` x ``width`` pixels lies in the model's input."""
        return Frame.fit(height, width, self._size, self._layout)

    def pixel_values(self, image: Image) -> torch.Tensor:
        """The model's input for an image: ``float32`` (1, 3, size, size) on the model's device."""
        frame = self.frame(image.height, image.width)
        return frame.pixel_values(image.pixels, self._normalisation).to(self._device)

    def predict(self, embedding: Any, prompts: Sequence[Prompt]) -> list[Prediction]:
        """Decode a batch of prompts on one embedding, in order.

        Raises
        ------
        ibisagent.errors.ToolError
            If a prompt is not legal (see :func:`check_prompt`) or the decoder fails.
        """
        if not isinstance(embedding, Embedding):
            raise ToolError(f"{self.name}: not an embedding of this segmenter: {type(embedding).__name__}")
        groups: dict[tuple[int, bool, bool], list[int]] = defaultdict(list)
        for index, prompt in enumerate(prompts):
            self.check(prompt, embedding.frame)
            has_prior = prompt.prior_logits is not None or prompt.prior_mask is not None
            groups[len(prompt.clicks), prompt.box is not None, has_prior].append(index)
        found: dict[int, Prediction] = {}
        for members in groups.values():
            for start in range(0, len(members), self._batch_size):
                chunk = members[start : start + self._batch_size]
                try:
                    answers = self._decode(embedding, [prompts[i] for i in chunk])
                except ToolError:
                    raise
                except Exception as error:
                    raise ToolError(f"{self.name}: decoding failed: {one_line(error)}") from error
                found.update(zip(chunk, answers, strict=True))
        return [found[index] for index in range(len(prompts))]

    def check(self, prompt: Prompt, frame: Frame) -> None:
        """Refuse a prompt that is not legal on an image that lies so in the input.

        Raises
        ------
        ibisagent.errors.ToolError
            As :func:`check_prompt`, and if prior logits have another form than this segmenter's states.
        """
        try:
            check_prompt(prompt, self.capabilities, frame.height, frame.width)
        except ToolError as error:
            raise ToolError(f"{self.name}: {error}") from None
        prior = prompt.prior_logits
        if prior is None:
            return
        side = self._state_side
        if prior.shape != (side, side) or prior.dtype != np.float32 or not np.isfinite(prior).all():
            raise ToolError(
                f"{self.name}: prior logits must be finite float32 {(side, side)} as a prediction gave them, "
                f"not {prior.dtype} {prior.shape}"
            )

    def _decode(self, embedding: Embedding, prompts: Sequence[Prompt]) -> list[Prediction]:
        """Decode prompts of one form: same number of clicks, all or none with a box, all or none with a prior."""
        import torch

        frame, first, count = embedding.frame, prompts[0], len(prompts)
        inputs: dict[str, Any] = {"input_points": None, "input_labels": None, "input_boxes": None, "input_masks": None}
        if first.clicks:
            points = [[frame.to_input(c.x, c.y) for c in p.clicks] for p in prompts]
            labels = [[int(c.positive) for c in p.clicks] for p in prompts]
            inputs["input_points"] = torch.tensor(points, dtype=torch.float32, device=self._device)[:, None]
            inputs["input_labels"] = torch.tensor(labels, dtype=torch.int64, device=self._device)[:, None]
        if first.box is not None:
            corners = [
                [*frame.to_input(p.box.x0, p.box.y0), *frame.to_input(p.box.x1, p.box.y1)]
                for p in prompts
                if p.box is not None
            ]
            inputs["input_boxes"] = torch.tensor(corners, dtype=torch.float32, device=self._device)[:, None]
        has_prior = first.prior_logits is not None or first.prior_mask is not None
        if has_prior:
            priors = torch.stack([self._prior(p, frame) for p in prompts])
            inputs["input_masks"] = priors[:, None].to(self._device)
        multimask = len(first.clicks) == 1 and first.box is None and not has_prior

        with torch.inference_mode():
            # One image per prompt, as views: the only form in which each prompt may bring its own prior.
            features = tuple(f.expand(count, *f.shape[1:]) for f in embedding.features)
            out = self._model(image_embeddings=self._arrange(features), multimask_output=multimask, **inputs)
            logits, scores = out.pred_masks[:, 0].float(), out.iou_scores[:, 0].float()
            if not (torch.isfinite(logits).all() and torch.isfinite(scores).all()):
                raise ToolError(f"{self.name}: the decoder returned a value that is not a number")
            best = scores.argmax(dim=1)
            rows = torch.arange(count, device=logits.device)
            low, score = logits[rows, best], scores[rows, best].clamp(0.0, 1.0)
            return [to_prediction(low[i], frame, float(score[i]), self.max_state_logit) for i in range(count)]

    def _prior(self, prompt: Prompt, frame: Frame) -> torch.Tensor:
        import torch

        if prompt.prior_logits is not None:
            return torch.tensor(prompt.prior_logits)
        assert prompt.prior_mask is not None  # the caller grouped the prompts by this
        return frame.mask_logits(prompt.prior_mask, self._state_side)

    def _encode(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Features of (1, 3, size, size) pixel values, each (1, C, h, w)."""
        raise NotImplementedError

    def _arrange(self, features: tuple[torch.Tensor, ...]) -> Any:
        """Features in the form that the model's ``image_embeddings`` argument wants."""
        raise NotImplementedError


def one_line(error: Exception) -> str:
    """The kind of an error and the first line of its message."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
