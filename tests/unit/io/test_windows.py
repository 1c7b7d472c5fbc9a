"""Display windows: the rule, the names, the arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibisagent.episode import WindowRecord
from ibisagent.errors import InputError
from ibisagent.io.window_presets import ct_preset
from ibisagent.io.windows import CT_WINDOWS, apply_window, canonical_modality, choose_window, parse_window
from ibisagent.types import Window

HU = np.linspace(-1024, 2000, 1000).reshape(20, 50)


def test_named_windows_have_the_levels_and_widths_in_use() -> None:
    level_width = {name: ((low + high) / 2, high - low) for name, (low, high) in CT_WINDOWS.items()}
    assert level_width == {"soft-tissue": (40, 400), "lung": (-160, 1500), "brain": (40, 80), "bone": (400, 1800)}


@pytest.mark.parametrize(
    "option, expected",
    [
        ("lung", ("lung",)),
        ("Soft Tissue", ("soft-tissue",)),
        ("-160, 240", ((-160, 240),)),
        ("lung+soft-tissue+bone", ("lung", "soft-tissue", "bone")),
        ("bone + percentile + header", ("bone", "percentile", "header")),
        ("1e+3,2e+3 + +40,+80 + -5,.5e+1", ((1000, 2000), (40, 80), (-5, 5))),
    ],
)
def test_parse_window(option: str, expected: object) -> None:
    assert parse_window(option) == expected


@pytest.mark.parametrize(
    "option",
    [
        *("", "liver", "1", "2,1", "1,1", "nan,1", "1,inf", "1,2,3", "a,b", "1,2,lung"),
        *("lung+bone", "lung+bone+brain+lung", "lung++bone", "+lung", "lung+", "lung+bone+liver", "lung+bone+2,1"),
    ],
)
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


# -- presets: what is asked for, then what was examined -----------------------------------------


@pytest.mark.parametrize(
    "preset, targets",
    [
        ("lung", "the tumour in the left lung; lung_upper_lobe_left; Ground-glass opacity; airways; pulmonary nodule"),
        ("brain", "brain tumor; the left lateral ventricle of the brain; subdural haematoma; grey matter; stroke"),
        ("bone", "left rib 7; vertebra L3; hip_right; the fracture of the femoral neck; bone metastasis; breastbone"),
        ("soft-tissue", "liver; pulmonary artery; spinal cord; the left lobe of the liver; left ventricle; aorta"),
        # the first part of the body that is named is the target, the others say where
        ("soft-tissue", "the aorta beside the spine; lymph node below the lung; femoral artery"),
        ("lung", "the nodule of the lung that touches a rib"),
    ],
)
def test_the_target_names_its_window(preset: str, targets: str) -> None:
    for target in targets.split("; "):
        assert ct_preset(target, "HEAD") == (preset, "target"), target


def test_where_the_target_names_no_part_of_the_body_the_examined_one_does() -> None:
    for part, preset in {"HEAD": "brain", "lung": "lung", "C-SPINE": "bone", "Knee": "bone"}.items():
        assert ct_preset("the lesion", part) == (preset, "body part")
    for part in ("CHEST", "ABDOMEN", "HEADNECK", "", None):
        assert ct_preset("describe the shipping", part) == ("soft-tissue", "")
    assert ct_preset() == ("soft-tissue", "")


def test_the_rule_says_what_decided() -> None:
    def name(modality: str | None, **given: str) -> str:
        return choose_window(HU, None, modality, hounsfield=True, guess_ct=True, **given).name

    assert name("CT", target="left lung", body_part="head") == "lung (target)"
    assert name("CT", target="lesion", body_part="head") == "brain (body part)"
    assert name("CT", target="lesion") == "soft tissue"
    assert name(None, target="left rib") == "guessed CT: bone (target)"
    # what is no CT is shown by its percentiles, whatever is asked for
    assert name("MRI", target="left rib", preferred="bone") == "percentile 0.5-99.5"
    assert choose_window(HU, None, "CT", target="lung").name == "percentile 0.5-99.5"  # no Hounsfield units


def test_a_policys_wish_holds_for_ct_and_gives_way_to_the_user() -> None:
    wish = "lung+soft-tissue+bone"
    shown = choose_window(HU, None, None, guess_ct=True, target="liver", preferred=wish)
    assert shown.name == "guessed CT: lung + soft tissue + bone" and len(shown.channels) == 3
    assert choose_window(HU, "brain", "CT", hounsfield=True, preferred=wish) == Window(0, 80, "brain")


# -- several windows in one picture ------------------------------------------------------------


def test_three_windows_are_red_green_and_blue() -> None:
    window = choose_window(HU, "lung+0,100+percentile", "CT")
    assert [c.name for c in window.channels] == ["lung", "user", "percentile 0.5-99.5"]
    assert (window.low, window.high) == (min(c.low for c in window.channels), max(c.high for c in window.channels))
    picture = apply_window(HU, window)
    assert picture.shape == (20, 50, 3) and picture.dtype == np.uint8
    for channel, alone in enumerate(window.channels):
        assert np.array_equal(picture[..., channel], apply_window(HU, alone))
    dark = apply_window(HU, window.inverted()).astype(int)
    assert np.abs(dark + picture - 255).max() <= 1  # halves round up both ways


def test_the_record_holds_the_channels_and_shows_the_same_again() -> None:
    window = choose_window(HU, "lung+0,100+bone", "CT").inverted()
    record = WindowRecord.model_validate_json(WindowRecord.of(window).model_dump_json())
    assert record.window() == window
    assert window.name == "lung + user + bone, inverted"
    again = choose_window(HU, record.option(), None)
    assert [(c.low, c.high) for c in again.channels] == [(c.high, c.low) for c in window.channels]
    assert str(record) == "590 … -910 (lung); 100 … 0 (user); 1300 … -500 (bone)"
    plain = WindowRecord.of(Window(-160, 240, "soft tissue"))
    assert (plain.option(), str(plain)) == ("-160.0,240.0", "-160 … 240 (soft tissue)")
    with pytest.raises(ValueError, match="three"):
        record.model_copy(update={"channels": record.channels[:2]}).window()


def test_all_of_eight_bits_are_shown_as_they_are() -> None:
    values = np.arange(256, dtype=np.uint8)[None]
    assert np.array_equal(apply_window(values, Window(0.0, 255.0, "none")), values)
