"""COCO JSON with masks as run lengths (RLE)."""

from __future__ import annotations

import json
import os
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.geometry import Geometry
from ibisagent.io.files import atomic_write
from ibisagent.io.volume import Volume
from ibisagent.io.writers.label import SegmentLabel
from ibisagent.io.writers.views import shown_slices
from ibisagent.rle import encode_mask
from ibisagent.types import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["write_image", "write_volume"]

_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu")


def write_volume(mask: NDArray[np.bool_], volume: Volume, path: str | os.PathLike[str], label: SegmentLabel) -> None:
    """Write a volume's mask as one COCO image per axial slice, and one annotation per slice that has some of it.

    Slices are as :func:`ibisagent.io.writers.views.shown_slices` gives them; ``geometry`` in every image says where
    its pixels lie in the source. File names (``axial_0057.png``) only name the slices.

    Parameters
    ----------
    mask
        ``bool`` (ni, nj, nk) on ``volume.grid``.
    volume
        The source.
    path
        File to write.
    label
        Its name becomes the one category.

    Raises
    ------
    InputError
        If writing fails.
    """
    content = _dataset(label)
    for geometry, shown in shown_slices(mask, volume):
        name = f"{geometry.plane}_{geometry.slice_index:04d}.png"
        _add(content, shown, name, geometry, keep_affine=volume.has_world)
    _write(content, path)


def write_image(mask: NDArray[np.bool_], image: Image, path: str | os.PathLike[str], label: SegmentLabel) -> None:
    """Write the mask of one image as a COCO data set of that image.

    Its file name is the source's where that is a picture's, else ``image.png``: names of clinical files often name
    patients. Parameters and errors as :func:`write_volume`, with a mask ``bool`` (H, W).
    """
    content = _dataset(label)
    name = PurePosixPath(image.source.replace("\\", "/")).name
    _add(content, mask, name if name.lower().endswith(_PICTURES) else "image.png", image.geometry)
    _write(content, path)


def _dataset(label: SegmentLabel) -> dict[str, Any]:
    return {
        "info": {"description": "mask", "contributor": f"{label.algorithm_name} {label.algorithm_version}".strip()},
        "licenses": [],
        "categories": [{"id": 1, "name": label.name, "supercategory": "", "color": list(label.colour)}],
        "images": [],
        "annotations": [],
    }


def _add(
    content: dict[str, Any], mask: NDArray[np.bool_], name: str, geometry: Geometry, *, keep_affine: bool = True
) -> None:
    height, width = mask.shape
    place = geometry.to_json()
    if not keep_affine:
        place["affine"] = None
    images, annotations = content["images"], content["annotations"]
    images.append({"id": len(images) + 1, "file_name": name, "height": height, "width": width, "geometry": place})
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return  # an image without annotations is COCO's way to say that nothing is there
    x, y = int(columns[0]), int(rows[0])
    annotations.append(
        {
            "id": len(annotations) + 1,
            "image_id": len(images),
            "category_id": 1,
            # 0 although the shape is run lengths: evaluators leave out what is marked as a crowd
            "iscrowd": 0,
            "area": int(mask.sum()),
            "bbox": [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y],
            "segmentation": encode_mask(mask).model_dump(mode="json"),
        }
    )


def _write(content: dict[str, Any], path: str | os.PathLike[str]) -> None:
    with atomic_write(path) as f:
        f.write(json.dumps(content, ensure_ascii=False).encode("utf-8", "replace"))
