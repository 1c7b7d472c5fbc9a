"""Display windows: the rule, the names, the arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibisagent.errors import InputError
from ibisagent.io.windows import CT_WINDOWS, apply_window, canonical_modality, choose_window, parse_window
from ibisagent.types import Window

HU = np.linspace(-1024, 2000, 1000).reshape(20, 50)


def test_named_windows_have_the_levels_and_widths_in_use() -> None:
    level_width = {name: ((low + high) / 2, high - low) for name, (low, high) in CT_WINDOWS.items()}
    assert level_width == {"soft-tissue": (40, 400), "lung": (-160, 1500), "brain": (40, 80), "bone": (400, 1800)}


@pytest.mark.parametrize(
    "option, expected", [("lung", "lung"), ("Soft Tissue", "soft-tissue"), ("-160, 240", (-160, 240))]
)
def test_parse_window(option: str, expected: object) -> None:
    assert parse_window(option) == expected


@pytest.mark.parametrize("option", ["", "liver", "1", "2,1", "1,1", "nan,1", "1,inf", "1,2,3", "a,b"])
def test_parse_window_rejects(option: str) -> None:
    with pytest.raises(InputError):
        parse_window(option)


def test_the_rule() -> None:
    assert choose_window(HU, None, "CT", hounsfield=True) == Window(-160, 240, "soft tissue")
    assert choose_window(HU, None, None, guess_ct=True).name == "guessed CT: soft tissue"
    assert choose_window(HU, None, None).name == "percentile 0.5-99.5"
    assert choose_window(HU, None, "MRI", guess_ct=True).name == "percentile 0.5-99.5"
    assert choose_window(HU - 1e5, None, None, guess_ct=True).name == "percentile 0.5-99.5"
    assert choose_window(HU, "lung", "CT", hounsfield=True) == Window(-910, 590, "lung")
    assert choose_window(HU, "header", "CT", header=(1, 2)) == Window(1, 2, "header")
    with pytest.raises(InputError, match="Hounsfield"):
        choose_window(HU, "bone", "MRI")
    with pytest.raises(InputError, match="proposes no"):
        choose_window(HU, "header", "CT")


def test_nearly_constant_slices_stay_visible() -> None:
    values = np.zeros((100, 100))
    values[0, 0] = 9
    window = choose_window(values, None, None)
    assert window == Window(0, 9, "min-max")
    assert apply_window(values, window)[0, 0] == 255
    assert choose_window(np.full((3, 3), 7), None, None) == Window(7, 8, "constant")


def test_apply_window_rounds_and_clips() -> None:
    window = Window(0, 255, "user")
    assert apply_window(np.array([[-1.0, 0.4, 0.5, 254.6, 300, np.nan]]), window).tolist() == [[0, 0, 1, 255, 255, 0]]
    inverted = Window(255, 0, "none, inverted")
    assert apply_window(np.array([[0, 10, 255]]), inverted).tolist() == [[255, 245, 0]]


@given(
    low=st.floats(-1e300, 1e300),
    high=st.floats(-1e300, 1e300),
    values=st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=2, max_size=20),
)
def test_apply_window_is_monotone_and_total(low: float, high: float, values: list[float]) -> None:
    gray = apply_window(np.sort(np.array([values])), Window(low, high, "any"))
    assert gray.dtype == np.uint8
    finite = gray[0][~np.isnan(np.sort(values))].astype(int)
    steps = np.diff(finite)
    assert (steps >= 0).all() if low < high else (steps <= 0).all() or low == high


def test_dicom_codes_become_the_words_of_instructions() -> None:
    for code in ("CR", "DX", "XA", "RF", "PX", "IO"):
        assert canonical_modality(code) == "X-ray"
    assert (canonical_modality("OPT"), canonical_modality("op")) == ("OCT", "Fundus photography")
