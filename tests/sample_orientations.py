"""Volumes in every orientation, and what becomes of a mask that is drawn on their displays.

A source is written by nibabel, SimpleITK or pydicom, from a shape whose place in the world is known; it is opened as a
user's file is; the shape is drawn slice by slice on what is displayed, told only where in the world each displayed
pixel lies; the mask is put on the grid, written, and read back by libraries that know nothing of ours.

The shape has no symmetry: an ellipsoid of three different axes with a ball on it that is off its middle along right,
anterior and superior. So any flip or exchange of axes moves it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from dicom_maker import write_multiframe, write_series
from ibisagent.geometry import Geometry
from ibisagent.grid import PLANES
from ibisagent.io.studies import open_volume
from ibisagent.io.volume import Volume, place_slice
from ibisagent.io.writers import SegmentLabel, write_volume_mask
from ibisagent.slices import mask_to_source

SPACINGS = ("isotropic", "anisotropic", "oblique", "tilted")
"""The last, a tilted gantry, is not part of the bar: formats that ask for right angles cannot hold it."""
FORMATS = ("nifti", "nrrd", "dicom")
MORE_FORMATS = ("metaimage", "multi-frame dicom")
"""Beside the bar."""
TOLERANCE_MM = 0.01

_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_CENTRE = np.array([12.3, -31.7, 48.9])
_EXTENT = np.array([36.0, 42.0, 39.0])
_BUMP = np.array([7.0, 8.0, 9.0])
_TISSUE, _SHAPE, _BALL = -200, 300, 600  # Hounsfield units


@dataclass(frozen=True)
class Orientation:
    """How a source is stored: axis a runs along world axis ``order[a]`` (R, A, S), or against it."""

    order: tuple[int, ...]
    signs: tuple[int, ...]
    spacing: str

    @property
    def code(self) -> str:
        """Where each axis goes to: ``"RAS"``, ``"LPS"`` ..."""
        letters = (("L", "R"), ("P", "A"), ("I", "S"))
        return "".join(letters[world][sign > 0] for world, sign in zip(self.order, self.signs, strict=True))

    def affine(self) -> np.ndarray:
        """4 x 4, index to RAS mm, but for the origin."""
        axes = np.zeros((3, 3))
        for axis, (world, sign) in enumerate(zip(self.order, self.signs, strict=True)):
            axes[world, axis] = sign
        if self.spacing == "tilted":
            axes[:, 2] += np.tan(np.radians(15)) * axes[:, 1]
        if self.spacing in ("oblique", "tilted"):
            axes = Rotation.from_euler("xyz", (17, -12, 9), degrees=True).as_matrix() @ axes
        affine = np.eye(4)
        affine[:3, :3] = axes * ((2.4, 2.4, 2.4) if self.spacing == "isotropic" else (1.6, 2.1, 4.2))
        return affine


def all_orientations() -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The 48 ways to lay three axes along R, A and S or against them."""
    yield from itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3))


@dataclass(frozen=True, eq=False)
class Truth:
    """The shape's voxels by arithmetic alone, in the order of the array that was written."""

    affine: np.ndarray
    values: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        """``bool`` (ni, nj, nk)."""
        return self.values > (_TISSUE + _SHAPE) / 2

    @property
    def points(self) -> np.ndarray:
        """Centres of the shape's voxels, RAS mm (n, 3)."""
        return nibabel.affines.apply_affine(self.affine, np.argwhere(self.mask))

    def at(self, points: np.ndarray) -> np.ndarray:
        """Whether RAS points (..., 3) lie in the shape's voxels."""
        index = np.rint(nibabel.affines.apply_affine(np.linalg.inv(self.affine), points)).astype(int)
        inside = ((index >= 0) & (index < self.mask.shape)).all(axis=-1)
        nearest = np.clip(index, 0, np.array(self.mask.shape) - 1)
        return inside & self.mask[nearest[..., 0], nearest[..., 1], nearest[..., 2]]


def make_truth(orientation: Orientation) -> Truth:
    """Sample the shape on a source's grid."""
    affine = orientation.affine()
    spacing = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    shape = np.ceil(_EXTENT[list(orientation.order)] / spacing).astype(int)
    affine[:3, 3] = _CENTRE - affine[:3, :3] @ ((shape - 1) / 2)
    points = nibabel.affines.apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1)) - _CENTRE
    values = np.full(shape, _TISSUE, np.int16)
    values[((points / (9.0, 11.0, 7.0)) ** 2).sum(axis=-1) < 1] = _SHAPE
    values[((points - _BUMP) ** 2).sum(axis=-1) < 4.0**2] = _BALL
    edges = np.ones(shape, bool)
    edges[1:-1, 1:-1, 1:-1] = False
    assert not (values[edges] > _TISSUE).any()
    return Truth(affine, values)


# -- sources, by libraries that know nothing of ours -------------------------------------------


def write_source(truth: Truth, fmt: str, folder: Path) -> Path:
    """Write the values with their affine."""
    if fmt == "nifti":
        path = folder / "study.nii.gz"
        image = nibabel.Nifti1Image(truth.values, truth.affine)
        image.header.set_xyzt_units("mm")
        nibabel.save(image, path)
        return path
    lps = _LPS @ truth.affine
    if fmt == "nrrd":
        path = folder / "study.nrrd"
        if np.allclose(_directions(lps).T @ _directions(lps), np.eye(3)):
            sitk.WriteImage(_as_itk(truth.values, lps), str(path))
        else:
            import nrrd

            header = {"space": "left-posterior-superior", "space directions": lps[:3, :3].T}
            nrrd.write(str(path), truth.values, {**header, "space origin": lps[:3, 3]})
        return path
    if fmt == "metaimage":
        sitk.WriteImage(_as_itk(truth.values, lps), str(folder / "study.mha"))
        return folder / "study.mha"
    if fmt == "multi-frame dicom":
        return write_multiframe(folder / "study.dcm", truth.values.astype(float), lps)
    write_series(folder / "study", truth.values.astype(float), lps)
    return folder / "study"


def _directions(affine: np.ndarray) -> np.ndarray:
    return affine[:3, :3] / np.sqrt((affine[:3, :3] ** 2).sum(axis=0))


def _as_itk(values: np.ndarray, lps: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(np.ascontiguousarray(values.transpose(2, 1, 0)))
    image.SetSpacing([float(v) for v in np.sqrt((lps[:3, :3] ** 2).sum(axis=0))])
    image.SetDirection(_directions(lps).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


# -- drawing on the displays -------------------------------------------------------------------


def world_of_pixels(view: Geometry, size: tuple[int, int]) -> np.ndarray:
    """RAS mm (height, width, 3) of a display's pixels, by three calls of its geometry: the map is linear."""
    corner, right, below = (np.array(view.world_mm(x, y)) for x, y in ((0, 0), (1, 0), (0, 1)))
    rows, columns = np.indices(size)
    return corner + columns[..., None] * (right - corner) + rows[..., None] * (below - corner)


def drawn_mask(volume: Volume, plane: str, truth: Truth) -> np.ndarray:
    """Draw the shape on every slice of a plane as it is displayed, and put the drawings on the grid."""
    mask = np.zeros(volume.grid.shape, bool)
    size = volume.grid.view_size(plane)
    for index in range(volume.grid.num_slices(plane)):
        view = volume.grid.view(plane, index)
        place_slice(mask, mask_to_source(truth.at(world_of_pixels(view, size)), view), view)
    return mask


def check_displays(volume: Volume, plane: str, truth: Truth) -> None:
    """What is seen lies where the geometry says, and as radiologists look at it."""
    window = volume.window(f"{_TISSUE},{_BALL}")
    shape, ball = [], []
    for index in range(volume.grid.num_slices(plane)):
        image = volume.image(plane, index, window, square=False)
        seen = image.pixels[..., 0] > 100
        assert np.array_equal(seen, truth.at(world_of_pixels(image.geometry, seen.shape))), (plane, index)
        shape.append(np.argwhere(seen))
        ball.append(np.argwhere(image.pixels[..., 0] > 250))
    # the ball is to the right of, in front of and above the shape: left (or front) on the screen, and up
    assert (np.concatenate(ball).mean(axis=0) < np.concatenate(shape).mean(axis=0)).all(), plane


# -- masks, read back by others ----------------------------------------------------------------


def _read_nibabel(path: Path) -> tuple[np.ndarray, np.ndarray]:
    image = nibabel.load(path)
    return np.asarray(image.dataobj) > 0, image.affine


def _read_itk(path: Path) -> tuple[np.ndarray, np.ndarray]:
    image = sitk.ReadImage(str(path))
    lps = np.eye(4)
    lps[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    lps[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0) > 0, _LPS @ lps


def _read_pynrrd(path: Path) -> tuple[np.ndarray, np.ndarray]:
    import nrrd

    values, header = nrrd.read(str(path))
    assert header["space"] in ("left-posterior-superior", "LPS")
    lps = np.eye(4)
    lps[:3, :3], lps[:3, 3] = header["space directions"].T, header["space origin"]
    return values > 0, _LPS @ lps


def _read_highdicom(path: Path) -> tuple[np.ndarray, np.ndarray]:
    import highdicom

    volume = highdicom.seg.segread(path).get_volume(segment_numbers=[1], combine_segments=True)
    return volume.array > 0, _LPS @ volume.affine


def _read_frames(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A segmentation's frames where each says that it lies; highdicom makes no volume of a tilted gantry's."""
    import highdicom
    import pydicom

    seg = highdicom.seg.Segmentation.from_dataset(pydicom.dcmread(path))
    shared = seg.SharedFunctionalGroupsSequence[0]
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    down, across = (float(v) for v in shared.PixelMeasuresSequence[0].PixelSpacing)
    places = [f.PlanePositionSequence[0].ImagePositionPatient for f in seg.PerFrameFunctionalGroupsSequence]
    positions = np.array(places, float)
    order = np.argsort(positions @ np.cross(*cosines))
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1] = cosines[0] * across, cosines[1] * down
    lps[:3, 2] = (positions[order[-1]] - positions[order[0]]) / (len(order) - 1)  # the shape is in every frame
    lps[:3, 3] = positions[order[0]]
    return seg.pixel_array[order].transpose(2, 1, 0) > 0, _LPS @ lps


Reader = Callable[[Path], tuple[np.ndarray, np.ndarray]]

READERS: dict[str, tuple[str, str, Reader]] = {
    "nibabel": ("nifti", "mask.nii.gz", _read_nibabel),
    "SimpleITK (NIfTI)": ("nifti", "mask.nii.gz", _read_itk),
    "SimpleITK (NRRD)": ("nrrd", "mask.seg.nrrd", _read_itk),
    "pynrrd": ("nrrd", "mask.seg.nrrd", _read_pynrrd),
    "highdicom": ("dicom-seg", "mask.dcm", _read_highdicom),
    "SimpleITK (MetaImage)": ("metaimage", "mask.mha", _read_itk),
    "pydicom": ("dicom-seg", "mask.dcm", _read_frames),
}
"""Format that is written, its file, and who reads it: the mask and its affine, index to RAS mm."""

_READERS_OF = {
    "nifti": ("nibabel", "SimpleITK (NIfTI)"),
    "nrrd": ("SimpleITK (NRRD)", "nibabel"),
    "dicom": ("highdicom", "nibabel", "SimpleITK (NIfTI)"),
    "metaimage": ("SimpleITK (MetaImage)", "nibabel"),
    "multi-frame dicom": ("highdicom", "nibabel"),
}
# ITK refuses axes that are not at right angles
_READERS_OF_TILTED = {"nifti": ("nibabel",), "nrrd": ("pynrrd", "nibabel"), "dicom": ("pydicom", "nibabel")}


def offset_mm(path: Path, read: Reader, truth: Truth) -> float:
    """Distance of a written mask's centroid from the shape's, mm.

    Raises
    ------
    AssertionError
        If it is not voxel for voxel the same set of places in the world.
    """
    mask, affine = read(path)
    found = nibabel.affines.apply_affine(affine, np.argwhere(mask))
    assert len(found) == len(truth.points), f"{len(found)} voxels, not {len(truth.points)}"
    # every voxel of the shape is one of the mask's, whatever the order of the axes
    index = np.rint(nibabel.affines.apply_affine(np.linalg.inv(affine), truth.points)).astype(int)
    assert (index >= 0).all() and (index < mask.shape).all() and mask[tuple(index.T)].all(), "other voxels"
    return float(np.linalg.norm(found.mean(axis=0) - truth.points.mean(axis=0)))


def play(orientation: Orientation, fmt: str, folder: Path) -> dict[str, float]:
    """Take one source all the way: the offset of its mask by reader, mm.

    Raises
    ------
    AssertionError
        If anything is not where it should be (but offsets are for the caller to judge).
    """
    truth = make_truth(orientation)
    volume = open_volume(write_source(truth, fmt, folder))
    assert volume is not None and volume.has_world
    if "dicom" not in fmt:  # a DICOM series has no order of its own: slices are sorted by place
        assert volume.grid.code == orientation.code and volume.grid.shape == truth.values.shape
    masks = []
    for plane in PLANES:
        check_displays(volume, plane, truth)
        masks.append(drawn_mask(volume, plane, truth))
    assert np.array_equal(masks[0], masks[1]) and np.array_equal(masks[0], masks[2])
    readers = (_READERS_OF_TILTED if orientation.spacing == "tilted" else _READERS_OF)[fmt]
    offsets = {}
    for name in readers:
        kind, filename, read = READERS[name]
        if not (folder / filename).exists():
            write_volume_mask(masks[0], volume, folder / filename, kind, SegmentLabel("liver"))
        offsets[name] = offset_mm(folder / filename, read, truth)
    return offsets
