"""Prompt planes of one image, click after click: what the clicks so far gave is kept, and a new one is added to it.

The planes of a list of clicks are a maximum or a minimum over its clicks, and adding a cost keeps the order of numbers
as they are rounded: so a click that is added gives the bits of all clicks done at once.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import Tensor

from ibisagent.segmenters.clicknet import (
    difference,
    gaussians,
    has_prior,
    nearness,
    similarity,
    walking_cost,
    walking_distance,
)

__all__ = ["ClickPlanes"]

_KEPT = 8
"""Lists of clicks of one sign; each takes 1.3 MB."""


class _Said(NamedTuple):
    """Clicks of one sign: their bumps, distances in colour and on foot, and the planes that the network sees."""

    bumps: Tensor
    colour: Tensor
    foot: Tensor
    alike: Tensor
    near: Tensor


class ClickPlanes:
    """:func:`ibisagent.segmenters.clicknet.prompt_planes` for a batch of one, bit for bit. Threads may share it.

    Parameters
    ----------
    planes
        ``float32`` (1, 7, S, S), see :func:`ibisagent.segmenters.clicknet.image_planes`.
    """

    def __init__(self, planes: Tensor) -> None:
        self._features, self._size = planes[:, 3:7], planes.shape[-1]
        self._cost = walking_cost(planes)
        self._kept: OrderedDict[tuple[tuple[float, float], ...], _Said] = OrderedDict()
        self._lock = threading.Lock()

    def prompts(self, positive: Tensor, negative: Tensor, prior: Tensor, box: Tensor) -> Tensor:
        """The planes of a prompt.

        Parameters
        ----------
        positive, negative
            (K, 2) click centres (x, y) in pixels of the square; K may be 0.
        prior, box
            (1, 1, S, S), as :func:`~ibisagent.segmenters.clicknet.prompt_planes` takes them.

        Returns
        -------
        Tensor
            (1, 11, S, S).
        """
        yes, no = self._said(positive), self._said(negative)
        planes = [yes.bumps, no.bumps, yes.alike, no.alike, yes.near, no.near, prior, box, has_prior(prior)]
        return torch.cat(planes, 1)

    def _said(self, points: Tensor) -> _Said:
        key = tuple((x, y) for x, y in points.tolist())
        found = self._find(key)
        if found is None:
            before = self._find(key[:-1]) if len(key) > 1 else None
            found = self._all(points) if before is None else self._added(before, points[-1:])
            with self._lock:
                self._kept[key] = found
                while len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
        return found

    def _find(self, key: tuple[tuple[float, float], ...]) -> _Said | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def _all(self, points: Tensor) -> _Said:
        bumps, colour, foot = self._measured(points)
        return self._finished(bumps, colour, foot)

    def _added(self, before: _Said, points: Tensor) -> _Said:
        bumps, colour, foot = self._measured(points)
        return self._finished(
            torch.maximum(before.bumps, bumps),
            torch.minimum(before.colour, colour),
            torch.minimum(before.foot, foot),
        )

    def _measured(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # No click is one that does not count.
        count = points.shape[0]
        valid = points.new_full((1, max(1, count)), float(count > 0))
        points = points[None] if count else points.new_zeros(1, 1, 2)
        return (
            gaussians(points, valid, 3.0, self._size),
            difference(self._features, points, valid),
            walking_distance(self._cost, points, valid, self._size),
        )

    def _finished(self, bumps: Tensor, colour: Tensor, foot: Tensor) -> _Said:
        return _Said(bumps, colour, foot, similarity(colour), nearness(foot, self._size))
