from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ibisagent.evaluate.changes import SIDE, change_panels, joined, shown_changes
from ibisagent.evaluate.compare import Comparison, compare
from ibisagent.rendering.marks import MASK, REFERENCE
from sample_comparison import pair_sides


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    return compare(pair_sides(tmp_path_factory.mktemp("runs")), ["iou"])[0]


def near(picture: np.ndarray, color: tuple[int, int, int]) -> int:
    """Pixels of nearly a colour above the legend."""
    return int((np.abs(picture[: SIDE + 90].astype(int) - color).max(axis=2) < 40).sum())


def test_three_pictures_of_one_height_with_both_outlines(comparison: Comparison) -> None:
    change = next(c for c in comparison.changes if c.key == "lung")
    panels = change_panels(comparison, change)
    assert panels is not None
    assert {p.shape[1] for p in (panels.reference, panels.a, panels.b)} == {SIDE + 68}
    assert near(panels.reference, REFERENCE) > 300 and near(panels.reference, MASK) == 0
    for panel in (panels.a, panels.b):
        assert near(panel, MASK) > 300 and near(panel, REFERENCE) > 60
    # B lies on its reference, A does not: A shows more of the broken line.
    assert near(panels.a, REFERENCE) > near(panels.b, REFERENCE)
    whole = joined(panels)
    assert whole.shape[1] == 3 * (SIDE + 68) and np.array_equal(whole[:200, : SIDE + 68], panels.reference[:200])


def test_a_small_target_is_enlarged_and_framed(comparison: Comparison) -> None:
    change = next(c for c in comparison.changes if c.key == "nucleus")
    panels = change_panels(comparison, change)
    assert panels is not None and panels.is_close
    # The enlarged outline is longer than the one in the whole image.
    assert near(panels.b, MASK) > near(panels.reference, REFERENCE)


def test_losses_and_gains_share_the_places(comparison: Comparison) -> None:
    losses, gains = shown_changes(comparison, 12)
    assert [c.key for c in losses] == ["nucleus"] and [c.key for c in gains] == ["lung"]
    assert shown_changes(comparison, 0) == ([], [])
    assert sum(map(len, shown_changes(comparison, 1))) == 1


def test_without_pixels_there_is_no_picture(comparison: Comparison, tmp_path: Path) -> None:
    from ibisagent.evaluate.pairing import Side
    from ibisagent.evaluate.records import read_run
    from sample_comparison import write_pair

    a, b = (Side(path.name, (read_run(path),)) for path in write_pair(tmp_path, images=False))
    (found,) = compare([a, b], ["iou"])
    assert found.changes and all(change_panels(found, change) is None for change in found.changes)


def test_one_bad_picture_costs_no_more_than_itself(tmp_path: Path) -> None:
    found = compare(pair_sides(tmp_path), ["iou"])[0]
    before, lung = found.a.runs[0].path / "images", next(c for c in found.changes if c.key == "lung")
    for place in before.iterdir():
        place.write_bytes(b"no picture")
    assert change_panels(found, lung) is not None  # of the other run
    for place in (found.b.runs[0].path / "images").iterdir():
        place.write_bytes(b"no picture")
    assert change_panels(found, lung) is None


def test_runs_on_images_of_other_sizes_are_not_drawn_together(comparison: Comparison) -> None:
    lung, nucleus = (next(c for c in comparison.changes if c.key == key) for key in ("lung", "nucleus"))
    assert change_panels(comparison, replace(lung, b=nucleus.b)) is None
