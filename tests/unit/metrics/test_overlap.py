from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from ibisagent.errors import InputError
from ibisagent.metrics import dice, iou, overlap, precision, recall
from ibisagent.rle import Rle, encode_mask

EMPTY, FULL = np.zeros((2, 2), bool), np.ones((2, 2), bool)


def test_known_overlap() -> None:
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    a[:2], b[1:] = True, True  # 8 and 12 pixels, 4 in common
    assert iou(a, b) == 4 / 16
    assert dice(a, b) == 8 / 20
    assert precision(a, b) == 4 / 8 and recall(a, b) == 4 / 12
    assert overlap(a, b).relative_size_error == -4 / 12
    assert overlap(a, b).area_error_mm2((0.5, 2.0)) == -4.0


def test_volume_error_is_in_millilitres() -> None:
    a, b = np.zeros((10, 10, 10), bool), np.zeros((10, 10, 10), bool)
    a[:, :, :6], b[:, :, :5] = True, True  # 100 voxels too many, of 10 mm3
    assert overlap(a, b).volume_error_ml((5.0, 1.0, 2.0)) == pytest.approx(1.0)
    assert overlap(a, b).relative_size_error == pytest.approx(0.2)


def test_empty_conventions() -> None:
    for metric in (iou, dice, precision, recall):
        assert metric(EMPTY, EMPTY) == 1.0
        assert metric(EMPTY, FULL) == metric(FULL, EMPTY) == 0.0
    assert overlap(EMPTY, EMPTY).relative_size_error == 0.0
    assert overlap(EMPTY, FULL).relative_size_error == -1.0
    assert overlap(FULL, EMPTY).relative_size_error == math.inf


@given(hnp.arrays(np.bool_, (2, 5, 6)))
def test_relations(pair: NDArray[np.bool_]) -> None:
    a, b = pair
    i, d = iou(a, b), dice(a, b)
    assert i == iou(b, a) and 0.0 <= i <= d <= 1.0
    assert d == pytest.approx(2 * i / (1 + i))
    assert iou(a, a) == dice(a, a) == 1.0
    assert precision(a, b) == recall(b, a)
    if (a & b).any():
        assert d == pytest.approx(2 / (1 / precision(a, b) + 1 / recall(a, b)))


@given(hnp.arrays(np.bool_, (2, 5, 6)))
def test_records_are_masks_too(pair: NDArray[np.bool_]) -> None:
    a, b = pair
    assert overlap(encode_mask(a), encode_mask(b)) == overlap(encode_mask(a), b) == overlap(a, b)


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        iou(np.zeros((2, 2), bool), np.zeros((2, 3), bool))
    with pytest.raises(ValueError, match="bool"):
        dice(np.zeros((2, 2), np.uint8), np.zeros((2, 2), bool))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="damaged"):
        iou(Rle(size=(2, 2), counts="9"), FULL)
    for spacing in ((1.0,), (1.0, 0.0), (1.0, math.nan), (1.0, 1.0, 1.0)):
        with pytest.raises(ValueError, match="spacing"):
            overlap(FULL, FULL).area_error_mm2(spacing)
