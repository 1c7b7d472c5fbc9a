"""A rule-based segmenter for tests: region growing, no weights, no learning.

It is declared so (``name = "rules"``, ``weights_sha256 = None``), gives the same answer on every
machine and runs in milliseconds. It follows visible grey-level borders and knows no anatomy: use it
to test a loop, never to judge one.

The rule: beginning with the prior mask (or nothing), a positive click adds the connected region
around it whose smoothed grey level is within :data:`TOLERANCE` of the clicked one; a negative click
takes such a region away. Where a region reaches a click of the other sign, each pixel belongs to the
nearer click. A box cuts everything outside it; without a positive click its centre counts as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from ibisagent.errors import InputError, ToolError
from ibisagent.segmenters.protocol import Capabilities
from ibisagent.types import Image, PixelClick, Prediction, Prompt

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TOLERANCE", "RulesSegmenter", "make"]

TOLERANCE = 24
"""Grey levels (of 255) that a region may differ from its seed."""


class RulesSegmenter:
    """Region growing behind the protocol; an embedding is the smoothed grey image."""

    name = "rules"
    capabilities = Capabilities(clicks=True, negative_clicks=True, boxes=True, prior_mask=True)
    weights_sha256: str | None = None

    def encode(self, image: Image) -> Any:
        """Smoothed ``uint8`` (H, W) grey levels."""
        gray = np.rint(image.pixels.astype(np.float64).mean(axis=2)).astype(np.uint8)
        return cv2.blur(gray, (3, 3)).reshape(gray.shape)

    def predict(self, embedding: Any, prompts: Sequence[Prompt]) -> list[Prediction]:
        """Grow every prompt's region.

        Raises
        ------
        ToolError
            If a prompt is empty, leaves the image, or its prior has another shape.
        """
        return [Prediction(mask=_grow(embedding, prompt)) for prompt in prompts]


def make(arg: str | None = None, **options: Any) -> RulesSegmenter:
    """``--segmenter rules``; it has no options, and runs where the caller runs."""
    if arg is not None:
        raise InputError(f"the segmenter 'rules' takes no argument, not {arg!r}")
    return RulesSegmenter()


def _grow(gray: NDArray[np.uint8], prompt: Prompt) -> NDArray[np.bool_]:
    height, width = gray.shape
    clicks, box = list(prompt.clicks), prompt.box
    if not clicks and box is None:
        raise ToolError("the prompt has neither a click nor a box")
    if any(not (0 <= c.x < width and 0 <= c.y < height) for c in clicks):
        raise ToolError(f"a click lies outside the image of {width} x {height} pixels")
    if box is not None and not (0 <= box.x0 <= box.x1 < width and 0 <= box.y0 <= box.y1 < height):
        raise ToolError(f"the box is inverted or leaves the image of {width} x {height} pixels")
    prior = prompt.prior_mask
    if prior is not None and (prior.dtype != np.bool_ or prior.shape != gray.shape):
        raise ToolError(f"the prior mask is {prior.dtype} {prior.shape}, not bool {gray.shape}")
    if box is not None and not any(c.positive for c in clicks):
        clicks.insert(0, PixelClick((box.x0 + box.x1) // 2, (box.y0 + box.y1) // 2, True))
    mask = np.zeros(gray.shape, bool) if prior is None else prior.copy()
    rows, cols = np.ogrid[:height, :width]
    for click in clicks:
        region = _region(gray, click)
        distance = (cols - click.x) ** 2 + (rows - click.y) ** 2
        for other in clicks:
            if other.positive != click.positive and (other.x, other.y) != (click.x, click.y):
                region &= distance < (cols - other.x) ** 2 + (rows - other.y) ** 2
        mask = mask | region if click.positive else mask & ~region
    if box is not None:
        inside = (cols >= box.x0) & (cols <= box.x1) & (rows >= box.y0) & (rows <= box.y1)
        mask &= inside
    return np.ascontiguousarray(mask)


def _region(gray: NDArray[np.uint8], click: PixelClick) -> NDArray[np.bool_]:
    # floodFill marks in a mask that is one pixel larger on every side.
    marks = np.zeros((gray.shape[0] + 2, gray.shape[1] + 2), np.uint8)
    flags = 4 | cv2.FLOODFILL_FIXED_RANGE | cv2.FLOODFILL_MASK_ONLY | (1 << 8)
    cv2.floodFill(gray.copy(), marks, (click.x, click.y), 0, TOLERANCE, TOLERANCE, flags)
    return marks[1:-1, 1:-1].astype(bool)
