"""What a mask measures: volumes in millilitres, diameters in millimetres, intensities, places.

Conventions: a volume is the number of voxels times the volume of one. Diameters are measured in slices of the plane in
which the images were taken (the coarsest of the three; axial if they are equal) by :mod:`ibisagent.io.diameters`.
Extents are the sides of the box around the voxels, their corners included, along the patient's axes. Intensities are
the source's rescaled values (Hounsfield units for CT), standard deviations those of whole populations (n, not n - 1).
Centroids are means of voxel centres. Components are parts whose voxels touch at a face, an edge or a corner.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.errors import InputError
from ibisagent.grid import PLANES, Grid
from ibisagent.io.diameters import longest_diameter
from ibisagent.io.files import display_name, reading
from ibisagent.io.volume import Volume

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Diameter", "Measurements", "Region", "measure_mask"]

SCHEMA_VERSION = 1

_CODES = {
    "volume": ("118565006", "Volume"),
    "longest_diameter": ("103339001", "Long axis"),
    "perpendicular_diameter": ("103340004", "Short axis"),
    "mean": ("373098007", "Mean"),
    "standard_deviation": ("386136009", "Standard Deviation"),
}
_SAME_SPACING = 1.01

Point = tuple[float, float, float]


@dataclass(frozen=True)
class Diameter:
    """One diameter in a slice.

    Parameters
    ----------
    mm
        Its length.
    slice_index
        Index of the slice along :attr:`Measurements.axis`.
    ends_ras_mm
        Its two ends in RAS mm.
    """

    mm: float
    slice_index: int
    ends_ras_mm: tuple[Point, Point]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, UCUM units."""
        ends = [[_digits(v) for v in end] for end in self.ends_ras_mm]
        return {"value": _digits(self.mm), "unit": "mm", "slice": self.slice_index, "ends_ras_mm": ends}


@dataclass(frozen=True)
class Region:
    """What one set of voxels measures; what does not exist (of an empty set, or without millimetres) is None.

    Parameters
    ----------
    voxel_count
        Number of voxels.
    volume_ml
        In millilitres; 0 for none.
    longest, perpendicular
        The longest diameter within one connected region of one slice, and the longest one at right angles to it.
    extent_mm
        Size along the patient's right-left, posterior-anterior and inferior-superior axes.
    mean, standard_deviation
        Of the finite values.
    centroid_index
        In voxel indices (i, j, k).
    centroid_ras_mm
        In RAS mm.
    """

    voxel_count: int
    volume_ml: float | None = None
    longest: Diameter | None = None
    perpendicular: Diameter | None = None
    extent_mm: Point | None = None
    mean: float | None = None
    standard_deviation: float | None = None
    centroid_index: Point | None = None
    centroid_ras_mm: Point | None = None

    def to_json(self, unit: str) -> dict[str, Any]:
        """Plain JSON values with UCUM units.

        Parameters
        ----------
        unit
            UCUM unit of the intensities.
        """

        def quantity(value: float | None, unit: str) -> dict[str, Any] | None:
            """A value with its UCUM unit; None stays None."""
            return None if value is None else {"value": _digits(value), "unit": unit}

        extent = None
        if self.extent_mm is not None:
            names = ("right_left", "posterior_anterior", "inferior_superior")
            extent = {n: quantity(v, "mm") for n, v in zip(names, self.extent_mm, strict=True)}
        centroid = None
        if self.centroid_index is not None:
            centroid = {"index": [_digits(v) for v in self.centroid_index]}
        if centroid is not None and self.centroid_ras_mm is not None:
            r, a, s = (_digits(v) for v in self.centroid_ras_mm)
            centroid |= {"ras_mm": [r, a, s], "lps_mm": [0.0 - r, 0.0 - a, s]}
        return {
            "voxel_count": self.voxel_count,
            "volume": quantity(self.volume_ml, "ml"),
            "longest_diameter": None if self.longest is None else self.longest.to_json(),
            "perpendicular_diameter": None if self.perpendicular is None else self.perpendicular.to_json(),
            "extent": extent,
            "mean": quantity(self.mean, unit),
            "standard_deviation": quantity(self.standard_deviation, unit),
            "centroid": centroid,
        }


@dataclass(frozen=True)
class Measurements:
    """What a mask measures as a whole and part by part.

    Parameters
    ----------
    whole
        All of it. Its longest diameter is the longest within one part.
    components
        The connected parts, largest first (then by their first voxel).
    num_components
        Their number; `components` may be cut off.
    plane, axis
        The plane of the diameters, and the source axis across it.
    unit
        UCUM unit of the intensities: ``"[hnsf'U]"`` or ``"1"`` (arbitrary).
    """

    whole: Region
    components: tuple[Region, ...] = ()
    num_components: int = 0
    plane: str = "axial"
    axis: int = 2
    unit: str = "1"
    notes: tuple[str, ...] = field(default=())

    def to_json(self, target: str = "") -> dict[str, Any]:
        """The measurement report: plain JSON values, units in UCUM, concepts in SNOMED CT. No identifiers.

        Parameters
        ----------
        target
            What was segmented, in plain words.
        """
        return {
            "schema_version": SCHEMA_VERSION,
            "target": target,
            "is_present": self.whole.voxel_count > 0,
            "unit_system": "UCUM",
            "codes": {n: {"scheme": "SCT", "value": v, "meaning": m} for n, (v, m) in _CODES.items()},
            "diameter_plane": self.plane,
            "diameter_axis": self.axis,
            "whole": self.whole.to_json(self.unit),
            "num_components": self.num_components,
            "components": [part.to_json(self.unit) for part in self.components],
            "notes": list(self.notes),
        }


def measure_mask(
    mask: NDArray[np.bool_], volume: Volume, *, plane: str | None = None, max_components: int = 100
) -> Measurements:
    """Measure a mask.

    Parameters
    ----------
    mask
        ``bool`` (ni, nj, nk) on ``volume.grid``.
    volume
        The source; only slices with foreground are read.
    plane
        Plane of the diameters, ``"axial"``, ``"coronal"`` or ``"sagittal"``; None for the one the images were taken in.
    max_components
        How many parts are measured one by one.

    Returns
    -------
    Measurements
        An empty mask measures 0 ml and has no other figures. Without a known world (``has_world`` False) there are
        no millimetres and no millilitres.

    Raises
    ------
    InputError
        If there is no such plane, or voxels cannot be read.
    ValueError
        If the mask is not ``bool`` of the grid's shape.
    """
    grid = volume.grid
    grid.check_mask(mask)
    if plane is not None and plane not in PLANES:
        raise InputError(f"plane '{plane}' is not known; use {', '.join(PLANES)}")
    axis = grid.view_axes(plane)[0] if plane is not None else _taken_across(volume)
    named = next(p for p in PLANES if grid.view_axes(p)[0] == axis)
    # array formats say that values of a CT would be Hounsfield units, not that it is one
    unit = "[hnsf'U]" if volume.hounsfield and volume.modality == "CT" else "1"
    notes = volume.notes  # a unit or a thickness that was guessed makes millilitres doubtful
    if not volume.has_world:
        notes = ("the source does not say how large a voxel is: no millimetres or millilitres", *notes)
    box = tuple(slice(int(f[0]), int(f[-1]) + 1) if (f := _occupied(mask, a)).size else slice(0, 0) for a in range(3))
    if mask[box].size == 0:
        none = Region(0, 0.0 if volume.has_world else None)
        return Measurements(none, plane=named, axis=axis, unit=unit, notes=notes)
    labels, count, kept = _components(mask[box], max_components)
    means, deviations = _intensities(labels, volume, box, axis, len(kept))
    world = grid if volume.has_world else None
    offset = np.array([s.start for s in box])
    regions = [_region(mask[box], offset, world, axis)]
    for label, part in kept:
        inside = np.ascontiguousarray(labels[part] == label)
        regions.append(_region(inside, offset + [s.start for s in part], world, axis))
    regions = [
        Region(**{**vars(region), "mean": mean, "standard_deviation": deviation})
        for region, mean, deviation in zip(regions, means, deviations, strict=True)
    ]
    return Measurements(regions[0], tuple(regions[1:]), count, named, axis, unit, notes)


def _taken_across(volume: Volume) -> int:
    """The source axis from slice to slice: the coarsest, DICOM's third, or the axial one."""
    spacing = volume.grid.spacing_mm
    ordered = sorted(range(3), key=lambda a: -spacing[a])
    if volume.has_world and spacing[ordered[0]] > spacing[ordered[1]] * _SAME_SPACING:
        return ordered[0]
    return 2 if volume.frames else volume.grid.view_axes("axial")[0]


def _occupied(mask: NDArray[np.bool_], axis: int) -> NDArray[np.intp]:
    return np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))


def _components(
    mask: NDArray[np.bool_], limit: int
) -> tuple[NDArray[Any], int, list[tuple[int, tuple[slice, slice, slice]]]]:
    """Labels renumbered by size, their number, and (label, box) of the `limit` largest; the rest are all limit + 1."""
    from scipy import ndimage

    labels, count = ndimage.label(mask, np.ones((3, 3, 3), bool))
    # slab by slab and in place: a label array of a whole body is large enough once
    sizes = sum((np.bincount(slab.ravel(), minlength=count + 1) for slab in labels), np.zeros(count + 1, np.int64))[1:]
    order = np.argsort(-sizes, kind="stable")[:limit]
    table = np.full(count + 1, len(order) + 1, labels.dtype)
    table[0] = 0
    table[order + 1] = np.arange(1, len(order) + 1)
    for slab in labels:
        slab[...] = table[slab]
    boxes = ndimage.find_objects(labels, max_label=len(order))
    return labels, count, [(n + 1, box) for n, box in enumerate(boxes) if box is not None]


def _intensities(
    labels: NDArray[Any], volume: Volume, box: tuple[slice, ...], axis: int, parts: int
) -> tuple[list[float | None], list[float | None]]:
    """Mean and deviation of all voxels, then of each part; slice by slice, so that no volume is held."""
    sums = np.zeros((3, parts + 2))  # number, sum, sum of squares of what is left when `shift` is taken away
    shift: float | None = None
    others = tuple(s for a, s in enumerate(box) if a != axis)
    with reading(volume.source, f"a {volume.kind} volume"):
        for n, index in enumerate(range(box[axis].start, box[axis].stop)):
            plane = labels[(slice(None),) * axis + (n,)]
            if not plane.any():
                continue
            values = volume.voxels.plane(axis, index)
            if values.shape != tuple(volume.grid.shape[a] for a in range(3) if a != axis):
                raise InputError(f"{display_name(volume.source)}: slice {index} has another size than the volume")
            inside = np.asarray(values[others], np.float64)[plane > 0]
            part = plane[plane > 0]
            finite = np.isfinite(inside)
            inside, part = inside[finite], part[finite]
            if inside.size == 0:
                continue
            shift = float(inside[0]) if shift is None else shift
            for row, weights in enumerate((None, inside - shift, (inside - shift) ** 2)):
                sums[row] += np.bincount(part, weights, minlength=parts + 2)[: parts + 2]
    sums[:, 0] = sums[:, 1:].sum(axis=1)
    means: list[float | None] = []
    deviations: list[float | None] = []
    for number, total, squares in sums[:, : parts + 1].T:
        mean = total / number if number else 0.0
        means.append(float(mean + (shift or 0.0)) if number else None)
        deviations.append(float(np.sqrt(max(0.0, squares / number - mean**2))) if number else None)
    return means, deviations


def _region(mask: NDArray[np.bool_], offset: NDArray[np.int64], grid: Grid | None, axis: int) -> Region:
    """All but the intensities of a mask that is a box cut out of the volume at `offset`."""
    per_axis = [mask.sum(axis=tuple(b for b in range(3) if b != a), dtype=np.int64) for a in range(3)]
    count = int(per_axis[0].sum())
    centre = np.array([(c @ np.arange(len(c))) / count for c in per_axis]) + offset
    if grid is None:
        return Region(count, centroid_index=_point(centre))
    longest, perpendicular = _diameters(mask, offset, grid, axis)
    return Region(
        count,
        count * grid.voxel_ml,
        longest,
        perpendicular,
        _extent(mask, grid),
        centroid_index=_point(centre),
        centroid_ras_mm=_point(grid.ras_mm(centre)),
    )


def _diameters(mask: NDArray[np.bool_], offset: NDArray[np.int64], grid: Grid, axis: int) -> tuple[Diameter, Diameter]:
    across, down = (a for a in range(3) if a != axis)
    steps = grid.matrix[:3, [across, down]]
    best, at = None, 0
    for n in range(mask.shape[axis]):
        found = longest_diameter(mask[(slice(None),) * axis + (n,)], steps, best.long_mm if best else 0.0)
        if found is not None:
            best, at = found, n
    assert best is not None, "a mask with foreground has a diameter"
    place = at + int(offset[axis])

    def ends(pair: tuple[tuple[float, float], tuple[float, float]]) -> tuple[Point, Point]:
        """Both ends of a diameter in the slice, in RAS mm."""
        index = np.empty((2, 3))
        index[:, axis] = place
        index[:, [across, down]] = np.array(pair) + offset[[across, down]]
        first, second = grid.ras_mm(index)
        return _point(first), _point(second)

    return (
        Diameter(best.long_mm, place, ends(best.long_ends)),
        Diameter(best.short_mm, place, ends(best.short_ends)),
    )


def _extent(mask: NDArray[np.bool_], grid: Grid) -> Point:
    """Size along R, A, S with the voxels' corners; a linear map is greatest at the ends of a run of voxels."""
    lines = mask.any(axis=0)
    j, k = np.nonzero(lines)
    low = mask.argmax(axis=0)[j, k]
    high = mask.shape[0] - 1 - mask[::-1].argmax(axis=0)[j, k]
    steps = grid.matrix[:3, :3]
    rest = steps[:, 1:2] * j + steps[:, 2:3] * k
    places = np.concatenate([steps[:, :1] * low + rest, steps[:, :1] * high + rest], axis=1)
    return _point(places.max(axis=1) - places.min(axis=1) + np.abs(steps).sum(axis=1))


def _point(values: NDArray[Any]) -> Point:
    a, b, c = (float(v) for v in values)
    return a, b, c


def _digits(value: float) -> float:
    """Seven significant digits: more would be noise of the arithmetic. Zero has no sign."""
    return float(f"{value:.7g}") + 0.0
