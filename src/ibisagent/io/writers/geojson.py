"""GeoJSON polygons as QuPath reads them: pixels of the image, holes and all, in whole-slide pixels for regions."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.geometry import Geometry
from ibisagent.io.files import atomic_write, one_line
from ibisagent.io.outlines import pixel_outlines
from ibisagent.io.volume import Volume
from ibisagent.io.writers.label import SegmentLabel
from ibisagent.io.writers.views import shown_slices
from ibisagent.types import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["write_image", "write_volume"]


def write_image(mask: NDArray[np.bool_], image: Image, path: str | os.PathLike[str], label: SegmentLabel) -> None:
    """Write the mask of one image as one annotation: a ``Polygon``, or a ``MultiPolygon`` if it has several parts.

    The polygons run along the edges of pixels and cover exactly the mask. The upper left corner of the source's first
    pixel is (0, 0), y runs down, and the unit is the source's pixel: for a region of a slide, a pixel of level 0. The
    pixels of a volume's slice are those of its display. An empty mask is a collection without features.

    Parameters
    ----------
    mask
        ``bool`` (H, W) on the image's pixels.
    image
        The image.
    path
        File to write.
    label
        Its name becomes the annotation's name and class.

    Raises
    ------
    InputError
        If writing fails.
    """
    _write([_feature(mask, image.geometry, label)], path)


def write_volume(mask: NDArray[np.bool_], volume: Volume, path: str | os.PathLike[str], label: SegmentLabel) -> None:
    """Write a volume's mask as one annotation per axial slice that has some of it, each with its number as ``plane.z``.

    Slices are as :func:`ibisagent.io.writers.views.shown_slices` gives them; for a TIFF stack these are its pages.
    Parameters and errors as :func:`write_image`, with a mask ``bool`` (ni, nj, nk) on ``volume.grid``.
    """
    _write([_feature(shown, geometry, label) for geometry, shown in shown_slices(mask, volume)], path)


def _feature(mask: NDArray[np.bool_], geometry: Geometry, label: SegmentLabel) -> dict[str, Any] | None:
    polygons = [[_ring(ring, geometry) for ring in (outline.shell, *outline.holes)] for outline in pixel_outlines(mask)]
    if not polygons:
        return None
    shape: dict[str, Any] = (
        {"type": "Polygon", "coordinates": polygons[0]}
        if len(polygons) == 1
        else {"type": "MultiPolygon", "coordinates": polygons}
    )
    facts = {"drawn by": f"{label.algorithm_name} {label.algorithm_version}".strip()}
    if geometry.slice_index is not None:
        shape["plane"] = {"c": -1, "z": geometry.slice_index, "t": 0}  # QuPath's: all channels, this slice
        facts["slice"] = f"{geometry.plane}:{geometry.slice_index}"
    name = one_line(label.name)
    properties = {
        "objectType": "annotation",
        "name": name,
        # a colon would make QuPath see a class and its subclass
        "classification": {"name": name.replace(":", ","), "color": list(label.colour)},
        "metadata": facts,
    }
    return {"type": "Feature", "geometry": shape, "properties": properties}


def _ring(ring: NDArray[np.int64], geometry: Geometry) -> list[list[float]]:
    """Closed ring in the source's pixels, edges at whole numbers."""
    points: NDArray[Any] = ring
    if geometry.volume_shape is None:
        a = np.asarray(geometry.index_from_pixel)
        # Geometry speaks of centres: the corner (0, 0) of a pixel lies half a pixel before its centre on either side
        points = (ring - 0.5) @ a[:2, :2].T + a[:2, 2] + 0.5
        points = np.round(points, 6)
        if np.array_equal(points, np.rint(points)):
            points = points.astype(np.int64)
    listed: list[list[float]] = points.tolist()
    return listed + listed[:1]


def _write(features: list[dict[str, Any] | None], path: str | os.PathLike[str]) -> None:
    content = {"type": "FeatureCollection", "features": [f for f in features if f is not None]}
    with atomic_write(path) as f:
        f.write(json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace"))
