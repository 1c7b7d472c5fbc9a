"""Numbers for one pair of masks, or for many: overlap, surfaces, and curves over an agent's steps.

Every function says its convention, because trusted implementations differ where conventions do; docs/evaluation has the
table of what equals which library. Two rules hold everywhere: the first mask is the prediction and the second the
target wherever the order matters, and two empty masks agree (IoU, Dice and NSD 1, distances 0).
"""

from __future__ import annotations

from ibisagent.metrics.curves import NOC_CAP, auc, auc_cvpr25, clicks_to_reach, noc
from ibisagent.metrics.masks import Mask
from ibisagent.metrics.overlap import Overlap, dice, iou, overlap, precision, recall
from ibisagent.metrics.pooled import (
    IOU_THRESHOLDS,
    EntityCounts,
    entity_counts,
    entity_f1,
    mean_iou,
    pooled_iou,
    share_at,
)
from ibisagent.metrics.surface import SurfaceDistances, assd, hausdorff, hd95, nsd

__all__ = [
    "IOU_THRESHOLDS",
    "NOC_CAP",
    "EntityCounts",
    "Mask",
    "Overlap",
    "SurfaceDistances",
    "assd",
    "auc",
    "auc_cvpr25",
    "clicks_to_reach",
    "dice",
    "entity_counts",
    "entity_f1",
    "hausdorff",
    "hd95",
    "iou",
    "mean_iou",
    "noc",
    "nsd",
    "overlap",
    "pooled_iou",
    "precision",
    "recall",
    "share_at",
]
