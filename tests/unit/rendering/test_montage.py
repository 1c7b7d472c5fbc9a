from __future__ import annotations

import numpy as np
import pytest

from ibisagent.geometry import Geometry
from ibisagent.rendering.montage import Tile, montage
from ibisagent.rendering.prompts import NumberedClick, StandingPrompts
from ibisagent.types import Image, PixelBox


def flat(height: int = 40, width: int = 60, value: int = 90) -> Image:
    return Image(np.full((height, width, 3), value, np.uint8), Geometry.plane_2d((1.0, 1.0)))


def marked(picture: np.ndarray) -> int:
    """Pixels that are bluer than the strips and the gray image."""
    return int((picture[..., 2].astype(int) - picture[..., 0] > 25).sum())


def test_rows_are_filled() -> None:
    sizes = {n: montage([Tile(flat(), "t")] * n, side=60).shape for n in (1, 4, 6, 10)}
    assert sizes[1] == sizes[4]  # one row
    assert sizes[6][0] == sizes[10][0] > sizes[4][0]  # two rows: 3 + 3 and 5 + 5
    with pytest.raises(ValueError, match="tile"):
        montage([])


def test_a_crop_shows_its_part_and_no_more() -> None:
    mask = np.zeros((40, 60), bool)
    mask[5:15, 5:15] = True
    whole = montage([Tile(flat(), "t", mask=mask)], side=120)
    near = montage([Tile(flat(), "t", mask=mask, crop=PixelBox(0, 0, 29, 19))], side=120)
    far = montage([Tile(flat(), "t", mask=mask, crop=PixelBox(30, 20, 59, 39))], side=120)
    assert marked(near) > 1.5 * marked(whole) > 0 and marked(far) == 0


def test_clicks_move_with_the_crop() -> None:
    clicks = StandingPrompts((NumberedClick(10, 10, True, 1), NumberedClick(50, 30, False, 2)))
    crop = PixelBox(0, 0, 29, 19)
    cropped = montage([Tile(flat(), "t", prompts=clicks, crop=crop)], side=120)
    part = Image(np.ascontiguousarray(flat().pixels[:20, :30]), Geometry.plane_2d((1.0, 1.0)))
    alone = montage([Tile(part, "t", prompts=StandingPrompts((NumberedClick(10, 10, True, 1),)))], side=120)
    assert np.array_equal(cropped[44:-60], alone[44:-60])


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="mask"):
        montage([Tile(flat(), "t", mask=np.zeros((3, 3), bool))])
