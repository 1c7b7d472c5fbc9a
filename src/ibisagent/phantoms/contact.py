"""Contact sheets: many phantoms on one picture, to judge by eye.

``python -m ibisagent.phantoms.contact SHEET.png [KIND ...]`` writes one.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ibisagent.phantoms.catalog import KINDS, generate

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

__all__ = ["contact_sheet", "main"]

_COLOURS = [(0, 255, 0), (255, 0, 0), (60, 120, 255), (255, 255, 0), (255, 0, 255), (0, 255, 255), (255, 128, 0)]


def contact_sheet(
    kinds: Sequence[str] | None = None, seeds: Iterable[int] = range(6), size: int = 256
) -> NDArray[np.uint8]:
    """Lay phantoms out: two rows a kind (plain, and with the outline of every mask), one column a seed.

    Parameters
    ----------
    kinds
        Which kinds; all of them by default.
    seeds
        Which seeds.
    size
        Side of one tile, in pixels.

    Returns
    -------
    ndarray
        ``uint8`` (2 * kinds * size, seeds * size, 3), RGB.
    """
    rows = []
    seeds = list(seeds)
    for kind in kinds or KINDS:
        plain, outlined = [], []
        for seed in seeds:
            phantom = generate(kind, seed, size)
            drawn = phantom.pixels.copy()
            for i, mask in enumerate(phantom.masks.values()):
                found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
                cv2.drawContours(drawn, found, -1, _COLOURS[i % len(_COLOURS)], 1)
            plain.append(phantom.pixels)
            outlined.append(drawn)
        rows += [np.hstack(plain), np.hstack(outlined)]
    return np.ascontiguousarray(np.vstack(rows), dtype=np.uint8)


def main(arguments: Sequence[str]) -> int:
    """Write a sheet; ``arguments`` are the file's path and, after it, kinds. Returns the exit code."""
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    sheet = contact_sheet(arguments[1:] or None)
    return 0 if cv2.imwrite(arguments[0], sheet[:, :, ::-1]) else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
