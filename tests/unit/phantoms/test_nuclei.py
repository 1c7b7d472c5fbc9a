"""The single nuclei that names point at: the rules of the module's docstring, on drawings and by hand."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ibisagent.phantoms import generate
from ibisagent.phantoms.nuclei import extreme_nuclei


def _field(*boxes: tuple[int, int, int, int], size: int = 100) -> np.ndarray:
    """Labels from boxes (x0, y0, x1, y1), ends excluded."""
    labels = np.zeros((size, size), np.uint8)
    for i, (x0, y0, x1, y1) in enumerate(boxes, 1):
        labels[y0:y1, x0:x1] = i
    return labels


def _levels(*values: float) -> np.ndarray:
    level = np.zeros(256)
    level[1 : 1 + len(values)] = values
    return level


def _named(found: dict[str, np.ndarray], labels: np.ndarray) -> dict[str, int]:
    return {name.split()[0]: int(labels[mask].max()) for name, mask in found.items()}


def test_each_name_finds_its_nucleus() -> None:
    labels = _field((10, 50, 20, 60), (40, 10, 50, 22), (70, 40, 85, 55), (45, 80, 51, 86))
    found = _named(extreme_nuclei(labels, _levels(50, 60, 55, 120)), labels)
    assert found == {
        "largest": 3,
        "smallest": 4,
        "brightest": 4,
        "leftmost": 1,
        "uppermost": 2,
        "rightmost": 3,
        "lowest": 4,
    }


def test_nuclei_cut_by_the_border_are_no_candidates() -> None:
    labels = _field((0, 50, 8, 60), (15, 30, 25, 40), (50, 10, 60, 20), (70, 70, 82, 82))
    assert _named(extreme_nuclei(labels, _levels(50, 50, 50, 50)), labels)["leftmost"] == 2


def test_a_larger_cut_nucleus_silences_largest() -> None:
    labels = _field((0, 50, 20, 80), (25, 30, 35, 40), (50, 10, 60, 20), (70, 70, 85, 85))
    assert "largest nucleus" not in extreme_nuclei(labels, _levels(50, 50, 50, 50))


def test_close_calls_are_left_out() -> None:
    labels = _field((10, 20, 20, 30), (11, 60, 21, 70), (60, 40, 70, 50))
    found = extreme_nuclei(labels, _levels(50, 52, 51))
    assert not {"leftmost nucleus", "largest nucleus", "smallest nucleus", "brightest nucleus"} & set(found)
    assert "rightmost nucleus" in found


def test_leftmost_needs_centroid_and_edge_to_agree() -> None:
    # the wide one reaches further left, the narrow one has its centre further left
    labels = _field((5, 10, 65, 20), (15, 40, 25, 50), (70, 70, 80, 80))
    assert "leftmost nucleus" not in extreme_nuclei(labels, _levels(50, 50, 50))


@pytest.mark.parametrize("boxes", [[], [(10, 10, 20, 20), (40, 40, 60, 60)]])
def test_too_few_candidates_give_no_names(boxes: list[tuple[int, int, int, int]]) -> None:
    assert extreme_nuclei(_field(*boxes), _levels(*[50.0] * len(boxes))) == {}


def test_drawn_fields() -> None:
    seen: set[str] = set()
    for seed in range(30):
        phantom = generate("nuclei", seed)
        cells = phantom.masks["cell nuclei"]
        seen |= set(phantom.masks)
        for name, mask in phantom.masks.items():
            if name == "cell nuclei":
                continue
            assert not (mask & ~cells).any()
            assert not (mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())
            assert cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0] == 2, (seed, name)
        gray = phantom.pixels[..., 0].astype(float)
        assert gray[cells].mean() > gray[~cells].mean() + 10
    assert len(seen) == 8
