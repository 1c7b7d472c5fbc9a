"""Values of a volume that are read when the first slice is asked for, and forgotten when many volumes were."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.io.volume import ArrayVoxels

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MAX_HELD_BYTES", "LazyVoxels"]

MAX_HELD_BYTES = 2**31
"""How much unpacked values of all volumes together stay in memory; the volume read last stays whatever its size."""

_held: list[weakref.ref[LazyVoxels]] = []  # least recently used first
_held_lock = threading.Lock()


class LazyVoxels:
    """A :class:`ibisagent.io.volume.Voxels` that loads its array on first use.

    Loaded arrays of all volumes share a budget of :data:`MAX_HELD_BYTES`: the one that was not used for longest goes
    first, and is loaded again when it is asked for. Copies that are pickled carry no values.

    Parameters
    ----------
    load
        Gives the stored values, (ni, nj, nk), any real dtype; it raises nothing but
        :class:`ibisagent.errors.InputError`. A module's function or a bound method of a plain record, so that it can be
        pickled.
    num_bytes
        What the loaded array takes of the budget: 0 where a file is mapped.
    slope, intercept
        As :class:`ibisagent.io.volume.ArrayVoxels` takes them.
    """

    def __init__(
        self, load: Callable[[], NDArray[Any]], num_bytes: int, slope: float = 1.0, intercept: float = 0.0
    ) -> None:
        self._load = load
        self.num_bytes = num_bytes
        self._slope, self._intercept = slope, intercept
        self._loading = threading.Lock()
        self._stored: NDArray[Any] | None = None

    def plane(self, axis: int, index: int) -> NDArray[Any]:
        """See :meth:`ibisagent.io.volume.Voxels.plane`."""
        return self._values().plane(axis, index)

    def array(self) -> NDArray[Any]:
        """See :meth:`ibisagent.io.volume.Voxels.array`. Not to be written to."""
        return self._values().array()

    @property
    def is_held(self) -> bool:
        """Whether the values are in memory now."""
        return self._stored is not None

    def _values(self) -> ArrayVoxels:
        with self._loading:
            stored = self._stored
            if stored is None:
                stored = self._load()
                stored.flags.writeable = False  # every slice is a view of it
                self._stored = stored
            self._touch()
        return ArrayVoxels(np.asarray(stored), self._slope, self._intercept)

    def _touch(self) -> None:
        """Note the use, and let the oldest others go while there is too much in memory."""
        with _held_lock:
            alive = [(ref, voxels) for ref in _held if (voxels := ref()) is not None and voxels is not self]
            total = self.num_bytes + sum(voxels.num_bytes for _, voxels in alive)
            while alive and total > MAX_HELD_BYTES:
                _, oldest = alive.pop(0)
                total -= oldest.num_bytes
                oldest._stored = None
            _held[:] = [*(ref for ref, _ in alive), weakref.ref(self)]

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: value for name, value in self.__dict__.items() if name not in ("_loading", "_stored")}
        return kept

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._loading = threading.Lock()
        self._stored = None
