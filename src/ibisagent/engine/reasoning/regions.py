"""Parts of an image and of a mask: ninths, connected pieces, holes, the rim. What facts are measured with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ibisagent.engine.reasoning.terse import where_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]

__all__ = [
    "NINTHS",
    "MaskRegion",
    "count_pieces",
    "direction",
    "dominant_ninth",
    "grey_values",
    "ninths",
    "patch",
    "pieces_of",
]

NINTHS = tuple(where_text(column / 3 + 0.1, row / 3 + 0.1) for row in range(3) for column in range(3))
"""Names of the nine parts of an image, row by row."""

_SPECK = 0.01
"""Pieces and holes below this share of the mask are specks: not counted."""


def grey_values(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], bool]:
    """Brightness ``uint8`` (H, W) of an image ``uint8`` (H, W, 3), and whether it has no colours."""
    import cv2

    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return np.ascontiguousarray(red), True
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), False


def ninths(plane: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """The image in nine parts, in the order of NINTHS; borders as :func:`where_text` has them."""
    (height, width) = plane.shape
    rows, columns = (0, -(-height // 3), -(-2 * height // 3), height), (0, -(-width // 3), -(-2 * width // 3), width)
    return [plane[rows[r] : rows[r + 1], columns[c] : columns[c + 1]] for r in range(3) for c in range(3)]


class MaskRegion:
    """The mask's box with a margin, so that the costly steps see no more pixels than they need."""

    def __init__(self, mask: Mask) -> None:
        import cv2

        self.shape: tuple[int, int] = (mask.shape[0], mask.shape[1])
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        self.y0, self.y1, self.x0, self.x1 = int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])
        self.ring_px = max(3, round(0.02 * max(mask.shape)))
        margin = self.ring_px + 1
        self.top, self.left = self.y0 - margin, self.x0 - margin
        bottom, right = self.y1 + margin + 1, self.x1 + margin + 1
        height, width = self.shape
        self.cut = np.s_[max(0, self.top) : min(height, bottom), max(0, self.left) : min(width, right)]
        inner = np.ascontiguousarray(mask[self.cut]).view(np.uint8)
        # Beyond the image is outside: a mask at the edge has a border there.
        pads = (max(0, -self.top), max(0, bottom - height), max(0, -self.left), max(0, right - width))
        self.padded = cv2.copyMakeBorder(inner, *pads, cv2.BORDER_CONSTANT, value=0)
        self.inner = inner
        self.area = int(cv2.countNonZero(inner))
        self.mask = mask
        self.labels, self.sizes = _pieces(self.padded, 8)
        self.pieces = max(1, count_pieces(self.sizes, self.area))
        # The padding is one with the outside: what a fill from the corner does not reach is a hole.
        filled = self.padded.copy()
        cv2.floodFill(filled, None, (0, 0), 1)
        self.gaps = filled == 0
        has_gap = cv2.countNonZero(filled) < filled.size
        self.holes = count_pieces(_pieces(1 - filled, 4)[1], self.area) if has_gap else 0
        self.rim = self.padded - cv2.erode(self.padded, np.ones((3, 3), np.uint8))


def pieces_of(mask: Mask) -> int:
    """Number of connected pieces of a non-empty ``bool`` (H, W) mask, specks left out."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    cut = np.ascontiguousarray(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    return count_pieces(_pieces(cut.view(np.uint8), 8)[1], int(np.count_nonzero(cut)))


def count_pieces(sizes: NDArray[np.int32], area: int) -> int:
    """How many pieces of a mask with so many pixels are more than specks."""
    return int((sizes >= max(4, _SPECK * area)).sum())


def _pieces(binary: NDArray[np.uint8], connectivity: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Labels of the connected pieces, from 1, and their sizes."""
    import cv2

    _, labels, stats, _ = cv2.connectedComponentsWithStats(binary, connectivity=connectivity)
    return labels, stats[1:, cv2.CC_STAT_AREA]


def dominant_ninth(binary: NDArray[np.uint8]) -> str | None:
    """The ninth of the image that holds more than half of a region."""
    import cv2

    parts = [cv2.countNonZero(part) for part in ninths(binary)]
    return NINTHS[int(np.argmax(parts))] if max(parts) > 0.55 * sum(parts) else None


def patch(grey: NDArray[np.uint8], x: int, y: int, radius: int) -> NDArray[np.uint8]:
    """The square around a pixel (x, y), cut off at the image's edge."""
    return grey[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1]


def direction(dx: int, dy: int) -> str:
    """Direction of a step in pixels (y down): one word, or two where neither axis leads by far."""
    across, down = ("left" if dx < 0 else "right"), ("above" if dy < 0 else "below")
    if abs(dx) > 2 * abs(dy):
        return across
    return down if abs(dy) > 2 * abs(dx) else f"{down} {across}"
