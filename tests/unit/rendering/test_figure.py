from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from ibisagent.geometry import Geometry
from ibisagent.rendering import episode_figure, figure_overlay, save_png
from ibisagent.rendering.figure import _MARGIN, area_text
from ibisagent.rendering.marks import MASK, NEGATIVE, POSITIVE, draw_mask
from ibisagent.rendering.prompts import final_prompts, standing_prompts
from ibisagent.rendering.text import load_font, wrap_text
from ibisagent.types import Image, PixelBox
from sample_episodes import (
    absent_episode,
    chest_image,
    click_episode,
    failed_episode,
    hostile_episode,
    mini_image,
    mini_mask,
    refine_episode,
)


def flat(height: int, width: int, value: int = 120, spacing: tuple[float, float] | None = None) -> Image:
    return Image(np.full((height, width, 3), value, np.uint8), Geometry.plane_2d(spacing))


def near(picture: np.ndarray, color: tuple[int, int, int], tolerance: int = 12) -> np.ndarray:
    return np.abs(picture.astype(int) - np.array(color)).max(axis=2) <= tolerance


def image_rows(figure: np.ndarray, height: int) -> tuple[int, int]:
    """First and last row of the image in a figure of a flat gray image."""
    rows = np.flatnonzero((figure == 120).all(axis=2).sum(axis=1) > 100)
    return int(rows[0]), int(rows[-1]) + 1


def test_marks_only_where_they_belong() -> None:
    image = flat(64, 64)
    mask = np.zeros((64, 64), bool)
    mask[20:40, 20:40] = True
    figure = figure_overlay(image, mask, [(30, 30, True, 1), (50, 50, False, 2)])
    top, bottom = image_rows(figure, 768)
    assert bottom - top == 768
    stage = figure[top:bottom, _MARGIN : _MARGIN + 768]
    assert near(stage, MASK).any() and near(stage, POSITIVE).any() and near(stage, NEGATIVE).any()
    untouched = np.ones((768, 768), bool)
    untouched[19 * 12 : 41 * 12, 19 * 12 : 41 * 12] = False
    untouched[50 * 12 - 30 : 51 * 12 + 30, 50 * 12 - 30 : 51 * 12 + 40] = False
    assert (stage[untouched] == 120).all()
    # In the middle of the mask, between the marks, there is a light tint through which the image shows.
    tint = stage[22 * 12, 22 * 12].astype(int)
    assert 20 < np.abs(tint - 120).max() < 60


def test_contour_lies_on_the_border() -> None:
    mask = np.zeros((16, 16), bool)
    mask[4:12, 4:12] = True
    out = draw_mask(np.full((320, 320, 3), 120, np.uint8), mask, MASK, tint=0.0)
    column = np.flatnonzero(near(out[:, 160:161], MASK)[:, 0])
    assert abs(column.min() - 80) <= 1 and abs(column.max() - 239) <= 1


def test_no_line_along_the_edge_of_the_image() -> None:
    out = draw_mask(np.full((320, 320, 3), 120, np.uint8), np.ones((16, 16), bool), MASK, tint=0.0)
    assert (out == 120).all()


@pytest.mark.parametrize("side", [16, 300, 4000])
def test_a_lone_pixel_is_seen(side: int) -> None:
    mask = np.zeros((side, side), bool)
    mask[side // 3, side // 2] = True
    out = draw_mask(np.full((768, 768, 3), 120, np.uint8), mask, MASK)
    assert (np.abs(out.astype(int) - 120).max(axis=2) > 40).any()


@pytest.mark.parametrize(
    ("image", "size"),
    [
        (flat(128, 128), (768, 768)),
        (flat(100, 200), (384, 768)),
        (flat(1000, 900), (1000, 900)),
        (flat(4000, 2000), (1536, 768)),
        (flat(50, 200, spacing=(3.0, 1.0)), (576, 768)),  # thick slices: rows are three times as far apart
        (flat(1, 1), (768, 768)),
    ],
)
def test_true_shape(image: Image, size: tuple[int, int]) -> None:
    from ibisagent.rendering.figure import _display_size

    assert _display_size(image) == (size[1], size[0])


def test_letters_change_only_the_margin() -> None:
    image = chest_image()
    plain = dataclasses.replace(image, geometry=Geometry.plane_2d(image.geometry.spacing_mm))
    a, b = figure_overlay(image, None), figure_overlay(plain, None)
    rows, cols = np.nonzero((a != b).any(axis=2))
    inside = (rows >= 16 + _MARGIN) & (rows < 16 + _MARGIN + 768) & (cols >= _MARGIN) & (cols < _MARGIN + 768)
    assert rows.size and not inside.any()


@pytest.mark.parametrize("mask", [None, np.zeros((64, 64), bool)])
def test_nothing_marked(mask: np.ndarray | None) -> None:
    figure = figure_overlay(flat(64, 64), mask, outcome="absent")
    top, bottom = image_rows(figure, 768)
    assert (figure[top:bottom, _MARGIN : _MARGIN + 768] == 120).all()


def test_wrong_shapes_raise() -> None:
    with pytest.raises(ValueError, match="mask must be bool"):
        figure_overlay(flat(8, 8), np.zeros((8, 9), bool))
    with pytest.raises(ValueError, match="initial_mask"):
        figure_overlay(flat(8, 8), None, initial_mask=np.zeros((9, 8), bool))
    with pytest.raises(ValueError, match="the episode's 512 x 512"):
        episode_figure(absent_episode(chest_image()), flat(8, 8))


def test_area() -> None:
    mask = np.zeros((10, 10), bool)
    mask[:2] = True
    assert area_text(mask, flat(10, 10)) == "20 px"
    assert area_text(mask, flat(10, 10, spacing=(0.5, 0.5))) == "5.0 mm², 20 px"
    assert area_text(mask, flat(10, 10, spacing=(10.0, 10.0))) == "20.0 cm², 20 px"


def test_every_kind_of_episode_has_a_figure() -> None:
    chest, nuclei = chest_image(), mini_image("dsb2018_000_000")
    nucleus = mini_mask("dsb2018_000_000__uppermost-nucleus")
    for episode, image in (
        (click_episode(nuclei, nucleus, "Mark it.", "nucleus"), nuclei),
        (refine_episode(nuclei, nucleus), nuclei),
        (hostile_episode(nuclei, nucleus), nuclei),
        (failed_episode(nuclei, nucleus), nuclei),
        (absent_episode(chest), chest),
    ):
        figure = episode_figure(episode, image)
        assert figure.dtype == np.uint8 and figure.shape[2] == 3 and min(figure.shape[:2]) >= 600
        np.testing.assert_array_equal(figure, episode_figure(episode, image))


def test_undone_and_discarded_prompts_do_not_stand() -> None:
    nuclei, nucleus = mini_image("dsb2018_000_000"), mini_mask("dsb2018_000_000__uppermost-nucleus")
    episode = refine_episode(nuclei, nucleus)
    history = standing_prompts(episode)
    assert [len(prompts.clicks) for prompts in history] == [0, 1, 0, 0, 0, 1]
    assert history[3].box is None and isinstance(history[4].box, PixelBox)
    assert final_prompts(episode) == history[-1]
    assert history[-1].clicks[0].step == 5


def test_failed_and_refused_runs_have_no_prompts() -> None:
    nuclei, nucleus = mini_image("dsb2018_000_000"), mini_mask("dsb2018_000_000__uppermost-nucleus")
    failed = failed_episode(nuclei, nucleus)
    assert final_prompts(failed).clicks == ()
    assert [len(p.clicks) for p in standing_prompts(failed)] == [0, 1, 1]  # the failed click never stood


def test_text_that_the_font_lacks() -> None:
    _, text = load_font(16, "plain text, 12.5 mm")
    assert text == "plain text, 12.5 mm"
    assert load_font(16, "3 cm² − 2 × 4")[1] == "3 cm2 - 2 x 4"
    assert "\n" not in load_font(16, "a\nb\x00c")[1]
    font, _ = load_font(16)
    lines = wrap_text("word " * 200, font, 300, 2)
    assert len(lines) == 2 and lines[-1].endswith("...")
    assert all(font.getlength(line) <= 300 for line in [*lines, *wrap_text("x" * 500, font, 300, 2)])


def test_png_is_whole_or_not_there(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    save_png(picture, tmp_path / "a.png")
    np.testing.assert_array_equal(np.asarray(PIL.Image.open(tmp_path / "a.png")), picture)
    with pytest.raises(ValueError, match="uint8"):
        save_png(picture.astype(float), tmp_path / "a.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OSError):
        save_png(picture, tmp_path / "folder.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "folder.png"]
