"""DICOM-SEG: valid for dciodvfy, the same voxels for dcmqi and highdicom, the true references and codes."""

from __future__ import annotations

import subprocess

import numpy as np
import pydicom
import pytest

from dicom_maker import PATIENT_ID, PATIENT_NAME
from dicom_volumes import complaints, make_volume, oblique, program, some_mask
from ibisagent.errors import InputError
from ibisagent.io.volume import ArrayVoxels, Volume
from ibisagent.io.writers.dicom_seg import write_dicom_seg
from ibisagent.io.writers.label import SegmentLabel

TUMOUR = SegmentLabel(
    "the tumour in the left lung", algorithm_version="1.2", colour=(200, 30, 40), tracking_uid="1.2.3"
)


@pytest.fixture
def written(tmp_path):
    """A folder of CT, a mask on it, and its segmentation."""
    volume = make_volume(tmp_path / "ct")
    path = tmp_path / "mask.dcm"
    write_dicom_seg(some_mask(), volume, path, TUMOUR)
    return volume, some_mask(), path


def test_dciodvfy_has_nothing_against_it(written):
    assert complaints(written[2]) == []


def test_frames_are_the_slices_with_foreground_and_refer_to_their_images(written):
    volume, mask, path = written
    seg = pydicom.dcmread(path)
    assert seg.SegmentationType == "BINARY" and seg.NumberOfFrames == 3
    by_position = {}
    for frame in volume.frames:
        ds = pydicom.dcmread(frame.path, stop_before_pixels=True)
        by_position[tuple(ds.ImagePositionPatient)] = ds
    pixels = seg.pixel_array
    for n, group in enumerate(seg.PerFrameFunctionalGroupsSequence):
        image = by_position[tuple(group.PlanePositionSequence[0].ImagePositionPatient)]  # to the last digit
        (item,) = group.DerivationImageSequence[0].SourceImageSequence
        assert (item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID) == (image.SOPClassUID, image.SOPInstanceUID)
        k = [f.path for f in volume.frames].index(str(image.filename))
        np.testing.assert_array_equal(pixels[n].T, mask[:, :, k])
        assert seg.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient == (
            image.ImageOrientationPatient
        )
    (series,) = seg.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == image.SeriesInstanceUID
    assert {i.ReferencedSOPInstanceUID for i in series.ReferencedInstanceSequence} == {
        ds.SOPInstanceUID for ds in by_position.values()
    }
    assert (seg.StudyInstanceUID, seg.FrameOfReferenceUID) == (image.StudyInstanceUID, image.FrameOfReferenceUID)
    assert (seg.PatientName, seg.PatientID) == (PATIENT_NAME, PATIENT_ID)
    assert seg.SeriesInstanceUID != image.SeriesInstanceUID


def test_it_says_what_was_segmented_and_by_what(written):
    (segment,) = pydicom.dcmread(written[2]).SegmentSequence
    assert segment.SegmentLabel == "the tumour in the left lung"
    assert segment.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "108369006"
    region = segment.AnatomicRegionSequence[0]
    assert (region.CodeValue, region.CodingSchemeDesignator) == ("39607008", "SCT")
    assert region.AnatomicRegionModifierSequence[0].CodeMeaning == "Left"
    algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
    assert (segment.SegmentAlgorithmType, algorithm.AlgorithmName, algorithm.AlgorithmVersion) == (
        "AUTOMATIC", "ibisagent", "1.2",
    )  # fmt: skip
    assert segment.TrackingUID == "1.2.3"
    from highdicom.color import CIELabColor

    assert CIELabColor.from_dicom_value(segment.RecommendedDisplayCIELabValue).to_rgb() == (200, 30, 40)


@pytest.mark.parametrize(
    ("affine", "multiframe"), [(oblique(), False), (None, True)], ids=["oblique files", "upright multi-frame"]
)
def test_dcmqi_and_highdicom_read_it_back_voxel_for_voxel(tmp_path, affine, multiframe):
    import SimpleITK as sitk
    from highdicom.seg import segread

    volume = make_volume(tmp_path / "in", affine=affine, multiframe=multiframe, modality="MR")
    mask, path = some_mask(), tmp_path / "mask.dcm"
    write_dicom_seg(mask, volume, path, SegmentLabel("brain tumor"))
    assert complaints(path) == []

    back = segread(path).get_volume(combine_segments=True)
    assert _on_grid(volume, back.array.T, back.affine[:, [2, 1, 0, 3]]) == _voxels(mask)

    command = [program("segimage2itkimage"), "--inputDICOM", path, "--outputDirectory", tmp_path, "-p", "back"]
    subprocess.run([*command, "-t", "nrrd"], check=True, capture_output=True, timeout=60)
    image = sitk.ReadImage(str(tmp_path / "back-1.nrrd"))
    lps = np.eye(4)
    lps[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) @ np.diag(image.GetSpacing())
    lps[:3, 3] = image.GetOrigin()
    assert _on_grid(volume, sitk.GetArrayFromImage(image).T, lps) == _voxels(mask)


def _voxels(mask):
    return {tuple(v) for v in np.argwhere(mask).tolist()}


def _on_grid(volume, array, lps):
    """Voxels of the volume's grid under the foreground of an array that lies somewhere in LPS millimetres."""
    points = np.argwhere(array) @ lps[:3, :3].T + lps[:3, 3]
    index = volume.grid.index_of_lps(points)
    assert np.abs(index - index.round()).max() < 1e-3
    return {tuple(v) for v in index.round().astype(int).tolist()}


def test_frames_of_a_multiframe_file_are_named_by_their_numbers(tmp_path):
    volume = make_volume(tmp_path / "in", multiframe=True, order=[2, 0, 1], shape=(6, 5, 3))
    mask = np.zeros((6, 5, 3), bool)
    mask[1, 2, 0] = mask[2, 2, 1] = mask[3, 3, 2] = True
    write_dicom_seg(mask, volume, tmp_path / "mask.dcm", SegmentLabel("liver"))
    seg, source = pydicom.dcmread(tmp_path / "mask.dcm"), pydicom.dcmread(volume.frames[0].path)
    for n, group in enumerate(seg.PerFrameFunctionalGroupsSequence):
        item = group.DerivationImageSequence[0].SourceImageSequence[0]
        assert item.ReferencedSOPInstanceUID == source.SOPInstanceUID
        assert item.ReferencedSOPClassUID == source.SOPClassUID
        frame = source.PerFrameFunctionalGroupsSequence[item.ReferencedFrameNumber - 1]
        place = group.PlanePositionSequence[0].ImagePositionPatient
        assert np.allclose(frame.PlanePositionSequence[0].ImagePositionPatient, place)
        np.testing.assert_array_equal(seg.pixel_array[n].T, mask[:, :, round(place[2] / 2.5)])
    assert len(seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 1


def test_an_absent_target_is_written_as_looked_for_everywhere(tmp_path):
    volume = make_volume(tmp_path / "ct", shape=(5, 4, 3))
    write_dicom_seg(np.zeros((5, 4, 3), bool), volume, tmp_path / "mask.dcm", SegmentLabel("left kidney"))
    seg = pydicom.dcmread(tmp_path / "mask.dcm")
    assert seg.NumberOfFrames == 3 and not seg.pixel_array.any()
    (segment,) = seg.SegmentSequence
    assert segment.SegmentDescription.startswith("not found")
    kind = segment.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeMeaning, kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning) == ("Kidney", "Left")
    assert complaints(tmp_path / "mask.dcm") == []


def test_a_tilted_gantry_keeps_the_positions_of_its_slices(tmp_path):
    volume = make_volume(tmp_path / "ct", affine=oblique(tilt_mm=0.9))
    assert not volume.grid.is_orthogonal
    write_dicom_seg(some_mask(), volume, tmp_path / "mask.dcm", SegmentLabel("lung"))
    seg = pydicom.dcmread(tmp_path / "mask.dcm")
    places = [g.PlanePositionSequence[0].ImagePositionPatient for g in seg.PerFrameFunctionalGroupsSequence]
    expected = [volume.grid.lps_mm((0, 0, k)) for k in (1, 2, 4)]
    assert np.allclose(sorted(map(tuple, places)), sorted(map(tuple, expected)), atol=1e-6)
    assert complaints(tmp_path / "mask.dcm") == []


def test_slightly_uneven_slices_stay_where_their_headers_say(tmp_path):
    def move(ds, k):  # gaps a little too wide, then too narrow: the middle is far off an even lattice
        ds.ImagePositionPatient = [0, 0, round(2.5 * k + 0.02 * min(k, 8 - k), 4)]

    volume = make_volume(tmp_path / "ct", shape=(3, 4, 9), edit=move)
    mask = np.ones((3, 4, 9), bool)
    write_dicom_seg(mask, volume, tmp_path / "mask.dcm", SegmentLabel("liver"))
    seg = pydicom.dcmread(tmp_path / "mask.dcm")
    heights = [float(g.PlanePositionSequence[0].ImagePositionPatient[2]) for g in seg.PerFrameFunctionalGroupsSequence]
    assert sorted(heights)[4] == 10.08 and sorted(heights)[8] == 20


def test_sloppy_headers_are_put_right_and_the_identity_is_kept(tmp_path, capfd, recwarn):
    def spoil(ds, k):
        ds.SpecificCharacterSet = "ISO_IR 100"
        ds.PatientName, ds.PatientAge, ds.StudyDate = "Müller^Zoë", "45", "2020-01-02"
        ds.PatientID, ds.PatientWeight, ds.PatientIdentityRemoved = "X" * 70, 0, "YES"
        del ds.PatientBirthDate, ds.AccessionNumber, ds.StudyID, ds.FrameOfReferenceUID, ds.PositionReferenceIndicator

    volume = make_volume(tmp_path / "ct", shape=(5, 4, 3), edit=spoil)
    recwarn.clear()
    for name in ("a.dcm", "b.dcm"):
        write_dicom_seg(np.ones((5, 4, 3), bool), volume, tmp_path / name, SegmentLabel("Läsion ж"))
    assert capfd.readouterr() == ("", "") and not recwarn.list  # pydicom would quote the values that it doubts
    first, second = (pydicom.dcmread(tmp_path / name) for name in ("a.dcm", "b.dcm"))
    assert str(first.PatientName) == "Müller^Zoë" and first.PatientID == "X" * 70
    assert first.SegmentSequence[0].SegmentLabel == "Läsion ж"
    assert "PatientAge" not in first and "PatientWeight" not in first and first.PatientIdentityRemoved == "YES"
    assert first.StudyDate == "" and first.AccessionNumber == ""
    assert first.FrameOfReferenceUID == second.FrameOfReferenceUID != ""
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert [c for c in complaints(tmp_path / "a.dcm") if c.startswith("Error") and "Patient ID" not in c
            and "invalid data values" not in c] == []  # fmt: skip


def test_any_name_fits(tmp_path):
    volume = make_volume(tmp_path / "ct", shape=(5, 4, 3))
    name = "left\\right\nlung " + "x" * 100
    write_dicom_seg(np.ones((5, 4, 3), bool), volume, tmp_path / "mask.dcm", SegmentLabel(name))
    (segment,) = pydicom.dcmread(tmp_path / "mask.dcm").SegmentSequence
    assert segment.SegmentLabel == "left/right lung " + "x" * 45 + "..."
    assert complaints(tmp_path / "mask.dcm") == []


def test_what_cannot_be_written_is_one_line_and_no_file(tmp_path):
    volume = make_volume(tmp_path / "ct", shape=(5, 4, 3))
    mask, path = np.ones((5, 4, 3), bool), tmp_path / "mask.dcm"
    with pytest.raises(ValueError, match="mask must be bool"):
        write_dicom_seg(mask[1:], volume, path, SegmentLabel("liver"))
    nifti = Volume(volume.grid, ArrayVoxels(np.zeros((5, 4, 3))), "brain.nii.gz", "NIfTI")
    with pytest.raises(InputError, match=r"brain.nii.gz: a NIfTI source; DICOM masks need a DICOM source"):
        write_dicom_seg(mask, nifti, path, SegmentLabel("liver"))
    second = tmp_path / "ct" / "1-0002.dcm"
    pydicom_file = second.read_bytes()
    second.unlink()
    with pytest.raises(InputError, match="no such file"):
        write_dicom_seg(mask, volume, path, SegmentLabel("liver"))
    ds = pydicom.dcmread(tmp_path / "ct" / "1-0001.dcm")
    ds.save_as(second)  # another slice under this one's name
    with pytest.raises(InputError, match="changed since the series was read"):
        write_dicom_seg(mask, volume, path, SegmentLabel("liver"))
    second.write_bytes(pydicom_file[:300])
    with pytest.raises(InputError, match=r"ct: the DICOM header lacks SOPClassUID") as caught:
        write_dicom_seg(mask, volume, path, SegmentLabel("liver"))
    assert "1-0002" not in str(caught.value)  # names of files are often patients'
    assert not path.exists()
