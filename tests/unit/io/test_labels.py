"""Label volumes on a volume's grid: any format, any order of axes, and one line for what does not belong."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from io_samples import gray_ramp, make_nifti, save_png

from dicom_maker import write_series
from ibisagent.errors import InputError
from ibisagent.io import read_image, read_mask
from ibisagent.io.labels import read_label_volume, read_labels_on
from ibisagent.io.lattice import LatticeMap
from ibisagent.io.studies import open_volume
from ibisagent.io.volume import Volume

SHAPE = (7, 6, 5)


def oblique_affine() -> np.ndarray:
    tilt = np.deg2rad(12)
    affine = np.eye(4)
    affine[:3, :3] = [[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]]
    affine[:3, :3] *= (0.7, 0.8, 2.5)
    affine[:3, 3] = (-20, 11, 40)
    return affine


def labels(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 3, SHAPE).astype(np.uint8)


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    path = make_nifti(tmp_path / "image.nii.gz", np.arange(7 * 6 * 5, dtype=np.int16).reshape(SHAPE), oblique_affine())
    opened = open_volume(path)
    assert opened is not None
    return opened


@pytest.mark.parametrize("name", ["l.nii", "l.nii.gz", "l.nrrd", "l.mha", "l.mhd"])
@pytest.mark.parametrize("axes, signs", [((0, 1, 2), (1, 1, 1)), ((2, 0, 1), (-1, 1, -1)), ((1, 0, 2), (1, -1, 1))])
def test_the_same_voxels_in_any_order(
    tmp_path: Path, volume: Volume, name: str, axes: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    truth = labels()
    ornt = np.array(list(zip(np.argsort(axes), np.array(signs)[np.argsort(axes)], strict=True)), float)
    image = nib.Nifti1Image(truth, oblique_affine()).as_reoriented(ornt)
    nib.save(image, tmp_path / "l.nii")
    if not name.startswith("l.nii"):
        sitk.WriteImage(sitk.ReadImage(str(tmp_path / "l.nii")), str(tmp_path / name), useCompression=True)
    elif name.endswith(".gz"):
        nib.save(image, tmp_path / name)
    mask = read_label_volume(tmp_path / name, volume, label=2)
    assert mask.dtype == np.bool_ and np.array_equal(mask, truth == 2)
    assert np.array_equal(read_labels_on(tmp_path / name, volume.grid), truth > 0)


def test_absent_and_rescaled_labels(tmp_path: Path, volume: Volume) -> None:
    truth = labels()
    image = nib.Nifti1Image(truth, oblique_affine())
    image.header.set_slope_inter(0.1, 0)
    path = tmp_path / "scaled.nii"
    nib.Nifti1Image(truth * 0.1, oblique_affine()).to_filename(tmp_path / "x.nii")
    data = bytearray((tmp_path / "x.nii").read_bytes()[:352])
    data[70:74] = (2).to_bytes(2, "little") + (8).to_bytes(2, "little")
    data[112:120] = np.array([3.0, 0.0], "<f4").tobytes()
    path.write_bytes(bytes(data) + truth.tobytes(order="F"))
    assert np.array_equal(read_label_volume(path, volume, label=6), truth == 2)
    assert not read_label_volume(path, volume, label=5).any()


def refuse(path: Path, volume: Volume, words: str, label: int | str | None = None) -> None:
    with pytest.raises(InputError, match=words) as caught:
        read_label_volume(path, volume, label=label)
    assert str(caught.value).startswith(str(path)) and str(caught.value).isprintable()


def test_what_does_not_belong_is_one_line(tmp_path: Path, volume: Volume) -> None:
    truth = labels()
    affine = oblique_affine()
    refuse(
        make_nifti(tmp_path / "a.nii", truth[:-1], affine), volume, r"size is \(6, 6, 5\).*the volume's is \(7, 6, 5\)"
    )
    shifted = affine.copy()
    shifted[0, 3] += 0.3
    refuse(make_nifti(tmp_path / "b.nii", truth, shifted), volume, "do not lie on the volume's")
    a_slice_up = affine.copy()
    a_slice_up[2, 3] += 2.5
    refuse(make_nifti(tmp_path / "c.nii", truth, a_slice_up), volume, "do not lie on the volume's")
    coarser = affine.copy()
    coarser[:3, :3] *= 1.02
    refuse(make_nifti(tmp_path / "d.nii", truth, coarser), volume, "do not lie on the volume's")
    broken = np.full(SHAPE, np.nan, np.float32)
    refuse(make_nifti(tmp_path / "e.nii", broken, affine), volume, "not finite")
    refuse(make_nifti(tmp_path / "f.nii", truth, affine), volume, "label's number", label="tumour")
    refuse(tmp_path, volume, "is a directory")
    tifffile.imwrite(tmp_path / "g.tif", truth.T)
    refuse(tmp_path / "g.tif", volume, "does not say where it lies")
    tifffile.imwrite(tmp_path / "h.tif", truth[:, :, 0])
    refuse(tmp_path / "h.tif", volume, "flat picture")


def test_tiff_stacks_are_for_tiff_stacks(tmp_path: Path) -> None:
    truth = labels()
    tifffile.imwrite(tmp_path / "image.tif", truth.T.astype(np.uint16) * 1000, photometric="minisblack")
    tifffile.imwrite(tmp_path / "labels.tif", truth.T, photometric="minisblack", compression="zlib")
    tifffile.imwrite(tmp_path / "short.tif", truth.T[:-1], photometric="minisblack")
    volume = open_volume(tmp_path / "image.tif")
    assert volume is not None
    assert np.array_equal(read_label_volume(tmp_path / "labels.tif", volume, label=1), truth == 1)
    refuse(tmp_path / "short.tif", volume, r"size is \(7, 6, 4\)")


def test_cropped_segmentation_of_slicer(tmp_path: Path, volume: Volume) -> None:
    import nrrd

    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ oblique_affine()
    header = {
        "space": "left-posterior-superior",
        "space directions": lps[:3, :3].T,
        "space origin": (lps @ (2, 1, 3, 1))[:3],
        "kinds": ["domain"] * 3,
    }
    part = labels()[2:6, 1:4, 3:5]
    nrrd.write(str(tmp_path / "plain.nrrd"), part, header)
    refuse(tmp_path / "plain.nrrd", volume, "size is")
    nrrd.write(str(tmp_path / "a.seg.nrrd"), part, header | {"Segmentation_ReferenceImageExtentOffset": "2 1 3"})
    expected = np.zeros(SHAPE, bool)
    expected[2:6, 1:4, 3:5] = part == 1
    assert np.array_equal(read_label_volume(tmp_path / "a.seg.nrrd", volume, label=1), expected)
    nrrd.write(str(tmp_path / "b.seg.nrrd"), labels(), header | {"Segmentation_ReferenceImageExtentOffset": "2 1 3"})
    refuse(tmp_path / "b.seg.nrrd", volume, "do not lie on the volume's")


def segmentation(path: Path, sources: list[Path], masks: dict[str, np.ndarray], kind: str = "BINARY") -> Path:
    """A DICOM-SEG object by highdicom, of masks (ni, nj, nk); k is the order of the sources."""
    import highdicom as hd
    import pydicom
    from pydicom.sr.codedict import codes

    descriptions = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=title,
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Neoplasm,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, title in enumerate(masks, start=1)
    ]
    pixels = np.stack([mask.transpose(2, 1, 0) for mask in masks.values()], axis=-1)
    seg = hd.seg.Segmentation(
        source_images=[pydicom.dcmread(p) for p in sources],
        pixel_array=pixels.astype(np.float32 if kind == "FRACTIONAL" else np.uint8),
        segmentation_type=kind,
        segment_descriptions=descriptions,
        series_instance_uid=hd.UID(),
        series_number=9,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="nobody",
        manufacturer_model_name="none",
        software_versions="1",
        device_serial_number="1",
    )
    seg.save_as(path)
    return path


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Volume, list[Path]]:
    folder = tmp_path_factory.mktemp("ct")
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ oblique_affine()
    paths = write_series(folder, np.arange(7 * 6 * 5).reshape(SHAPE) * 1.0, lps)
    volume = open_volume(folder)
    assert volume is not None
    return volume, paths


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_dicom_segmentations(tmp_path: Path, study: tuple[Volume, list[Path]], kind: str) -> None:
    volume, sources = study
    first, second = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    first[1:4, 2:5, 1:3], second[3:6, 0:3, 2:4] = True, True  # no frame of other slices
    if kind == "LABELMAP":  # the two overlap, which it cannot hold
        second &= ~first
    path = segmentation(tmp_path / "seg.dcm", sources, {"Tumour": first, "Cyst": second}, kind)
    truth = {title: on_grid(mask, volume, study) for title, mask in (("first", first), ("second", second))}
    assert np.array_equal(read_label_volume(path, volume, label=1), truth["first"])
    assert np.array_equal(read_label_volume(path, volume, label="cyst"), truth["second"])
    assert np.array_equal(read_label_volume(path, volume), truth["first"] | truth["second"])
    refuse(path, volume, "no segment 3 in it; it has 1 Tumour, 2 Cyst", label=3)


def on_grid(mask: np.ndarray, volume: Volume, study: tuple[Volume, list[Path]]) -> np.ndarray:
    """A mask in the maker's order, moved to the reader's through the values, each of which is unique."""
    maker = np.arange(7 * 6 * 5).reshape(SHAPE)
    marked = set(maker[mask].tolist())
    return np.isin(np.asarray(study[0].voxels.array()).round().astype(int), sorted(marked))


def test_segmentations_of_something_else(tmp_path: Path, study: tuple[Volume, list[Path]], volume: Volume) -> None:
    dicom, sources = study
    mask = np.zeros(SHAPE, bool)
    mask[2:4, 2:4, 1:3] = True
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ oblique_affine()
    other = write_series(tmp_path / "other", np.zeros(SHAPE), lps, study="2")
    path = segmentation(tmp_path / "other.dcm", other, {"Tumour": mask})
    refuse(path, dicom, "another frame of reference")
    # a volume without such an identity (the same scan as NIfTI) takes it by its place
    assert np.array_equal(read_label_volume(path, volume), mask)
    lps[2, 3] += 1.0
    moved = write_series(tmp_path / "moved", np.zeros(SHAPE), lps)
    refuse(segmentation(tmp_path / "moved.dcm", moved, {"Tumour": mask}), dicom, "do not lie on the volume's")
    refuse(sources[0], dicom, "no segmentation")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    refuse(path, dicom, "damaged|another frame")


def test_a_lattice_of_one_slice_needs_no_spacing() -> None:
    steps = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 3.7]])
    found, gap = LatticeMap.between((4, 5, 1), steps, np.array([4.0, 0.0, 2.0]))
    assert found is not None and gap == 0
    target = np.zeros((5, 4, 3), int)
    found.view(target)[...] = np.arange(20).reshape(4, 5, 1)
    assert np.array_equal(target[:, :, 2], np.arange(20).reshape(4, 5).T[::-1])
    assert not target[:, :, :2].any()
    assert LatticeMap.between((4, 5, 2), steps, np.zeros(3))[0] is None


@pytest.mark.parametrize("name", ["m.nrrd", "m.mha"])
def test_masks_of_a_slice_in_other_formats(tmp_path: Path, volume: Volume, name: str) -> None:
    truth = labels()
    sitk.WriteImage(sitk.ReadImage(str(make_nifti(tmp_path / "m.nii", truth, oblique_affine()))), str(tmp_path / name))
    image = read_image(volume.source, slice_spec="coronal:2")
    mask = read_mask(tmp_path / name, image)
    for x, y in ((0, 0), (6, 4), (3, 2)):
        assert mask[y, x] == (truth[image.geometry.source_index(x, y)] > 0)
    with pytest.raises(InputError, match="2-D image"):
        read_mask(tmp_path / name, read_image(save_png(tmp_path / "a.png", gray_ramp())))


@given(
    shape=st.tuples(*[st.integers(2, 4)] * 3),
    axes=st.permutations(range(3)),
    signs=st.tuples(*[st.sampled_from((-1, 1))] * 3),
    start=st.tuples(*[st.integers(-1, 5)] * 3),
    noise=st.floats(-0.004, 0.004),
)
@settings(max_examples=60, deadline=None)
def test_every_lattice_is_found(
    shape: tuple[int, ...], axes: list[int], signs: tuple[int, ...], start: tuple[int, ...], noise: float
) -> None:
    steps = np.zeros((3, 3))
    for a in range(3):
        steps[axes[a], a] = signs[a]
    found, gap = LatticeMap.between(shape, steps + noise, np.asarray(start) + noise)
    assert found is not None and gap < 0.05
    assert (found.axes, found.signs, found.start) == (tuple(axes), signs, start)
    size = (7, 8, 9)
    corners = [steps @ corner + start for corner in np.ndindex(*shape)]
    fits = all((c >= 0).all() and (c < size).all() for c in corners)
    assert found.fits(size) == fits
    target = np.full(size, -1)
    if fits:
        numbers = np.arange(np.prod(shape)).reshape(shape)
        found.view(target)[...] = numbers
        for index, place in zip(np.ndindex(*shape), corners, strict=True):
            assert target[tuple(place.astype(int))] == numbers[index]
        assert (target >= 0).sum() == numbers.size
    else:
        with pytest.raises(ValueError, match="outside"):
            found.view(target)
    assert LatticeMap.between(shape, steps * 1.1, np.asarray(start, float))[0] is None
