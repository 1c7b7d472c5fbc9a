"""The review page in a real browser: paging, deciding, notes, the decisions file, and the served page."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from browsing import open_page, press, requested, severe
from ibisagent.engine.corpus.decisions import Decision, Decisions
from ibisagent.engine.corpus.reader import Corpus
from ibisagent.rendering import agent_overlay
from ibisagent.web.corpus_page import write_corpus_page
from ibisagent.web.corpus_server import ReviewServer
from ibisagent.web.corpus_view import build_view
from sample_corpus import write_sample_corpus
from sample_episodes import HOSTILE

NAMES = ["toy-0-liver", "toy-1-lesion", "toy-2-cyst", "toy-3-spleen"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("corpus")
    write_sample_corpus(place / "toy")
    view = build_view(Corpus(place / "toy"), "toy")
    held = Decisions([Decision(trajectory_id="of another page", decision="reject", note="kept")])
    write_corpus_page(view, place / "page.html", held, who="Dr A")
    for row in view.rows:
        row["instruction"] = row["target"] = row["scenario"] = row["answer"] = HOSTILE
        for frame in row["frames"]:
            frame["thought"] = frame["action"] = frame["intent"] = HOSTILE
    write_corpus_page(
        view, place / "hostile.html", Decisions([Decision(trajectory_id=NAMES[0], decision="reject", note=HOSTILE)])
    )
    return place


@pytest.fixture
def page(browser, folder: Path) -> Path:
    """The page in a browser that has not seen it before."""
    open_page(browser, folder / "page.html")
    browser.execute_script("localStorage.clear()")
    open_page(browser, folder / "page.html")
    return folder / "page.html"


def wait(browser, condition) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 10).until(condition)


def text(browser, selector: str) -> str:
    return browser.execute_script("return document.querySelector(arguments[0]).innerText", selector)


def place(browser) -> str:
    return text(browser, "#place")


def pressed(browser) -> str:
    return browser.execute_script(
        "return document.querySelector('[data-decision][aria-pressed=true]').dataset.decision"
    )


def choose(browser, name: str, value: str) -> None:
    browser.execute_script(
        "const s = document.getElementById(arguments[0]); s.value = arguments[1]; s.dispatchEvent(new Event('change'))",
        f"by-{name}",
        value,
    )


def listed(browser) -> list[str]:
    return browser.execute_script(
        "return [...document.querySelectorAll('#rows li:not([hidden]) .row')].map(r => r.title)"
    )


def painted(browser, number: int) -> None:
    wait(browser, lambda b: b.execute_script("return document.documentElement.dataset.painted") == str(number))


def canvas(browser, step: int) -> np.ndarray:
    width, height, values = browser.execute_script(
        "const c = document.querySelectorAll('.picture canvas')[arguments[0]];"
        "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height);"
        "return [c.width, c.height, Array.from(d.data)]",
        step,
    )
    return np.array(values, np.uint8).reshape(height, width, 4)[..., :3].astype(int)


def test_pages_with_keys(browser, page: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    assert place(browser) == "1 of 4" and text(browser, "#instruction") == "Segment the liver."
    press(browser, Keys.ARROW_RIGHT)
    assert place(browser) == "2 of 4" and "self correction" in text(browser, "#tags")
    press(browser, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert place(browser) == "4 of 4" and "Target absent" in text(browser, "#tags")
    press(browser, Keys.ARROW_LEFT)
    assert place(browser) == "3 of 4"
    assert browser.current_url.endswith("#t=toy-2-cyst")
    open_page(browser, browser.current_url)
    assert text(browser, "#instruction") == "Segment the cyst."
    assert severe(browser) == []


def test_wrong_actions_are_marked(browser, page: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    assert not browser.execute_script("return document.querySelector('.unlearnt')")
    press(browser, Keys.ARROW_RIGHT)
    frames = browser.execute_script("return [...document.querySelectorAll('.frame')].map(f => f.innerText)")
    unlearnt = browser.execute_script(
        "return [...document.querySelectorAll('.frame')].map(f => f.classList.contains('unlearnt'))"
    )
    assert unlearnt == [True, False, False, False]
    assert "shown, not learnt" in frames[0] and "I click in the corner." in frames[0] and "Positive Point" in frames[0]
    assert "All the skin is green now; I take it back." in frames[1] and "Undo" in frames[1]


def test_pictures_are_what_the_agent_saw(browser, page: Path, folder: Path) -> None:
    """The last frame of the first trajectory, pixel for pixel but for the browser's smoothing and the file's WebP."""
    painted(browser, 0)
    corpus = Corpus(folder / "toy")
    row = next(iter(corpus.rows("sft")))
    seen = agent_overlay(corpus.image(row["image_id"]), corpus.mask(row, row["steps"][0]["mask"])).astype(int)
    shown = canvas(browser, 1)
    rows = ((np.arange(shown.shape[0]) + 0.5) * seen.shape[0] / shown.shape[0]).astype(int)
    columns = ((np.arange(shown.shape[1]) + 0.5) * seen.shape[1] / shown.shape[1]).astype(int)
    difference = np.abs(shown - seen[rows][:, columns]).max(axis=2)
    assert np.median(difference) <= 6 and (difference > 40).mean() < 0.05
    bare = canvas(browser, 0)
    green = (bare[..., 1] - bare[..., 0] > 60).mean()
    assert 0 < green < 0.02  # no mask yet, but a green click


def test_toggles(browser, page: Path) -> None:
    painted(browser, 0)
    before = canvas(browser, 1)
    for key in "og":
        press(browser, key)
        wait(browser, lambda b: np.abs(canvas(b, 1) - before).max() > 60)
        press(browser, key)
        wait(browser, lambda b: np.abs(canvas(b, 1) - before).max() < 20)
    press(browser, "g")
    yellow = canvas(browser, 1)
    assert ((yellow[..., 0] > 180) & (yellow[..., 1] > 160) & (yellow[..., 2] < 130)).any()
    open_page(browser, page)  # a reviewer's view is kept
    assert browser.execute_script("return document.getElementById('reference').getAttribute('aria-pressed')") == "true"


def test_decides_notes_filters_and_keeps(browser, page: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    press(browser, "a")
    assert place(browser) == "2 of 4"  # and goes on
    press(browser, "n", *"mask leaks", Keys.ENTER, "r")
    assert place(browser) == "3 of 4"
    assert "1 accepted" in text(browser, "#tally") and "1 rejected" in text(browser, "#tally")
    assert "kept in this browser" in text(browser, "#saved")
    press(browser, "a", Keys.ARROW_LEFT, "u")
    assert pressed(browser) == "undecided" and "1 accepted" in text(browser, "#tally")

    open_page(browser, page)
    wait(browser, lambda b: "1 accepted" in text(b, "#tally"))
    assert "1 rejected" in text(browser, "#tally")
    choose(browser, "decision", "reject")
    assert listed(browser) == [NAMES[1]] and place(browser) == "1 of 1"
    assert browser.execute_script("return document.getElementById('note').value") == "mask leaks"
    choose(browser, "decision", "")
    choose(browser, "scenario", "absent")
    assert listed(browser) == [NAMES[3]] and text(browser, "#instruction") == "Segment the spleen."
    choose(browser, "target", "liver")
    assert listed(browser) == [] and "No trajectory fits" in text(browser, "#nothing")
    browser.execute_script("document.getElementById('unfilter').click()")
    assert listed(browser) == NAMES
    assert severe(browser) == []


def test_letters_typed_into_a_note_decide_nothing(browser, page: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    press(browser, "n", *"a rare urn?", Keys.ESCAPE)
    assert "0 accepted" in text(browser, "#tally") and place(browser) == "1 of 4"
    assert browser.execute_script("return document.getElementById('note').value") == "a rare urn?"
    press(browser, "l", "l")
    assert browser.execute_script("return document.getElementById('note').value") == "a rare urn?"


def test_download(browser, page: Path, tmp_path: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    press(browser, "a", "n", *"thick rim", Keys.ENTER, "r")
    browser.execute_script("document.getElementById('download').click()")
    target = tmp_path / "decisions.jsonl"
    wait(browser, lambda b: target.exists() and target.stat().st_size > 0)
    held = Decisions.read(target)
    assert held.accepted_ids == {NAMES[0]} and held.rejected_ids == {NAMES[1], "of another page"}
    line = held.get(NAMES[1])
    assert line is not None and line.note == "thick rim" and line.who == "Dr A"
    assert severe(browser) == []


def test_enlarges_and_steps(browser, page: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.execute_script("document.querySelector('.picture').click()")
    assert browser.execute_script("return document.getElementById('large').open")
    wait(browser, lambda b: "bright disc is the liver" in text(b, "#large-text"))
    press(browser, Keys.ARROW_RIGHT)
    wait(browser, lambda b: "The edge is followed." in text(b, "#large-text"))
    press(browser, "a", Keys.ESCAPE)  # what is behind a dialog is not decided
    assert not browser.execute_script("return document.getElementById('large').open")
    assert "0 accepted" in text(browser, "#tally") and place(browser) == "1 of 4"


def test_texts_cannot_break_out(browser, folder: Path) -> None:
    open_page(browser, folder / "hostile.html")
    assert browser.title != "pwned"
    assert browser.execute_script("return [document.images.length, document.scripts.length]") == [0, 2]
    assert browser.execute_script("return document.getElementById('instruction').textContent") == HOSTILE
    assert browser.execute_script("return document.getElementById('note').value") == HOSTILE
    assert browser.execute_script("return document.querySelector('.thought').textContent") == HOSTILE
    assert severe(browser) == []


def test_nothing_is_asked_of_the_network(browser, folder: Path) -> None:
    requested(browser)
    open_page(browser, folder / "page.html")
    press(browser, "a", "r")
    assert {url.split(":", 1)[0] for url in requested(browser)} <= {"file", "data", "about"}


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 390, 820, 1024])
@pytest.mark.parametrize("name", ["page", "hostile"])
def test_nothing_overlaps_on_small_screens(browser, folder: Path, name: str, width: int, dark: bool) -> None:
    open_page(browser, folder / f"{name}.html", width=width, height=800, dark=dark)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    overlaps = browser.execute_script(
        "const seen = [...document.querySelectorAll('.bar .eyebrow, .bar .tally, .bar select, .bar button, "
        ".dock button, .dock textarea, .dock .place, .dock .saved')]"
        ".filter(e => e.offsetParent && (e.tagName !== 'P' || e.innerText));"
        "const boxes = seen.map(e => e.getBoundingClientRect()), bad = [];"
        "for (let i = 0; i < boxes.length; i++) for (let k = i + 1; k < boxes.length; k++) {"
        "  const a = boxes[i], b = boxes[k];"
        "  const same = seen[i].closest('.dock') === seen[k].closest('.dock');"
        "  if (same && Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 "
        "    && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1)"
        "    bad.push([seen[i].outerHTML, seen[k].outerHTML]);"
        "} return bad"
    )
    assert overlaps == []


def test_the_list_opens_on_a_phone(browser, folder: Path) -> None:
    open_page(browser, folder / "page.html", width=390, height=800)
    assert not browser.execute_script("return document.getElementById('list').offsetWidth")
    browser.execute_script("document.getElementById('listing').click()")
    assert browser.execute_script("return document.getElementById('list').offsetWidth") > 350
    browser.execute_script("document.querySelectorAll('.row')[2].click()")
    assert not browser.execute_script("return document.getElementById('list').offsetWidth")
    assert text(browser, "#instruction") == "Segment the cyst."


def test_controls_have_names(browser, folder: Path) -> None:
    open_page(browser, folder / "page.html")
    nameless = browser.execute_script(
        "return [...document.querySelectorAll('button, input, select, textarea')].filter(e => !(e.textContent.trim() ||"
        " e.getAttribute('aria-label') || e.labels?.length)).map(e => e.outerHTML)"
    )
    assert nameless == []


@pytest.fixture
def served(folder: Path, tmp_path: Path) -> Iterator[ReviewServer]:
    view = build_view(Corpus(folder / "toy"), "toy")
    with ReviewServer(view, tmp_path / "decisions.jsonl") as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_served_page_saves_at_once(browser, served: ReviewServer) -> None:
    from selenium.webdriver.common.keys import Keys

    requested(browser)
    open_page(browser, served.address)
    press(browser, "a", "n", *"blurred", Keys.ENTER, "r")
    wait(browser, lambda b: served.decisions.exists() and len(served.read_decisions()) == 2)
    wait(browser, lambda b: text(b, "#saved") == "saved")
    held = served.read_decisions()
    assert held.accepted_ids == {NAMES[0]} and held.rejected_ids == {NAMES[1]}
    assert "blurred" in [json.loads(line)["note"] for line in served.decisions.read_text().splitlines()]
    press(browser, Keys.ARROW_LEFT, "u")
    wait(browser, lambda b: served.read_decisions().rejected_ids == frozenset())
    open_page(browser, served.address)  # the file is what counts, and it has everything
    assert "1 accepted" in text(browser, "#tally") and "0 rejected" in text(browser, "#tally")
    assert all(url.startswith((f"http://127.0.0.1:{served.port}/", "data:", "about:")) for url in requested(browser))
    assert severe(browser) == []


def test_what_was_not_saved_is_kept_and_sent_later(browser, served: ReviewServer) -> None:
    open_page(browser, served.address)
    served.decisions.mkdir()  # as good as a full disk
    press(browser, "r")
    wait(browser, lambda b: "not saved" in text(b, "#saved"))
    assert "bad" in browser.execute_script("return document.getElementById('saved').className")
    served.decisions.rmdir()
    press(browser, "a")
    wait(browser, lambda b: text(b, "#saved") == "saved")
    held = served.read_decisions()
    assert held.rejected_ids == {NAMES[0]} and held.accepted_ids == {NAMES[1]}
    severe(browser)  # the refused request is on the console, as it should be
