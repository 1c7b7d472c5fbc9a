from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from ibisagent.episode import Episode
from ibisagent.geometry import Geometry
from ibisagent.rle import Rle, decode_mask
from ibisagent.scoring import score_episode
from ibisagent.types import Image
from ibisagent.web.chart import build_chart
from ibisagent.web.episode_page import render_episode_page, write_episode_page
from ibisagent.web.frames import build_frames
from sample_episodes import (
    HOSTILE,
    absent_episode,
    chest_image,
    click_episode,
    failed_episode,
    hostile_episode,
    mini_image,
    mini_mask,
    refine_episode,
)

NUCLEI = mini_image("dsb2018_000_000")
NUCLEUS = mini_mask("dsb2018_000_000__uppermost-nucleus")


class Reader(HTMLParser):
    """Collects tags with attributes and text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.inside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.inside and tag == self.inside[-1]:
            self.inside.pop()

    def handle_data(self, data: str) -> None:
        if not self.inside:
            self.text.append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    return reader


def page_data(page: str) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found is not None
    return json.loads(found.group(1))


def test_texts_are_escaped() -> None:
    page = render_episode_page(hostile_episode(NUCLEI, NUCLEUS), NUCLEI)
    reader = read(page)
    names = [tag for tag, _ in reader.tags]
    assert names.count("script") == 2 and names.count("img") == 1
    assert not any(name.startswith("on") for _, attributes in reader.tags for name in attributes)
    assert "".join(reader.text).count('</script><script>document.title="pwned"') >= 6
    assert HOSTILE not in page


def test_data_cannot_close_its_element() -> None:
    episode = hostile_episode(NUCLEI, NUCLEUS)
    episode.steps[0].mask = Rle(size=(128, 128), counts="</script><!--")
    with pytest.raises(Exception, match="damaged mask"):
        render_episode_page(episode, NUCLEI)
    from ibisagent.web.parts import script_json

    text = script_json({"a": "</script><!-- & \u2028"})
    assert not set("<>&\u2028") & set(text) and json.loads(text) == {"a": "</script><!-- & \u2028"}


def test_content_policy_names_the_page_s_own_script_and_style() -> None:
    page = render_episode_page(absent_episode(NUCLEI), NUCLEI)
    policy = next(a["content"] for tag, a in read(page).tags if tag == "meta" and "http-equiv" in a)
    assert policy is not None and policy.startswith("default-src 'none'") and "unsafe" not in policy
    for element in ("style", "script"):
        body = re.search(rf"<{element}>(.*?)</{element}>", page, re.S)
        assert body is not None
        digest = base64.b64encode(hashlib.sha256(body.group(1).encode()).digest()).decode()
        assert f"{element}-src 'sha256-{digest}'" in policy


def test_self_contained() -> None:
    page = render_episode_page(absent_episode(NUCLEI), NUCLEI)
    for tag, attributes in read(page).tags:
        for name in ("src", "href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, value)
        assert tag != "link" and "style" not in attributes
    assert not re.search(r"@import|url\(|https?://", page)


def test_image_and_masks_are_those_of_the_record() -> None:
    episode = refine_episode(NUCLEI, NUCLEUS)
    page = render_episode_page(episode, NUCLEI)
    found = re.search(r'src="data:image/png;base64,([^"]+)"', page)
    assert found is not None
    shown = np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(found.group(1)))).convert("RGB"))
    np.testing.assert_array_equal(shown, NUCLEI.pixels)
    data = page_data(page)
    assert [frame["label"] for frame in data["frames"]] == ["Start", "1", "2", "3", "4", "5", "Result"]
    assert len(data["masks"]) == len(set(data["masks"]))
    for frame, rle in zip(
        data["frames"], [episode.initial_mask, *(s.mask for s in episode.steps), episode.final_mask], strict=True
    ):
        assert (None if frame["mask"] is None else data["masks"][frame["mask"]]) == (rle.counts if rle else None)
    assert data["frames"][0]["given"] and data["frames"][2]["given"] and not data["frames"][4]["given"]
    assert data["frames"][4]["box"] is not None and data["frames"][1]["clicks"][0][3] == 1


def test_world_matrix_gives_the_recorded_millimetres() -> None:
    image, target = chest_image(), mini_mask("lung1_axial_024__left-lung")
    episode = click_episode(image, target, "Segment the left lung.", "left lung")
    world = np.array(page_data(render_episode_page(episode, image))["world"])
    step = episode.steps[0]
    assert step.world_mm is not None
    np.testing.assert_allclose(world @ [*step.pixels_xy[0], 1.0], step.world_mm[0], atol=1e-3)


def test_every_outcome_says_what_it_is() -> None:
    absent = " ".join(read(render_episode_page(absent_episode(NUCLEI), NUCLEI)).text)
    assert "Target absent" in absent and "Nothing is marked" in absent and "there is no kidney" in absent
    failed = " ".join(read(render_episode_page(failed_episode(NUCLEI, NUCLEUS), NUCLEI)).text)
    assert "out of memory while decoding" in failed and "not the same as an empty one" in failed
    refined = " ".join(read(render_episode_page(refine_episode(NUCLEI, NUCLEUS), NUCLEI)).text)
    assert "Out of steps" in refined and "max steps" in refined


def test_invalid_reply_shows_reason_and_raw_text() -> None:
    episode = click_episode(NUCLEI, NUCLEUS, "Mark it.", "nucleus")
    text = " ".join(read(render_episode_page(episode, NUCLEI)).text)
    assert "Reply not carried out" in text and "1.2000" in text
    assert episode.steps[2].invalid is not None and episode.steps[2].invalid.reason in text


def test_scores_are_shown_only_if_given() -> None:
    episode = click_episode(NUCLEI, NUCLEUS, "Mark it.", "nucleus")
    scores = score_episode(episode, NUCLEUS)
    assert scores.iou_by_step is not None
    assert "Dice" not in render_episode_page(episode, NUCLEI)
    assert "Dice" in render_episode_page(episode, NUCLEI, scores)
    frames = build_frames(episode, NUCLEI, scores.iou_by_step)
    counted = [f.iou for f, s in zip(frames[1:], episode.steps, strict=False) if s.counts]
    assert [frames[0].iou, *counted] == list(scores.iou_by_step)
    assert frames[-2].iou == scores.iou_by_step[-1]  # Terminate carries the value on
    assert scores.dice is not None and scores.iou is not None
    assert 2 * scores.iou / (1 + scores.iou) == pytest.approx(scores.dice)


def test_absent_target_has_no_scores_but_a_page() -> None:
    episode = absent_episode(NUCLEI)
    page = render_episode_page(episode, NUCLEI, score_episode(episode, None))
    assert "Dice" not in page
    assert build_chart(build_frames(episode, NUCLEI)) is None


def test_chart_stays_in_its_box() -> None:
    episode = click_episode(NUCLEI, NUCLEUS, "Mark it.", "nucleus")
    chart = build_chart(build_frames(episode, NUCLEI, [0.0, 0.5, 1.0]))
    assert chart is not None and {line.css for line in chart.series} == {"own", "iou", "dice"}
    for line in chart.series:
        for x, y, _ in line.dots:
            assert chart.left <= x <= chart.right and chart.top <= y <= chart.bottom


def test_record_has_hashes_and_no_none() -> None:
    episode = click_episode(NUCLEI, NUCLEUS, "Mark it.", "nucleus")
    page = render_episode_page(episode, NUCLEI)
    assert NUCLEI.sha256 in page and ">None<" not in page
    assert "Caution" not in page


def test_another_image_is_pointed_out_or_refused() -> None:
    episode = absent_episode(NUCLEI)
    other = Image(255 - NUCLEI.pixels, NUCLEI.geometry)
    assert "their hashes differ" in render_episode_page(episode, other)
    with pytest.raises(ValueError, match="the episode's 128 x 128"):
        render_episode_page(episode, Image(np.zeros((4, 4, 3), np.uint8), Geometry.plane_2d()))


def test_a_run_that_goes_on_and_one_read_back(tmp_path: Path) -> None:
    episode = click_episode(NUCLEI, NUCLEUS, "Mark it.", "nucleus")
    episode.save(tmp_path / "episode.json")
    assert render_episode_page(Episode.load(tmp_path / "episode.json"), NUCLEI) == render_episode_page(episode, NUCLEI)
    running = episode.model_copy(update={"outcome": None, "final_mask": None, "steps": episode.steps[:1]})
    data = page_data(render_episode_page(running, NUCLEI))
    assert [frame["label"] for frame in data["frames"]] == ["Start", "1"]
    empty = running.model_copy(update={"steps": []})
    assert "Running" in render_episode_page(empty, NUCLEI)


def test_large_image_is_embedded_smaller() -> None:
    image = Image(np.zeros((40, 3000, 3), np.uint8), Geometry.plane_2d())
    page = render_episode_page(absent_episode(image), image)
    found = re.search(r'src="data:image/png;base64,([^"]+)"', page)
    assert found is not None
    assert PIL.Image.open(io.BytesIO(base64.b64decode(found.group(1)))).size == (2048, 27)
    assert page_data(page)["width"] == 3000


def test_file_is_utf8_even_of_broken_text(tmp_path: Path) -> None:
    episode = absent_episode(NUCLEI).model_copy(update={"instruction": "half a pair \udc80 ü"})
    write_episode_page(episode, NUCLEI, tmp_path / "episode.html")
    assert "half a pair ? ü" in (tmp_path / "episode.html").read_text(encoding="utf-8")
    assert [p.name for p in tmp_path.iterdir()] == ["episode.html"]


def test_final_mask_is_marked() -> None:
    episode = click_episode(NUCLEI, NUCLEUS, "Mark it.", "nucleus")
    assert [f.label for f in build_frames(episode, NUCLEI) if f.is_final] == [str((episode.final_step or 0) + 1)]
    assert episode.final_mask is not None and decode_mask(episode.final_mask).any()
