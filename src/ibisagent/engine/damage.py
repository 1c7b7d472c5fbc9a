"""Masks to start from that are wrong: damaged ones of the target, and those of something else."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from ibisagent.metrics import iou

__all__ = ["damaged_mask", "other_mask"]

Mask = NDArray[np.bool_]


def other_mask(masks: Iterable[Mask], target: Mask, rng: np.random.Generator) -> Mask | None:
    """One of the masks that shows something else than the target (IoU below 0.2), or None if none does."""
    others = [m for m in masks if m.any() and iou(m, target) < 0.2]
    return others[int(rng.integers(len(others)))] if others else None


def damaged_mask(target: Mask, rng: np.random.Generator) -> Mask:
    """A plausible wrong mask of a target: grown, shrunk, shifted, cut, or with a blob too much.

    Both are ``bool`` (H, W); the target must not be empty, and the answer may be.
    """
    m = target.astype(np.uint8)
    size = min(m.shape)
    kind = int(rng.integers(4))
    if kind == 0:
        k = int(rng.integers(3, max(4, size // 12)))
        m = (
            cv2.dilate(m, np.ones((k, k), np.uint8))
            if rng.random() < 0.6
            else cv2.erode(m, np.ones((k // 2 + 1,) * 2, np.uint8))
        )
    elif kind == 1:
        dy, dx = (int(v) for v in rng.integers(-size // 10, size // 10 + 1, 2))
        m = cv2.warpAffine(m, np.array([[1, 0, dx], [0, 1, dy]], np.float64), m.shape[::-1], flags=cv2.INTER_NEAREST)
    elif kind == 2:
        ys, xs = np.nonzero(m)
        if rng.random() < 0.5:
            m[: int(np.quantile(ys, rng.uniform(0.2, 0.7)))] = 0
        else:
            m[:, : int(np.quantile(xs, rng.uniform(0.2, 0.7)))] = 0
    else:
        ys, xs = np.nonzero(m)
        i = int(rng.integers(len(xs)))
        cv2.circle(m, (int(xs[i]), int(ys[i])), int(rng.integers(8, max(9, size // 5))), 1, -1)
    return m.astype(bool)
