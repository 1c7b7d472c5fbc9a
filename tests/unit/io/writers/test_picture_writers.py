"""COCO, GeoJSON and PNG masks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from ibisagent.errors import InputError
from ibisagent.geometry import Geometry
from ibisagent.grid import Grid
from ibisagent.io.outlines import ring_area
from ibisagent.io.volume import ArrayVoxels, Volume
from ibisagent.io.writers import SegmentLabel, write_image_mask, write_volume_mask
from ibisagent.types import Image

LABEL = SegmentLabel("Tumour, größer", "ibisagent", "1.0", (200, 10, 20))


def image_of(geometry: Geometry | None = None, source: str = "/a/b/slide 1.png") -> Image:
    return Image(np.zeros((8, 9, 3), np.uint8), geometry or Geometry.plane_2d(), source=source)


def ring_mask() -> np.ndarray:
    """A ring with a hole, and a pixel apart."""
    mask = np.zeros((8, 9), bool)
    mask[1:5, 2:7] = True
    mask[2:4, 3:5] = False
    mask[7, 8] = True
    return mask


def volume_of(kind: str = "NIfTI", **more: Any) -> Volume:
    affine = ((-1.0, 0.0, 0.0, 5.0), (0.0, -2.0, 0.0, 6.0), (0.0, 0.0, 3.0, 7.0), (0.0, 0.0, 0.0, 1.0))
    return Volume(Grid((9, 8, 4), affine), ArrayVoxels(np.zeros((9, 8, 4))), "Secret Name/x.dcm", kind, **more)


def write_json(mask: np.ndarray, source: Image | Volume, tmp_path: Path, fmt: str) -> Any:
    write = write_volume_mask if isinstance(source, Volume) else write_image_mask
    write(mask, source, tmp_path / "m.json", fmt, LABEL)  # type: ignore[arg-type]
    return json.loads((tmp_path / "m.json").read_text("utf-8"))


def test_coco_of_an_image_opens_in_pycocotools(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pycocotools.coco import COCO

    content = write_json(ring_mask(), image_of(), tmp_path, "coco")
    data = COCO(str(tmp_path / "m.json"))
    capsys.readouterr()
    (annotation,) = data.loadAnns(data.getAnnIds())
    assert np.array_equal(data.annToMask(annotation), ring_mask())
    assert annotation["bbox"] == [2, 1, 7, 7] and annotation["area"] == ring_mask().sum()
    assert annotation["segmentation"]["size"] == [8, 9]
    assert data.loadCats([1])[0]["name"] == LABEL.name
    (image,) = content["images"]
    assert (image["file_name"], image["height"], image["width"]) == ("slide 1.png", 8, 9)


def test_coco_of_a_volume_has_an_image_a_slice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pycocotools.coco import COCO

    mask = np.zeros((9, 8, 4), bool)
    mask[:, :, 2], mask[3, 4, 3] = ring_mask().T, True
    content = write_json(mask, volume_of(), tmp_path, "coco")
    assert [i["file_name"] for i in content["images"]] == [f"axial_{k:04d}.png" for k in range(4)]
    assert [a["image_id"] for a in content["annotations"]] == [3, 4]
    data = COCO(str(tmp_path / "m.json"))
    capsys.readouterr()
    # this grid is stored as it is shown
    assert np.array_equal(data.annToMask(data.loadAnns([1])[0]), ring_mask())
    geometry = Geometry.from_json(content["images"][3]["geometry"])
    x, y, _, _ = content["annotations"][1]["bbox"]
    assert geometry.source_index(x, y) == (3, 4, 3) and geometry.world_mm(x, y) == (2.0, -2.0, 16.0)
    assert "Secret" not in json.dumps(content)


def test_without_a_world_there_is_no_affine(tmp_path: Path) -> None:
    content = write_json(np.zeros((9, 8, 4), bool), volume_of("TIFF", has_world=False), tmp_path, "coco")
    assert content["annotations"] == [] and content["images"][0]["geometry"]["affine"] is None


@pytest.mark.parametrize("source", ["", "/x/Doe^Jane.dcm", "IM0001"])
def test_names_of_clinical_files_are_left_out(tmp_path: Path, source: str) -> None:
    content = write_json(ring_mask(), image_of(source=source), tmp_path, "coco")
    assert content["images"][0]["file_name"] == "image.png"


def test_geojson_has_polygons_with_holes(tmp_path: Path) -> None:
    content = write_json(ring_mask(), image_of(), tmp_path, "geojson")
    assert content["type"] == "FeatureCollection"
    (feature,) = content["features"]
    assert feature["type"] == "Feature" and feature["geometry"]["type"] == "MultiPolygon"
    assert "plane" not in feature["geometry"]
    ring, pixel = feature["geometry"]["coordinates"]
    assert ring == [
        [[2, 1], [7, 1], [7, 5], [2, 5], [2, 1]],
        [[3, 2], [3, 4], [5, 4], [5, 2], [3, 2]],
    ]
    assert pixel == [[[8, 7], [9, 7], [9, 8], [8, 8], [8, 7]]]
    properties = feature["properties"]
    assert properties["objectType"] == "annotation" and properties["name"] == LABEL.name
    assert properties["classification"] == {"name": LABEL.name, "color": [200, 10, 20]}
    assert all(isinstance(v, str) for v in properties["metadata"].values())


def test_geojson_of_a_slide_region_is_in_level_0_pixels(tmp_path: Path) -> None:
    # a region at (1000, 2000), every pixel of it 4 pixels of level 0
    place = Geometry((0.001, 0.001), ((4.0, 0.0, 1001.5), (0.0, 4.0, 2001.5), (0.0, 0.0, 0.0)))
    mask = np.zeros((8, 9), bool)
    mask[1:3, 2:5] = True
    (feature,) = write_json(mask, image_of(place), tmp_path, "geojson")["features"]
    (shell,) = feature["geometry"]["coordinates"]
    assert shell[:-1] == [[1008, 2004], [1020, 2004], [1020, 2012], [1008, 2012]]
    assert ring_area(np.array(shell[:-1])) == mask.sum() * 16


def test_geojson_of_a_volume_has_a_feature_a_slice(tmp_path: Path) -> None:
    mask = np.zeros((9, 8, 4), bool)
    mask[3, 4, 1], mask[:, :, 3] = True, ring_mask().T
    first, second = write_json(mask, volume_of("TIFF"), tmp_path, "geojson")["features"]
    assert first["geometry"]["plane"] == {"c": -1, "z": 1, "t": 0} and first["geometry"]["type"] == "Polygon"
    assert first["geometry"]["coordinates"] == [[[3, 4], [4, 4], [4, 5], [3, 5], [3, 4]]]
    assert second["geometry"]["plane"]["z"] == 3 and second["properties"]["metadata"]["slice"] == "axial:3"


def test_nothing_found_is_an_empty_collection(tmp_path: Path) -> None:
    content = write_json(np.zeros((8, 9), bool), image_of(), tmp_path, "geojson")
    assert content == {"type": "FeatureCollection", "features": []}


def test_png_is_black_and_white(tmp_path: Path) -> None:
    write_image_mask(ring_mask(), image_of(), tmp_path / "m.png", "png", LABEL)
    assert np.array_equal(np.asarray(PIL.Image.open(tmp_path / "m.png")), ring_mask() * np.uint8(255))


def test_an_image_goes_on_its_volumes_grid_or_is_refused(tmp_path: Path) -> None:
    import nibabel as nib

    volume = volume_of()
    view = volume.grid.view("axial", 2, square=False)
    write_image_mask(ring_mask(), image_of(view), tmp_path / "m.nii.gz", "nifti", LABEL)
    stored: Any = nib.load(tmp_path / "m.nii.gz")
    values = np.asarray(stored.dataobj)
    assert values.shape == (9, 8, 4) and values.sum() == ring_mask().sum()
    assert np.array_equal(values[:, :, 2], ring_mask().T)
    assert stored.header.get_zooms() == (1.0, 2.0, 3.0)
    for fmt, words in (("nifti", "2-D image; use png"), ("nrrd", "needs a volume"), ("gif", "not known")):
        with pytest.raises(InputError, match=words):
            write_image_mask(ring_mask(), image_of(), tmp_path / "x", fmt, LABEL)
    with pytest.raises(ValueError, match="must be bool"):
        write_image_mask(ring_mask()[1:], image_of(), tmp_path / "x", "png", LABEL)
