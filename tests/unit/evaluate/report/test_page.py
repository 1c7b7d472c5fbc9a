"""The page as text: self-contained, nothing breaks out, every block is there."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from ibisagent.evaluate.report.page import render_report_page
from sample_report import CAUTION, make_report


class Reader(HTMLParser):
    """Elements with their attributes, and whether every one is closed."""

    VOID = {"meta", "input", "img", "br", "link"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def page() -> str:
    return render_report_page(make_report(), {"arms": [("PDF", "plots/arms.pdf")]})


def test_elements_are_closed_and_names_are_unique(page: str) -> None:
    reader = Reader(page)
    assert reader.open == []
    ids = [a["id"] for _, a in reader.found if a.get("id")]
    assert len(ids) == len(set(ids))
    targets = {a["href"] for a in reader.all("a")}
    assert {str(t)[1:] for t in targets if str(t).startswith("#")} <= set(map(str, ids))
    assert {str(u["href"])[1:] for u in reader.all("use")} <= set(map(str, ids))


def test_it_asks_for_nothing_from_elsewhere(page: str) -> None:
    reader = Reader(page)
    for _, attributes in reader.found:
        for name in ("href", "src"):
            place = attributes.get(name)
            assert place is None or place.startswith(("#", "data:", "episodes/", "plots/")), place
        assert "style" not in attributes and not any(name.startswith("on") for name in attributes)
    assert len(reader.all("script")) == 1 and not reader.all("img") and not reader.all("link")
    policy = next(a["content"] for a in reader.all("meta") if a.get("http-equiv"))
    assert policy is not None and policy.startswith("default-src 'none'") and "connect-src" not in policy


def test_every_number_stands_there_with_its_interval(page: str) -> None:
    assert page.index('class="big">71.9%') < page.index(">Against baselines</h2>")
    assert '<span class="num">71.9%</span> <span class="ci">[66.9, 76.9]</span>' in page
    assert "no interval" in page and page.count(CAUTION) == 3
    assert re.search(r'class="of warned"[^>]*>4 cases, 4 images', page)
    assert 'class="flag warned">few' in page


def test_each_picture_is_embedded_once(page: str) -> None:
    assert page.count("data:image/jpeg") == 3
    assert page.count('href="#p-00001-lung"') == 2  # in both orders
    assert page.count('href="#p-00002-nucleus"') == 4  # and enlarged


def test_half_a_surrogate_pair_can_be_written() -> None:
    page = render_report_page(replace(make_report(), title="a \ud800 b"))
    assert page.count("a ? b") == 2 and page.encode("utf-8")
