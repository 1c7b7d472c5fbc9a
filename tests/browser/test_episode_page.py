"""The episode's page in a real browser: Chromium without a window, driven through its driver."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from browsing import open_page, press, requested, severe
from ibisagent.rle import decode_mask
from ibisagent.scoring import score_episode
from ibisagent.web.episode_page import PageNotes, write_episode_page
from sample_episodes import (
    absent_episode,
    chest_image,
    click_episode,
    hostile_episode,
    mini_image,
    mini_mask,
    refine_episode,
    shifted,
)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    chest, lung = chest_image(), mini_mask("lung1_axial_024__left-lung")
    run = click_episode(chest, lung, "Segment the left lung.", "left lung")
    write_episode_page(run, chest, folder / "chest.html", score_episode(run, lung))
    nuclei, nucleus = mini_image("dsb2018_000_000"), mini_mask("dsb2018_000_000__uppermost-nucleus")
    write_episode_page(refine_episode(nuclei, nucleus), nuclei, folder / "refine.html")
    notes = PageNotes(reference=shifted(nucleus, -6))
    write_episode_page(refine_episode(nuclei, nucleus), nuclei, folder / "reference.html", notes=notes)
    write_episode_page(hostile_episode(nuclei, nucleus), nuclei, folder / "hostile.html")
    write_episode_page(absent_episode(chest), chest, folder / "absent.html")
    return folder


def current(browser) -> str:
    return browser.execute_script("return document.querySelector('.thumb[aria-current] .n').textContent.trim()")


def canvas(browser) -> np.ndarray:
    """Pixels on the screen, as uint8 (h, w, 4)."""
    width, height, values = browser.execute_script(
        "const c = document.getElementById('canvas');"
        "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height);"
        "return [c.width, c.height, Array.from(d.data)]"
    )
    return np.array(values, np.uint8).reshape(height, width, 4)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal but for anti-aliasing: a browser moves a canvas that is read often to another rasteriser."""
    return a.shape == b.shape and bool((np.abs(a.astype(int) - b.astype(int)).max(axis=2) > 10).mean() < 1e-4)


def test_steps_with_keys(browser, pages: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    open_page(browser, pages / "chest.html")
    assert current(browser) == "Result"
    press(browser, Keys.HOME)
    assert current(browser) == "Start"
    press(browser, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert current(browser) == "2"
    shown = browser.execute_script(
        "return [...document.querySelectorAll('.card')].filter(c => c.offsetParent).map(c => c.id)"
    )
    assert shown == ["frame-2"]
    assert "Step 2: Click inside" in browser.execute_script("return document.getElementById('live').textContent")
    press(browser, Keys.ARROW_LEFT)
    assert current(browser) == "1"
    press(browser, Keys.END)
    assert current(browser) == "Result"
    press(browser, "?")
    assert browser.execute_script("return document.getElementById('keys').open")
    press(browser, Keys.ESCAPE)
    assert not browser.execute_script("return document.getElementById('keys').open")
    assert severe(browser) == []


def test_space_plays_and_pauses(browser, pages: Path) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    open_page(browser, pages / "chest.html")
    press(browser, " ")
    assert current(browser) == "Start"
    assert browser.execute_script("return document.getElementById('play').textContent") == "Pause"
    WebDriverWait(browser, 10).until(lambda b: current(b) == "1")
    press(browser, " ")
    assert browser.execute_script("return document.getElementById('play').textContent") == "Play"


def test_mask_lies_where_the_record_says(browser, pages: Path) -> None:
    """The page decodes the record's runs itself: compare what it paints with Python's decoding."""
    from sample_episodes import click_episode

    image, target = chest_image(), mini_mask("lung1_axial_024__left-lung")
    episode = click_episode(image, target, "Segment the left lung.", "left lung")
    open_page(browser, pages / "chest.html")
    press(browser, "c", "c")  # tint only
    press(browser, "m")  # no clicks
    with_mask = canvas(browser).astype(int)
    press(browser, "o")
    bare = canvas(browser).astype(int)
    painted = np.abs(with_mask - bare).sum(axis=2) > 20
    assert episode.final_mask is not None
    mask = decode_mask(episode.final_mask)
    height, width = painted.shape
    rows = np.minimum((np.arange(height) + 0.5) * mask.shape[0] / height, mask.shape[0] - 1).astype(int)
    cols = np.minimum((np.arange(width) + 0.5) * mask.shape[1] / width, mask.shape[1] - 1).astype(int)
    expected = mask[rows][:, cols]
    overlap = (painted & expected).sum() / (painted | expected).sum()
    assert overlap > 0.97


def test_reference_is_outlined_and_taken_away(browser, pages: Path) -> None:
    open_page(browser, pages / "reference.html")
    with_it = canvas(browser)
    pink = (np.abs(with_it[..., :3].astype(int) - (255, 111, 174)).max(axis=2) < 40).sum()
    assert pink > 100
    press(browser, "r")
    without = canvas(browser)
    assert (np.abs(without[..., :3].astype(int) - (255, 111, 174)).max(axis=2) < 40).sum() == 0
    press(browser, "r")
    assert same(canvas(browser), with_it)
    open_page(browser, pages / "refine.html")  # a page without one has neither key nor button
    before = canvas(browser)
    press(browser, "r")
    assert same(canvas(browser), before) and not severe(browser)


def test_toggles_change_the_picture_and_back(browser, pages: Path) -> None:
    open_page(browser, pages / "refine.html")
    before = canvas(browser)
    for key in ("o", "m", "z", "p"):
        press(browser, key)
        assert not same(canvas(browser), before), key
        press(browser, key)
        assert same(canvas(browser), before), key
    press(browser, "+")
    assert not same(canvas(browser), before)
    press(browser, "-")
    assert same(canvas(browser), before)
    press(browser, "c", "c", "c")
    agent = canvas(browser).astype(int)
    assert (agent[..., 1] - agent[..., 0] > 100).any()  # half green, as a model sees it
    press(browser, "c")
    assert same(canvas(browser), before)
    assert severe(browser) == []


def test_texts_cannot_break_out(browser, pages: Path) -> None:
    open_page(browser, pages / "hostile.html")
    assert browser.title != "pwned"
    assert browser.execute_script("return document.images.length") == 1
    assert browser.execute_script("return document.scripts.length") == 2
    heading = browser.execute_script("return document.querySelector('h1').textContent")
    assert heading.startswith("</script><script>document.title")
    assert severe(browser) == []


def test_nothing_is_asked_of_the_network(browser, pages: Path) -> None:
    requested(browser)
    open_page(browser, pages / "chest.html")
    assert {url.split(":", 1)[0] for url in requested(browser)} <= {"file", "data", "about"}


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", ["chest", "refine", "hostile", "absent"])
def test_fits_a_small_screen(browser, pages: Path, name: str, dark: bool) -> None:
    open_page(browser, pages / f"{name}.html", width=380, height=760, dark=dark)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 380
    assert browser.execute_script("return document.getElementById('canvas').getBoundingClientRect().right") <= 380


def test_controls_have_names(browser, pages: Path) -> None:
    open_page(browser, pages / "chest.html")
    nameless = browser.execute_script(
        "return [...document.querySelectorAll('button, input')].filter(e => !(e.textContent.trim() ||"
        " e.getAttribute('aria-label'))).length"
    )
    assert nameless == 0
    assert "mask of" in browser.execute_script("return document.getElementById('canvas').getAttribute('aria-label')")


def test_print_shows_every_step(browser, pages: Path) -> None:
    open_page(browser, pages / "chest.html")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    cards, tools = browser.execute_script(
        "return [[...document.querySelectorAll('.card')].every(c => c.offsetParent),"
        " document.getElementById('tools').offsetParent]"
    )
    assert cards and tools is None
