"""What must hold of surface metrics whatever the masks: symmetry, bounds, moves, flips, scales."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from ibisagent.metrics import SurfaceDistances
from ibisagent.metrics.elements import Elements

elements = st.sampled_from(["surfels", "voxels"])
spacings = st.tuples(*[st.integers(1, 40)] * 3).map(lambda s: tuple(n / 8 for n in s))  # exact, so sums are too
tolerances = st.integers(0, 80).map(lambda n: n / 8)
Numbers = list[float]


@st.composite
def pairs(draw: st.DrawFn) -> tuple[NDArray[np.bool_], NDArray[np.bool_], tuple[float, ...]]:
    ndim = draw(st.integers(2, 3))
    shape = draw(st.tuples(*[st.integers(1, 6)] * ndim))
    a, b = draw(hnp.arrays(np.bool_, (2, *shape)))
    return a, b, draw(spacings)[:ndim]


def numbers(
    a: NDArray[np.bool_], b: NDArray[np.bool_], spacing: tuple[float, ...], kind: Elements, tolerance: float
) -> Numbers:
    """NSD, then everything that is a distance."""
    d = SurfaceDistances.between(a, b, spacing, elements=kind)
    return [d.nsd(tolerance), d.hausdorff(), d.hd95(), d.hd95("pooled"), d.hausdorff(50), d.assd(), d.assd("mean")]


@settings(max_examples=60, deadline=None)
@given(pairs(), elements, tolerances)
def test_bounds_and_symmetry(pair: tuple, kind: Elements, tolerance: float) -> None:
    a, b, spacing = pair
    here, there = numbers(a, b, spacing, kind, tolerance), numbers(b, a, spacing, kind, tolerance)
    assert here == pytest.approx(there)
    share, largest, hd95, pooled, median, average, mean = here
    assert 0 <= share <= 1
    assert 0 <= median <= hd95 <= largest and pooled <= largest
    assert average <= largest * (1 + 1e-9) and mean <= largest * (1 + 1e-9)
    assert (largest == math.inf) == (a.any() != b.any())
    if a.any() and b.any():
        assert largest <= math.dist([0] * a.ndim, np.array(a.shape) * spacing)
        assert (share == 1) == (largest <= tolerance)
    assert numbers(a, a, spacing, kind, tolerance) == [1.0] + [0.0] * 6


@settings(max_examples=40, deadline=None)
@given(pairs(), elements, st.data())
def test_nsd_grows_with_the_tolerance(pair: tuple, kind: Elements, data: st.DataObject) -> None:
    a, b, spacing = pair
    low, high = sorted((data.draw(tolerances), data.draw(tolerances)))
    distances = SurfaceDistances.between(a, b, spacing, elements=kind)
    assert distances.nsd(low) <= distances.nsd(high)


@settings(max_examples=50, deadline=None)
@given(pairs(), elements, tolerances, st.data())
def test_moves_and_flips_change_nothing(pair: tuple, kind: Elements, tolerance: float, data: st.DataObject) -> None:
    a, b, spacing = pair
    expected = numbers(a, b, spacing, kind, tolerance)
    before = [data.draw(st.integers(0, 4)) for _ in range(a.ndim)]
    after = [data.draw(st.integers(0, 4)) for _ in range(a.ndim)]
    rims = list(zip(before, after, strict=True))
    assert numbers(np.pad(a, rims), np.pad(b, rims), spacing, kind, tolerance) == expected
    axis = data.draw(st.integers(0, a.ndim - 1))
    flipped = numbers(np.flip(a, axis), np.flip(b, axis), spacing, kind, tolerance)
    assert flipped == pytest.approx(expected)
    assert numbers(np.asfortranarray(a), np.asfortranarray(b), spacing, kind, tolerance) == expected


@settings(max_examples=40, deadline=None)
@given(pairs(), tolerances)
def test_axes_may_be_swapped_with_their_spacing(pair: tuple, tolerance: float) -> None:
    a, b, spacing = pair
    for kind in ("voxels", "surfels") if a.ndim == 2 else ("voxels",):
        # In 3-D, marching cubes splits some neighbourhoods along one axis of two that are as good.
        swapped = numbers(a.T, b.T, spacing[::-1], kind, tolerance)  # type: ignore[arg-type]
        assert swapped == pytest.approx(numbers(a, b, spacing, kind, tolerance))  # type: ignore[arg-type]


@settings(max_examples=50, deadline=None)
@given(pairs(), elements, tolerances, st.floats(0.01, 100))
def test_distances_scale_with_the_spacing(pair: tuple, kind: Elements, tolerance: float, scale: float) -> None:
    a, b, spacing = pair
    share, *distances = numbers(a, b, spacing, kind, tolerance)
    assume(not any(math.isnan(d) for d in distances))
    scaled = numbers(a, b, tuple(s * scale for s in spacing), kind, tolerance * scale)
    assert scaled == pytest.approx([share] + [d * scale for d in distances])
