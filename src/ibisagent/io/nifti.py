"""One slice of a NIfTI volume, shown in radiological convention, and masks back on its grid.

A slice specification ``"axial:57"`` means voxel index 57, counted from 0 along the *source's own* axis that
runs closest to the plane's normal (inferior-superior for axial), whichever way the file stores that axis. So the
number is the array index that ``nibabel.load(path).dataobj`` shows, not a position in a re-oriented copy.

Display: every plane shows the patient's left on the image's right (axial, coronal), anterior up (axial) or to the
left (sagittal), superior up (coronal, sagittal). Voxels are never resampled: a pixel is a voxel, the mapping is a
permutation with flips, and :class:`ibisagent.geometry.Geometry` records it exactly. Oblique volumes use the nearest
axes. The affine is taken to be in millimetres, whatever ``xyzt_units`` says.

The volume is streamed, plane by plane: memory stays at one slice, and a gzip bomb costs at most
:data:`ibisagent.io.files.MAX_VOLUME_BYTES` of decompression.
"""

from __future__ import annotations

import gzip
import logging
import os
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from ibisagent.errors import InputError
from ibisagent.geometry import Geometry
from ibisagent.grid import PLANES, Grid
from ibisagent.io.files import (
    MAX_VOLUME_BYTES,
    check_pixels,
    display_name,
    one_line,
    open_binary,
    reading,
)
from ibisagent.io.raster import gray_to_rgb
from ibisagent.io.windows import apply_window, canonical_modality, choose_window
from ibisagent.slices import slice_axes, to_display
from ibisagent.types import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "CHUNK_BYTES",
    "NiftiVolume",
    "open_nifti",
    "parse_slice_spec",
    "read_nifti",
    "read_plane",
    "slice_geometry",
]

CHUNK_BYTES = 4 * 2**20
"""How much of a volume is in memory at a time while it streams by."""

_MAX_DEFLATE_RATIO = 1100  # no deflate stream expands more than 1032 times
_NOUN = "a NIfTI volume"


@dataclass(frozen=True, eq=False)
class NiftiVolume:
    """A volume's header, checked; its voxels stay in the file.

    Parameters
    ----------
    path
        The file, plain or gzipped.
    header
        nibabel's NIfTI-1 or NIfTI-2 header, repaired as ``nibabel.load`` does.
    grid
        Shape and place of the voxels (axes of size 1 are added to 2-D files).
    offset
        Byte position of the first voxel (after decompression), of the channel that was asked for.
    gzipped
        Whether the file is compressed.
    """

    path: str
    header: Any
    grid: Grid
    offset: int
    gzipped: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """The three spatial sizes."""
        return self.grid.shape

    @property
    def affine(self) -> NDArray[np.float64]:
        """``float64`` (4, 4), voxel index to RAS mm."""
        return self.grid.matrix

    @property
    def dtype(self) -> np.dtype[Any]:
        """Stored voxel type, byte order included."""
        dtype: np.dtype[Any] = np.dtype(self.header.get_data_dtype())
        return dtype

    @property
    def num_bytes(self) -> int:
        """Size of the voxel data."""
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize


def parse_slice_spec(spec: str | None) -> tuple[str, int | None]:
    """Read ``"axial:57"``, ``"coronal"`` (its middle) or None (the middle axial slice).

    Returns
    -------
    tuple
        Plane, and index or None for the middle.

    Raises
    ------
    InputError
        If it is neither.
    """
    if spec is None:
        return "axial", None
    plane, colon, number = spec.strip().lower().partition(":")
    if plane in PLANES and not colon:
        return plane, None
    if plane in PLANES and number.isascii() and number.isdigit() and len(number) < 10:
        return plane, int(number)
    raise InputError(f"slice '{one_line(spec)}' is not understood; write axial:57, coronal:57 or sagittal:57")


def open_nifti(path: str | os.PathLike[str], *, channel: int | None = None) -> NiftiVolume:
    """Read and check a NIfTI header; nothing of the voxels is read.

    Parameters
    ----------
    path
        ``.nii`` or ``.nii.gz``.
    channel
        Which volume of a file with four axes, counted from 0 along the fourth (0 for a file with three); None refuses
        such files.

    Raises
    ------
    InputError
        If the file cannot be opened, is not a single-file NIfTI, has more than three dimensions (or no such channel),
        voxels that are not real numbers, an affine that cannot be inverted, or fewer bytes than its header claims.
    """
    name = display_name(path)
    with open_binary(path) as f, reading(path, _NOUN):
        import nibabel

        file_size = os.fstat(f.fileno()).st_size
        gzipped = f.read(2) == b"\x1f\x8b"
        f.seek(0)
        head = _decompressed(f, gzipped).read(540)
        header_class: Any = nibabel.Nifti2Header if head[4:7] in (b"n+2", b"ni2") else nibabel.Nifti1Header
        if (head[4:7] if header_class is nibabel.Nifti2Header else head[344:347])[:2] == b"ni":
            raise InputError(f"{name}: a NIfTI pair (.hdr and .img); convert it to one .nii.gz file")
        header = header_class(head[: header_class.sizeof_hdr], check=False)
        header.check_fix(logger=_silent_logger(), error_level=40)
        volume = _checked(path, header, gzipped, channel)
    needed = volume.offset + volume.num_bytes
    if needed > (file_size * _MAX_DEFLATE_RATIO if gzipped else file_size):
        raise InputError(f"{name}: truncated: the header claims {volume.num_bytes} bytes of voxels; copy it again")
    return volume


def _checked(path: str | os.PathLike[str], header: Any, gzipped: bool, channel: int | None) -> NiftiVolume:

    name = display_name(path)
    full = tuple(int(n) for n in header.get_data_shape())
    if any(n > 1 for n in full[3 if channel is None else 4 :]):
        raise InputError(f"{name}: {len(full)}-D data {full}; extract one 3-D volume first")
    num_channels = max(1, full[3] if len(full) > 3 else 1)
    if channel is not None and not 0 <= channel < num_channels:
        raise InputError(f"{name}: no channel {channel} in it; it has {num_channels}, counted from 0")
    if not full or min(full) < 1:
        raise InputError(f"{name}: the header says shape {full}; check or re-export the file")
    ni, nj, nk = (*full[:3], 1, 1)[:3]
    dtype = np.dtype(header.get_data_dtype())
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise InputError(f"{name}: voxels of type {one_line(dtype, 60)}; export it as gray integers or floats")
    channel_bytes = ni * nj * nk * dtype.itemsize
    if channel_bytes * num_channels > MAX_VOLUME_BYTES:
        raise InputError(
            f"{name}: the header says shape {full}, over the limit of {MAX_VOLUME_BYTES / 2**30:g} GiB; "
            "crop or downsample it"
        )
    check_pixels(path, ni, nj)
    affine = np.asarray(header.get_best_affine(), np.float64)
    offset = int(header.get_data_offset()) or int(header.single_vox_offset)
    if not 0 <= offset <= MAX_VOLUME_BYTES:
        raise InputError(f"{name}: the header puts the voxels at byte {offset}; check or re-export the file")
    offset += channel_bytes * (channel or 0)  # the fourth axis is the slowest: a channel is a volume of its own
    try:
        grid = Grid((ni, nj, nk), tuple(tuple(row) for row in affine.tolist()))
    except ValueError:
        raise InputError(
            f"{name}: its affine cannot be inverted, so directions are unknown; repair the header"
        ) from None
    return NiftiVolume(os.fspath(path), header, grid, offset, gzipped)


def slice_geometry(volume: NiftiVolume, plane: str, index: int | None = None) -> Geometry:
    """Geometry of one displayed slice, a pixel a voxel.

    Parameters
    ----------
    plane
        ``"axial"``, ``"coronal"`` or ``"sagittal"``.
    index
        Voxel index along the source axis nearest to the plane's normal; None for the middle (size // 2).

    Raises
    ------
    InputError
        If the index is outside the volume.
    """
    try:
        return volume.grid.view(plane, index, square=False)
    except ValueError as error:
        raise InputError(f"{display_name(volume.path)}: {error}") from None


def read_plane(volume: NiftiVolume, geometry: Geometry) -> NDArray[np.float64]:
    """Read one slice's values, rescaled by slope and intercept, on the display grid.

    Returns
    -------
    NDArray of float64
        (H, W) as displayed.

    Raises
    ------
    InputError
        If the file is damaged or ends before its voxels do.
    """
    normal, across, down = slice_axes(geometry)
    check_pixels(volume.path, volume.shape[across], volume.shape[down])
    with open_binary(volume.path) as f, reading(volume.path, _NOUN):
        stored = _stream_plane(_decompressed(f, volume.gzipped), volume, normal, int(geometry.slice_index or 0))
        slope, inter = volume.header.get_slope_inter()
    with np.errstate(all="ignore"):  # what overflows is not finite, and is handled as such
        values = to_display(stored, geometry).astype(np.float64)
        if slope is not None:
            values = values * slope + inter
    return np.ascontiguousarray(values)


def _decompressed(f: IO[bytes], gzipped: bool) -> IO[bytes]:
    return gzip.GzipFile(fileobj=f, mode="rb") if gzipped else f  # type: ignore[return-value]


def _stream_plane(f: IO[bytes], volume: NiftiVolume, axis: int, index: int) -> NDArray[Any]:
    """Pick the slice ``index`` along ``axis`` while the volume (first axis fastest) goes by."""
    (ni, nj, nk), dtype = volume.shape, volume.dtype
    out = np.empty([n for a, n in enumerate(volume.shape) if a != axis], dtype)
    plane_bytes = ni * nj * dtype.itemsize
    step = max(1, CHUNK_BYTES // plane_bytes)
    first, last = 0, nk
    if axis == 2 and not volume.gzipped:  # nothing to verify elsewhere: go straight to the plane
        first, last = index, index + 1
    _skip(f, volume.offset, volume.gzipped)
    f.seek(volume.offset + first * plane_bytes)
    for k in range(first, last, step):
        n = min(step, last - k)
        block = np.frombuffer(_exactly(f, n * plane_bytes), dtype).reshape((ni, nj, n), order="F")
        if axis == 0:
            out[:, k : k + n] = block[index]
        elif axis == 1:
            out[:, k : k + n] = block[:, index]
        elif k <= index < k + n:
            out[...] = block[:, :, index - k]
    if volume.gzipped:
        f.read(CHUNK_BYTES)  # reach the end of the stream, so that its checksum is verified
    return out


def _skip(f: IO[bytes], offset: int, gzipped: bool) -> None:
    while gzipped and offset > 0:
        offset -= len(_exactly(f, min(offset, CHUNK_BYTES)))


def _exactly(f: IO[bytes], size: int) -> bytes:
    data = f.read(size)
    if len(data) != size:
        raise EOFError("it ends before its voxels do")
    return data


def _silent_logger() -> logging.Logger:
    logger = logging.Logger("ibisagent.nifti")  # not registered: nobody's handlers see it
    logger.addHandler(logging.NullHandler())
    return logger


def read_nifti(
    path: str | os.PathLike[str],
    *,
    slice_spec: str | None = None,
    window: str | None = None,
    modality: str | None = None,
    channel: int | None = None,
    target: str | None = None,
    preferred_window: str | None = None,
) -> Image:
    """Read one slice of a volume as an image.

    Parameters
    ----------
    path
        ``.nii`` or ``.nii.gz``.
    slice_spec
        See :func:`parse_slice_spec`.
    window
        ``--window`` option, or None for the rule: the target's if the modality is CT, or is unknown and the values look
        like Hounsfield units (the record then says "guessed CT"); else the 0.5 to 99.5 percentile of the slice.
    modality
        What the user says it is; NIfTI does not say.
    channel
        As :func:`open_nifti` takes it.
    target, preferred_window
        For the rule on CT: what is asked for, and what a policy wants instead.

    Raises
    ------
    InputError
        If anything about the file or the options cannot be used.
    """
    plane, index = parse_slice_spec(slice_spec)
    volume = open_nifti(path, channel=channel)
    geometry = slice_geometry(volume, plane, index)
    values = read_plane(volume, geometry)
    name = canonical_modality(modality)
    where = display_name(path)
    with reading(path, _NOUN):
        chosen = choose_window(
            values,
            window,
            name,
            hounsfield=True,
            guess_ct=True,
            target=target,
            preferred=preferred_window,
            where=where,
        )
        pixels = gray_to_rgb(apply_window(values, chosen))
    return Image(pixels=pixels, geometry=geometry, modality=name, window=chosen, source=os.fspath(path))
