"""NanoVLM's inputs: what turns chats with images into tensors, and how its coordinates are written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast
from transformers.feature_extraction_utils import BatchFeature
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import PILImageResampling
from transformers.processing_utils import ProcessorMixin

__all__ = ["CONTROL_TOKENS", "IMAGE_TOKEN", "NanoImageProcessor", "NanoProcessor", "cell_text", "load_processor"]

IMAGE_TOKEN = "<image>"

CONTROL_TOKENS = [IMAGE_TOKEN, "<|coordinate|>", "<|system|>", "<|user|>", "<|assistant|>"]
"""Words of the chat template that no text may contain."""


def cell_text(index: int, grid: int) -> str:
    """Text of one cell's centre, ``"x, y"`` with four decimals; cells count row by row.

    Parameters
    ----------
    index
        Of the cell, below ``grid ** 2``.
    grid
        Cells a side.
    """
    return f"{(index % grid + 0.5) / grid:.4f}, {(index // grid + 0.5) / grid:.4f}"


class NanoImageProcessor(PilBackend):
    """Stretch to the square (coordinates are relative to the image's sides anyway) and scale to [-1, 1]."""

    resample = PILImageResampling.BILINEAR
    image_mean = [0.5, 0.5, 0.5]
    image_std = [0.5, 0.5, 0.5]
    size = {"height": 256, "width": 256}
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True
    model_input_names = ["pixel_values"]


class NanoProcessor(ProcessorMixin):
    """Image processor and tokenizer; every ``<image>`` in the text becomes ``image_tokens`` placeholders.

    Parameters
    ----------
    image_processor, tokenizer
        The two parts.
    chat_template
        Jinja text; a chat's messages become one string.
    image_tokens
        Placeholders of one image, ``image_tokens_side ** 2`` of the model.
    """

    attributes = ["image_processor", "tokenizer"]
    image_processor_class = "AutoImageProcessor"
    tokenizer_class = "AutoTokenizer"

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        chat_template: str | None = None,
        image_tokens: int = 64,
        **kwargs: Any,
    ) -> None:
        self.image_token = IMAGE_TOKEN
        self.image_tokens = image_tokens
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    def __call__(self, images: Any = None, text: Any = None, **kwargs: Any) -> BatchFeature:
        """Images and texts as the model's inputs.

        Parameters
        ----------
        images
            A flat or nested list, in reading order.
        text
            One text or several, with one ``<image>`` for each image.
        kwargs
            For the tokenizer: ``return_tensors``, ``padding`` …

        Returns
        -------
        BatchFeature
            ``input_ids``, ``attention_mask`` and, where there are images, ``pixel_values`` (N, 3, S, S) in [-1, 1].

        Raises
        ------
        ValueError
            If the texts do not name as many images as there are.
        """
        kwargs.pop("videos", None)
        kwargs.pop("audio", None)
        return_tensors = kwargs.pop("return_tensors", None)
        texts = [text] if isinstance(text, str) else list(text or [])
        flat: list[Any] = []
        for item in images if isinstance(images, (list, tuple)) else ([] if images is None else [images]):
            flat.extend(item if isinstance(item, (list, tuple)) else [item])
        wanted = sum(t.count(self.image_token) for t in texts)
        if wanted != len(flat):
            raise ValueError(f"the text names {wanted} images, {len(flat)} were given")
        expanded = [t.replace(self.image_token, self.image_token * self.image_tokens) for t in texts]
        data = dict(self.tokenizer(expanded, return_tensors=return_tensors, **kwargs.pop("text_kwargs", {}), **kwargs))
        if flat:
            data.update(self.image_processor(flat, return_tensors=return_tensors))
        return BatchFeature(data, tensor_type=return_tensors)


def load_processor(folder: str | Path) -> NanoProcessor:
    """Load a processor that ``save_pretrained`` wrote; unlike ``AutoProcessor`` it needs no torchvision.

    ``processor_config.json`` says how many placeholders an image becomes, 64 if it does not.
    """
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    # Known as special, they cannot be forged: the policies break such words up in instructions and replies.
    tokenizer.add_special_tokens({"additional_special_tokens": CONTROL_TOKENS})
    template = Path(folder) / "chat_template.jinja"
    text = template.read_text(encoding="utf-8") if template.exists() else tokenizer.chat_template
    settings = Path(folder) / "processor_config.json"
    known = json.loads(settings.read_text(encoding="utf-8")) if settings.exists() else {}
    return NanoProcessor(
        NanoImageProcessor.from_pretrained(folder),
        tokenizer,
        chat_template=text,
        image_tokens=int(known.get("image_tokens", 64)),
    )
