"""Diameters of regions, against all pairs of border points and against shapes that are known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ibisagent.io.diameters import longest_diameter

UNIT = np.eye(3)[:, :2]


def border(region) -> np.ndarray:
    padded = np.pad(region, 1)
    points = []
    for i, j in np.argwhere(padded):
        for di, dj in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            if not padded[i + di, j + dj]:
                points.append((i - 1 + di / 2, j - 1 + dj / 2))
    return np.array(points)


def test_a_pixel_and_a_line_are_as_long_as_their_pixels():
    mask = np.zeros((5, 12), bool)
    mask[2, 3] = True
    pixel = longest_diameter(mask, UNIT)
    assert (pixel.long_mm, pixel.short_mm) == (1.0, 1.0)
    mask[2, 1:11] = True
    line = longest_diameter(mask, UNIT)
    assert line.long_mm == pytest.approx(10) and sorted(line.long_ends) == [(2, 0.5), (2, 10.5)]
    assert line.short_mm == pytest.approx(1)


def test_an_ellipse_has_its_axes():
    i, j = np.mgrid[:200, :260]
    turn = np.deg2rad(30)
    u = (i - 100) * np.cos(turn) + (j - 130) * np.sin(turn)
    v = -(i - 100) * np.sin(turn) + (j - 130) * np.cos(turn)
    found = longest_diameter((u / 80) ** 2 + (v / 45) ** 2 <= 1, UNIT * 0.5)
    assert found.long_mm == pytest.approx(80, abs=0.6) and found.short_mm == pytest.approx(45, abs=0.6)
    start, end = np.array(found.long_ends)
    assert abs((end - start) @ (np.cos(turn), np.sin(turn))) / np.linalg.norm(end - start) > 0.999


def test_regions_are_measured_one_by_one_and_spacing_counts():
    mask = np.zeros((20, 20), bool)
    mask[1:4, 1:3] = mask[15:17, 2:9] = True
    assert longest_diameter(mask, UNIT).long_mm == pytest.approx(np.hypot(7, 1))
    tall = longest_diameter(mask, np.array([[0.0, 1.0], [5.0, 0.0], [0.0, 0.0]]))
    assert tall.long_mm == pytest.approx(np.hypot(15, 1)) and tall.long_ends[0][0] < 4
    assert longest_diameter(mask, UNIT, at_least=8.0) is None
    assert longest_diameter(np.zeros((3, 3), bool), UNIT) is None


@settings(max_examples=60, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 7), st.integers(1, 7))), st.integers(0, 3))
def test_it_is_the_longest_of_all_pairs_and_the_other_stands_upright_on_it(mask, which):
    from scipy import ndimage

    axes = [UNIT, UNIT * (2, 1), UNIT * (1, 2.5), np.array([[1.0, 0.3], [0.0, 0.9], [0.2, 0.0]])][which]
    found = longest_diameter(mask, axes)
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    if not count:
        assert found is None
        return
    regions = [border(labels == n) @ axes.T for n in range(1, count + 1)]
    longest = max(
        (np.linalg.norm(p - q) for points in regions for p, q in itertools.combinations(points, 2)), default=0
    )
    assert found.long_mm == pytest.approx(longest)
    (a, b), (c, d) = (np.array(pair) @ axes.T for pair in (found.long_ends, found.short_ends))
    assert np.linalg.norm(b - a) == pytest.approx(found.long_mm)
    assert np.linalg.norm(d - c) == pytest.approx(found.short_mm)
    assert abs((b - a) @ (d - c)) <= 1e-6 * found.long_mm
    # no chord at right angles through a border point is longer: the hull's width there is no less than the region's
    along = (b - a) / found.long_mm
    for points in regions:
        if np.isclose(points, a).all(axis=1).any():
            u = points @ along
            for p, q in itertools.combinations(range(len(points)), 2):
                if abs(u[p] - u[q]) < 1e-9:
                    assert np.linalg.norm(points[p] - points[q]) <= found.short_mm + 1e-6
    assert 0 <= found.short_mm <= found.long_mm + 1e-9
