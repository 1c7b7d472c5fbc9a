"""The page of a run on a volume in a real browser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from browsing import open_page, press, requested, severe
from ibisagent.web.volume_page import write_volume_page
from sample_episodes import HOSTILE
from sample_volume import WINDOW, ball_mask, ball_volume, volume_record

LEFT, RIGHT, UP, DOWN, HOME, END = "\ue012", "\ue014", "\ue013", "\ue015", "\ue011", "\ue010"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("volume")
    volume, mask = ball_volume(), ball_mask()
    write_volume_page(volume_record(volume, mask), volume, WINDOW, folder / "ball.html")
    write_volume_page(volume_record(volume, np.zeros_like(mask)), volume, WINDOW, folder / "absent.html")
    hostile = volume_record(volume, mask, instruction=HOSTILE, answer=HOSTILE, thought="nothing <b>bold</b> here")
    hostile.case_id = HOSTILE
    write_volume_page(hostile, volume, WINDOW, folder / "hostile.html")
    return folder


def text(browser, name: str) -> str:
    return browser.execute_script("return document.getElementById(arguments[0]).textContent", name)


def current(browser) -> str:
    return browser.execute_script("return (document.querySelector('.stop.current h3') || {}).textContent || ''")


def blue(browser) -> int:
    """Pixels of the canvas that are the mask's outline."""
    return browser.execute_script(
        "const c = document.getElementById('canvas');"
        "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        "let n = 0; for (let i = 0; i < d.length; i += 4)"
        "if (Math.abs(d[i] - 64) < 30 && Math.abs(d[i + 1] - 196) < 30 && Math.abs(d[i + 2] - 255) < 30) n++; return n"
    )


def test_slices_visits_and_planes_by_key(browser, pages: Path) -> None:
    open_page(browser, pages / "ball.html")
    assert text(browser, "where") == "Axial 8 of 0–13 · 608.0 mm²" and current(browser) == "Axial 8"
    assert [text(browser, name) for name in ("left", "right", "top", "bottom")] == ["R", "L", "A", "P"]
    assert blue(browser) > 100
    press(browser, RIGHT)
    assert text(browser, "where").startswith("Axial 9") and current(browser) == "Axial 9 → 10"
    press(browser, END)
    assert text(browser, "where") == "Axial 13 of 0–13 · no mask" and blue(browser) == 0
    press(browser, HOME, RIGHT)
    assert text(browser, "where").startswith("Axial 1 ") and current(browser) == ""
    press(browser, "k", DOWN)
    assert current(browser) == "Axial 9 → 10"
    press(browser, UP)
    assert current(browser) == "Axial 8"
    press(browser, "2")
    assert text(browser, "where").startswith("Coronal ") and text(browser, "top") == "S" and blue(browser) > 50
    press(browser, "o")
    assert blue(browser) == 0


def test_the_rail_is_a_slider(browser, pages: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    open_page(browser, pages / "ball.html")
    rail = browser.find_element("id", "rail")
    for share, index in ((-0.49, 0), (0.49, 13), (0.04, 7)):
        ActionChains(browser).move_to_element_with_offset(rail, int(share * rail.size["width"]), 0).click().perform()
        assert rail.get_attribute("aria-valuenow") == str(index)
    assert rail.get_attribute("aria-valuemax") == "13"


def test_a_row_of_carried_masks_leads_to_its_slice(browser, pages: Path) -> None:
    open_page(browser, pages / "ball.html")
    browser.execute_script("document.querySelector('#all').click()")
    browser.execute_script("document.querySelectorAll('tr[data-visit] td')[4].click()")
    assert text(browser, "where").startswith("Axial 10")


@pytest.mark.parametrize(
    ("width", "dark", "name"), [(1280, False, "ball"), (390, True, "ball"), (390, False, "absent")]
)
def test_it_fits_says_nothing_wrong_and_asks_for_nothing(
    browser, pages: Path, width: int, dark: bool, name: str
) -> None:
    severe(browser), requested(browser)
    open_page(browser, pages / f"{name}.html", width, 900, dark)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert severe(browser) == []
    assert [url for url in requested(browser) if url.startswith("http")] == []


def test_texts_of_others_stay_text(browser, pages: Path) -> None:
    open_page(browser, pages / "hostile.html")
    assert "pwned" not in browser.title[:8] and browser.title.startswith("Done")
    assert browser.execute_script("return document.querySelectorAll('script').length") == 2
    assert browser.execute_script("return document.querySelectorAll('.stops b').length") > 0  # only the page's own
    assert "<b>bold</b>" in browser.execute_script("return document.querySelector('.stop.current').textContent")
