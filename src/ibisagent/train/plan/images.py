"""Images as a model sees them: resized, cut into patches, merged into tokens."""

from __future__ import annotations

from dataclasses import dataclass

from ibisagent.train.plan.models import ModelSizes

__all__ = ["ImageSize", "image_size"]

_LEAST_PIXELS = 56 * 56


@dataclass(frozen=True)
class ImageSize:
    """One image after the model's own resizing.

    Parameters
    ----------
    height, width
        Pixels after resizing.
    patches
        Rows of the vision tower.
    tokens
        Rows of the language model, without the two that mark its start and end.
    window_pairs
        Sum over the attention windows of (patches in the window)^2: what a windowed block's attention costs.
    """

    height: int
    width: int
    patches: int
    tokens: int
    window_pairs: int


def image_size(sizes: ModelSizes, height: int, width: int, max_pixels: int) -> ImageSize:
    """Resize as Qwen's image processors do: multiples of patch x merge, at most `max_pixels`, shape kept.

    The rule itself is transformers' (``smart_resize``), so that the plan cannot drift from the processor.
    """
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    factor = sizes.patch * sizes.merge
    high, wide = smart_resize(height, width, factor, min_pixels=_LEAST_PIXELS, max_pixels=max_pixels)
    rows, columns = high // sizes.patch, wide // sizes.patch
    patches = rows * columns
    pairs = patches**2
    if sizes.window:
        side = sizes.window // sizes.patch  # windows are cut from the top left; the last of a row may be narrower
        pairs = sum(min(side, rows - y) ** 2 for y in range(0, rows, side)) * sum(
            min(side, columns - x) ** 2 for x in range(0, columns, side)
        )
    return ImageSize(high, wide, patches, patches // sizes.merge**2, pairs)
