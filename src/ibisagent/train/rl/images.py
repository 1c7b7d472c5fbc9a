"""Whether every image of a batch reaches the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ibisagent.errors import PolicyError

if TYPE_CHECKING:
    from ibisagent.train.tokens import Renderer

__all__ = ["check_images", "num_features"]


def num_features(renderer: Renderer, inputs: Mapping[str, Any]) -> int:
    """Image tokens that a batch's pixel values become: what the model will make of them, not what the ids say."""
    grid, pixels = inputs.get("image_grid_thw"), inputs.get("pixel_values")
    if grid is not None:
        return int((grid.prod(-1) // renderer.processor.image_processor.merge_size**2).sum())
    return 0 if pixels is None else len(pixels) * int(getattr(renderer.processor, "image_tokens", 0))


def check_images(placeholders: int, features: int, num_images: int, has_pixels: bool) -> None:
    """Every image of a batch must reach the model; trl and transformers may drop them without a word.

    Parameters
    ----------
    placeholders
        Image tokens in the ids.
    features
        Image tokens that the pixel values will become.
    num_images
        Pictures that the runs were shown.
    has_pixels
        Whether the batch holds pixel values.

    Raises
    ------
    PolicyError
        If they do not agree.
    """
    if num_images and not has_pixels:
        raise PolicyError(f"a batch with {num_images} images reached the model without pixel values")
    if placeholders != features:
        raise PolicyError(f"{placeholders} image tokens for {features} image features of {num_images} images")
