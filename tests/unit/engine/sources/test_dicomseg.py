"""DICOM series with segmentation objects, made with highdicom: slices, names, one grid, and no identifiers."""

from __future__ import annotations

import json
import logging
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ibisagent.engine.sources.registry import open_source
from ibisagent.engine.sources.sample import Fault, Sample
from ibisagent.engine.splits import split_of_group
from ibisagent.errors import InputError, MissingExtraError
from ibisagent.io import read_image

hd = pytest.importorskip("highdicom")

ROWS, COLUMNS, SLICES = 24, 20, 8
PATIENT = "SECRET-4711"
SECRETS = (PATIENT, "Doe", "1.2.826")


def volume() -> np.ndarray:
    """Liver 40 HU on all slices but the first two, tumour 90 HU on slices 4 and 5 (slice, row, column)."""
    values = np.full((SLICES, ROWS, COLUMNS), -1000, np.int16)
    values[2:, 4:20, 3:15] = 40
    values[4:6, 6:14, 4:13] = 90
    return values


def series(folder: Path, patient: str = PATIENT, tag: str = "1", **elements: Any) -> list[Any]:
    """A CT series whose files are named against the order of its slices."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    folder.mkdir(parents=True, exist_ok=True)
    images = []
    for k, values in enumerate(volume()):
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = CTImageStorage
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = f"1.2.826.0.1.{tag}.3.{k + 1}"
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.StudyInstanceUID, ds.SeriesInstanceUID = f"1.2.826.0.1.{tag}.1", f"1.2.826.0.1.{tag}.2"
        ds.FrameOfReferenceUID = f"1.2.826.0.1.{tag}.9"
        ds.PatientID, ds.PatientName, ds.PatientBirthDate, ds.PatientSex = patient, "Doe^Jane", "", ""
        ds.Modality, ds.InstanceNumber, ds.SeriesNumber, ds.StudyID = "CT", SLICES - k, 1, ""
        ds.StudyDate = ds.StudyTime = ds.AccessionNumber = ds.ReferringPhysicianName = ""
        ds.ImagePositionPatient, ds.ImageOrientationPatient = [-10.0, -20.0, 3.0 * k], [1, 0, 0, 0, 1, 0]
        ds.PixelSpacing, ds.SliceThickness = [0.8, 0.8], 3.0
        ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = ROWS, COLUMNS, 1, "MONOCHROME2"
        ds.BitsAllocated = ds.BitsStored = 16
        ds.HighBit, ds.PixelRepresentation = 15, 1
        ds.RescaleSlope, ds.RescaleIntercept = 1, 0
        ds.PixelData = values.tobytes()
        for keyword, value in elements.items():
            setattr(ds, keyword, value)
        ds.save_as(folder / f"im{SLICES - k:02d}.dcm", enforce_file_format=True)
        images.append(ds)
    return images


def segment(number: int, label: str, meaning: str = "Liver", modifier: str | None = None) -> Any:
    from pydicom.sr.codedict import codes

    kind = hd.sr.CodedConcept(f"9{number}", "99TEST", meaning)
    made = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=codes.SCT.Organ,
        segmented_property_type=kind,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
    )
    if modifier is not None:
        concept = hd.sr.CodedConcept("24028007", "SCT", modifier)
        made.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [concept]
    return made


def masks() -> np.ndarray:
    """(slice, row, column, segment): liver and tumour."""
    values = volume()
    return np.stack([values > 0, values == 90], axis=-1).astype(np.uint8)


def save_seg(path: Path, images: list[Any], pixels: np.ndarray, segments: list[Any], **options: Any) -> Any:
    options.setdefault("segmentation_type", "BINARY")
    made = hd.seg.Segmentation(
        source_images=images,
        pixel_array=pixels,
        segment_descriptions=segments,
        series_instance_uid=options.pop("series_uid", "1.2.826.0.7.1"),
        series_number=2,
        sop_instance_uid=options.pop("uid", "1.2.826.0.7.2"),
        instance_number=1,
        manufacturer="test",
        manufacturer_model_name="test",
        software_versions="1",
        device_serial_number="1",
        **options,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path)
    return made


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dicom")
    images = series(root / "ct")
    save_seg(root / "seg" / "seg.dcm", images, masks(), [segment(1, "Liver"), segment(2, "Segment 2", "Neoplasm")])
    (root / "readme.txt").write_text("not DICOM")
    return root


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(made, tmp_path / "copy"))


def read(spec: str) -> tuple[list[Sample], list[Fault]]:
    found = list(open_source(spec).samples())
    return [s for s in found if isinstance(s, Sample)], [f for f in found if isinstance(f, Fault)]


def test_slices_names_and_masks(made: Path) -> None:
    samples, faults = read(f"dicomseg:{made}?slices=3&min_area=40&licence=CC0")
    assert not faults and len(samples) == 3
    assert {(s.modality, s.view, s.licence, s.source) for s in samples} == {("CT", "axial", "CC0", made.name)}
    assert len({s.key for s in samples}) == 3 and len({s.group for s in samples}) == 1
    both = [s for s in samples if s.names == ("liver", "neoplasm")]
    alone = [s for s in samples if s.names == ("liver",)]
    assert both and len(both) + len(alone) == 3 and all(s.absent == ("neoplasm",) for s in alone)
    for sample in samples:
        place = int(sample.key.rsplit("/", 1)[1])
        labelled = pickle.loads(pickle.dumps(sample.reader))()
        assert np.array_equal(labelled.masks["liver"], masks()[place, ..., 0] > 0)
        if "neoplasm" in sample.names:
            assert np.array_equal(labelled.masks["neoplasm"], masks()[place, ..., 1] > 0)
        expected = read_image(made / "ct" / f"im{SLICES - place:02d}.dcm")
        assert labelled.image.sha256 == expected.sha256 and labelled.image.modality == "CT" and not labelled.faults
        assert labelled.image.window is not None and labelled.image.window.name == "soft tissue"
    assert [s.key for s in samples] == [s.key for s in read(f"dicomseg:{made}?slices=3&min_area=40")[0]]


def test_no_identifier_leaves(
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (folder / "ct" / "im01.dcm").unlink()
    data = (folder / "seg" / "seg.dcm").read_bytes()
    (folder / "seg" / "broken.dcm").write_bytes(data[: len(data) // 3])
    with caplog.at_level(logging.DEBUG):
        samples, faults = read(f"dicomseg:{folder}?min_area=40")
        texts = [repr(samples), repr(faults), caplog.text, *capfd.readouterr()]
        for sample in samples:
            texts += [repr(sample.reader()), sample.reader().image.source, repr(sample.group)]
    assert samples and {f.code for f in faults} == {"missing_image", "unreadable"}
    for text in texts:
        assert not any(secret in text for secret in SECRETS)
    assert samples[0].group is not None and len(samples[0].group) == 12
    monkeypatch.setenv("PEPPER", "in the mill")
    salted = read(f"dicomseg:{folder}?min_area=40&salt_env=PEPPER")[0]
    assert {s.group for s in salted}.isdisjoint({s.group for s in samples})
    assert "in the mill" not in repr(open_source(f"dicomseg:{folder}?salt_env=PEPPER"))


def test_the_secret_of_the_hashes_never_stands_in_the_spec(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no option 'salt'"):
        open_source(f"dicomseg:{made}?salt=pepper")
    monkeypatch.setenv("EMPTY", "")
    for variable in ("EMPTY", "hunter2"):
        with pytest.raises(InputError, match="salt_env= names is not set") as caught:
            open_source(f"dicomseg:{made}?salt_env={variable}")
        assert variable not in str(caught.value)


def test_one_patient_has_one_group_whatever_the_series(made: Path, tmp_path: Path) -> None:
    images = series(tmp_path / "x" / "b", tag="5")
    save_seg(tmp_path / "x" / "b.dcm", images, masks()[..., :1], [segment(1, "liver")], uid="1.2.826.0.7.9")
    other = series(tmp_path / "x" / "c", patient="other", tag="6")
    save_seg(tmp_path / "x" / "c.dcm", other, masks()[..., :1], [segment(1, "liver")], uid="1.2.826.0.7.8")
    shutil.copytree(made, tmp_path / "x" / "a")
    samples, faults = read(f"dicomseg:{tmp_path / 'x'}?min_area=40&slices=2")
    assert not faults and len(samples) == 6 and len({s.key for s in samples}) == 6
    groups = [s.group for s in samples]
    assert groups[0] == groups[1] == groups[2] == groups[3] != groups[4] == groups[5]
    assert split_of_group(str(groups[0])) in ("train", "val", "test")


def test_names(tmp_path: Path) -> None:
    images = series(tmp_path / "ct")
    pixels = np.repeat(masks()[..., :1], 5, axis=-1)
    segments = [
        segment(1, "Left_Kidney"),
        segment(2, "GTV primary"),
        segment(3, "seg_3", "Kidney", "Right"),
        segment(4, "label 4", "Kidney", "Right"),
        segment(5, "L5 Vertebra"),
    ]
    save_seg(tmp_path / "s.dcm", images, pixels, segments)
    sample = read(f"dicomseg:{tmp_path}?slices=1&min_area=40")[0][0]
    assert sample.names == ("GTV primary", "L5 vertebra", "left kidney", "right kidney")
    (tmp_path / "names.json").write_text(json.dumps({"1": "left kidney", "3": "right kidney", "9": "spleen"}))
    sample = read(f"dicomseg:{tmp_path}?slices=1&min_area=40&labels={tmp_path / 'names.json'}")[0][0]
    assert sample.names == ("left kidney", "right kidney") and sample.absent == ()


@pytest.mark.parametrize("kind", ["FRACTIONAL", "LABELMAP"])
def test_other_types_of_objects(tmp_path: Path, kind: str) -> None:
    images = series(tmp_path / "ct")
    if kind == "FRACTIONAL":
        pixels: Any = np.where(masks()[..., :1] > 0, 0.8, 0.3).astype(np.float32)
    else:
        pixels = masks()[..., 0]
    save_seg(tmp_path / "s.dcm", images, pixels, [segment(1, "liver")], segmentation_type=kind)
    samples, faults = read(f"dicomseg:{tmp_path}?slices=2&min_area=40")
    assert not faults and len(samples) == 2
    for sample in samples:
        place = int(sample.key.rsplit("/", 1)[1])
        assert np.array_equal(sample.reader().masks["liver"], masks()[place, ..., 0] > 0)


def test_positions_stand_in_for_the_word_that_pixels_stayed(folder: Path) -> None:
    import pydicom

    path = folder / "seg" / "seg.dcm"
    ds = pydicom.dcmread(path)
    for frame in ds.PerFrameFunctionalGroupsSequence:
        for source in frame.DerivationImageSequence[0].SourceImageSequence:
            del source.SpatialLocationsPreserved
    ds.save_as(path)
    samples, faults = read(f"dicomseg:{folder}?slices=1&min_area=40")
    assert not faults and samples[0].reader().masks["liver"].any()
    for frame in ds.PerFrameFunctionalGroupsSequence:
        frame.PlanePositionSequence[0].ImagePositionPatient[0] += 5
    ds.save_as(path)
    samples, faults = read(f"dicomseg:{folder}?slices=1&min_area=40")
    assert (
        not samples and [f.code for f in faults] == ["unreadable"] and "does not say which pixel" in faults[0].message
    )


def test_what_is_wrong_is_named(folder: Path) -> None:
    for name in ("im01.dcm", "im02.dcm"):
        (folder / "ct" / name).unlink()
    shutil.copy(folder / "ct" / "im03.dcm", folder / "ct" / "copy.dcm")
    shutil.copy(folder / "seg" / "seg.dcm", folder / "seg" / "seg2.dcm")
    (folder / "ct" / "none.dcm").write_bytes(b"hello")
    samples, faults = read(f"dicomseg:{folder}?min_area=40")
    assert {(f.item, f.code) for f in faults} == {
        ("ct/im03.dcm", "duplicate_id"),
        ("ct/none.dcm", "unreadable"),
        ("seg/seg.dcm", "missing_image"),
        ("seg/seg2.dcm", "duplicate_id"),
    }
    assert any("2 of the 8 images" in f.message for f in faults) and samples
    assert [f.code for f in read(f"dicomseg:{folder}?min_area=400")[1] if f.item == "seg/seg.dcm"] == [
        "missing_image",
        "empty_mask",
    ]


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        ("ImagePositionPatient", b"0.0\\0.0\\SMIT"),
        ("InstanceNumber", b"SMIT"),
        ("NumberOfFrames", b"SMIT"),
        ("ImagePositionPatient", b"0.0\\0.0\\nan "),
    ],
)
def test_a_malformed_header_is_a_fault_that_does_not_quote_it(
    folder: Path, tag: str, value: bytes, recwarn: pytest.WarningsRecorder
) -> None:
    import pydicom
    from pydicom.datadict import dictionary_VR, tag_for_keyword
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import Tag

    path = folder / "ct" / "im03.dcm"
    ds = pydicom.dcmread(path)
    number = Tag(tag_for_keyword(tag))
    ds._dict[number] = RawDataElement(number, dictionary_VR(number), len(value), value, 0, False, True)
    if tag == "InstanceNumber":
        del ds.ImagePositionPatient
    ds.save_as(path)
    assert value in path.read_bytes()
    samples, faults = read(f"dicomseg:{folder}?min_area=40")
    assert samples and [(f.item, f.code) for f in faults] == [
        ("ct/im03.dcm", "unreadable"),
        ("seg/seg.dcm", "missing_image"),
    ]
    assert faults[0].message.endswith("im03.dcm: an element of its header is malformed; export it again")
    assert not any("SMIT" in str(w.message) for w in recwarn.list)


def test_images_with_several_frames_are_named_as_such(folder: Path) -> None:
    import pydicom

    for path in (folder / "ct").iterdir():
        ds = pydicom.dcmread(path)
        ds.NumberOfFrames = 2
        ds.save_as(path)
    samples, faults = read(f"dicomseg:{folder}?min_area=40")
    assert not samples and len(faults) == SLICES + 1
    assert all("several frames" in f.message and "not below" not in f.message for f in faults)


def test_what_changes_after_listing_becomes_faults(folder: Path) -> None:
    sample = read(f"dicomseg:{folder}?slices=1&min_area=40")[0][0]
    path = folder / "seg" / "seg.dcm"
    path.write_bytes(path.read_bytes()[:700])
    labelled = sample.reader()
    assert not labelled.masks and {f.code for f in labelled.faults} == {"unreadable"}
    path.unlink()
    assert "no such file" in sample.reader().faults[0].message
    for image in (folder / "ct").iterdir():
        image.unlink()
    with pytest.raises(InputError, match="no such file"):
        sample.reader()


def test_where_there_is_no_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    series(tmp_path / "ct")
    with pytest.raises(InputError, match="no DICOM segmentation object"):
        read(f"dicomseg:{tmp_path}")
    with pytest.raises(InputError, match="no such folder"):
        open_source(f"dicomseg:{tmp_path / 'gone'}")
    monkeypatch.setitem(__import__("sys").modules, "highdicom", None)
    with pytest.raises(MissingExtraError, match=r"ibisagent\[data\]"):
        open_source(f"dicomseg:{tmp_path}")
