from __future__ import annotations

import base64
import dataclasses
import io
import json
import re

import numpy as np
import PIL.Image
import pytest

from ibisagent.grid import Grid
from ibisagent.io.volume import ArrayVoxels
from ibisagent.rle import Rle, decode_mask
from ibisagent.volume.config import VolumeConfig
from ibisagent.volume.shown import shown_mask
from ibisagent.web.volume_page import render_volume_page
from ibisagent.web.volume_view import build_stops
from sample_episodes import HOSTILE
from sample_volume import WINDOW, ball_mask, ball_volume, volume_record

VOLUME, MASK = ball_volume(), ball_mask()
RECORD = volume_record(VOLUME, MASK)
PAGE = render_volume_page(RECORD, VOLUME, WINDOW, [("longest diameter", "28 mm")])


def data(page: str) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found
    return json.loads(found[1])


def picture(uri: str) -> np.ndarray:
    return np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_every_slice_and_its_mask_are_in_the_page() -> None:
    axial, coronal, sagittal = data(PAGE)["planes"]
    assert (axial["name"], coronal["name"], sagittal["name"]) == ("axial", "coronal", "sagittal")
    assert axial["slices"] == list(range(14)) and axial["areas"] == MASK.sum(axis=(0, 1)).tolist()
    assert axial["mm2"] == pytest.approx(4.0) and coronal["mm2"] == pytest.approx(10.0)
    for index in axial["slices"]:
        shown = picture(axial["images"][index])
        assert np.array_equal(shown, VOLUME.image("axial", index, WINDOW).pixels[..., 0])
        wanted = shown_mask(MASK, VOLUME.grid, "axial", index)
        counts = axial["masks"].get(str(index))
        assert (counts is not None) == wanted.any()
        if counts is not None:
            assert np.array_equal(decode_mask(Rle(size=(36, 40), counts=counts)), wanted)
    assert len(coronal["slices"]) <= 24 and coronal["height"] == 35  # 14 slices of 5 mm in pixels of 2 mm


def test_letters_and_world_are_the_patients() -> None:
    axial, coronal, _ = data(PAGE)["planes"]
    assert axial["letters"] == ["R", "L", "A", "P"] and axial["ends"] == ["I", "S"]
    assert coronal["letters"] == ["R", "L", "S", "I"] and coronal["ends"] == ["A", "P"]
    x, y, index = 30, 7, 5
    found = [row[0] * x + row[1] * y + row[2] + row[3] * index for row in axial["world"]]
    assert found == pytest.approx(VOLUME.grid.view("axial", index).world_mm(x, y))


def test_without_a_world_nothing_is_claimed() -> None:
    grid = Grid(VOLUME.grid.shape, np.diag([-1.0, -1.0, 1.0, 1.0]).tolist())
    stack = dataclasses.replace(VOLUME, grid=grid, has_world=False, kind="TIFF")
    record = RECORD.model_copy(update={"study": RECORD.study.model_copy(update={"grid": grid.to_json()}), "visits": []})
    page = render_volume_page(record, stack, WINDOW)
    axial = data(page)["planes"][0]
    assert axial["letters"] is None and axial["world"] is None and axial["mmPerPixel"] is None and axial["mm2"] is None
    assert axial["ends"] == ["", ""] and " ml" not in page and " mm<" not in page
    assert "No slice was visited" in page


def test_visits_are_told_in_their_order() -> None:
    stops = build_stops(RECORD, VOLUME)
    assert [stop.kind for stop in stops[:5]] == ["scan"] * 4 + ["key"]
    assert sorted(n for stop in stops for n in stop.visits) == list(range(len(RECORD.visits)))
    key = stops[4]
    assert key.heading == "Axial 8" and key.said[0].thought == "It is bright here." and key.summary == "1 click"
    carried = [stop for stop in stops if stop.kind == "carry"]
    assert carried[0].rows[0][1] == ["9", "0.90", "0.85", "kept"] and carried[0].rows[1][1][3] == "doubted"
    assert "asked again" in PAGE and "longest diameter" in PAGE and "28 mm" in PAGE
    assert data(PAGE)["start"] == 8


def test_texts_of_others_stay_text_and_nothing_is_fetched() -> None:
    record = volume_record(VOLUME, MASK, instruction=HOSTILE, answer=HOSTILE, thought="x <img src=http://a.b/c> y")
    record.study.notes, record.case_id = [HOSTILE], HOSTILE
    page = render_volume_page(record, VOLUME, WINDOW)
    assert page.count("<script") == 2 and "<img src=x" not in page and "<img src=http" not in page
    assert "default-src &#39;none&#39;" in page


def test_a_path_with_a_patients_name_does_not_come_in() -> None:
    named = dataclasses.replace(VOLUME, source="/data/DOE^JANE/ct")
    assert "DOE" not in render_volume_page(RECORD, named, WINDOW)


def test_a_failed_run_and_a_long_one() -> None:
    failed = RECORD.model_copy(update={"final_mask": None, "error": "the tool broke", "visits": []})
    page = render_volume_page(failed, VOLUME, WINDOW)
    assert "the tool broke" in page and "no mask" in page and data(page)["planes"][0]["slices"] == list(range(14))
    shape = (6, 6, 500)
    long = dataclasses.replace(
        VOLUME, grid=Grid(shape, VOLUME.grid.affine), voxels=ArrayVoxels(np.zeros(shape, np.int16))
    )
    record = volume_record(long, np.zeros(shape, bool))
    kept = data(render_volume_page(record, long, WINDOW))["planes"]
    assert len(kept) == 1 and len(kept[0]["slices"]) == 200
    assert {visit.index for visit in record.visits} <= set(kept[0]["slices"])
    part = record.model_copy(update={"visits": [], "config": VolumeConfig(first_slice=3, last_slice=5)})
    assert data(render_volume_page(part, long, WINDOW))["planes"][0]["slices"] == [3, 4, 5]


def test_another_volume_is_refused() -> None:
    other = ball_volume((20, 20, 8))
    with pytest.raises(ValueError, match="the record's"):
        render_volume_page(RECORD, other, WINDOW)
