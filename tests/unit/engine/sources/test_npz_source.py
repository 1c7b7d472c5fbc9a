"""MedSAM and CVPR ``.npz`` files, made small: names, slices, spacing, pickles."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ibisagent.engine.sources.npz_file import NpzFile
from ibisagent.engine.sources.registry import open_source
from ibisagent.errors import InputError


def volume(depth: int = 12) -> tuple[Any, Any]:
    """A liver (1) on slices 2-9, largest on 5, and a tumor (2) on slice 8 only."""
    images = np.arange(depth, dtype=np.uint8)[:, None, None] * 10 + np.zeros((1, 20, 24), np.uint8)
    labels = np.zeros((depth, 20, 24), np.uint8)
    for index in range(2, 10):
        size = 12 - 2 * abs(index - 5)
        labels[index, 2 : 2 + size, 3 : 3 + size] = 1
    labels[8, 14:18, 14:18] = 2
    return images, labels


@pytest.fixture
def root(tmp_path: Path) -> Path:
    images, labels = volume()
    np.savez_compressed(tmp_path / "CT_Abd_p1.npz", imgs=images, gts=labels, spacing=np.array([0.7, 0.8, 2.5]))
    (tmp_path / "labels.json").write_text(json.dumps({"1": "liver", "2": "liver tumor", "9": "spleen"}))
    return tmp_path


def prompts(table: Any) -> Any:
    return np.array(table, dtype=object)


def test_slices_of_a_volume(root: Path, listed: Any, read: Any) -> None:
    spec = f"npz:{root}?labels={root}/labels.json&slices=3&min_area=10"
    samples, faults = listed(spec + "&exhaustive=1")
    assert not faults and len(samples) == 3
    by_key = {s.key: s for s in samples}
    best, tumor = by_key["CT_Abd_p1.npz#5"], by_key["CT_Abd_p1.npz#8"]
    assert best.names == ("liver",) and best.absent == ("liver tumor", "spleen")
    assert tumor.names == ("liver", "liver tumor") and tumor.absent == ("spleen",)
    assert {(s.group, s.modality) for s in samples} == {("CT_Abd_p1", "CT")}
    images, labels = volume()
    for sample in samples:
        found, index = read(sample), int(sample.key.rpartition("#")[2])
        assert np.array_equal(found.image.pixels[..., 0], images[index])
        assert np.array_equal(found.masks["liver"], labels[index] == 1)
        assert found.image.geometry.spacing_mm == (0.8, 0.7)  # (row, column) of (x, y, z)
    assert [s.absent for s in listed(spec)[0]] == [()] * 3


def test_a_structure_too_small_on_a_slice_is_neither_named_nor_absent(root: Path, listed: Any) -> None:
    samples, _ = listed(f"npz:{root}?labels={root}/labels.json&slices=12&min_area=17&exhaustive=1")
    slice_8 = next(s for s in samples if s.key.endswith("#8"))
    assert slice_8.names == ("liver",) and slice_8.absent == ("spleen",)  # the tumor has 16 pixels


def test_two_dimensions_and_colour(tmp_path: Path, listed: Any, read: Any) -> None:
    labels = np.zeros((10, 3), np.int64)
    labels[2:5, 1:] = 4
    np.savez(tmp_path / "Dermoscopy_a.npz", imgs=np.full((10, 3, 3), 7, np.uint8), gts=labels)
    np.savez(tmp_path / "XRay_b.npz", imgs=np.arange(30, dtype=np.int16).reshape(10, 3) * 100, gts=labels > 0)
    with pytest.raises(InputError, match=r"no patients and no splits are given; add group=REGEX"):
        listed(f"npz:{tmp_path}?target=lesion")
    by_file = listed(f"npz:{tmp_path}?target=lesion&group=(.*)")[0]
    assert [s.group for s in by_file] == ["Dermoscopy_a", "XRay_b"]
    samples, faults = listed(f"npz:{tmp_path}?target=lesion&split=val")
    assert not faults and {s.split for s in samples} == {"val"}
    assert [(s.key, s.names, s.modality, s.group) for s in samples] == [
        ("Dermoscopy_a.npz", ("lesion",), "Dermoscopy", None),
        ("XRay_b.npz", ("lesion",), "X-ray", None),
    ]
    (tmp_path / "XRay_b.npz").rename(tmp_path / "2DBox_US_b.npz")
    assert listed(f"npz:{tmp_path}?target=lesion&split=val")[0][0].modality == "Ultrasound"
    (tmp_path / "2DBox_US_b.npz").rename(tmp_path / "XRay_b.npz")
    assert all(read(s).masks["lesion"].sum() == 6 for s in samples)
    deep = read(samples[1]).image
    assert deep.window is not None and deep.pixels.min() == 0 and deep.pixels.max() == 255


def test_a_folder_with_the_labels_elsewhere(root: Path, listed: Any, read: Any, tmp_path: Path) -> None:
    images, labels = volume()
    for folder, arrays in (("imgs", {"imgs": images}), ("gts", {"gts": labels})):
        (root / folder).mkdir()
        np.savez_compressed(root / folder / "MR_x.npz", **arrays)
    samples, faults = listed(f"npz:{root}/imgs?gts={root}/gts&target=liver&slices=1")
    assert not faults and [(s.key, s.modality) for s in samples] == [("MR_x.npz#5", "MRI")]
    assert read(samples[0]).masks["liver"].sum() == 144
    _, faults = listed(f"npz:{root}/imgs?target=liver")
    assert [f.code for f in faults] == ["missing_mask"]


def test_pickled_prompts_are_read_only_when_allowed(root: Path, listed: Any, read: Any) -> None:
    images, labels = volume()
    table = {"1": "Liver in abdominal  CT", "2": "Mark every liver tumor", "instance_label": 0}
    np.savez_compressed(root / "CT_Abd_p1.npz", imgs=images, gts=labels, text_prompts=prompts(table))
    _, (fault,) = listed(f"npz:{root}")
    assert fault.code == "bad_row" and "allow_pickle=1" in fault.message
    samples, faults = listed(f"npz:{root}?allow_pickle=1&min_area=10")
    assert not faults
    tumor = next(s for s in samples if s.key.endswith("#8"))
    assert tumor.names == ("liver", "liver tumor")
    assert tumor.instructions == {
        "liver": ("Liver in abdominal CT",),
        "liver tumor": ("Mark every liver tumor",),
    }
    named, _ = listed(f"npz:{root}?allow_pickle=1&min_area=10&labels={root}/labels.json")
    assert next(s for s in named if s.key.endswith("#8")).instructions == {
        "liver": ("Liver in abdominal CT",),
        "liver tumor": ("Mark every liver tumor",),
    }
    assert set(read(tumor).masks) == set(tumor.names)


def test_prompts_of_objects_and_prompts_as_json(tmp_path: Path, listed: Any, read: Any) -> None:
    images, labels = volume()
    np.savez(
        tmp_path / "a.npz",
        imgs=images,
        gts=labels,
        text_prompts=prompts({"1": "All the cells here", "instance_label": 1}),
    )
    np.savez(tmp_path / "b.npz", imgs=images, gts=labels, text_prompts=json.dumps({"1": "liver", "2": "tumor"}))
    united, faults = listed(f"npz:{tmp_path}/a.npz?allow_pickle=1&slices=1")
    assert not faults and united[0].names == ("cells",)
    assert united[0].instructions == {"cells": ("All the cells here",)}
    named, faults = listed(f"npz:{tmp_path}/b.npz?slices=4&min_area=10")
    assert not faults and {name for s in named for name in s.names} == {"liver", "tumor"}


def test_a_prompt_that_names_no_structure_asks_for_labels(tmp_path: Path, listed: Any) -> None:
    images, labels = volume()
    for name, text in (("a", "what is shown in the middle"), ("b", "the liver next to the spleen")):
        np.savez(tmp_path / f"{name}.npz", imgs=images, gts=labels, text_prompts=json.dumps({"1": text, "2": "liver"}))
    np.savez(tmp_path / "c.npz", imgs=images, gts=labels, text_prompts=json.dumps({"1": "a cyst", "2": "a small cyst"}))
    samples, faults = listed(f"npz:{tmp_path}?slices=1")
    assert [(f.item, f.code) for f in faults] == [("a.npz", "bad_row"), ("b.npz", "bad_row")]
    assert all("give labels=FILE" in f.message for f in faults)
    # which of the two cysts each sentence means, the mask of both does not say
    assert [(s.names, s.instructions) for s in samples] == [(("cyst",), {})]


class Trap:
    """Runs a command when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_a_hostile_pickle_never_runs(tmp_path: Path, listed: Any) -> None:
    images, labels = volume()
    trap = tmp_path / "sprung"
    np.savez(tmp_path / "a.npz", imgs=images, gts=labels, text_prompts=prompts({"1": Trap(trap)}))
    np.savez(tmp_path / "b.npz", imgs=images, gts=prompts([[Trap(trap)]]))
    samples, faults = listed(f"npz:{tmp_path}?allow_pickle=1&target=x")
    assert not samples and len(faults) == 2
    assert faults[0].code == "unreadable" and "mkdir" in faults[0].message
    assert not trap.exists()


def test_every_fault_is_named(root: Path, listed: Any) -> None:
    images, labels = volume()
    np.savez(root / "b_noimage.npz", gts=labels)
    np.savez(root / "c_size.npz", imgs=images[:, :, :9], gts=labels)
    np.savez(root / "d_empty.npz", imgs=images, gts=labels * 0)
    np.savez(root / "e_float.npz", imgs=images, gts=labels.astype(np.float32))
    np.savez(root / "f_unknown.npz", imgs=images, gts=labels + 5)
    (root / "g_broken.npz").write_bytes(b"PK\x03\x04 nothing")
    whole = (root / "CT_Abd_p1.npz").read_bytes()
    (root / "h_cut.npz").write_bytes(whole[: len(whole) // 2])
    np.savez(root / "i_one.npz", imgs=images[0, 0], gts=labels[0, 0])
    samples, faults = listed(f"npz:{root}?labels={root}/labels.json")
    assert len(samples) == 3
    assert [(f.item.partition("_")[0], f.code) for f in faults] == [
        ("b", "missing_image"),
        ("c", "size_mismatch"),
        ("d", "empty_mask"),
        ("e", "unreadable"),
        ("f", "bad_row"),
        ("g", "unreadable"),
        ("h", "unreadable"),
        ("i", "size_mismatch"),
    ]


def test_planes_are_streamed_and_checked(root: Path) -> None:
    images, _ = volume()
    fortran = np.asfortranarray(images.astype(np.uint16))
    np.savez(root / "order.npz", imgs=fortran)
    npz = NpzFile(root / "order.npz")
    assert npz.shape("imgs") == images.shape and not npz.is_pickled("imgs")
    for index in (0, 7, 11):
        assert np.array_equal(npz.plane("imgs", index), images[index])
        assert np.array_equal(NpzFile(root / "CT_Abd_p1.npz").plane("imgs", index), images[index])
    with pytest.raises(InputError, match="no slice 12"):
        npz.plane("imgs", 12)
    with pytest.raises(InputError, match="no array gts"):
        npz.plane("gts", 0)


def test_a_header_that_claims_too_much_is_refused(tmp_path: Path) -> None:
    import io
    import zipfile

    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6, 10**6)}
    )
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("imgs.npy", header.getvalue())
    with pytest.raises(InputError, match="give a smaller file"):
        NpzFile(tmp_path / "a.npz").plane("imgs", 3)


def test_labels_that_are_damaged_after_listing(root: Path, listed: Any) -> None:
    sample = listed(f"npz:{root}?target=liver&slices=1")[0][0]
    images, _ = volume()
    np.savez(root / "CT_Abd_p1.npz", imgs=images)
    found = sample.reader()
    assert not found.masks and [f.code for f in found.faults] == ["unreadable"]


def test_no_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no \.npz file"):
        open_source(f"npz:{tmp_path}?target=x")
