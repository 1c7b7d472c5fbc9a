"""COCO's segmentations as masks: polygons, and run lengths compressed or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from ibisagent.errors import InputError
from ibisagent.rle import Rle, decode_mask

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["fill_polygon", "segmentation_mask"]

_FAR = 1e7
"""Coordinates beyond this are no place near an image; NaN fails the comparison too."""


def fill_polygon(points: Sequence[float], height: int, width: int) -> NDArray[np.bool_]:
    """Fill a closed polygon.

    Parameters
    ----------
    points
        x0, y0, x1, y1 … as COCO has them: pixel (0, 0) covers the square from 0 to 1, and points may lie outside.
    height, width
        Of the mask.

    Returns
    -------
    NDArray of bool
        (H, W); True where a pixel's centre lies inside, by the even-odd rule.

    Raises
    ------
    InputError
        If there are fewer than three points, half a point, or a value that is not finite (or absurd).
    """
    if len(points) < 6 or len(points) % 2 or not all(abs(v) < _FAR for v in points):
        raise InputError("a polygon needs three points or more, each with x and y")
    xy = np.asarray(points, np.float64).reshape(-1, 2)
    x0, y0 = xy[:, 0], xy[:, 1]
    x1, y1 = np.roll(x0, -1), np.roll(y0, -1)
    # Rows whose centre line an edge crosses, top end included and bottom end not, so that corners count once.
    top, bottom = np.minimum(y0, y1), np.maximum(y0, y1)
    first = np.clip(np.ceil(top - 0.5), 0, height).astype(np.int64)
    count = np.clip(np.ceil(bottom - 0.5), 0, height).astype(np.int64) - first
    edge = np.repeat(np.arange(len(xy)), count)
    if not len(edge):
        return np.zeros((height, width), bool)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    share = (row + 0.5 - y0[edge]) / (y1[edge] - y0[edge])
    x = x0[edge] + share * (x1[edge] - x0[edge])
    column = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
    # Every crossing turns all pixels to its right: a running sum counts how often.
    turns = np.zeros((height, width + 1), np.int64)
    np.add.at(turns, (row, column), 1)
    return np.ascontiguousarray(np.cumsum(turns[:, :width], axis=1) % 2 == 1)


def segmentation_mask(segmentation: Any, height: int, width: int) -> NDArray[np.bool_]:
    """Mask of an annotation's ``segmentation``.

    Parameters
    ----------
    segmentation
        A list of polygons (united), or ``{"size": [h, w], "counts": …}`` with a list of column-major runs, zeros
        first, or their compressed text.
    height, width
        Of the mask.

    Returns
    -------
    NDArray of bool
        (H, W).

    Raises
    ------
    InputError
        If it is neither, is damaged, or is made for another size.
    """
    if isinstance(segmentation, list):
        mask = np.zeros((height, width), bool)
        for polygon in segmentation:
            if not isinstance(polygon, list) or not all(isinstance(v, int | float) for v in polygon):
                raise InputError("its segmentation is neither polygons nor runs")
            mask |= fill_polygon(polygon, height, width)
        return mask
    if not isinstance(segmentation, dict):
        raise InputError("its segmentation is neither polygons nor runs")
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if size != [height, width] and size != (height, width):
        raise InputError(f"its runs are for the size {size}, but the image is {[height, width]} (height, width)")
    if isinstance(counts, str):
        try:
            return decode_mask(Rle(size=(height, width), counts=counts))
        except ValidationError:
            raise InputError("its runs are damaged") from None
    if not isinstance(counts, list) or not all(type(n) is int and 0 <= n <= height * width for n in counts):
        raise InputError("its segmentation is neither polygons nor runs")
    if sum(counts) != height * width:
        raise InputError(f"its runs do not fill {height} x {width} pixels")
    values = (np.arange(len(counts)) & 1).astype(bool)
    return np.ascontiguousarray(np.repeat(values, counts).reshape((height, width), order="F"))
