from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from ibisagent.metrics import dice, iou


def test_known_overlap() -> None:
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    a[:2], b[1:3] = True, True  # 8 and 8 pixels, 4 in common
    assert iou(a, b) == 4 / 12
    assert dice(a, b) == 8 / 16


def test_empty_conventions() -> None:
    empty, full = np.zeros((2, 2), bool), np.ones((2, 2), bool)
    assert iou(empty, empty) == dice(empty, empty) == 1.0
    assert iou(empty, full) == dice(empty, full) == 0.0


@given(hnp.arrays(np.bool_, (2, 5, 6)))
def test_relations(pair: NDArray[np.bool_]) -> None:
    a, b = pair
    i, d = iou(a, b), dice(a, b)
    assert i == iou(b, a) and 0.0 <= i <= d <= 1.0
    assert d == pytest.approx(2 * i / (1 + i))
    assert iou(a, a) == dice(a, a) == 1.0


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError):
        iou(np.zeros((2, 2), bool), np.zeros((2, 3), bool))
    with pytest.raises(ValueError):
        dice(np.zeros((2, 2), np.uint8), np.zeros((2, 2), bool))
