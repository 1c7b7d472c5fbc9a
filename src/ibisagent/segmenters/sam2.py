"""SAM2 and SAM2.1 through transformers: ``Sam2Model`` for images, ``Sam2VideoModel`` where its memory is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ibisagent.errors import InputError, ToolError
from ibisagent.segmenters.preprocess import IMAGENET
from ibisagent.segmenters.pretrained import (
    load_model,
    model_folder,
    model_type,
    pick_device,
    read_normalisation,
    require,
    weights_hash,
)
from ibisagent.segmenters.prompting import PromptedSegmenter
from ibisagent.segmenters.sam2_memory import image_model, video_config
from ibisagent.segmenters.sam2_track import Sam2Track
from ibisagent.types import Image

if TYPE_CHECKING:
    import torch

__all__ = ["Sam2Segmenter", "check_backbone", "make"]


class Sam2Segmenter(PromptedSegmenter):
    """A ``Sam2Model``: Hiera encoder with three feature levels, prompt encoder, mask decoder.

    Parameters
    ----------
    model
        The ``Sam2Model``.
    video_model
        ``Sam2VideoModel`` with the same weights (see :func:`ibisagent.segmenters.sam2_memory.image_model`) and those
        of the memory; None for a model of images alone, which declares no ``video``.
    settings
        As of :class:`~ibisagent.segmenters.prompting.PromptedSegmenter`.
    """

    max_state_logit = 32.0  # SAM2 was trained on priors clipped to this range

    def __init__(self, model: Any, *, video_model: Any = None, **settings: Any) -> None:
        super().__init__(model, **settings)
        self._video_model = None if video_model is None else video_model.to(self._device).eval()
        self.capabilities = replace(self.capabilities, video=video_model is not None)

    def track(self, images: Sequence[Image]) -> Sam2Track:
        """Begin to follow a target through neighbouring images, with SAM2's memory.

        Parameters
        ----------
        images
            Slices or frames of one size, in order; made on demand if the sequence does so.

        Raises
        ------
        ibisagent.errors.ToolError
            If the weights of the memory were not there: ``capabilities.video`` is False.
        """
        if self._video_model is None:
            raise ToolError(f"{self.name}: these weights are of single images; they have no memory for a stack")
        return Sam2Track(self, self._video_model, images)

    def _encode(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self._model.get_image_embeddings(pixel_values))

    def _arrange(self, features: tuple[torch.Tensor, ...]) -> Any:
        return list(features)


def check_backbone(config: Any, source: str) -> None:
    """Refuse a Hiera whose stage begins with a global-attention block where it also pools.

    transformers derives the pooled window from that block's window, which is zero there, and would
    divide by it at the first image.

    Parameters
    ----------
    config
        ``Sam2Config``.
    source
        Path or id, for the message.

    Raises
    ------
    ibisagent.errors.InputError
        If the configuration has this fault.
    """
    backbone = config.vision_config.backbone_config
    first = 0
    for stage, blocks in enumerate(backbone.blocks_per_stage):
        if 0 < stage <= backbone.num_query_pool_stages and first in backbone.global_attention_blocks:
            raise InputError(f"{source}: block {first} opens stage {stage} with global attention, which cannot run")
        first += blocks


def make(arg: str | None, device: str = "cpu", batch_size: int = 16) -> Sam2Segmenter:
    """Load SAM2 or SAM2.1.

    Parameters
    ----------
    arg
        Folder written by transformers, or hub id (``facebook/sam2.1-hiera-tiny``). With a folder of the video model,
        as the published ones are, the segmenter also follows targets through stacks of images.
    device
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"`` or ``"auto"``.
    batch_size
        Most prompts decoded at once.

    Raises
    ------
    ibisagent.errors.MissingExtraError
        If torch or transformers is not installed.
    ibisagent.errors.InputError
        If the model or the device cannot be used.
    """
    require("sam2")
    arg = arg or ""  # a spec without a colon, for which the search below has a message
    chosen = pick_device(device)
    folder = model_folder(arg, "sam2")
    video = None
    if model_type(folder) == "sam2_video":
        video = load_model("Sam2VideoModel", folder, frozenset({"sam2_video"}), video_config)
        model = image_model(video)
    else:
        model = load_model("Sam2Model", folder, frozenset({"sam2", "sam2_video"}))
    check_backbone(model.config, arg)
    return Sam2Segmenter(
        model,
        video_model=video,
        name=f"sam2:{arg}",
        weights_sha256=weights_hash(folder),
        layout="stretch",
        normalisation=read_normalisation(folder, IMAGENET),
        device=chosen,
        batch_size=batch_size,
    )
