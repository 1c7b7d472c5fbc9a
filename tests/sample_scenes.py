"""Small scenes for the expert: a target of two grays, so that it takes some clicks, and another structure."""

from __future__ import annotations

import numpy as np

from ibisagent.engine.walk import Subject
from ibisagent.geometry import Geometry
from ibisagent.train.nano_trajectories import Scene
from ibisagent.types import Image

SIZE = 64


def disc_scene(number: int = 0, absent: bool = False, name: str = "disc", noise: float = 0.0) -> Scene:
    """A disc of radius 13 to 17 whose halves differ, and a smaller one, in 64 x 64 pixels."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:SIZE, :SIZE]
    cx, cy = rng.uniform(22, 30, 2)
    target = (x - cx) ** 2 + (y - cy) ** 2 <= rng.uniform(13, 17) ** 2
    other = (x - 52) ** 2 + (y - 52) ** 2 <= 8**2
    gray = np.full((SIZE, SIZE), 30.0)
    gray[target & (x < cx)] = 100
    gray[target & (x >= cx)] = 170
    gray[other] = 230
    gray += rng.normal(0, noise, gray.shape)
    pixels = np.repeat(gray.clip(0, 255).astype(np.uint8)[..., None], 3, 2)
    image = Image(pixels, Geometry.plane_2d(), modality="CT")
    return Scene(image, name, None if absent else target, (other,), "toy")


def disc_subject(number: int = 0, absent: bool = False) -> Subject:
    """The same for the engine's walks, with some noise."""
    return disc_scene(number, absent, noise=3.0)
