"""Folders of images and masks: pairing by name, label maps, and instance maps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from ibisagent.engine.sources.readers import decode_labels
from ibisagent.engine.sources.registry import open_source
from ibisagent.errors import InputError

IMAGE = np.full((40, 50), 60, np.uint8)
LABELS = np.zeros((40, 50), np.uint8)
LABELS[5:15, 5:15] = 1
LABELS[20:30, 5:15] = 2
LABELS[20:30, 30:40] = 3


@pytest.fixture
def root(tmp_path: Path, png: Any) -> Path:
    base = tmp_path / "set"
    for name in ("p1/a", "p1/b", "p2/a"):
        png(base / "images" / f"{name}.png", IMAGE)
        png(base / "masks" / f"{name}_mask.png", LABELS)
    (tmp_path / "labels.json").write_text(json.dumps({"1": "liver", "2": "kidney", "3": None, "4": "spleen"}))
    return base


def test_pairs_by_name_and_folder(root: Path, listed: Any, read: Any) -> None:
    samples, faults = listed(f"folders:{root}?target=organ&mask_suffix=_mask&group=^(p.)/&view=axial")
    assert not faults
    assert [(s.key, s.names, s.group, s.view, s.source) for s in samples] == [
        ("p1/a.png", ("organ",), "p1", "axial", "set"),
        ("p1/b.png", ("organ",), "p1", "axial", "set"),
        ("p2/a.png", ("organ",), "p2", "axial", "set"),
    ]
    assert np.array_equal(read(samples[0]).masks["organ"], LABELS > 0)


def test_one_folder_for_both(tmp_path: Path, listed: Any, png: Any) -> None:
    for name in ("a", "b_x"):
        png(tmp_path / f"{name}.png", IMAGE)
        png(tmp_path / f"{name}_seg.png", LABELS)
    spec = f"folders:{tmp_path}?target=organ&images=.&masks=.&split=train"
    samples, faults = listed(f"{spec}&mask_suffix=_seg")
    assert not faults and [s.key for s in samples] == ["a.png", "b_x.png"]
    other, faults = listed(f"{spec}&image_suffix=_x")
    # Now what ends in _x is an image, and everything else a mask, here of "b" only in name.
    assert [s.key for s in other] == [] and {f.code for f in faults} == {"missing_mask", "missing_image"}
    with pytest.raises(InputError, match="mask_suffix=_mask"):
        open_source(spec)


def test_a_label_map_says_which_structures(root: Path, listed: Any, read: Any, tmp_path: Path) -> None:
    spec = f"folders:{root}?labels={tmp_path}/labels.json&mask_suffix=_mask&split=train"
    samples, faults = listed(spec)
    assert not faults
    assert {(s.names, s.absent) for s in samples} == {(("kidney", "liver"), ())}
    found = read(samples[0])
    assert np.array_equal(found.masks["kidney"], LABELS == 2) and np.array_equal(found.masks["liver"], LABELS == 1)
    assert {s.absent for s in listed(spec + "&exhaustive=1")[0]} == {("spleen",)}


def test_regions_and_ignored_pixels_of_nnunet(root: Path, listed: Any, read: Any, tmp_path: Path) -> None:
    described = {
        "labels": {"background": 0, "whole": [1, 2], "core": 2, "other": 4, "ignore": 3},
        "channel_names": {"0": "CT"},
        "licence": "CC0",
    }
    (tmp_path / "labels.json").write_text(json.dumps(described))
    samples, faults = listed(f"folders:{root}?labels={tmp_path}/labels.json&mask_suffix=_mask&split=train&exhaustive=1")
    assert not faults
    # Nobody looked at the ignored pixels, so nothing is known to be absent.
    assert {(s.names, s.absent, s.modality, s.licence) for s in samples} == {(("core", "whole"), (), "CT", "CC0")}
    assert read(samples[0]).image.modality == "CT"
    masks = read(samples[0]).masks
    assert np.array_equal(masks["whole"], (LABELS == 1) | (LABELS == 2)) and np.array_equal(masks["core"], LABELS == 2)


def test_every_fault_is_named(root: Path, listed: Any, png: Any, tmp_path: Path) -> None:
    png(root / "images" / "alone.png", IMAGE)
    png(root / "masks" / "orphan_mask.png", LABELS)
    png(root / "masks" / "odd.png", LABELS)
    png(root / "masks" / "p1" / "a_mask.tif", LABELS)
    png(root / "images" / "p2" / "a.tif", IMAGE)
    png(root / "masks" / "p1" / "b_mask.png", LABELS * 0 + 7)
    (root / "images" / ".hidden.png").write_bytes(b"x")
    (root / "images" / "notes.txt").write_text("x")
    png(root / "images" / "z.png", IMAGE)
    (root / "masks" / "z_mask.png").write_bytes(b"\x89PNG\r\n\x1a\n no")
    samples, faults = listed(f"folders:{root}?labels={tmp_path}/labels.json&mask_suffix=_mask&split=train")
    assert [s.key for s in samples] == ["p1/a.png", "p2/a.png"]
    assert [(f.item, f.code) for f in faults] == [
        ("odd.png", "bad_row"),
        ("p1/a_mask.tif", "duplicate_id"),
        ("alone.png", "missing_mask"),
        ("p1/b.png", "bad_row"),
        ("p1/b.png", "empty_mask"),
        ("p2/a.tif", "duplicate_id"),
        ("z.png", "unreadable"),
        ("orphan_mask.png", "missing_image"),
    ]


def test_masks_that_do_not_fit(root: Path, listed: Any, png: Any, tmp_path: Path) -> None:
    for name, values in (("p1/a", LABELS.T), ("p1/b", LABELS * 0)):
        png(root / "masks" / f"{name}_mask.png", values)
    samples, faults = listed(f"folders:{root}?target=x&mask_suffix=_mask&split=train")
    assert not faults
    assert [[f.code for f in s.reader().faults] for s in samples] == [["size_mismatch"], ["empty_mask"], []]
    samples, faults = listed(f"folders:{root}?labels={tmp_path}/labels.json&mask_suffix=_mask&split=train")
    assert [f.code for f in faults] == ["empty_mask"]
    assert [[f.code for f in s.reader().faults] for s in samples] == [["size_mismatch"], []]


def test_what_the_masks_show_must_be_said(root: Path, tmp_path: Path) -> None:
    for options in ("", f"?target=x&labels={tmp_path}/labels.json"):
        with pytest.raises(InputError, match="target=NAME"):
            open_source(f"folders:{root}{options}")
    with pytest.raises(InputError, match="say with masks=FOLDER"):
        open_source(f"folders:{root}?target=x&masks=gt&split=test")
    (root / "empty").mkdir()
    with pytest.raises(InputError, match="no image in it"):
        list(open_source(f"folders:{root}?target=x&images=empty&split=val").samples())


def test_masks_as_jpeg_need_a_threshold(root: Path, listed: Any, read: Any, tmp_path: Path) -> None:
    mask = np.where(LABELS == 1, 250, 3).astype(np.uint8)  # what JPEG leaves around a structure
    for name in ("p1/a", "p1/b", "p2/a"):
        (root / "masks" / f"{name}_mask.png").unlink()
        PIL.Image.fromarray(np.stack([mask] * 3, axis=2)).save(root / "masks" / f"{name}_mask.jpg", quality=95)
    PIL.Image.fromarray(mask[:20]).save(root / "masks" / "p1" / "b_mask.jpg")
    PIL.Image.fromarray(mask.astype(np.uint16) * 256).save(root / "masks" / "p2" / "a_mask.png")
    (root / "masks" / "p2" / "a_mask.jpg").unlink()
    spec = f"folders:{root}?target=polyp&mask_suffix=_mask&split=train"
    assert [f.code for f in listed(spec)[0][0].reader().faults] == ["unreadable"]
    (good, small, deep), _ = listed(f"{spec}&threshold=128")
    assert np.array_equal(read(good).masks["polyp"], LABELS == 1)
    assert [f.code for f in small.reader().faults] == ["size_mismatch"]
    assert [f.code for f in deep.reader().faults] == ["unreadable"]
    assert listed(f"{spec}&threshold=1")[0][0].reader().masks["polyp"].mean() > 0.5
    for wrong in ("0", "256", "dark"):
        with pytest.raises(InputError, match="threshold"):
            open_source(f"{spec}&threshold={wrong}")
    with pytest.raises(InputError, match="threshold"):
        open_source(f"folders:{root}?labels={tmp_path}/labels.json&mask_suffix=_mask&split=train&threshold=9")


def test_slices_of_a_patient_are_never_spread_over_splits_unasked(root: Path, tmp_path: Path, listed: Any) -> None:
    for spec in (f"folders:{root}?target=x", f"instances:{root}?noun=cell"):
        with pytest.raises(InputError, match=r"group=\(\.\*\?\)_\\d\+\$\), group=\(\.\*\) if .* or split=train"):
            open_source(f"{spec}&mask_suffix=_mask")
        by_patient = listed(f"{spec}&mask_suffix=_mask&group=(.*?)/.$")[0]
        assert [s.group for s in by_patient] == ["p1", "p1", "p2"]
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(InputError, match="no patients and no splits"):
        open_source(f"coco:{tmp_path}/a.json")


def test_label_maps_keep_their_numbers(tmp_path: Path, png: Any) -> None:
    deep = LABELS.astype(np.uint16) * 1000
    assert np.array_equal(decode_labels(png(tmp_path / "a.png", deep)), deep)
    wide = LABELS.astype(np.int32) * 70000
    assert np.array_equal(decode_labels(png(tmp_path / "a.tif", wide)), wide)
    gray = np.stack([LABELS] * 3, axis=2)
    assert np.array_equal(decode_labels(png(tmp_path / "gray.png", gray)), LABELS)
    palette = PIL.Image.fromarray(LABELS)
    palette.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
    palette.save(tmp_path / "p.png")
    assert np.array_equal(decode_labels(tmp_path / "p.png"), LABELS)
    gray[5, 5] = 9, 0, 0
    with pytest.raises(InputError, match="not colours"):
        decode_labels(png(tmp_path / "c.png", gray))
    PIL.Image.fromarray(LABELS.astype(np.float32) + 0.5).save(tmp_path / "f.tif")
    with pytest.raises(InputError, match="whole numbers"):
        decode_labels(tmp_path / "f.tif")
    PIL.Image.fromarray(LABELS).save(tmp_path / "j.jpg")
    with pytest.raises(InputError, match="not JPEG"):
        decode_labels(tmp_path / "j.jpg")


def test_instances_get_words(tmp_path: Path, listed: Any, read: Any, png: Any) -> None:
    labels = np.zeros((60, 80), np.uint16)
    gray = np.full((60, 80), 20, np.uint8)
    for number, (x, y, side) in enumerate(((5, 20, 6), (30, 2, 6), (60, 25, 7), (35, 45, 10), (35, 25, 4)), start=1):
        labels[y : y + side, x : x + side] = 300 * number
        gray[y : y + side, x : x + side] = 220 if number == 3 else 90
    png(tmp_path / "images" / "f.png", gray)
    png(tmp_path / "masks" / "f.png", labels)
    spec = f"instances:{tmp_path}?noun=nucleus&plural=nuclei&all=cell%20nuclei&modality=Histology&group=(.*)"
    (sample,), faults = listed(spec)
    assert not faults and sample.names == ()
    masks = read(sample).masks
    assert np.array_equal(masks["cell nuclei"], labels > 0)
    named = {name: int(labels[mask][0]) // 300 for name, mask in masks.items() if name != "cell nuclei"}
    assert named == {
        "largest nucleus": 4,
        "smallest nucleus": 5,
        "leftmost nucleus": 1,
        "rightmost nucleus": 3,
        "uppermost nucleus": 2,
        "lowest nucleus": 4,
        "brightest nucleus": 3,
    }
    assert all(len(np.unique(labels[masks[name]])) == 1 for name in named)
    assert set(masks) == set(open_source(spec).vocabulary()["Histology"])
    assert open_source(f"instances:{tmp_path}?noun=cell&group=(.*)").vocabulary() == {}
    assert "cells" in listed(f"instances:{tmp_path}?noun=cell&group=(.*)")[0][0].reader().masks


def test_instance_maps_that_cannot_be_used(tmp_path: Path, listed: Any, png: Any) -> None:
    for name, values in (("a", LABELS * 0), ("b", LABELS.T), ("c", LABELS)):
        png(tmp_path / "images" / f"{name}.png", IMAGE)
        png(tmp_path / "masks" / f"{name}.png", values)
    samples, _ = listed(f"instances:{tmp_path}?noun=cell&group=(.*)")
    (tmp_path / "masks" / "c.png").unlink()
    assert [[f.code for f in s.reader().faults] for s in samples] == [
        ["empty_mask"],
        ["size_mismatch"],
        ["missing_mask"],
    ]
    with pytest.raises(InputError, match="noun=NAME"):
        open_source(f"instances:{tmp_path}")
