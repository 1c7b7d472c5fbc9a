"""The report's page in a real browser."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

from browsing import open_page, requested, severe
from ibisagent.evaluate.report.page import render_report_page
from ibisagent.evaluate.report.sources import open_sources
from ibisagent.evaluate.report.write import write_report
from sample_report import make_report, write_run


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    (folder / "hostile.html").write_text(render_report_page(make_report()), encoding="utf-8")
    run = write_run(tmp_path_factory.mktemp("run"))
    source = open_sources([run])
    (folder / "run").mkdir()
    write_report(folder / "run", source.run, source.pages("failures"), source.build, plots=False)
    return folder


@pytest.mark.parametrize("name", ["hostile.html", "run/index.html"])
def test_it_asks_for_nothing_and_complains_of_nothing(browser, pages: Path, name: str) -> None:
    requested(browser)
    severe(browser)
    open_page(browser, pages / name)
    assert {url.split(":", 1)[0] for url in requested(browser)} <= {"file", "data", "about"}
    assert severe(browser) == [] and browser.title != "pwned"
    assert browser.execute_script("return [document.images.length, document.scripts.length]") == [0, 1]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 390, 820, 1280])
@pytest.mark.parametrize("name", ["hostile.html", "run/index.html"])
def test_no_page_is_wider_than_its_window(browser, pages: Path, name: str, width: int, dark: bool) -> None:
    open_page(browser, pages / name, width=width, height=844, dark=dark)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    beyond = browser.execute_script(
        "return [...document.querySelectorAll('main *')].filter(e => !e.closest('.wide, .numbers, nav, svg') &&"
        " e.getBoundingClientRect().right > innerWidth + 0.5).map(e => e.outerHTML.slice(0, 120))"
    )
    assert beyond == []


def test_the_galleries_keep_their_order(browser, pages: Path) -> None:
    open_page(browser, pages / "run" / "index.html")

    def told(gallery: str, what: str) -> list[float]:
        return browser.execute_script(
            "return [...document.getElementById('b-' + arguments[0]).closest('.block').querySelectorAll('.card')]"
            ".map(c => c.dataset[arguments[1]]).filter(v => v !== undefined).map(Number)",
            gallery,
            what,
        )

    regrets, ious = told("gallery-regret", "regret"), told("gallery-lowest", "iou")
    assert len(regrets) > 0 and regrets == sorted(regrets, reverse=True)
    assert len(ious) == 6 and ious == sorted(ious)


def test_links_lead_somewhere(browser, pages: Path) -> None:
    open_page(browser, pages / "run" / "index.html")
    links = browser.execute_script("return [...document.querySelectorAll('a')].map(a => a.href)")
    here = browser.execute_script("return location.href.split('#')[0]")
    for link in links:
        place, _, part = link.partition("#")
        assert Path(unquote(urlparse(place).path)).is_file(), link
        if place == here:
            assert browser.execute_script("return !!document.getElementById(arguments[0])", unquote(part)), link
    episode = next(link for link in links if "/episodes/" in link)
    open_page(browser, episode)
    assert browser.execute_script("return document.getElementById('canvas') !== null")
    assert severe(browser) == []


def test_pictures_are_drawn_and_marks_can_be_taken_away(browser, pages: Path) -> None:
    open_page(browser, pages / "run" / "index.html")
    assert browser.execute_script(
        "return [...document.querySelectorAll('.view')].every(v => v.getBoundingClientRect().width > 60 &&"
        " v.getBoundingClientRect().height > 60)"
    )
    shown = "return getComputedStyle(document.querySelector('.store .o-mask')).display"
    assert browser.execute_script(shown) != "none"
    browser.execute_script("document.getElementById('marks').click()")
    assert browser.execute_script(shown) == "none"


def test_dots_lie_where_their_numbers_say(browser, pages: Path) -> None:
    open_page(browser, pages / "hostile.html")
    places = browser.execute_script(
        "return [...document.getElementById('b-arms').closest('.block').querySelectorAll('tr')].map(row => {"
        " const dot = row.querySelector('.dot'), track = row.querySelector('.track > svg');"
        " if (!dot) return null;"
        " const d = dot.getBoundingClientRect(), t = track.getBoundingClientRect();"
        " return [(d.left + d.width / 2 - t.left) / t.width, (d.top + d.height / 2 - t.top) / t.height]; })"
        ".filter(p => p)"
    )
    assert [round(x, 2) for x, _ in places] == [0.72, 0.41, 0.87]
    assert all(abs(y - 0.5) < 0.03 for _, y in places)


@pytest.mark.parametrize("name", ["hostile.html", "run/index.html"])
def test_paper_shows_everything(browser, pages: Path, name: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    open_page(browser, pages / name, dark=True)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    # The page is told of the medium by an event, which comes when the browser has time.
    WebDriverWait(browser, 10).until(
        lambda b: not b.execute_script("return document.querySelector('details:not([open])')")
    )
    hidden, folded, ground, ink = browser.execute_script(
        "return [[...document.querySelectorAll('main section, .block, .card, .caution, .head, tr')]"
        ".filter(e => !e.getClientRects().length).map(e => e.outerHTML.slice(0, 90)),"
        " [...document.querySelectorAll('details')].filter(d => !d.open).length,"
        " getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    assert hidden == [] and folded == 0
    assert ground == "rgb(255, 255, 255)" and ink == "rgb(0, 0, 0)"
    assert not browser.execute_script("return document.querySelector('nav').offsetParent")


def test_controls_have_names(browser, pages: Path) -> None:
    open_page(browser, pages / "run" / "index.html")
    nameless = browser.execute_script(
        "return [...document.querySelectorAll('a, button, input, summary, [role=img]')].filter(e =>"
        " !(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)).map(e => e.outerHTML)"
    )
    assert nameless == []
