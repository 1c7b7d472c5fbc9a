"""NRRD masks that 3D Slicer opens as a segmentation with name and colour, and others as a label volume."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from ibisagent.io.files import atomic_write, one_line
from ibisagent.io.volume import Volume
from ibisagent.io.writers.blocks import mask_blocks, write_gzip
from ibisagent.io.writers.label import SegmentLabel

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["write_volume"]


def write_volume(mask: NDArray[np.bool_], volume: Volume, path: str | os.PathLike[str], label: SegmentLabel) -> None:
    """Write a volume's mask: ``uint8`` 0 and 1, gzipped, any affine (sheared ones too) in LPS millimetres to the bit.

    Parameters
    ----------
    mask
        ``bool`` (ni, nj, nk) on ``volume.grid``.
    volume
        The source.
    path
        File to write.
    label
        Name and colour go into the header.

    Raises
    ------
    InputError
        If writing fails.
    """
    with atomic_write(path) as f:
        f.write(_header(volume, label))
        write_gzip(f, mask_blocks(mask))


def _header(volume: Volume, label: SegmentLabel) -> bytes:
    grid = volume.grid
    matrix = grid.lps_matrix
    name = one_line(label.name).replace("\\", "\\\\")
    lines = [
        "NRRD0005",
        "# written by ibisagent; the format is described at https://teem.sourceforge.net/nrrd/format.html",
        "type: unsigned char",
        "dimension: 3",
        "space: left-posterior-superior",
        "sizes: " + " ".join(map(str, grid.shape)),
        "space directions: " + " ".join(_vector(matrix[:3, axis]) for axis in range(3)),
        "kinds: domain domain domain",
        "encoding: gzip",
        "space origin: " + _vector(matrix[:3, 3]),
        "Segment0_ID:=Segment_1",
        f"Segment0_Name:={name}",
        "Segment0_Color:=" + " ".join(f"{part / 255:.6f}" for part in label.colour),
        "Segment0_LabelValue:=1",
        "Segment0_Layer:=0",
        "Segment0_Extent:=" + " ".join(f"0 {n - 1}" for n in grid.shape),
        "Segmentation_ContainedRepresentationNames:=Binary labelmap|",
        "Segmentation_MasterRepresentation:=Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset:=0 0 0",
    ]
    return ("\n".join(lines) + "\n\n").encode()


def _vector(values: NDArray[np.float64]) -> str:
    # the shortest text that reads back as the same number; -0.0 would look like a mistake
    return "(" + ",".join(repr(float(v) + 0.0) for v in values) + ")"
