"""SAM2's two faces in transformers: the video model has all weights, the image model shares those it needs."""

from __future__ import annotations

from typing import Any

__all__ = ["image_config", "image_model", "video_config"]


def video_config(content: dict[str, Any]) -> Any:
    """Make a ``Sam2VideoConfig`` from the content of a ``config.json``.

    Parameters
    ----------
    content
        The parsed file; it is left as it is.

    Returns
    -------
    transformers.Sam2VideoConfig
        With a mask decoder's configuration where transformers 5.17 reads the dictionary as a prompt encoder's, which
        lacks every setting that the file leaves to its default.
    """
    from transformers import Sam2VideoConfig
    from transformers.models.sam2_video.configuration_sam2_video import Sam2VideoMaskDecoderConfig

    decoder = content.get("mask_decoder_config")
    if isinstance(decoder, dict):
        content = {**content, "mask_decoder_config": Sam2VideoMaskDecoderConfig(**decoder)}
    return Sam2VideoConfig.from_dict(content)


def image_config(config: Any) -> Any:
    """The ``Sam2Config`` of the image model inside a ``Sam2VideoConfig``."""
    from transformers import Sam2Config

    parts = ("vision_config", "prompt_encoder_config", "mask_decoder_config")
    return Sam2Config(**{part: getattr(config, part).to_dict() for part in parts})


def image_model(video_model: Any) -> Any:
    """Build the ``Sam2Model`` inside a ``Sam2VideoModel``.

    Parameters
    ----------
    video_model
        The video model.

    Returns
    -------
    transformers.Sam2Model
        Its parameters are the video model's own, so that both take the memory of one, and move and change together.
    """
    import torch
    from transformers import Sam2Model

    with torch.device("meta"):
        model: Any = Sam2Model(image_config(video_model.config))
    state = video_model.state_dict(keep_vars=True)
    model.load_state_dict({name: state[name] for name in model.state_dict()}, assign=True)
    return model.eval()
