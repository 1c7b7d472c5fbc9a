"""Figures of the final mask against the reference: overlap, contour, and what was marked of absent targets."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ibisagent.evaluate.figure_table import OVERLAP_LEVELS
from ibisagent.evaluate.result import CaseResult
from ibisagent.metrics import Overlap, SurfaceDistances, entity_counts, overlap
from ibisagent.rle import decode_mask

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["mask_figures"]

_NSD_TOLERANCE_MM = 2.0


_Found = dict[str, tuple[float, float]]


def mask_figures(result: CaseResult) -> _Found:
    """Numbers and weights of the sections overlap, surface and refusals, but for ``errors``.

    Parameters
    ----------
    result
        Scored. Figures that need the masks themselves are missing where `result` has scores but no masks.

    Raises
    ------
    InputError
        If a mask of the record is damaged.
    ValueError
        If the final mask and the reference differ in size.
    """
    return _absent(result) if result.absent else _present(result)


def _absent(result: CaseResult) -> _Found:
    scores = result.scores
    found: _Found = {"right_refusals": (float(bool(scores and scores.right_refusal)), 1.0)}
    marked = _final_mask(result)
    empty = marked is not None and not marked.any()
    found["specificity"] = (float(empty), 1.0)
    found["giou_all"] = (float(empty), 1.0)
    if marked is not None:
        area = int(np.count_nonzero(marked))
        found["absent_area"] = (area / marked.size, 1.0)
        if area:
            found["ciou_all"] = (0.0, float(area))
            found["entity_f1"] = (0.0, 1.0)
    return found


def _present(result: CaseResult) -> _Found:
    iou, dice, scores = result.iou, result.dice, result.scores
    assert iou is not None and dice is not None  # a present case has an overlap
    found: _Found = {name: (value, 1.0) for name, value in (("iou", iou), ("dice", dice), ("giou_all", iou))}
    found |= {f"p_at_{level}": (float(iou >= level / 100), 1.0) for level in OVERLAP_LEVELS}
    found["false_refusals"] = (float(bool(scores and scores.false_refusal)), 1.0)
    failed = scores is None or bool(result.error)
    if result.target_mask is None:
        if failed:  # the sizes are not known, but what an empty mask is worth does not depend on them
            found |= _of_nothing()
            if result.spacing_mm is not None:
                found["nsd_2mm"] = (0.0, 1.0)
        return found
    target = decode_mask(result.target_mask)
    final = None if failed else _final_mask(result)
    if final is None:
        final = np.zeros_like(target)
    if final.shape != target.shape:
        raise ValueError(f"the final mask is {final.shape}, the reference {target.shape}")
    counts = overlap(final, target)
    found |= _of_counts(counts) if counts.prediction else _of_nothing()
    found["ciou"] = found["ciou_all"] = (float(counts.both), float(counts.union))
    if result.spacing_mm is not None:
        found |= _surface(final, target, result.spacing_mm)
    return found


def _of_nothing() -> _Found:
    """Figures of an empty mask for a present target, whatever its size."""
    found = {"precision": 0.0, "recall": 0.0, "area_error": 1.0, "area_bias": -1.0, "sensitivity": 0.0}
    return {**{name: (value, 1.0) for name, value in found.items()}, "entity_f1": (0.0, 1.0)}


def _of_counts(counts: Overlap) -> _Found:
    """Figures of a mask that has pixels."""
    entities, bias = entity_counts(counts), counts.relative_size_error
    found = {
        "precision": counts.precision,
        "recall": counts.recall,
        "area_error": abs(bias),
        "area_bias": bias,
        "sensitivity": 1.0,
    }
    ratio = (2.0 * entities.found, float(entities.weight))
    return {**{name: (value, 1.0) for name, value in found.items()}, "entity_f1": ratio}


def _surface(final: NDArray[np.bool_], target: NDArray[np.bool_], spacing_mm: tuple[float, float]) -> _Found:
    if not final.any():
        row, column = (size * step for size, step in zip(final.shape, spacing_mm, strict=True))
        return {"nsd_2mm": (0.0, 1.0), "hd95_mm": (math.hypot(row, column), 1.0)}
    between = SurfaceDistances.between(final, target, spacing_mm, elements="surfels")
    nsd, hd95 = between.nsd(_NSD_TOLERANCE_MM), between.hd95()
    return {"nsd_2mm": (nsd, 1.0), "hd95_mm": (hd95, 1.0), "hd95_mm_nonempty": (hd95, 1.0)}


def _final_mask(result: CaseResult) -> NDArray[np.bool_] | None:
    """``bool`` (H, W); None after an error and where nothing was played."""
    episode = result.episode
    if result.error or episode is None or episode.final_mask is None:
        return None
    return decode_mask(episode.final_mask)
