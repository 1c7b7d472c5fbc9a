"""The noun of this package: a drawn image with exact named masks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Phantom"]


@dataclass(frozen=True, eq=False)
class Phantom:
    """One procedural image and the masks it was drawn from.

    Parameters
    ----------
    pixels
        ``uint8`` (H, W, 3), C-contiguous; gray modalities repeat one plane.
    masks
        Target name -> ``bool`` (H, W). Names are those of ``data/mini`` where the structure is the same.
        Never empty, except that the dictionary itself may lack a name that this drawing does not show.
    modality
        As ``data/mini`` spells it: ``"CT"``, ``"MRI"``, ``"Fluorescence microscopy"`` …
    view
        ``"axial"``, ``"coronal"``, ``"sagittal"``, ``"frontal"``, ``"field"`` …
    kind
        The generator that drew it, one of :data:`ibisagent.phantoms.KINDS`.
    seed
        The seed it was drawn with; (kind, seed, size) determines every pixel.
    """

    pixels: NDArray[np.uint8]
    masks: dict[str, NDArray[np.bool_]] = field(repr=False)
    modality: str
    view: str
    kind: str
    seed: int

    @property
    def size(self) -> int:
        """Number of rows, which is also the number of columns."""
        return int(self.pixels.shape[0])


@dataclass(eq=False)
class Drawing:
    """What a painter returns before :func:`ibisagent.phantoms.generate` checks and finishes it.

    Parameters
    ----------
    pixels
        ``uint8`` or float (H, W) or (H, W, 3), floats in [0, 255].
    masks
        Target name -> ``bool`` (H, W); too small ones are dropped by ``generate``.
    view
        See :class:`Phantom`.
    """

    pixels: NDArray[np.generic]
    masks: dict[str, NDArray[np.bool_]]
    view: str
