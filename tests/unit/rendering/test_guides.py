from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibisagent.geometry import Geometry
from ibisagent.rendering.guides import edge_letters, image_facts, pixel_aspect, scale_bar
from ibisagent.types import Image
from sample_episodes import chest_image, mini_image


def geometry_of(right: tuple[float, float, float], down: tuple[float, float, float]) -> Geometry:
    """Geometry whose image axes point along two RAS directions."""
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = right, down
    return dataclasses.replace(Geometry.plane_2d(), affine=tuple(map(tuple, affine)))


@pytest.mark.parametrize(
    ("right", "down", "letters"),
    [
        ((-1, 0, 0), (0, -1, 0), ("R", "L", "A", "P")),  # axial, radiological
        ((1, 0, 0), (0, -1, 0), ("L", "R", "A", "P")),  # axial, neurological: said as it is
        ((-1, 0, 0), (0, 0, -1), ("R", "L", "S", "I")),  # coronal
        ((0, -1, 0), (0, 0, -1), ("A", "P", "S", "I")),  # sagittal
        ((-0.8, -0.6, 0), (0, 0, -2.5), ("RA", "LP", "S", "I")),  # oblique
        ((-0.99, -0.1, 0), (0, -1, 0), ("R", "L", "A", "P")),  # a small tilt is not spelled out
    ],
)
def test_letters_follow_the_affine(right: tuple, down: tuple, letters: tuple) -> None:
    found = edge_letters(geometry_of(right, down))
    assert found is not None
    assert (found.left, found.right, found.top, found.bottom) == letters


@given(st.tuples(*[st.floats(-3, 3)] * 3).filter(lambda v: math.hypot(*v) > 1e-3))
def test_opposite_edges_are_opposite(direction: tuple[float, float, float]) -> None:
    found = edge_letters(geometry_of(direction, (0, 0, -1)))
    assert found is not None
    opposite = str.maketrans("RLAPSI", "LRPAIS")
    assert found.left.translate(opposite) == found.right


def test_no_letters_without_truth() -> None:
    assert edge_letters(Geometry.plane_2d((1.0, 1.0))) is None
    assert edge_letters(geometry_of((0, 0, 0), (0, -1, 0))) is None


@given(width=st.integers(1, 5000), spacing=st.floats(1e-4, 100))
def test_scale_bar_is_round_and_fits(width: int, spacing: float) -> None:
    image = Image(np.zeros((1, width, 3), np.uint8), Geometry.plane_2d((1.0, spacing)))
    bar = scale_bar(image)
    assert bar is not None
    assert 0.09 <= bar.fraction <= 0.2501
    assert float(f"{bar.length_mm:.6e}"[0]) in (1, 2, 5)
    assert bar.fraction * width * spacing == pytest.approx(bar.length_mm)


def test_no_scale_without_spacing() -> None:
    image = mini_image("dsb2018_000_000")
    assert scale_bar(image) is None
    assert pixel_aspect(image.geometry) == 1.0


def test_facts() -> None:
    assert image_facts(chest_image()) == [
        "CT",
        "axial slice 24",
        "512 x 512 px",
        "0.57 mm/px",
        "window -1000 to 400, lung",
    ]
