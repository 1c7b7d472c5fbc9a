"""RTSTRUCT: contours that give the mask back, by plastimatch and by plain point-in-polygon, with true references."""

from __future__ import annotations

import subprocess

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dicom_volumes import complaints, make_volume, oblique, program, some_mask
from ibisagent.errors import InputError
from ibisagent.io.outlines import pixel_outlines, ring_area
from ibisagent.io.volume import ArrayVoxels, Volume
from ibisagent.io.writers.keyholes import keyholed
from ibisagent.io.writers.label import SegmentLabel
from ibisagent.io.writers.rtstruct import write_rtstruct


def filled(rings, shape) -> np.ndarray:
    """How many rings (even-odd) hold each pixel's centre; pixel (x, y) of (W, H) has its centre at (x, y)."""
    from matplotlib.path import Path

    centres = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).reshape(-1, 2)
    counts = np.zeros(len(centres), int)
    for ring in rings:
        counts += Path(np.vstack([ring, ring[:1]]), closed=True).contains_points(centres)
    return counts.reshape(shape)


def back(path, volume) -> np.ndarray:
    """How often each voxel is inside a contour of the file."""
    ds = pydicom.dcmread(path)
    counts = np.zeros(volume.grid.shape, int)
    for contour in ds.ROIContourSequence[0].ContourSequence:
        assert contour.ContourGeometricType == "CLOSED_PLANAR"
        points = np.reshape([float(v) for v in contour.ContourData], (-1, 3))
        assert len(points) == contour.NumberOfContourPoints
        index = volume.grid.index_of_lps(points)
        (k,) = {round(float(v), 3) for v in index[:, 2]}
        counts[:, :, int(k)] += filled([index[:, :2]], volume.grid.shape[:2])
    return counts


@pytest.mark.parametrize("affine", [None, oblique(), oblique(tilt_mm=0.9)], ids=["upright", "oblique", "tilted"])
def test_contours_hold_the_voxels_of_the_mask_once_each(tmp_path, affine):
    volume, path = make_volume(tmp_path / "ct", affine=affine), tmp_path / "rs.dcm"
    write_rtstruct(some_mask(), volume, path, SegmentLabel("left kidney"))
    np.testing.assert_array_equal(back(path, volume), some_mask().astype(int))
    assert complaints(path) == []


def test_plastimatch_fills_the_same_voxels_whichever_way_it_combines_contours(tmp_path):
    import SimpleITK as sitk

    volume, path = make_volume(tmp_path / "ct"), tmp_path / "rs.dcm"
    write_rtstruct(some_mask(), volume, path, SegmentLabel("left kidney"))
    fixed = sitk.GetImageFromArray(np.zeros(volume.grid.shape, np.int16).T)
    fixed.SetSpacing(volume.grid.spacing_mm)
    sitk.WriteImage(fixed, str(tmp_path / "grid.nrrd"))
    command = [program("plastimatch"), "convert", "--input", path, "--fixed", tmp_path / "grid.nrrd"]
    for extra in ([], ["--xor-contours"]):
        done = subprocess.run(
            [*command, "--output-labelmap", tmp_path / "out.nrrd", *extra], capture_output=True, timeout=60
        )
        assert done.returncode == 0
        out = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out.nrrd"))).T
        np.testing.assert_array_equal(out > 0, some_mask())


@pytest.mark.parametrize("multiframe", [False, True], ids=["files", "multi-frame"])
def test_contours_refer_to_their_images(tmp_path, multiframe):
    volume, path = make_volume(tmp_path / "in", multiframe=multiframe), tmp_path / "rs.dcm"
    label = SegmentLabel("the tumour in the left lung", colour=(1, 2, 3))
    write_rtstruct(some_mask(), volume, path, label)
    ds = pydicom.dcmread(path)
    sources = [pydicom.dcmread(frame.path, stop_before_pixels=True) for frame in volume.frames]
    (space,) = ds.ReferencedFrameOfReferenceSequence
    (series,) = space.RTReferencedStudySequence[0].RTReferencedSeriesSequence
    assert (space.FrameOfReferenceUID, series.SeriesInstanceUID) == (
        sources[0].FrameOfReferenceUID, sources[0].SeriesInstanceUID,
    )  # fmt: skip
    listed = [item.ReferencedSOPInstanceUID for item in series.ContourImageSequence]
    assert sorted(listed) == sorted({source.SOPInstanceUID for source in sources})
    (roi,) = ds.ROIContourSequence
    assert list(roi.ROIDisplayColor) == [1, 2, 3]
    slices = []
    for contour in roi.ContourSequence:
        k = round(float(volume.grid.index_of_lps([float(v) for v in contour.ContourData[:3]])[2]))
        slices.append(k)
        (item,) = contour.ContourImageSequence
        assert item.ReferencedSOPInstanceUID == sources[k].SOPInstanceUID
        assert item.get("ReferencedFrameNumber") == (volume.frames[k].number if multiframe else None)
    assert slices == [1, 1, 2, 4]
    assert ds.StructureSetROISequence[0].ROIName == label.name
    assert ds.RTROIObservationsSequence[0].RTROIIdentificationCodeSequence[0].CodeMeaning == "Neoplasm"
    assert complaints(path) == []


def test_an_absent_target_is_a_region_without_contours_that_says_so(tmp_path):
    volume, path = make_volume(tmp_path / "ct", shape=(5, 4, 3)), tmp_path / "rs.dcm"
    write_rtstruct(np.zeros((5, 4, 3), bool), volume, path, SegmentLabel("spleen"))
    ds = pydicom.dcmread(path)
    assert "ContourSequence" not in ds.ROIContourSequence[0]
    assert ds.StructureSetROISequence[0].ROIDescription.startswith("not found")
    assert complaints(path) == []


def test_a_contour_of_more_than_64_kib_is_whole(tmp_path):
    volume, path = make_volume(tmp_path / "ct", shape=(100, 100, 2)), tmp_path / "rs.dcm"
    mask = np.zeros((100, 100, 2), bool)
    mask[:, 0, 0] = mask[::3, :, 0] = mask[1::3, ::2, 0] = True  # a comb of combs
    write_rtstruct(mask, volume, path, SegmentLabel("bone"))
    (contour,) = pydicom.dcmread(path).ROIContourSequence[0].ContourSequence
    assert sum(len(str(v)) + 1 for v in contour.ContourData) > 2**16
    np.testing.assert_array_equal(back(path, volume), mask.astype(int))


def test_what_cannot_be_written_is_one_line_and_no_file(tmp_path):
    volume, path = make_volume(tmp_path / "ct", shape=(5, 4, 3)), tmp_path / "rs.dcm"
    with pytest.raises(ValueError, match="mask must be bool"):
        write_rtstruct(np.ones((5, 4, 2), bool), volume, path, SegmentLabel("liver"))
    stack = Volume(volume.grid, ArrayVoxels(np.zeros((5, 4, 3))), "cells.tif", "TIFF")
    with pytest.raises(InputError, match=r"cells.tif: a TIFF source; DICOM masks need a DICOM source"):
        write_rtstruct(np.ones((5, 4, 3), bool), stack, path, SegmentLabel("cells"))
    with pytest.raises(InputError, match="cannot be written"):
        write_rtstruct(np.ones((5, 4, 3), bool), volume, tmp_path / "no" / "rs.dcm", SegmentLabel("liver"))
    assert not path.exists()


@settings(max_examples=80, deadline=None)
@given(st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(lambda shape: arrays(bool, shape)))
def test_keyholed_rings_cover_their_pixels_and_nothing_else(mask):
    rings = [keyholed(outline) for outline in pixel_outlines(mask)]
    assert sum(ring_area(ring) for ring in rings) == mask.sum()
    for ring in rings:
        steps = np.roll(ring, -1, axis=0) - ring
        assert (np.count_nonzero(steps, axis=1) == 1).all()  # along the edges of pixels, never on the spot
    np.testing.assert_array_equal(filled([ring - 0.5 for ring in rings], mask.T.shape).T, mask.astype(int))
