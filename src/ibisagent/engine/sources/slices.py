"""Which slices of a labelled volume become samples: several a volume, spread, each structure at its best."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["choose_slices"]


def choose_slices(areas: Mapping[str, NDArray[np.int64]], num_slices: int, min_area: int) -> list[int]:
    """Choose slices by the areas of the structures on them.

    For each structure the slice of its largest area comes first, then slices halfway through its extent, at its
    quarters, its eighths and so on. Structures take turns, the one that the chosen slices show least often first. A
    neighbour of a chosen slice, which would look the same, is taken only when nothing else is left.

    Parameters
    ----------
    areas
        Name of a structure -> ``int64`` (number of slices,), its pixels on each slice.
    num_slices
        At most so many are chosen.
    min_area
        A slice counts for a structure from so many pixels on (and never without any).

    Returns
    -------
    list of int
        Indices of slices, ascending; fewer than `num_slices` where fewer show anything, none where none does. The
        same areas give the same slices, in whatever order the structures come.
    """
    least = max(1, min_area)
    shown = {name: area >= least for name, area in areas.items() if (area >= least).any()}
    chosen: list[int] = []
    for gap in (_gap(shown, num_slices), 1):
        waiting = {name: _preferred(areas[name], shown[name]) for name in sorted(shown)}
        while waiting and len(chosen) < num_slices:
            name = min(waiting, key=lambda name: (int(shown[name][chosen].sum()), name))
            for index in waiting[name]:
                if all(abs(index - other) >= gap for other in chosen):
                    chosen.append(index)
                    break
            else:
                del waiting[name]
    return sorted(chosen)


def _gap(shown: Mapping[str, NDArray[np.bool_]], num_slices: int) -> int:
    """Least distance between slices: a quarter of an even spacing over all that is labelled, at least 2."""
    if not shown:
        return 1
    labelled = np.flatnonzero(np.any(list(shown.values()), axis=0))
    return max(2, int(labelled[-1] - labelled[0] + 1) // (4 * max(1, num_slices)))


def _preferred(area: NDArray[np.int64], shown: NDArray[np.bool_]) -> Iterator[int]:
    """Slices of one structure, best first, each once."""
    extent = np.flatnonzero(shown)
    seen = {int(np.argmax(np.where(shown, area, -1)))}
    yield from seen
    parts = 2
    while len(seen) < len(extent):
        for part in range(1, parts, 2):
            index = int(extent[(len(extent) * part) // parts])
            if index not in seen:
                seen.add(index)
                yield index
        parts *= 2
