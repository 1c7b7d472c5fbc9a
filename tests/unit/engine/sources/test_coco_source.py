"""COCO files: polygons and runs against pycocotools, categories, objects, faults."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as reference

from ibisagent.engine.sources.polygons import fill_polygon, segmentation_mask
from ibisagent.engine.sources.registry import open_source
from ibisagent.errors import InputError
from ibisagent.rle import encode_mask

SHAPE = (40, 50)


def box(x: float, y: float, w: float, h: float) -> list[float]:
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def drawn(x: int, y: int, w: int, h: int) -> Any:
    mask = np.zeros(SHAPE, bool)
    mask[y : y + h, x : x + w] = True
    return mask


def test_boxes_are_exact() -> None:
    assert np.array_equal(fill_polygon(box(3, 4, 10, 6), *SHAPE), drawn(3, 4, 10, 6))
    assert np.array_equal(fill_polygon(box(3.4, 4.4, 10, 6), *SHAPE), drawn(3, 4, 10, 6))
    assert np.array_equal(fill_polygon(box(-5, -5, 100, 100), *SHAPE), np.ones(SHAPE, bool))
    assert not fill_polygon(box(60, 4, 10, 6), *SHAPE).any()
    assert not fill_polygon(box(3.6, 4, 0.7, 6), *SHAPE).any()
    assert np.array_equal(
        fill_polygon(list(reversed(box(4, 3, 6, 10))), *SHAPE), fill_polygon(box(3, 4, 10, 6), *SHAPE)
    )


def star(rng: np.random.Generator, corners: int, least: float) -> Any:
    angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radius = rng.uniform(least, 22, corners)
    return np.stack([30 + radius * np.cos(angle), 25 + radius * np.sin(angle)], axis=1)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(3, 25))
def test_a_pixel_is_in_if_its_centre_is(seed: int, corners: int) -> None:
    points = star(np.random.default_rng(seed), corners, 1.0)
    y, x = np.mgrid[:50, :60] + 0.5
    inside = np.zeros((50, 60), bool)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        between = (y0 <= y) != (y1 <= y)
        inside ^= between & (x > x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    assert np.array_equal(fill_polygon(points.ravel().tolist(), 50, 60), inside)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(5, 12))
def test_polygons_are_those_of_pycocotools_but_for_the_rim(seed: int, corners: int) -> None:
    """Theirs rounds the outline to a finer grid, so pixels that it touches may fall either way."""
    points = star(np.random.default_rng(seed), corners, 17.0).ravel().tolist()
    ours = fill_polygon(points, 50, 60)
    theirs = _reference(points)
    padded = np.pad(theirs, 1)
    shifts = [padded[1 + dy : 51 + dy, 1 + dx : 61 + dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    assert not (np.logical_and.reduce(shifts) & ~ours).any()
    assert (ours & ~np.logical_or.reduce(shifts)).sum() <= 2  # the tip of a narrow corner
    rim = np.logical_or.reduce(shifts) & ~np.logical_and.reduce(shifts)
    assert 3 * (ours ^ theirs).sum() <= rim.sum()


def _reference(points: list[float]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return reference.decode(reference.frPyObjects([points], 50, 60))[..., 0].astype(bool)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31))
def test_both_kinds_of_runs_are_exact(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random(SHAPE) < rng.uniform(0, 1)
    packed = reference.encode(np.asfortranarray(mask.astype(np.uint8)))
    compressed = {"size": list(SHAPE), "counts": packed["counts"].decode("ascii")}
    flat = np.concatenate([[0], mask.ravel(order="F").astype(np.int8), [-1]])
    edges = np.flatnonzero(np.diff(flat[1:])) + 1
    counts = np.diff(np.concatenate([[0], edges])).tolist()
    if mask[0, 0]:
        counts = [0, *counts]
    assert np.array_equal(segmentation_mask(compressed, *SHAPE), mask)
    assert np.array_equal(segmentation_mask({"size": list(SHAPE), "counts": counts}, *SHAPE), mask)


@pytest.mark.parametrize(
    "segmentation",
    [
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5]],
        [[1, 2, 3, 4, float("nan"), 6]],
        [[1, 2, 3, 4, "5", 6]],
        ["polygon"],
        "text",
        7,
        {"size": [40, 51], "counts": [2000]},
        {"size": [40, 50], "counts": [1999]},
        {"size": [40, 50], "counts": [-1, 2001]},
        {"size": [40, 50], "counts": "zz"},
        {"size": [40, 50]},
        {},
    ],
)
def test_damaged_segmentations_raise(segmentation: Any) -> None:
    with pytest.raises(InputError):
        segmentation_mask(segmentation, *SHAPE)


@pytest.fixture
def write(tmp_path: Path, png: Any) -> Any:
    (tmp_path / "set").mkdir()

    def run(annotations: list[dict[str, Any]], images: list[dict[str, Any]] | None = None, **document: Any) -> str:
        rows = images or [
            {"id": 1, "file_name": "a.png", "height": 40, "width": 50},
            {"id": 2, "file_name": "sub/b.png"},
        ]
        for row in rows:
            if (
                isinstance(row.get("file_name"), str)
                and ".." not in row["file_name"]
                and row["file_name"] != "gone.png"
            ):
                png(tmp_path / "set" / row["file_name"], np.full(SHAPE, 50, np.uint8))
        file = {
            "images": rows,
            "annotations": [
                {"id": n, "image_id": 1, "category_id": 5, **a} for n, a in enumerate(annotations, start=10)
            ],
            "categories": [{"id": 5, "name": "polyp"}, {"id": 6, "name": "  ulcer "}],
            **document,
        }
        path = tmp_path / "set" / "train.json"
        path.write_text(json.dumps(file))
        return f"coco:{path}?split=train"

    return run


def test_objects_of_a_category_are_one_structure(write: Any, listed: Any, read: Any) -> None:
    runs = encode_mask(drawn(30, 30, 5, 5))
    spec = write(
        [
            {"segmentation": [box(3, 4, 5, 6), box(20, 4, 5, 6)]},
            {"segmentation": {"size": [40, 50], "counts": runs.counts}, "iscrowd": 1},
            {"segmentation": {"size": [40, 50], "counts": [40, 10, 1950]}, "category_id": 6, "image_id": 2},
        ]
    )
    (a, b), faults = listed(spec + "&modality=Endoscopy")
    assert not faults
    assert (a.key, a.names, a.absent, a.source) == ("a.png", ("polyp",), (), "set-train")
    assert (b.key, b.names, b.modality) == ("sub/b.png", ("ulcer",), "Endoscopy")
    assert np.array_equal(read(a).masks["polyp"], drawn(3, 4, 5, 6) | drawn(20, 4, 5, 6) | drawn(30, 30, 5, 5))
    assert np.array_equal(read(b).masks["ulcer"], drawn(1, 0, 1, 10))
    assert [s.absent for s in listed(spec + "&exhaustive=1")[0]] == [("ulcer",), ("polyp",)]


def test_images_without_annotations(write: Any, listed: Any, read: Any) -> None:
    spec = write([{"segmentation": [box(3, 4, 5, 6)]}])
    samples, faults = listed(spec)
    assert [s.key for s in samples] == ["a.png"]
    assert [(f.item, f.code) for f in faults] == [("sub/b.png", "missing_mask")]
    samples, faults = listed(spec + "&exhaustive=1")
    assert not faults and samples[1].names == () and samples[1].absent == ("polyp", "ulcer")
    assert not read(samples[1]).masks


def test_single_objects_get_words_on_request(write: Any, listed: Any, read: Any) -> None:
    boxes = [box(5, 15, 4, 4), box(20, 2, 5, 5), box(40, 18, 6, 6), box(22, 30, 8, 8)]
    spec = write([{"segmentation": [points]} for points in boxes])
    assert listed(spec)[0][0].names == ("polyp",)
    sample = listed(spec + "&instances=1&modality=Endoscopy")[0][0]
    assert sample.names == ()
    masks = read(sample).masks
    assert np.array_equal(masks["largest polyp"], drawn(22, 30, 8, 8))
    assert np.array_equal(masks["uppermost polyp"], drawn(20, 2, 5, 5))
    assert np.array_equal(masks["smallest polyp"], masks["leftmost polyp"])
    assert set(masks) <= set(open_source(spec + "&instances=1&modality=Endoscopy").vocabulary()["Endoscopy"])
    crowd = write([{"segmentation": [points], "iscrowd": int(n == 0)} for n, points in enumerate(boxes)])
    assert list(read(listed(crowd + "&instances=1")[0][0]).masks) == ["polyp"]
    covering = write([{"segmentation": [points]} for points in [*boxes, box(4, 1, 44, 38)]])
    assert list(read(listed(covering + "&instances=1")[0][0]).masks) == ["polyp"]


def test_every_fault_of_the_file_is_named(write: Any, listed: Any) -> None:
    good = {"segmentation": [box(3, 4, 5, 6)]}
    spec = write(
        [
            good,
            {**good, "id": 10},
            {**good, "image_id": 77},
            {**good, "image_id": None},
            {**good, "category_id": 77},
            {"segmentation": []},
            {},
        ],
        [
            {"id": 1, "file_name": "a.png"},
            {"id": 1, "file_name": "b.png"},
            {"id": 3, "file_name": "a.png"},
            {"id": 4, "file_name": "../../etc/x.png"},
            {"id": 5, "file_name": "gone.png"},
            {"id": 6},
        ],
    )
    samples, faults = listed(spec)
    assert not samples
    assert [(f.item, f.code) for f in faults] == [
        ("image 1", "duplicate_id"),
        ("image 3", "duplicate_id"),
        ("image 4", "bad_row"),
        ("image 6", "bad_row"),
        ("annotation 10", "duplicate_id"),
        ("annotation 12", "missing_image"),
        ("annotation 13", "bad_row"),
        ("annotation 14", "bad_row"),
        ("annotation 15", "missing_mask"),
        ("annotation 16", "missing_mask"),
        ("a.png", "missing_mask"),
        ("gone.png", "missing_image"),
    ]


def test_faults_when_read(write: Any, listed: Any) -> None:
    spec = write(
        [
            {"segmentation": [box(3, 4, 5, 6)]},
            {"segmentation": [[1, 2, 3]]},
            {"segmentation": {"size": [9, 9], "counts": [81]}, "category_id": 6},
            {"segmentation": [box(3, 4, 5, 6)], "category_id": 7},
            {"segmentation": [box(3, 4, 5, 6)], "category_id": 8},
            {"segmentation": [box(3.6, 4, 0.2, 6)], "category_id": 8},
        ],
        categories=[{"id": n, "name": name} for n, name in enumerate(("polyp", "ulcer", "clip", "loop"), start=5)],
    )
    found = listed(spec)[0][0].reader()
    # One damaged polyp would leave a mask of a part of the polyps.
    assert list(found.masks) == ["clip"]
    assert [(f.code, f.message.split(":")[0]) for f in found.faults] == [
        ("unreadable", "annotation 11"),
        ("size_mismatch", "annotation 12"),
        ("empty_mask", "annotation 15"),
    ]


@pytest.mark.parametrize(
    "broken",
    [{"segmentation": []}, {}, {"id": 10, "segmentation": [box(9, 9, 5, 5)]}, {"id": [1], "segmentation": [[1]]}],
)
def test_a_category_with_a_broken_annotation_is_neither_absent_nor_drawn_in_part(
    write: Any, listed: Any, read: Any, broken: dict[str, Any]
) -> None:
    good = {"segmentation": [box(3, 4, 5, 6)]}
    spec = write([good, {**good, "category_id": 6}, broken, {**good, "image_id": 2}, {**broken, "image_id": 3}])
    # the third image is not there, the second has no broken annotation
    (a, b), faults = listed(spec + "&exhaustive=1")
    assert (a.names, a.absent) == (("ulcer",), ()) and (b.names, b.absent) == (("polyp",), ("ulcer",))
    assert len(faults) == 2 and list(read(a).masks) == ["ulcer"]
    assert list(listed(spec + "&instances=1")[0][0].reader().masks) == ["ulcer"]
    alone = write([broken], [{"id": 1, "file_name": "a.png"}])
    if broken.get("id") != 10:  # else it stands once now
        assert [(s.names, s.absent) for s in listed(alone + "&exhaustive=1")[0]] == [((), ("ulcer",))]
    unknown = write([{**good, "category_id": 9}], [{"id": 1, "file_name": "a.png"}])
    samples, faults = listed(unknown + "&exhaustive=1")
    assert not samples and [f.code for f in faults] == ["bad_row", "missing_mask"]


def test_a_file_for_another_size(write: Any, listed: Any) -> None:
    spec = write([{"segmentation": [box(3, 4, 5, 6)]}], [{"id": 1, "file_name": "a.png", "height": 80, "width": 100}])
    found = listed(spec)[0][0].reader()
    assert not found.masks and [f.code for f in found.faults] == ["size_mismatch"]


@pytest.mark.parametrize("text", ["[]", "{", '{"images": [], "annotations": [], "categories": []}', '{"images": 3}'])
def test_no_coco_file_at_all(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError):
        list(open_source(f"coco:{tmp_path}/a.json?split=train").samples())
