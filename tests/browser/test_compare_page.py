"""The page of a comparison in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest

from browsing import open_page, requested, severe
from ibisagent.evaluate.changes import change_panels, shown_changes
from ibisagent.evaluate.compare import compare
from ibisagent.web.compare_page import render_compare_page
from sample_comparison import pair_sides


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    found = compare(pair_sides(folder))
    losses, gains = ([(c, change_panels(found[0], c)) for c in some] for some in shown_changes(found[0], 12))
    path = folder / "compare.html"
    path.write_text(render_compare_page(found, [(losses, gains)]), encoding="utf-8")
    return path


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, False), (390, True)])
def test_it_fits_says_nothing_wrong_and_asks_for_nothing(browser, page: Path, width: int, dark: bool) -> None:
    severe(browser), requested(browser)
    open_page(browser, page, width, 900, dark)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert severe(browser) == []
    assert [url for url in requested(browser) if url.startswith("http")] == []


def test_pictures_numbers_and_what_has_no_partner(browser, page: Path) -> None:
    open_page(browser, page)
    browser.execute_script("document.querySelectorAll('img').forEach(i => i.loading = 'eager')")
    sizes = browser.execute_async_script(
        "const done = arguments[0];"
        "Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth))).then(done)"
    )
    assert len(sizes) == 6 and set(sizes) == {488}
    text = browser.execute_script("return document.body.innerText")
    assert "only in before" in text and "only in after" in text and "Largest gains" in text
    assert browser.execute_script("return document.querySelectorAll('tbody tr').length") >= 6


def test_texts_of_others_stay_text(browser, page: Path) -> None:
    open_page(browser, page)
    assert browser.title == "after against before · ibisagent"  # the hostile target would have renamed it
    assert browser.execute_script("return document.querySelectorAll('script').length") == 1
