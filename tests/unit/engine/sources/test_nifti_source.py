"""NIfTI volumes as slices: layouts, label maps, which slices, one grid for image and mask, and what is wrong."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from ibisagent.engine.sources.label_map import read_label_map
from ibisagent.engine.sources.nifti import NiftiSource
from ibisagent.engine.sources.registry import open_source
from ibisagent.engine.sources.sample import Fault, Sample
from ibisagent.engine.sources.slices import choose_slices
from ibisagent.errors import InputError
from ibisagent.io import read_image, read_mask
from ibisagent.io.nifti import open_nifti
from ibisagent.io.nifti_labels import count_labels

MINI = Path(__file__).parents[4] / "data" / "mini" / "volumes"
SHAPE = (30, 26, 20)
OBLIQUE = np.array([[0, -1.2, 0.1, 4], [1.1, 0, 0, -7], [0, 0.1, -3, 9], [0, 0, 0, 1.0]])


def labels_of() -> np.ndarray:
    """Liver (1) on slices 2 to 15, a tumour (2) inside it on 8 to 10."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[4:24, 5:20, 2:16] = 1
    labels[4:25, 5:21, 9] = 1
    labels[10:18, 8:14, 8:11] = 2
    return labels


def save(path: Path, data: np.ndarray, affine: np.ndarray = OBLIQUE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


def image_of(seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(-20, 20, SHAPE)
    return (labels_of().astype(np.int16) * 60 + noise).astype(np.int16)


@pytest.fixture
def nnunet(tmp_path: Path) -> Path:
    """Two training cases with two channels each, as nnU-Net wants them."""
    for case in ("liver_01", "liver_02"):
        save(tmp_path / "imagesTr" / f"{case}_0000.nii.gz", image_of())
        save(tmp_path / "imagesTr" / f"{case}_0001.nii.gz", image_of(1))
        save(tmp_path / "labelsTr" / f"{case}.nii.gz", labels_of())
    description = {
        "name": "Livers",
        "licence": "CC BY 4.0",
        "channel_names": {"0": "CT", "1": "T1"},
        "labels": {"background": 0, "liver": [1, 2], "liver tumour": 2},
    }
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    return tmp_path


def read(spec: str) -> tuple[list[Sample], list[Fault]]:
    found = list(open_source(spec).samples())
    return [s for s in found if isinstance(s, Sample)], [f for f in found if isinstance(f, Fault)]


def test_nnunet_folder(nnunet: Path) -> None:
    samples, faults = read(f"nifti:{nnunet}?slices=3&min_area=20")
    assert not faults and [s.group for s in samples] == ["liver_01"] * 3 + ["liver_02"] * 3
    assert {(s.source, s.licence, s.modality, s.view, s.split) for s in samples} == {
        ("Livers", "CC BY 4.0", "CT", "axial", None)
    }
    by_key = {s.key: s for s in samples}
    tumour = by_key["imagesTr/liver_01_0000.nii.gz:axial:9"]  # the liver is largest there
    assert tumour.names == ("liver", "liver tumour") and tumour.absent == ()
    others = [s for s in samples if s.names == ("liver",)]
    assert others and all(s.absent == ("liver tumour",) for s in others)
    assert [s.key for s in samples] == [s.key for s in read(f"nifti:{nnunet}?slices=3&min_area=20")[0]]


def test_overlapping_regions_and_one_grid(nnunet: Path) -> None:
    """Image and masks are what the readers of io make of the same files, whatever the affine."""
    for plane in ("axial", "coronal", "sagittal"):
        samples, _ = read(f"nifti:{nnunet}?slices=2&plane={plane}&min_area=10")
        for sample in samples[:2]:
            made = pickle.loads(pickle.dumps(sample.reader))()
            spec = sample.key.split(":", 1)[1]
            image = read_image(nnunet / "imagesTr" / "liver_01_0000.nii.gz", slice_spec=spec, modality="CT")
            assert made.image.sha256 == image.sha256 and made.image.window is not None
            assert made.image.window.name == "soft tissue"
            assert set(made.masks) == set(sample.names) and not made.faults
            whole = read_mask(nnunet / "labelsTr" / "liver_01.nii.gz", image)
            assert np.array_equal(made.masks["liver"], whole)
            if "liver tumour" in made.masks:
                assert (made.masks["liver tumour"] & ~whole).sum() == 0
    assert (made.image.pixels[made.masks["liver"]].mean()) > made.image.pixels[~made.masks["liver"]].mean() + 20


def test_other_channel_target_and_options(nnunet: Path) -> None:
    samples, _ = read(
        f"nifti:{nnunet}?channel=1&slices=1&min_area=20&target=liver%20tumour&group=_(\\d%2B)&split=val&name=mine"
    )
    assert [s.names for s in samples] == [("liver tumour",)] * 2
    first = samples[0]
    assert (first.group, first.split, first.source, first.modality) == ("01", "val", "mine", "MRI")
    assert first.key.startswith("imagesTr/liver_01_0001")
    assert all(not s.absent for s in read(f"nifti:{nnunet}?exhaustive=0")[0])
    with pytest.raises(InputError, match="not in the label map; there are liver"):
        open_source(f"nifti:{nnunet}?target=spleen")
    faults = read(f"nifti:{nnunet}?channel=2")[1]
    assert [f.code for f in faults] == ["missing_image"] * 2 and "liver_01_0002" in faults[0].message


def test_a_labelled_test_folder_keeps_the_published_split(nnunet: Path) -> None:
    save(nnunet / "imagesTs" / "liver_09_0000.nii.gz", image_of())
    save(nnunet / "labelsTs" / "liver_09.nii.gz", labels_of())
    assert {(s.group, s.split) for s in read(f"nifti:{nnunet}")[0]} == {
        ("liver_01", "train"),
        ("liver_02", "train"),
        ("liver_09", "test"),
    }


def test_ignored_and_unnamed_labels_leave_absence_open(nnunet: Path) -> None:
    labels = labels_of()
    labels[0:3, 0:3, :5] = 3
    save(nnunet / "labelsTr" / "liver_01.nii.gz", labels)
    description = json.loads((nnunet / "dataset.json").read_text())
    samples, faults = read(f"nifti:{nnunet}?slices=14&min_area=20")
    assert [f.code for f in faults] == ["bad_row"] and "45 voxels" in faults[0].message
    absent = {s.key.rsplit(":", 1)[1]: s.absent for s in samples if s.group == "liver_01"}
    assert absent["2"] == () and absent["13"] == ("liver tumour",)
    description["labels"]["ignore"] = 3
    (nnunet / "dataset.json").write_text(json.dumps(description))
    again, faults = read(f"nifti:{nnunet}?slices=14&min_area=20")
    assert not faults and {s.key: s.absent for s in again} == {s.key: s.absent for s in samples}
    assert "ignore" not in again[0].names


def test_what_is_wrong_is_named_and_stops_nothing(nnunet: Path) -> None:
    (nnunet / "labelsTr" / "liver_02.nii.gz").write_bytes(b"\x1f\x8bnot a volume")
    save(nnunet / "imagesTr" / "alone_0000.nii.gz", image_of())
    save(nnunet / "labelsTr" / "lost.nii.gz", labels_of())
    save(nnunet / "imagesTr" / "short_0000.nii.gz", image_of()[..., :5])
    save(nnunet / "labelsTr" / "short.nii.gz", labels_of())
    save(
        nnunet / "imagesTr" / "moved_0000.nii.gz", image_of(), OBLIQUE + np.eye(4) * [0, 0, 0, 0] + 0.5 * np.eye(4, k=3)
    )
    save(nnunet / "labelsTr" / "moved.nii.gz", labels_of())
    save(nnunet / "imagesTr" / "blank_0000.nii.gz", image_of())
    save(nnunet / "labelsTr" / "blank.nii.gz", np.zeros(SHAPE, np.uint8))
    save(nnunet / "labelsTr" / "liver_01.nii", labels_of())
    samples, faults = read(f"nifti:{nnunet}")
    assert not samples
    assert {f.item.split("/")[1].split("_0000")[0].split(".")[0]: f.code for f in faults} == {
        "alone": "missing_mask",
        "lost": "missing_image",
        "short": "size_mismatch",
        "moved": "size_mismatch",
        "blank": "empty_mask",
        "liver_02": "unreadable",
        "liver_01": "duplicate_id",
    }
    assert all("\n" not in f.message and f.source == "Livers" for f in faults)


def test_a_label_volume_that_changes_after_listing_becomes_faults(nnunet: Path) -> None:
    sample = read(f"nifti:{nnunet}?slices=1&min_area=20")[0][0]
    label = nnunet / "labelsTr" / "liver_01.nii.gz"
    save(label, np.zeros(SHAPE, np.uint8))
    assert [f.code for f in sample.reader().faults] == ["empty_mask"] * 2
    save(label, labels_of()[:10])
    assert [f.code for f in sample.reader().faults] == ["size_mismatch"] * 2
    label.unlink()
    made = sample.reader()
    assert [f.code for f in made.faults] == ["unreadable"] * 2 and made.image.height and not made.masks
    (nnunet / "imagesTr" / "liver_01_0000.nii.gz").unlink()
    with pytest.raises(InputError, match="no such file"):
        sample.reader()


def test_other_layouts(tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text(json.dumps({"1": "liver", "2": None}))
    save(tmp_path / "a" / "p1" / "image.nii.gz", image_of())
    save(tmp_path / "a" / "p1" / "label.nii.gz", labels_of())
    save(tmp_path / "a" / "p2" / "image.nii.gz", image_of())
    samples, faults = read(f"nifti:{tmp_path / 'a'}?labels={tmp_path / 'map.json'}")
    assert {s.group for s in samples} == {"p1"} and {s.names for s in samples} == {("liver",)}
    assert [(f.item, f.code) for f in faults] == [("p2/image.nii.gz", "missing_mask")]
    save(tmp_path / "b" / "scans" / "x.nii", image_of())
    save(tmp_path / "b" / "truth" / "x.nii", labels_of())
    samples, faults = read(f"nifti:{tmp_path / 'b'}?images=scans&labels_dir=truth&target=lesion&modality=mr")
    assert not faults and {(s.names, s.modality) for s in samples} == {(("lesion",), "MRI")}
    assert np.array_equal(samples[0].reader().masks["lesion"], _whole(samples[0]))


def _whole(sample: Sample) -> np.ndarray:
    reader: Any = sample.reader
    return read_mask(reader.label, read_image(reader.image, slice_spec=reader.slice_spec))


def test_the_volume_of_mini() -> None:
    samples, faults = read(f"nifti:{MINI}?target=brain%20tumor&modality=MRI")
    assert not faults and len(samples) == 4 and {s.group for s in samples} == {"brain1"}
    for sample in samples:
        assert np.array_equal(sample.reader().masks["brain tumor"], _whole(sample))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nifti:nowhere", "no such folder"),
        ("nifti:{root}", "no label map"),
        ("nifti:{root}?target=liver", "no pair of NIfTI volumes"),
        ("nifti:{root}?target=liver&images=scans", "no such folder; check images="),
        ("nifti:{root}?target=liver&window=dim", "window 'dim' is unknown"),
        ("nifti:{root}?target=liver&plane=oblique", "axial, coronal, sagittal"),
        ("nifti:{root}?target=liver&slices=0", "1 or more"),
    ],
)
def test_where_there_is_no_data_set(tmp_path: Path, spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(open_source(spec.format(root=tmp_path)).samples())


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"labels": []}', '{"labels": {"background": 0}}', '{"liver": "x"}', '{"1": ""}', '{"a": true}']
    + ['{"liver": -1}', '{"liver": 70000}', '{"liver": []}'],
)
def test_label_maps_that_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "map.json").write_text(text)
    with pytest.raises(InputError, match=r"map\.json"):
        read_label_map(tmp_path / "map.json")


def test_old_label_maps(tmp_path: Path) -> None:
    old = {"labels": {"0": "background", "1": "liver", "2": "liver"}, "modality": {"0": "zscore", "1": "FLAIR"}}
    (tmp_path / "map.json").write_text(json.dumps(old))
    found = read_label_map(tmp_path / "map.json")
    assert found.structures == {"liver": (1, 2)} and found.channels == (None, "MRI") and found.labels == (1, 2)


@pytest.mark.parametrize("ending", ["nii.gz", "nii"])
def test_a_channel_of_volumes_with_four_axes(tmp_path: Path, ending: str) -> None:
    channels = np.stack([image_of(0), image_of(1), image_of(2)], axis=3)
    save(tmp_path / "imagesTr" / f"brats_1.{ending}", channels)
    save(tmp_path / "labelsTr" / f"brats_1.{ending}", labels_of())
    save(tmp_path / "single.nii.gz", image_of(1))
    described = {"labels": {"1": "liver"}, "modality": {"0": "FLAIR", "1": "T1w", "2": "CT"}}
    (tmp_path / "dataset.json").write_text(json.dumps(described | {"labels": {"1": "liver", "2": "liver"}}))
    for channel, modality in ((0, "MRI"), (1, "MRI"), (2, "CT")):
        (sample,), faults = read(f"nifti:{tmp_path}?slices=1&channel={channel}")
        assert not faults and sample.modality == modality
        labelled = pickle.loads(pickle.dumps(sample.reader))()
        index = int(sample.key.rsplit(":", 1)[1])
        assert np.array_equal(
            labelled.masks["liver"], read_mask(tmp_path / "labelsTr" / f"brats_1.{ending}", labelled.image)
        )
        alone = save(tmp_path / f"only{channel}.nii.gz", image_of(channel))
        expected = read_image(alone, slice_spec=f"axial:{index}", modality=modality)
        assert np.array_equal(labelled.image.pixels, expected.pixels)
    (fault,) = read(f"nifti:{tmp_path}?channel=3")[1]
    assert fault.code == "unreadable" and "no channel 3 in it; it has 3" in fault.message
    with pytest.raises(InputError, match="4-D data"):
        open_nifti(tmp_path / "imagesTr" / f"brats_1.{ending}")


@pytest.mark.parametrize("ending", ["Va", "Val"])
def test_validation_folders(tmp_path: Path, ending: str) -> None:
    for folder in ("Tr", ending, "Ts"):
        save(tmp_path / f"images{folder}" / f"case{folder}_0000.nii.gz", image_of())
        save(tmp_path / f"labels{folder}" / f"case{folder}.nii.gz", labels_of())
    samples, faults = read(f"nifti:{tmp_path}?target=liver&slices=1")
    assert not faults and [(s.group, s.split) for s in samples] == [
        ("caseTr", "train"),
        (f"case{ending}", "val"),
        ("caseTs", "test"),
    ]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.int32])
@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_counts_are_exact(tmp_path: Path, plane: str, dtype: type) -> None:
    labels = np.random.default_rng(3).choice([0, 1, 2, 250], SHAPE).astype(dtype)
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    volume = open_nifti(save(tmp_path / "x.nii.gz", labels, affine))
    axis = {"sagittal": 0, "coronal": 1, "axial": 2}[plane]
    others = tuple(a for a in range(3) if a != axis)
    expected = [(labels == label).sum(axis=others) for label in (250, 7, 1)]
    assert np.array_equal(count_labels(volume, plane, (250, 7, 1)), expected)


@pytest.mark.parametrize(
    ("value", "message"), [(0.5, "broken"), (-1.0, "negative"), (np.nan, "broken"), (7e4, "above")]
)
def test_what_is_no_label_volume(tmp_path: Path, value: float, message: str) -> None:
    labels = np.zeros(SHAPE, np.float32)
    labels[3, 3, 3] = value
    with pytest.raises(InputError, match=message):
        count_labels(open_nifti(save(tmp_path / "x.nii", labels)), "axial", (1,))


def test_slices_are_spread_and_each_structure_gets_its_best() -> None:
    large, small = np.zeros(100, np.int64), np.zeros(100, np.int64)
    large[20:60] = 200 + 30 * np.minimum(np.arange(40), np.arange(40)[::-1])
    small[70:73] = (80, 90, 80)
    areas = {"large": large, "small": small}
    chosen = choose_slices(areas, 5, 64)
    assert {39, 71} <= set(chosen) and len(chosen) == 5
    assert np.diff(chosen).min() >= 2
    assert chosen == choose_slices(dict(reversed(areas.items())), 5, 64)
    assert choose_slices({"small": small}, 9, 64) == [70, 71, 72]
    assert choose_slices({"small": small}, 9, 100) == [] and choose_slices({}, 3, 1) == []
    assert choose_slices(areas, 1, 64) == [39]
    assert len(choose_slices(areas, 1000, 1)) == 43


def test_source_has_a_name(nnunet: Path) -> None:
    assert NiftiSource.from_spec(str(nnunet / "dataset.json"), {}).name == "Livers"
