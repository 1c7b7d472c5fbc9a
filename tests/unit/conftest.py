"""A bright disc on a dark ground, and its mask: a case that the rule-based segmenter solves in one click."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ibisagent.geometry import Geometry
from ibisagent.types import Case, Image


@pytest.fixture
def disc_target() -> NDArray[np.bool_]:
    y, x = np.mgrid[:48, :64]
    return (x - 40) ** 2 + (y - 20) ** 2 <= 12**2


@pytest.fixture
def disc_image(disc_target: NDArray[np.bool_]) -> Image:
    gray = np.where(disc_target, 200, 40).astype(np.uint8)
    return Image(np.repeat(gray[..., None], 3, axis=2), Geometry.plane_2d(), source="/data/patient/disc.png")


@pytest.fixture
def disc_case(disc_image: Image) -> Case:
    return Case(disc_image, "Segment the disc.", case_id="disc", target="disc", group="shapes")
