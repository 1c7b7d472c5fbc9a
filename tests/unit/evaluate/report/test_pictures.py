"""Outlines, and plots as files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ibisagent.evaluate.report.model import Curve, Forest, Section
from ibisagent.evaluate.report.pictures import case_picture, outline
from ibisagent.evaluate.report.plots import plot_bytes, write_plots
from sample_episodes import chest_image, click_episode, mini_image, mini_mask, refine_episode
from sample_report import make_report


def polygons(path: str) -> list[np.ndarray]:
    return [
        np.array([[float(v) for v in point.split()] for point in part.rstrip("Z").split("L")])
        for part in path.split("M")[1:]
    ]


def enclosed(path: str) -> float:
    """Area by the shoelace formula; holes run the other way round."""
    parts = [(p, np.roll(p, -1, axis=0)) for p in polygons(path)]
    return abs(sum(float((a[:, 0] * b[:, 1] - b[:, 0] * a[:, 1]).sum()) for a, b in parts)) / 2


def test_an_outline_lies_on_the_border_of_the_pixels() -> None:
    mask = np.zeros((40, 60), bool)
    mask[10:20, 5:35] = True
    (square,) = polygons(outline(mask))
    assert square.min(axis=0).tolist() == [5, 10] and square.max(axis=0).tolist() == [35, 20]
    (wide,) = polygons(outline(mask, 1.0, 2.0))
    assert wide.max(axis=0).tolist() == [35, 40]
    assert outline(None) == outline(np.zeros((4, 4), bool)) == ""


def test_no_line_runs_along_the_edge_of_the_image() -> None:
    mask = np.zeros((20, 20), bool)
    mask[:, :10] = True
    (line,) = polygons(outline(mask))
    assert set(line[:, 0]) == {10.0} and "Z" not in outline(mask)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_an_outline_encloses_its_mask(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y, x = np.indices((48, 48))
    mask = np.hypot(y - rng.uniform(18, 30), (x - rng.uniform(18, 30)) * rng.uniform(0.7, 1.4)) < rng.uniform(4, 12)
    mask &= np.hypot(y - 24, x - 24) > rng.uniform(0, 3)
    assert abs(enclosed(outline(mask)) - mask.sum()) < 0.12 * mask.sum() + 4


def test_small_targets_are_shown_enlarged_and_large_ones_not() -> None:
    chest, lung = chest_image(), mini_mask("lung1_axial_024__left-lung")
    whole = case_picture("a", click_episode(chest, lung, "Segment it.", "lung"), chest, lung, lung, "CT")
    assert whole.close is None and whole.letters == ("R", "L", "A", "P") and whole.bar is not None
    assert whole.data.startswith("data:image/jpeg;base64,") and whole.clicks
    nuclei, nucleus = mini_image("dsb2018_000_000"), mini_mask("dsb2018_000_000__uppermost-nucleus")
    small = case_picture("b", refine_episode(nuclei, nucleus), nuclei, None, nucleus, "nucleus")
    assert small.close is not None and small.mask == "" and small.letters is None and small.bar is None
    x, y, width, height = small.close
    assert x >= 0 and y >= 0 and x + width <= nuclei.width and y + height <= nuclei.height and width == height
    rows, columns = np.nonzero(nucleus)
    assert x <= columns.min() and columns.max() < x + width and y <= rows.min() and rows.max() < y + height


def test_plots_are_files_that_depend_on_the_numbers_alone(tmp_path: Path) -> None:
    blocks = {b.key: b for s in make_report().sections for b in s.blocks if isinstance(b, Forest | Curve)}
    whole = make_report()
    few = replace(whole, sections=(Section("few", "Few", (blocks["iou-by-target"], blocks["reliability"])),))
    written = write_plots(few, tmp_path)
    assert sorted(written) == ["iou-by-target", "reliability"]
    for files in written.values():
        assert [word for word, _ in files] == ["PDF", "SVG"]
        for _, name in files:
            assert (tmp_path / name).stat().st_size > 1000
    svg = (tmp_path / "iou-by-target.svg").read_bytes()
    assert plot_bytes(blocks["iou-by-target"], "svg") == svg
    assert b"<image" not in svg and b'href="http' not in svg
