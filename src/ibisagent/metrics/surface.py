"""Distances between the surfaces of two masks: computed once, read as NSD, Hausdorff distances and ASSD.

Distances are exact and Euclidean, in the unit of the spacing. They come from scipy's KD-tree over the surface and not
from a distance transform of the volume: only distances at surface elements are asked for, and a tree of the 300,000
elements of a large organ is built and asked in half a second, where scipy's transform of 256^3 voxels takes five. The
faster transforms at hand are of single precision (edt) or of two dimensions and equal spacing (OpenCV).

Empty masks: two of them agree (NSD 1, distances 0); if one is empty, NSD is 0 and every distance is infinite. Libraries
differ there: MONAI and surface-distance return nan or inf, medpy raises an error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from ibisagent.metrics.elements import Elements, SurfaceElements, find_elements
from ibisagent.metrics.masks import Mask, as_arrays, checked_spacing, joint_box

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Directed", "Pooling", "SurfaceDistances", "assd", "hausdorff", "hd95", "nsd"]

Pooling = Literal["max", "pooled"]
"""How the two directions become one number: the larger of the two, or one list of all elements."""

# A distance that equals the tolerance in decimals (three pixels of 0.7 mm and 2.1 mm) must not fail it by rounding.
_ROUNDING = 1e-9

# A surface that fills its box, as noise has, is many questions to a tree: from one element in 16 places on, scipy's
# transform of the box answers them all sooner.
_DENSE = 16


@dataclass(frozen=True)
class Directed:
    """Distances from every element of one surface to the nearest element of the other.

    Parameters
    ----------
    distances
        ``float64`` (N,), in the order of the elements; infinite if the other surface is empty.
    weights
        ``float64`` (N,) surface that each element stands for.
    """

    distances: NDArray[np.float64] = field(repr=False)
    weights: NDArray[np.float64] = field(repr=False)

    @cached_property
    def surface(self) -> float:
        """Sum of the weights."""
        return float(self.weights.sum())

    def within(self, tolerance: float) -> float:
        """Surface at most `tolerance` away from the other; the bound itself counts."""
        return float(self.weights[self.distances <= tolerance * (1 + _ROUNDING)].sum())

    def mean(self) -> float:
        """Mean distance over the surface."""
        return float(self.distances @ self.weights) / self.surface


@dataclass(frozen=True)
class SurfaceDistances:
    """How far the surfaces of two masks are apart.

    Parameters
    ----------
    prediction, target
        From the prediction's surface to the target's, and back.
    elements
        Convention of the surface elements (:mod:`ibisagent.metrics.elements`).
    spacing
        Distance of pixel centres, one per axis of the masks.
    unit
        ``mm``, or ``px`` where no spacing was given.
    """

    prediction: Directed
    target: Directed
    elements: Elements
    spacing: tuple[float, ...]
    unit: str

    @classmethod
    def between(
        cls,
        prediction: Mask,
        target: Mask,
        spacing: Sequence[float] | None = None,
        *,
        elements: Elements = "surfels",
    ) -> SurfaceDistances:
        """Measure a pair of masks of two or three dimensions.

        Parameters
        ----------
        prediction, target
            ``bool`` arrays of one shape, or records of masks.
        spacing
            Distance of pixel centres in mm, one per axis in the order of the array, so (row, column) in 2-D; None
            for 1 in every axis, and then all distances are in pixels.
        elements
            ``surfels`` (the default) or ``voxels``.

        Raises
        ------
        ValueError
            If the masks are not bool, of one shape and of two or three dimensions, the spacing is not one positive
            number per axis, or the convention is unknown.
        InputError
            If a record is damaged.
        """
        a, b = as_arrays(prediction, target)
        steps = checked_spacing(spacing if spacing is not None else (1.0,) * a.ndim, a.ndim)
        box = joint_box(a, b) or (slice(0, 0),) * a.ndim
        of_a, of_b = (find_elements(mask[box], steps, elements) for mask in (a, b))
        at_a, at_b = of_a.indices(), of_b.indices()
        return cls(
            Directed(_distances(of_a, at_a, of_b, at_b, steps), of_a.weights),
            Directed(_distances(of_b, at_b, of_a, at_a, steps), of_b.weights),
            elements,
            steps,
            "px" if spacing is None else "mm",
        )

    @property
    def num_empty(self) -> int:
        """How many of the two masks are empty."""
        return (not self.prediction.distances.size) + (not self.target.distances.size)

    def nsd(self, tolerance: float) -> float:
        """Normalised surface Dice: the share of both surfaces that is within `tolerance` of the other.

        1.0 if both masks are empty, 0.0 if one is. Surface elements that are just `tolerance` away count as within.

        Raises
        ------
        ValueError
            If `tolerance` is negative or not finite.
        """
        if not 0 <= tolerance < math.inf:
            raise ValueError(f"the tolerance must be a finite number of 0 or more, not {tolerance}")
        if self.num_empty:
            return float(self.num_empty == 2)
        whole = self.prediction.surface + self.target.surface
        return min(1.0, (self.prediction.within(tolerance) + self.target.within(tolerance)) / whole)

    def hausdorff(self, percentile: float = 100.0, pooling: Pooling = "max") -> float:
        """Hausdorff distance, or a percentile of the distances in its place (95 for HD95).

        For ``surfels``, the percentile is the least distance within which that share of the surface lies; for
        ``voxels``, it is interpolated linearly between the two nearest of the sorted distances, as numpy does.

        Parameters
        ----------
        percentile
            In [0, 100].
        pooling
            ``max``: the larger of the two directions' percentiles (surface-distance, MONAI); ``pooled``: the
            percentile of all distances of both directions in one list (medpy). The same for 100.

        Returns
        -------
        float
            0.0 if both masks are empty, inf if one is.

        Raises
        ------
        ValueError
            If `percentile` is not in [0, 100] or `pooling` is unknown.
        """
        if not 0 <= percentile <= 100:
            raise ValueError(f"the percentile must be in [0, 100], not {percentile}")
        _known_pooling(pooling)
        if self.num_empty:
            return 0.0 if self.num_empty == 2 else math.inf
        sides = [(side.distances, side.weights) for side in (self.prediction, self.target)]
        if pooling == "pooled":
            sides = [(np.concatenate([d for d, _ in sides]), np.concatenate([w for _, w in sides]))]
        if percentile == 100:
            return max(float(distances.max()) for distances, _ in sides)
        if self.elements == "voxels":
            return max(float(np.percentile(distances, percentile)) for distances, _ in sides)
        return max(_weighted_percentile(distances, weights, percentile) for distances, weights in sides)

    def hd95(self, pooling: Pooling = "max") -> float:
        """95th percentile of the surface distances (see :meth:`hausdorff`)."""
        return self.hausdorff(95.0, pooling)

    def assd(self, pooling: Literal["pooled", "mean"] = "pooled") -> float:
        """Average symmetric surface distance, weighted by the surface that each element stands for.

        Parameters
        ----------
        pooling
            ``pooled``: over all elements of both surfaces (medpy, MONAI); ``mean``: the mean of the two directions'
            averages, which surface-distance returns.

        Returns
        -------
        float
            0.0 if both masks are empty, inf if one is.

        Raises
        ------
        ValueError
            If `pooling` is unknown.
        """
        if pooling not in ("pooled", "mean"):
            raise ValueError(f"unknown pooling {pooling!r}: choose from pooled, mean")
        if self.num_empty:
            return 0.0 if self.num_empty == 2 else math.inf
        sides = (self.prediction, self.target)
        if pooling == "mean":
            return sum(side.mean() for side in sides) / 2
        return sum(side.mean() * side.surface for side in sides) / sum(side.surface for side in sides)


def nsd(
    prediction: Mask,
    target: Mask,
    tolerance: float,
    spacing: Sequence[float] | None = None,
    *,
    elements: Elements = "surfels",
) -> float:
    """Normalised surface Dice of one pair at one tolerance; see :class:`SurfaceDistances`, which several share."""
    return SurfaceDistances.between(prediction, target, spacing, elements=elements).nsd(tolerance)


def hausdorff(
    prediction: Mask,
    target: Mask,
    spacing: Sequence[float] | None = None,
    *,
    percentile: float = 100.0,
    elements: Elements = "surfels",
    pooling: Pooling = "max",
) -> float:
    """Hausdorff distance of one pair; see :class:`SurfaceDistances`, which several metrics share."""
    return SurfaceDistances.between(prediction, target, spacing, elements=elements).hausdorff(percentile, pooling)


def hd95(
    prediction: Mask,
    target: Mask,
    spacing: Sequence[float] | None = None,
    *,
    elements: Elements = "surfels",
    pooling: Pooling = "max",
) -> float:
    """95th percentile of the surface distances of one pair; see :class:`SurfaceDistances`."""
    return SurfaceDistances.between(prediction, target, spacing, elements=elements).hd95(pooling)


def assd(
    prediction: Mask,
    target: Mask,
    spacing: Sequence[float] | None = None,
    *,
    elements: Elements = "surfels",
    pooling: Literal["pooled", "mean"] = "pooled",
) -> float:
    """Average symmetric surface distance of one pair; see :class:`SurfaceDistances`."""
    return SurfaceDistances.between(prediction, target, spacing, elements=elements).assd(pooling)


def _distances(
    source: SurfaceElements,
    source_indices: NDArray[np.int64],
    other: SurfaceElements,
    other_indices: NDArray[np.int64],
    spacing: tuple[float, ...],
) -> NDArray[np.float64]:
    """Distance of every element of `source` to the nearest of `other`."""
    if not other.flat.size:
        return np.full(source.flat.size, np.inf)
    distances = np.zeros(source.flat.size)
    # Elements that both surfaces have are 0 away from each other: the tree is asked for the rest only.
    apart = np.flatnonzero(~other.is_element.ravel()[source.flat])
    if not apart.size:
        return distances
    if apart.size * _DENSE > other.is_element.size:
        from scipy.ndimage import distance_transform_edt

        distances[apart] = distance_transform_edt(~other.is_element, sampling=spacing).ravel()[source.flat[apart]]
        return distances
    from scipy.spatial import cKDTree

    steps = np.array(spacing)
    # Split at midpoints and leaves not shrunk: for points spread over a surface, asked a third faster than the default.
    tree = cKDTree(other_indices * steps, leafsize=32, balanced_tree=False, compact_nodes=False)
    from_here = source_indices[apart]
    _, nearest = tree.query(from_here * steps)
    # Again from whole index differences: the tree's own distance carries the rounding of two large coordinates.
    distances[apart] = np.sqrt((((from_here - other_indices[nearest]) * steps) ** 2).sum(axis=1))
    return distances


def _weighted_percentile(distances: NDArray[np.float64], weights: NDArray[np.float64], percentile: float) -> float:
    """The least distance within which `percentile` % of the weight lies."""
    order = np.argsort(distances)
    share = np.cumsum(weights[order])
    # The slack keeps a share that is reached exactly from being missed by the rounding of a sum.
    position = int(np.searchsorted(share, percentile / 100 * share[-1] * (1 - _ROUNDING)))
    return float(distances[order[min(position, order.size - 1)]])


def _known_pooling(pooling: str) -> None:
    if pooling not in get_args(Pooling):
        raise ValueError(f"unknown pooling {pooling!r}: choose from {', '.join(get_args(Pooling))}")
