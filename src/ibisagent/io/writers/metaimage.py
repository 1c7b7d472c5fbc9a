"""MetaImage masks (one ``.mha`` file)."""

from __future__ import annotations

import itertools
import math
import os
import zlib
from typing import TYPE_CHECKING

import numpy as np

from ibisagent.io.files import atomic_write
from ibisagent.io.volume import Volume
from ibisagent.io.writers.blocks import mask_blocks
from ibisagent.io.writers.label import SegmentLabel

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["write_volume"]


def write_volume(mask: NDArray[np.bool_], volume: Volume, path: str | os.PathLike[str], label: SegmentLabel) -> None:
    """Write a volume's mask: ``uint8`` 0 and 1, compressed, spacing and direction cosines in LPS millimetres.

    Direction times spacing gives the source's affine back to the bit wherever two such ``float64`` factors exist (they
    do if the source was a MetaImage), else to its last digit.

    Parameters
    ----------
    mask
        ``bool`` (ni, nj, nk) on ``volume.grid``, whose axes stand at right angles.
    volume
        The source.
    path
        File to write.
    label
        Not stored: MetaImage has no room for names.

    Raises
    ------
    InputError
        If writing fails.
    """
    matrix = volume.grid.lps_matrix
    spacing, directions = zip(*(_factors(matrix[:3, axis]) for axis in range(3)), strict=True)
    packer = zlib.compressobj(6)
    packed = [packer.compress(block) for block in mask_blocks(mask)] + [packer.flush()]
    lines = [
        "ObjectType = Image",
        "NDims = 3",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        "CompressedData = True",
        f"CompressedDataSize = {sum(map(len, packed))}",
        "TransformMatrix = " + _numbers(itertools.chain(*directions)),
        "Offset = " + _numbers(matrix[:3, 3]),
        "CenterOfRotation = 0 0 0",
        "ElementSpacing = " + _numbers(spacing),
        "DimSize = " + " ".join(map(str, volume.grid.shape)),
        "ElementType = MET_UCHAR",
        "ElementDataFile = LOCAL",
    ]
    with atomic_write(path) as f:
        f.write(("\n".join(lines) + "\n").encode("ascii"))
        f.writelines(packed)


def _factors(column: NDArray[np.float64]) -> tuple[float, list[float]]:
    """Length and direction of a column whose product is the column, to the bit where that is possible."""
    length = math.hypot(*column)
    # the source's spacing was most likely a short number
    for spacing in dict.fromkeys([length, *(float(f"{length:.{digits}g}") for digits in range(15, 3, -1))]):
        direction = [_quotient(float(v), spacing) for v in column]
        if None not in direction:
            return spacing, [d for d in direction if d is not None]
    return length, [float(v) / length for v in column]


def _quotient(value: float, divisor: float) -> float | None:
    """The number near value / divisor whose product with `divisor` is `value`, or None."""
    near = value / divisor
    candidates = (near, math.nextafter(near, math.inf), math.nextafter(near, -math.inf))
    return next((c for c in candidates if c * divisor == value), None)


def _numbers(values: object) -> str:
    return " ".join(repr(float(v) + 0.0) for v in values)  # type: ignore[attr-defined]
