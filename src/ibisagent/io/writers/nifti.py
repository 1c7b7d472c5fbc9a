"""NIfTI masks on a volume's grid, with the source's own header where it has one."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.errors import InputError
from ibisagent.grid import Grid
from ibisagent.io.files import atomic_write, display_name
from ibisagent.io.nifti import open_nifti
from ibisagent.io.volume import Volume
from ibisagent.io.writers.blocks import block_length, mask_blocks, write_gzip
from ibisagent.io.writers.label import SegmentLabel
from ibisagent.slices import mask_to_source, slice_axes
from ibisagent.types import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["write_image", "write_slice", "write_volume"]

_SCANNER, _ALIGNED = 1, 2  # what NIfTI's codes say of the world that the affine leads to


def write_volume(mask: NDArray[np.bool_], volume: Volume, path: str | os.PathLike[str], label: SegmentLabel) -> None:
    """Write a volume's mask: ``uint8`` 0 and 1, gzipped unless the name ends in ``.nii``.

    A NIfTI source lends its header, so that shape, qform, sform, codes and units are its own to the bit. For other
    sources the affine is written as sform (``float32``, as NIfTI-1 stores it) and, where it is accurate, as qform too.

    Parameters
    ----------
    mask
        ``bool`` (ni, nj, nk) on ``volume.grid``.
    volume
        The source.
    path
        File to write.
    label
        Not stored: NIfTI has no room for names.

    Raises
    ------
    InputError
        If writing fails.
    """
    own = volume.header if volume.kind == "NIfTI" else None
    if own is not None and not _fits(own, volume.grid):
        own = None
    code = _SCANNER if volume.kind == "DICOM" else _ALIGNED
    _write(path, _mask_header(volume.grid, own, code), mask_blocks(mask))


def write_image(mask: NDArray[np.bool_], image: Image, path: str | os.PathLike[str], label: SegmentLabel) -> None:
    """Write the mask of one slice on its volume's whole grid. See :func:`write_slice`."""
    write_slice(mask, image, path)


def write_slice(mask: NDArray[np.bool_], image: Image, path: str | os.PathLike[str]) -> None:
    """Write the mask of one slice on the grid of its volume, zeros elsewhere; the volume is never held whole.

    Parameters
    ----------
    mask
        ``bool`` (H, W) on the image's pixels.
    image
        One slice of a volume. The header of the file that it was read from is read again; if that is gone, no NIfTI
        file, or on another grid by now, the affine of the image's geometry is written.
    path
        File to write, gzipped unless the name ends in ``.nii``.

    Raises
    ------
    InputError
        If the image is no slice of a volume, or writing fails.
    """
    geometry = image.geometry
    if geometry.volume_shape is None or geometry.affine is None or geometry.slice_index is None:
        raise InputError(f"{display_name(path)}: the image is not a slice of a volume; write its mask as .png")
    ni, nj, nk = geometry.volume_shape
    grid = Grid((ni, nj, nk), geometry.affine)
    try:
        own = open_nifti(image.source).header
    except InputError:
        own = None
    if own is not None and not _fits(own, grid):
        own = None
    plane = mask_to_source(mask, geometry).astype(np.uint8)
    blocks = _slice_blocks(plane, grid.shape, slice_axes(geometry)[0], geometry.slice_index)
    _write(path, _mask_header(grid, own, _ALIGNED), blocks)


def _write(path: str | os.PathLike[str], header: Any, blocks: Iterable[bytes]) -> None:
    # the header ends with four zeros that say "no extensions"
    start = header.binaryblock + bytes(header.single_vox_offset - header.sizeof_hdr)
    content = itertools.chain([start], blocks)
    with atomic_write(path) as f:
        if os.fspath(path).lower().endswith(".nii"):
            f.writelines(content)
        else:
            write_gzip(f, content)


def _slice_blocks(plane: NDArray[np.uint8], shape: tuple[int, int, int], axis: int, index: int) -> Iterator[bytes]:
    step = block_length(shape)
    for k in range(0, shape[2], step):
        n = min(step, shape[2] - k)
        block = np.zeros((shape[0], shape[1], n), np.uint8, order="F")
        if axis == 0:
            block[index] = plane[:, k : k + n]
        elif axis == 1:
            block[:, index] = plane[:, k : k + n]
        elif k <= index < k + n:
            block[:, :, index - k] = plane
        yield block.tobytes(order="F")


def _fits(header: Any, grid: Grid) -> bool:
    """Whether a nibabel header describes this very grid."""
    shape = (*(int(n) for n in header.get_data_shape()), 1, 1)
    return shape[:3] == grid.shape and np.array_equal(np.asarray(header.get_best_affine(), np.float64), grid.matrix)


def _is_accurate(affine: NDArray[np.float64], grid: Grid) -> bool:
    """Whether an affine puts every voxel where the grid has it, to a thousandth of the smallest spacing.

    A qform cannot say shears, and its quaternion of ``float32`` is off by up to a thousandth of a radian near half
    turns, where all slightly oblique scans in DICOM's order are: tenths of a millimetre at the rim.
    """
    corners = np.array(list(itertools.product(*((0, n - 1) for n in grid.shape))), np.float64)
    gap = corners @ affine[:3, :3].T + affine[:3, 3] - grid.ras_mm(corners)
    return bool(np.abs(gap).max() <= 1e-3 * min(grid.spacing_mm))


def _mask_header(grid: Grid, own: Any | None, code: int) -> Any:
    """The source's header made a mask's, or a new one."""
    import nibabel

    if own is not None:
        header = own.copy()
    else:
        make: Any = nibabel.Nifti1Header if max(grid.shape) < 2**15 else nibabel.Nifti2Header
        header = make()
        header.set_data_shape(grid.shape)
        # Also where the code then says that the qform does not count: readers want the spacings that come with it.
        header.set_qform(grid.matrix, code=0)
        if _is_accurate(header.get_qform(), grid):
            header["qform_code"] = code
        header.set_sform(grid.matrix, code=code)
        header.set_xyzt_units("mm")
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    header["magic"] = header.single_magic
    header["vox_offset"] = header.single_vox_offset
    header["cal_min"], header["cal_max"] = 0, 1
    header["intent_code"], header["intent_name"], header["aux_file"] = 0, b"", b""
    header["descrip"] = b"ibisagent mask"
    # converters put patients' names and numbers into the fields that nothing reads
    for field in {"data_type", "db_name", "unused_str"}.intersection(header.keys()):
        header[field] = b""
    return header
