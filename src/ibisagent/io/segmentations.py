"""DICOM segmentation objects as masks of a volume: every frame is put on the slice where it says it lies."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

from ibisagent.errors import InputError
from ibisagent.io.code_streams import check_data_set
from ibisagent.io.dicom_elements import is_deflated, vector
from ibisagent.io.files import MAX_FILE_BYTES, check_pixels, display_name, one_line, open_binary, reading
from ibisagent.io.lattice import LatticeMap

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ibisagent.grid import Grid

__all__ = ["read_segmentation"]

_WHAT = "a DICOM segmentation"
_SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")


def read_segmentation(
    path: str | os.PathLike[str], grid: Grid, *, label: int | str | None = None, frame_of_reference: str | None = None
) -> NDArray[np.bool_]:
    """Read a DICOM-SEG object onto a grid.

    Parameters
    ----------
    path
        One file: binary, fractional (half of the maximum and more is foreground) or a label map.
    grid
        Its frames must lie on voxels of this grid, in whatever order and turned whichever way; slices without a frame
        are background.
    label
        Number or label of the segment; None is all of them together.
    frame_of_reference
        UID of the volume's frame of reference; an object with another one is refused. None is not known.

    Returns
    -------
    NDArray of bool
        (ni, nj, nk).

    Raises
    ------
    InputError
        If it is damaged, no segmentation, has no such segment, or does not lie on the grid.
    """
    name = display_name(path)
    with open_binary(path) as f, reading(path, _WHAT):
        if os.fstat(f.fileno()).st_size > MAX_FILE_BYTES:
            raise InputError(f"{name}: over the limit of {MAX_FILE_BYTES / 2**30:g} GiB; give a smaller file")
        if is_deflated(cast(BinaryIO, f)):
            raise InputError(f"{name}: a deflated DICOM file, which is not supported; unpack it with dcmconv +te")
        f.seek(0)
        import highdicom
        import pydicom

        data = pydicom.dcmread(f)
        if str(data.get("SOPClassUID")) not in _SEGMENTATIONS:
            raise InputError(f"{name}: a DICOM file that is no segmentation; give a DICOM-SEG object")
        theirs = str(data.get("FrameOfReferenceUID") or "")
        if frame_of_reference and theirs and theirs != frame_of_reference:
            raise InputError(f"{name}: it belongs to another frame of reference than the volume; give this study's own")
        check_pixels(path, int(data.Columns), int(data.Rows))
        check_data_set(data)
        seg: Any = highdicom.seg.Segmentation.from_dataset(data, copy=False)
        wanted = _segments(seg, label, name)
        mask = np.zeros(grid.shape, np.bool_)
        shared = seg.SharedFunctionalGroupsSequence[0]
        kind = str(seg.SegmentationType)
        half = float(seg.get("MaximumFractionalValue") or 1) / 2 if kind == "FRACTIONAL" else 0.5
        for number, groups in enumerate(seg.PerFrameFunctionalGroupsSequence, start=1):
            if kind != "LABELMAP" and _segment_of(groups, shared) not in wanted:
                continue
            stored = seg.get_stored_frame(number)
            shown = np.isin(stored, list(wanted)) if kind == "LABELMAP" else stored >= half
            if shown.any():
                part = _frame_map(groups, shared, shown.T.shape, grid, name).view(mask)
                part |= shown.T
    return mask


def _segments(seg: Any, label: int | str | None, name: str) -> set[int]:
    """Numbers of the segments that are asked for."""
    known = {
        int(item.SegmentNumber): one_line(item.get("SegmentLabel") or "", 64)
        for item in seg.SegmentSequence
        if int(item.SegmentNumber) != 0  # a label map's background
    }
    if label is None:
        return set(known)
    chosen = {
        number
        for number, title in known.items()
        if (number == label if isinstance(label, int) else title.lower() == label.strip().lower())
    }
    if not chosen:
        listed = ", ".join(f"{number} {title}" for number, title in known.items())
        raise InputError(f"{name}: no segment {one_line(label, 64)} in it; it has {one_line(listed)}")
    return chosen


def _segment_of(groups: Any, shared: Any) -> int:
    holder = groups if "SegmentIdentificationSequence" in groups else shared
    return int(holder.SegmentIdentificationSequence[0].ReferencedSegmentNumber)


def _frame_map(groups: Any, shared: Any, shape: tuple[int, ...], grid: Grid, name: str) -> LatticeMap:
    """Where a frame (columns, rows) lies on the grid."""

    def item(sequence: str) -> Any:
        """The first item of the frame's own functional group, else of the shared one."""
        return (groups if sequence in groups else shared)[sequence].value[0]

    position = vector(item("PlanePositionSequence"), "ImagePositionPatient", 3)
    orientation = vector(item("PlaneOrientationSequence"), "ImageOrientationPatient", 6)
    spacing = vector(item("PixelMeasuresSequence"), "PixelSpacing", 2)
    if position is None or orientation is None or spacing is None:
        raise ValueError("a frame that does not say where it lies")
    origin = np.asarray(position)
    along_row, down_column = np.asarray(orientation[:3]) * spacing[1], np.asarray(orientation[3:]) * spacing[0]
    first, right, below = grid.index_of_lps(np.stack([origin, origin + along_row, origin + down_column]))
    found, _ = LatticeMap.between(shape, np.stack([right - first, below - first], axis=1), first)
    if found is None or not found.fits(grid.shape):
        raise InputError(f"{name}: its frames do not lie on the volume's voxels; resample it onto the volume's grid")
    return found
