"""Measurements of masks: known solids in any orientation, intensities, parts, and the report."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ibisagent.errors import InputError
from ibisagent.grid import LPS_FROM_RAS, Grid
from ibisagent.io.measurements import measure_mask
from ibisagent.io.volume import ArrayVoxels, Volume


def volume_of(values, affine, **more) -> Volume:
    return Volume(Grid(values.shape, affine), ArrayVoxels(values), "case.nii.gz", "NIfTI", **more)


def turned(seed: int, spacing) -> np.ndarray:
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag(spacing)
    affine[:3, 3] = (12.5, -30.0, 44.0)
    return affine


def two_boxes():
    values = np.random.default_rng(3).normal(50, 20, (20, 18, 12)).astype(np.float32)
    mask = np.zeros(values.shape, bool)
    mask[2:8, 3:11, 2:5] = True  # 144
    mask[12:15, 12:16, 8:10] = True  # 24
    return values, mask


def test_volume_extent_centroid_and_diameters_of_a_box():
    values, mask = two_boxes()
    found = measure_mask(mask, volume_of(values, np.diag([-0.5, 0.7, 3.0, 1.0]), hounsfield=True))
    whole, (first, second) = found.whole, found.components
    assert (whole.voxel_count, first.voxel_count, second.voxel_count) == (168, 144, 24)
    assert whole.volume_ml == pytest.approx(168 * 0.5 * 0.7 * 3 / 1000)
    assert first.extent_mm == pytest.approx((6 * 0.5, 8 * 0.7, 3 * 3.0))
    assert whole.extent_mm == pytest.approx((13 * 0.5, 13 * 0.7, 8 * 3.0))
    assert first.centroid_index == pytest.approx((4.5, 6.5, 3.0))
    assert first.centroid_ras_mm == pytest.approx((-4.5 * 0.5, 6.5 * 0.7, 9.0))
    assert (found.plane, found.axis) == ("axial", 2)  # the coarse one
    # the border's points lie in the middle of the outermost pixels' outer sides
    across = np.hypot(6 * 0.5, 7 * 0.7), np.hypot(5 * 0.5, 8 * 0.7)
    assert first.longest.mm == pytest.approx(max(across)) and first.longest.slice_index == 2
    assert whole.longest == first.longest and 0 < first.perpendicular.mm < first.longest.mm
    ends = np.array(first.longest.ends_ras_mm)
    assert np.linalg.norm(ends[1] - ends[0]) == pytest.approx(first.longest.mm)
    assert ends[:, 2] == pytest.approx(6.0)


def test_intensities_are_those_of_the_voxels_and_not_finite_ones_do_not_count():
    values, mask = two_boxes()
    values = values.astype(np.float64) + 1e6
    values[3, 4, 2] = np.nan
    found = measure_mask(mask, volume_of(values, np.eye(4)))
    for region, inside in ((found.whole, mask), (found.components[1], mask & (np.arange(12) > 6))):
        expected = values[inside & np.isfinite(values)]
        assert region.mean == pytest.approx(expected.mean(), abs=1e-6)
        assert region.standard_deviation == pytest.approx(expected.std(), abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_a_ball_measures_the_same_in_every_orientation(seed):
    affine = turned(seed, (0.8, 1.0, 1.3))
    grid = Grid((40, 34, 26), affine)
    centre = grid.ras_mm((20.3, 16.8, 12.6))
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    mask = np.linalg.norm(grid.ras_mm(index) - centre, axis=-1) <= 10
    found = measure_mask(mask, volume_of(np.zeros(grid.shape, np.int16), affine)).whole
    assert found.volume_ml == pytest.approx(4 / 3 * np.pi, rel=0.02)
    assert found.centroid_ras_mm == pytest.approx(tuple(centre), abs=0.06)
    assert found.longest.mm == pytest.approx(20, abs=0.8) and found.perpendicular.mm == pytest.approx(20, abs=0.9)
    assert np.array(found.extent_mm) == pytest.approx(20, abs=1.9)  # with the corners of turned voxels
    assert (found.mean, found.standard_deviation) == (0, 0)


def test_extent_is_that_of_all_corners_of_all_voxels():
    rng = np.random.default_rng(5)
    mask = rng.random((6, 5, 4)) < 0.3
    affine = turned(4, (0.5, 0.9, 2.0))
    affine[:3, 2] += 0.3 * affine[:3, 1]  # a tilted gantry
    corners = np.argwhere(mask)[:, None] + np.array(np.meshgrid(*[[-0.5, 0.5]] * 3)).reshape(3, 8).T
    points = Grid(mask.shape, affine).ras_mm(corners).reshape(-1, 3)
    found = measure_mask(mask, volume_of(np.zeros(mask.shape), affine))
    assert found.whole.extent_mm == pytest.approx(tuple(np.ptp(points, axis=0)))


def test_the_plane_of_diameters_can_be_chosen():
    values, mask = two_boxes()
    volume = volume_of(values, np.diag([1.0, 1.0, 1.0, 1.0]))
    assert measure_mask(mask, volume).plane == "axial"
    sagittal = measure_mask(mask, volume, plane="sagittal")
    assert (sagittal.plane, sagittal.axis) == ("sagittal", 0)
    assert sagittal.components[0].longest.mm == pytest.approx(np.hypot(8, 2))
    with pytest.raises(InputError, match="use axial, coronal, sagittal"):
        measure_mask(mask, volume, plane="oblique")
    with pytest.raises(ValueError, match="mask must be bool"):
        measure_mask(mask[1:], volume)


def test_parts_that_touch_at_a_corner_are_one_and_the_list_can_be_cut():
    mask = np.zeros((9, 9, 9), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = True
    mask[4, 4, 4] = mask[4, 6, 4] = mask[8, 8, 8] = True
    found = measure_mask(mask, volume_of(np.arange(729.0).reshape(9, 9, 9), np.eye(4)), max_components=2)
    assert found.num_components == 4
    assert [part.voxel_count for part in found.components] == [2, 1]
    assert found.components[1].centroid_index == (4, 4, 4)  # of equals, the first
    values = np.arange(729.0).reshape(9, 9, 9)
    assert found.whole.mean == pytest.approx(values[mask].mean())
    assert found.components[1].mean == values[4, 4, 4]


def test_an_empty_mask_is_said_to_be_absent():
    found = measure_mask(np.zeros((4, 4, 4), bool), volume_of(np.zeros((4, 4, 4)), np.eye(4)))
    report = found.to_json("left kidney")
    assert report["is_present"] is False and report["whole"]["volume"] == {"value": 0, "unit": "ml"}
    assert report["whole"]["longest_diameter"] is report["whole"]["mean"] is report["whole"]["centroid"] is None
    assert report["components"] == []


def test_without_a_world_nothing_is_in_millimetres():
    values, mask = two_boxes()
    found = measure_mask(mask, volume_of(values, np.eye(4), has_world=False))
    report = found.to_json("cells")
    assert report["whole"]["volume"] is report["whole"]["extent"] is report["whole"]["longest_diameter"] is None
    assert report["whole"]["voxel_count"] == 168 and set(report["whole"]["centroid"]) == {"index"}
    assert "no millimetres" in report["notes"][0]


def test_the_report_names_its_units_and_concepts():
    from pydicom.sr._concepts_dict import concepts

    values, mask = two_boxes()
    affine = LPS_FROM_RAS @ np.diag([0.5, 0.7, 3.0, 1.0])
    # what array formats of other modalities say of a CT's values does not make theirs Hounsfield units
    for modality in (None, "MRI"):
        found = measure_mask(mask, volume_of(values, affine, hounsfield=True, modality=modality, notes=("no unit",)))
        assert found.unit == "1" and found.notes == ("no unit",)
    report = measure_mask(mask, volume_of(values, affine, hounsfield=True, modality="CT")).to_json("liver")
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    whole = report["whole"]
    assert whole["volume"]["unit"] == "ml" and whole["longest_diameter"]["unit"] == "mm"
    assert whole["mean"]["unit"] == "[hnsf'U]" and whole["extent"]["right_left"]["unit"] == "mm"
    ras, lps = whole["centroid"]["ras_mm"], whole["centroid"]["lps_mm"]
    assert lps == [-ras[0], -ras[1], ras[2]] and lps[0] > 0
    known = {(code, meaning) for codes in concepts["SCT"].values() for code, (meaning, _) in codes.items()}
    assert {(code["value"], code["meaning"]) for code in report["codes"].values()} <= known
    assert "[hnsf'U]" in {code for codes in concepts["UCUM"].values() for code in codes}
