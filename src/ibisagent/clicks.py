"""The simulated expert's click: where a person who knows the target would click next.

The rule of the paper (its ancestor is Xu et al. 2016): take the region that the mask misses and the
region that it covers too much; in the one with more pixels, click on the pixel that lies deepest,
that is farthest from the region's border, where the image's edge is a border too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ibisagent.types import PixelClick

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["deepest_point", "next_click"]


def next_click(current: NDArray[np.bool_] | None, target: NDArray[np.bool_]) -> PixelClick | None:
    """The expert's next click, or None if nothing is wrong.

    Parameters
    ----------
    current
        ``bool`` (H, W) mask so far; None counts as empty.
    target
        ``bool`` (H, W) reference mask.

    Returns
    -------
    PixelClick or None
        Positive in a missed region, negative in an excess region. Ties go to the missed region, and
        among equally deep pixels to the first in row-major order, so that the answer is unique.

    Raises
    ------
    ValueError
        If a mask is not bool (H, W) or the shapes differ.
    """
    if target.dtype != np.bool_ or target.ndim != 2:
        raise ValueError(f"target must be bool (H, W), not {target.dtype} {target.shape}")
    if current is None:
        current = np.zeros_like(target)
    if current.dtype != np.bool_ or current.shape != target.shape:
        raise ValueError(f"current must be bool {target.shape}, not {current.dtype} {current.shape}")
    missed, excess = target & ~current, current & ~target
    num_missed, num_excess = int(np.count_nonzero(missed)), int(np.count_nonzero(excess))
    if num_missed == num_excess == 0:
        return None
    positive = num_missed >= num_excess
    x, y = deepest_point(missed if positive else excess)
    return PixelClick(x, y, positive)


def deepest_point(region: NDArray[np.bool_]) -> tuple[int, int]:
    """Pixel (x, y) of a ``bool`` (H, W) region with the largest exact Euclidean distance to its outside.

    What lies beyond the image is outside. Ties go to the first pixel in row-major order.

    Raises
    ------
    ValueError
        If the region is empty.
    """
    if not region.any():
        raise ValueError("an empty region has no deepest point")
    import cv2  # half a tenth of a second to import: only where a click is wanted

    # One pixel of outside on every side makes the image's edge a border.
    padded = np.pad(region, 1).astype(np.uint8)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    y, x = np.unravel_index(int(np.argmax(depth)), depth.shape)
    return int(x) - 1, int(y) - 1
