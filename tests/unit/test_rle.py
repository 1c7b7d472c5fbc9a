from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from pydantic import ValidationError

from ibisagent.errors import InputError
from ibisagent.rle import Rle, decode_mask, encode_mask

masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40))


@given(masks)
def test_round_trip(mask: NDArray[np.bool_]) -> None:
    back = decode_mask(encode_mask(mask))
    assert back.dtype == np.bool_ and back.flags.c_contiguous
    assert np.array_equal(back, mask)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools with NumPy 2
@given(masks, st.integers(1, 30), st.integers(1, 30))
def test_equals_pycocotools(mask: NDArray[np.bool_], down: int, right: int) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    mask = np.kron(mask, np.ones((down, right), bool))  # long runs, and differences of both signs
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    ours = encode_mask(mask)
    assert list(ours.size) == theirs["size"]
    assert ours.counts == theirs["counts"].decode()
    assert np.array_equal(coco.decode({"size": list(ours.size), "counts": ours.counts}).astype(bool), mask)


@pytest.mark.parametrize("value", [False, True])
def test_constant_large_mask(value: bool) -> None:
    mask = np.full((3000, 2000), value)
    rle = encode_mask(mask)
    assert len(rle.counts) < 12
    assert np.array_equal(decode_mask(rle), mask)


@given(st.text(max_size=30), st.integers(1, 50), st.integers(1, 50))
def test_damaged_runs_raise_input_error_or_decode(counts: str, height: int, width: int) -> None:
    try:
        mask = decode_mask(Rle(size=(height, width), counts=counts))
    except InputError:
        return
    assert mask.shape == (height, width)


@given(masks, st.data())
def test_cut_off_runs_are_refused(mask: NDArray[np.bool_], data: st.DataObject) -> None:
    rle = encode_mask(mask)
    cut = data.draw(st.integers(0, len(rle.counts) - 1))
    try:
        back = decode_mask(Rle(size=rle.size, counts=rle.counts[:cut]))
    except InputError:
        return
    # Cutting a final empty difference can leave complete runs; then they must fill the mask all the same.
    assert back.shape == mask.shape


def test_hostile_sizes_are_refused() -> None:
    for size in ((0, 5), (-1, -5), (10**9, 10**9)):
        with pytest.raises(ValidationError):
            Rle(size=size, counts="0")
    with pytest.raises(InputError, match="do not fill"):
        decode_mask(Rle(size=(10_000, 10_000), counts="1"))


def test_wrong_arrays_are_refused() -> None:
    for array in (np.zeros((3, 3), np.uint8), np.zeros(3, bool), np.zeros((0, 3), bool)):
        with pytest.raises(ValueError):
            encode_mask(array)
