"""A reference, slice by slice, as the oracle gets it."""

from __future__ import annotations

import numpy as np
import pytest

from ibisagent.grid import Grid
from ibisagent.slices import mask_to_source
from ibisagent.volume.targets import SliceTargets, slice_id

GRID = Grid((6, 5, 4), ((0.0, 2.0, 0.0, 0.0), (-1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 3.0, 0.0), (0.0, 0.0, 0.0, 1.0)))


def test_every_slice_of_every_plane_leads_back_to_the_grid() -> None:
    mask = np.random.default_rng(0).random(GRID.shape) < 0.4
    targets = SliceTargets(mask, GRID)
    assert len(targets) == sum(GRID.shape) == len(list(targets))
    for name in targets:
        plane, index = name.split(":")
        geometry = GRID.view(plane, int(index))
        assert targets[name].shape == GRID.view_size(plane)
        axis = GRID.view_axes(plane)[0]
        assert np.array_equal(mask_to_source(targets[name], geometry), np.take(mask, int(index), axis=axis))


@pytest.mark.parametrize("name", ["axial:4", "axial:-1", "oblique:1", "axial", "axial:x"])
def test_what_is_no_slice_is_no_key(name: str) -> None:
    with pytest.raises(KeyError):
        SliceTargets(np.zeros(GRID.shape, bool), GRID)[name]
    assert slice_id("axial", 3) == "axial:3"


def test_another_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="bool"):
        SliceTargets(np.zeros((6, 5, 3), bool), GRID)
