from __future__ import annotations

import numpy as np
import pytest

from ibisagent.rendering.marks import MASK as BLUE
from ibisagent.volume import figure
from ibisagent.volume.figure import spread, volume_figure
from ibisagent.volume.shown import shown_mask, volume_text
from sample_volume import WINDOW, ball_mask, ball_volume, volume_record

VOLUME, BALL = ball_volume(), ball_mask()


def tiles_of(monkeypatch: pytest.MonkeyPatch, mask: np.ndarray, volume=VOLUME):
    """The tiles that would be drawn."""
    kept = []

    def montage(tiles, **strips):
        kept.append((tiles, strips))
        return np.zeros((1, 1, 3), np.uint8)

    monkeypatch.setattr(figure, "montage", montage)
    volume_figure(volume_record(volume, mask), volume, WINDOW)
    return kept[0]


def blues(picture: np.ndarray) -> int:
    return int((np.abs(picture.astype(int) - BLUE).max(axis=2) < 40).sum())


def test_the_whole_mask_is_shown_in_three_planes(monkeypatch: pytest.MonkeyPatch) -> None:
    tiles, strips = tiles_of(monkeypatch, BALL)
    assert [t.title.split(",")[0] for t in tiles] == [
        "axial 8", *(f"axial {k}" for k in range(5, 11)), "coronal 16", "sagittal 24",
    ]  # fmt: skip
    assert tiles[0].frame == tiles[1].crop and tiles[0].frame is not None and tiles[0].prompts.clicks == ()
    for tile in tiles[1:]:
        box = tile.crop
        if box is not None:  # nothing of the mask is cut off
            inside = tile.mask[box.y0 : box.y1 + 1, box.x0 : box.x1 + 1]
            assert inside.sum() == tile.mask.sum() > 0
    key = next(t for t in tiles if t.tag == "key slice" and t.frame is None)
    assert len(key.prompts.clicks) == 1 and key.title == "axial 8, 608.0 mm²"
    assert strips["outcome"] == "done" and ("mask", f"mask ({volume_text(BALL, VOLUME)})") in strips["legend"]
    assert volume_text(BALL, VOLUME) == f"{BALL.sum() * 0.02:.3g} ml, {BALL.sum()} voxels"


def test_an_absent_target_shows_what_was_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    tiles, strips = tiles_of(monkeypatch, np.zeros_like(BALL))
    assert [t.title for t in tiles] == ["axial 0", "axial 4", "axial 9", "axial 13"]
    assert {t.tag for t in tiles} == {"scan, absent"} and all(t.mask is None for t in tiles)
    assert strips["legend"] == [("", "empty mask: nothing is marked")]


def test_the_picture() -> None:
    picture = volume_figure(volume_record(VOLUME, BALL), VOLUME, WINDOW, side=96)
    assert picture.dtype == np.uint8 and picture.shape[2] == 3 and blues(picture) > 300
    assert blues(volume_figure(volume_record(VOLUME, np.zeros_like(BALL)), VOLUME, WINDOW, side=96)) == 0


def test_spread_keeps_ends_and_what_is_wanted() -> None:
    assert spread([3, 4, 5], 4) == [3, 4, 5]
    found = spread(range(100), 6, [41, 400])
    assert len(found) == 6 and {0, 41, 99} <= set(found) and found == sorted(found)
    assert max(np.diff(spread(range(600), 60, range(200, 240)))) <= 40  # what is left over goes everywhere
    many = spread(range(600), 20, range(100, 500))
    assert len(many) == 20 and max(np.diff(many[1:-1])) <= 25  # wanted ones without room for all
    assert spread(range(10), 2) == [0, 9]


def test_masks_are_shown_as_their_slices_are() -> None:
    mask = np.zeros(VOLUME.grid.shape, bool)
    mask[3, 5, 7] = True
    shown = shown_mask(mask, VOLUME.grid, "axial", 7)
    assert shown.sum() == 1 and shown[5, 3]  # indices grow to L and P, as the display does
    assert shown_mask(mask, VOLUME.grid, "coronal", 5).sum(axis=0)[3] > 1  # 5 mm in pixels of 2 mm
