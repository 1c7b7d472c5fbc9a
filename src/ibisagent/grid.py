"""The lattice of a volume: voxel indices, world millimetres, and the views that a person or an agent is shown.

A voxel index is (i, j, k) in the order of the source array's axes; voxel centres lie at integers. World coordinates are
in millimetres and always named by their positive directions: RAS (right, anterior, superior; nibabel's, and the one
that is stored here) or LPS (left, posterior, superior; DICOM's and ITK's). A view is a slice across the source axis
nearest to the normal of a plane of the body, in radiological convention: axial and coronal show the patient's left on
the image's right, axial has anterior up, coronal and sagittal superior up, sagittal anterior to the left.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.geometry import Geometry, Matrix, as_matrix

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["LPS_FROM_RAS", "PLANES", "SQUARE_TOLERANCE", "Grid"]

PLANES = ("axial", "coronal", "sagittal")

# the world axis (0 right-left, 1 posterior-anterior, 2 inferior-superior) of each plane's normal, columns and rows
_WORLD_AXES = {"axial": (2, 0, 1), "coronal": (1, 0, 2), "sagittal": (0, 1, 2)}
_LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))

LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""The 4 x 4 matrix that turns RAS into LPS millimetres, and back: it is its own inverse."""
LPS_FROM_RAS.flags.writeable = False

SQUARE_TOLERANCE = 1.01
"""Ratio of in-plane spacings up to which a voxel is shown as a square pixel without resampling."""

_MAX_RATIO = 1e6


@dataclass(frozen=True)
class Grid:
    """Shape and place of a volume's voxels.

    Parameters
    ----------
    shape
        Number of voxels (ni, nj, nk) along the source array's axes.
    affine
        4 x 4 matrix from voxel index (i, j, k, 1) to RAS millimetres. Any orientation, oblique, anisotropic, left- or
        right-handed, sheared (a tilted gantry); it must be invertible.

    Raises
    ------
    ValueError
        If a size is below 1, or the affine is not finite, has another last row than (0, 0, 0, 1), cannot be inverted
        or has spacings that differ by more than a millionfold.
    """

    shape: tuple[int, int, int]
    affine: Matrix

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"a grid has three sizes of at least 1, not {self.shape}")
        object.__setattr__(self, "shape", shape)
        affine = as_matrix(self.affine, 4, "affine")
        if affine[3] != (0.0, 0.0, 0.0, 1.0):
            raise ValueError(f"the last row of an affine is (0, 0, 0, 1), not {affine[3]}")
        object.__setattr__(self, "affine", affine)
        axes = np.asarray(affine)[:3, :3]
        with np.errstate(over="ignore", under="ignore"):
            sizes = np.sqrt((axes**2).sum(axis=0))
        # relative, so that microscopy in tiny voxels passes
        if not (sizes.all() and np.isfinite(sizes).all() and abs(np.linalg.det(axes / sizes)) > 1e-6):
            raise ValueError("the affine cannot be inverted")
        if sizes.max() > _MAX_RATIO * sizes.min():  # no display could stretch it to square pixels
            raise ValueError("the affine cannot be inverted with accuracy: its spacings differ too much")

    # -- the lattice ---------------------------------------------------------------------------

    @cached_property
    def matrix(self) -> NDArray[np.float64]:
        """The affine as a read-only ``float64`` (4, 4) array: index to RAS mm."""
        matrix = np.array(self.affine, np.float64)
        matrix.flags.writeable = False
        return matrix

    @cached_property
    def lps_matrix(self) -> NDArray[np.float64]:
        """The same to LPS mm (DICOM, ITK)."""
        matrix: NDArray[np.float64] = LPS_FROM_RAS @ self.matrix
        matrix.flags.writeable = False
        return matrix

    @cached_property
    def _inverse(self) -> NDArray[np.float64]:
        return np.asarray(np.linalg.inv(self.matrix), np.float64)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along each source axis."""
        a, b, c = (float(v) for v in np.sqrt((self.matrix[:3, :3] ** 2).sum(axis=0)))
        return a, b, c

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return abs(float(np.linalg.det(self.matrix[:3, :3]))) / 1000.0

    @cached_property
    def axes(self) -> tuple[tuple[int, int], ...]:
        """For each source axis its nearest world axis (0 R-L, 1 A-P, 2 S-I) and +1 or -1: along R, A, S or against."""
        directions = self.matrix[:3, :3] / np.asarray(self.spacing_mm)
        best = max(itertools.permutations(range(3)), key=lambda p: sum(abs(directions[p[a], a]) for a in range(3)))
        return tuple((world, 1 if directions[world, a] >= 0 else -1) for a, world in enumerate(best))

    @property
    def code(self) -> str:
        """Where each source index grows to, as nibabel writes it: ``"RAS"``, ``"LPS"`` ... (nearest axes)."""
        return "".join(_LETTERS[world][sign > 0] for world, sign in self.axes)

    @property
    def is_orthogonal(self) -> bool:
        """Whether the source axes stand at right angles (to 1e-4); a tilted gantry's do not."""
        directions = self.matrix[:3, :3] / np.asarray(self.spacing_mm)
        return bool(np.abs(directions.T @ directions - np.eye(3)).max() <= 1e-4)

    # -- maps ----------------------------------------------------------------------------------

    def ras_mm(self, index: ArrayLike) -> NDArray[np.float64]:
        """Voxel indices (..., 3), fractions allowed, to RAS millimetres (..., 3)."""
        return np.asarray(index, np.float64) @ self.matrix[:3, :3].T + self.matrix[:3, 3]

    def lps_mm(self, index: ArrayLike) -> NDArray[np.float64]:
        """Voxel indices (..., 3), fractions allowed, to LPS millimetres (..., 3)."""
        return self.ras_mm(index) * (-1.0, -1.0, 1.0)

    def index_of_ras(self, points_mm: ArrayLike) -> NDArray[np.float64]:
        """RAS millimetres (..., 3) to voxel indices (..., 3), not rounded, not clipped."""
        return np.asarray(points_mm, np.float64) @ self._inverse[:3, :3].T + self._inverse[:3, 3]

    def index_of_lps(self, points_mm: ArrayLike) -> NDArray[np.float64]:
        """LPS millimetres (..., 3) to voxel indices (..., 3), not rounded, not clipped."""
        return self.index_of_ras(np.asarray(points_mm, np.float64) * (-1.0, -1.0, 1.0))

    def is_close(self, other: Grid, voxels: float = 0.05) -> bool:
        """Whether another grid has the same shape, and every voxel within that share of the smallest spacing."""
        if self.shape != other.shape:
            return False
        corners = np.array(list(itertools.product(*((0, n - 1) for n in self.shape))), np.float64)
        gap = np.abs(self.ras_mm(corners) - other.ras_mm(corners)).max()
        return bool(gap <= voxels * min(self.spacing_mm))

    def check_mask(self, mask: NDArray[Any], what: str = "mask") -> None:
        """Make sure that `mask`, called `what` in the message, is ``bool`` (ni, nj, nk) on this grid.

        Raises
        ------
        ValueError
            If it is not.
        """
        if mask.dtype != np.bool_ or mask.shape != self.shape:
            raise ValueError(f"{what} must be bool {self.shape}, not {mask.dtype} {mask.shape}")

    # -- views ---------------------------------------------------------------------------------

    def view_axes(self, plane: str) -> tuple[int, int, int]:
        """Source axes of a plane's (normal, columns, rows): display x runs along the second, y along the third.

        Raises
        ------
        ValueError
            If there is no such plane.
        """
        if plane not in PLANES:
            raise ValueError(f"a plane is axial, coronal or sagittal, not {plane!r}")
        axis_of_world = {world: axis for axis, (world, _) in enumerate(self.axes)}
        normal, across, down = (axis_of_world[world] for world in _WORLD_AXES[plane])
        return normal, across, down

    def num_slices(self, plane: str) -> int:
        """Number of slices of a plane. Raises as :meth:`view_axes`."""
        return self.shape[self.view_axes(plane)[0]]

    def view_size(self, plane: str, *, square: bool = True) -> tuple[int, int]:
        """(height, width) of a plane's display in pixels.

        Parameters
        ----------
        plane
            ``"axial"``, ``"coronal"`` or ``"sagittal"``.
        square
            Whether a slice of unequal spacings is stretched along its coarser axis until its pixels are square (to half
            a pixel); False shows every voxel as one pixel.

        Raises
        ------
        ValueError
            If there is no such plane.
        """
        _, across, down = self.view_axes(plane)
        sizes = [self.shape[down], self.shape[across]]
        if square:
            spacing = [self.spacing_mm[down], self.spacing_mm[across]]
            finest = min(spacing)
            sizes = [
                n if mm <= finest * SQUARE_TOLERANCE else math.floor(n * mm / finest + 0.5)
                for n, mm in zip(sizes, spacing, strict=True)
            ]
        return sizes[0], sizes[1]

    def view(self, plane: str, index: int | None = None, *, square: bool = True) -> Geometry:
        """Where the pixels of one displayed slice lie.

        Parameters
        ----------
        plane, square
            As :meth:`view_size` takes them.
        index
            Voxel index along the source axis nearest to the plane's normal; None for the middle (size // 2).

        Raises
        ------
        ValueError
            If there is no such plane or slice.
        """
        normal, across, down = self.view_axes(plane)
        if index is None:
            index = self.shape[normal] // 2
        if not 0 <= index < self.shape[normal]:
            raise ValueError(f"slice {plane}:{index} is outside; use {plane}:0 to {plane}:{self.shape[normal] - 1}")
        height, width = self.view_size(plane, square=square)
        rows = np.zeros((3, 3))
        rows[normal, 2] = index
        spacing: dict[int, float] = {}
        # on the screen, x runs to the patient's left (or back) and y runs down: always against the RAS axes
        for column, axis, pixels in ((0, across, width), (1, down, height)):
            scale = self.shape[axis] / pixels  # voxels a pixel
            first = scale / 2 - 0.5  # voxel under the centre of the first pixel, from the edge that is shown first
            along_ras = self.axes[axis][1] > 0
            rows[axis, column] = -scale if along_ras else scale
            rows[axis, 2] = self.shape[axis] - 1 - first if along_ras else first
            spacing[axis] = self.spacing_mm[axis] * scale
        return Geometry(
            spacing_mm=(spacing[down], spacing[across]),
            index_from_pixel=tuple(tuple(float(v) for v in row) for row in rows),
            affine=self.affine,
            volume_shape=self.shape,
            plane=plane,
            slice_index=int(index),
        )

    # -- the record ----------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; :meth:`from_json` is the inverse."""
        return {"shape": list(self.shape), "affine": [list(row) for row in self.affine]}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Grid:
        """Read what :meth:`to_json` wrote.

        Raises
        ------
        ValueError
            If a field is missing or malformed.
        """
        try:
            return cls(tuple(value["shape"]), value["affine"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"damaged grid: {error!r}") from error
