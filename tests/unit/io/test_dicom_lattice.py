"""Lattices of slices: gaps named in millimetres, tilt kept, small unevenness allowed, everything else refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibisagent.errors import InputError
from ibisagent.io.dicom_frames import DicomFrame, PixelFormat
from ibisagent.io.dicom_lattice import fit_lattice

BLANK = DicomFrame(
    path="",
    number=1,
    instance="",
    series="",
    space="",
    series_number=1,
    modality="CT",
    pixels=PixelFormat(4, 4, 16, 16, False, False, ""),
    pieces=(),
    slope=1,
    intercept=0,
    position=(0, 0, 0),
    orientation=(1, 0, 0, 0, 1, 0),
    spacing=(0.8, 0.5),
    thickness=3.0,
    between=None,
    units="HU",
    window=None,
    padding=None,
    body_part="",
    is_localizer=False,
    parts=(),
)


def at(positions: object, **changes: object) -> list[DicomFrame]:
    places = np.asarray(positions, float)
    if places.ndim == 1:
        places = np.stack([places * 0, places * 0, places], 1)
    return [replace(BLANK, position=tuple(p), **changes) for p in places]  # type: ignore[arg-type]


def refusal(frames: list[DicomFrame]) -> str:
    with pytest.raises(InputError) as caught:
        fit_lattice(frames, "x")
    return str(caught.value)


@given(start=st.floats(-500, 500), step=st.floats(0.02, 20), count=st.integers(2, 30))
def test_even_slices(start: float, step: float, count: int) -> None:
    affine, notes = fit_lattice(at(start + step * np.arange(count)), "x")
    assert np.allclose(affine, [[0.5, 0, 0, 0], [0, 0.8, 0, 0], [0, 0, step, start], [0, 0, 0, 1]], atol=1e-6)
    assert not notes


@given(
    kept=st.sets(st.integers(0, 20), min_size=5).filter(lambda s: min(np.diff(sorted(s))) == 1),
    step=st.sampled_from([0.625, 1.0, 5.0]),
)
def test_missing_slices_are_counted(kept: set[int], step: float) -> None:
    numbers = np.array(sorted(kept))
    missing = numbers[-1] - numbers[0] + 1 - len(numbers)
    if missing == 0:
        fit_lattice(at(numbers * step), "x")
    else:
        text = refusal(at(numbers * step))
        assert f"x: {missing} slice" in text and f"missing of {missing + len(numbers)}, {step:g} mm apart" in text


def test_gaps_are_named_along_the_nearest_axis() -> None:
    places = np.array([[10, 0, 0], [12, 0, 0], [18, 0, 0], [20, 0, 0]], float)
    sagittal = at(places, orientation=(0, 1, 0, 0, 0, 1))
    assert "(2 between x = 12 and x = 18 mm)" in refusal(sagittal)
    many = refusal(at(np.cumsum([1, 2] * 8)))
    assert many.count("between") == 5 and "and 3 more gaps" in many


def test_rounded_positions_are_even() -> None:
    exact = 0.625 * np.arange(60)
    affine, notes = fit_lattice(at(np.round(exact, 2)), "x")
    assert affine[2, 2] == pytest.approx(0.625, abs=2e-4)
    assert len(notes) == 1 and "even ones are assumed" in notes[0]
    assert fit_lattice(at(np.round(exact, 3)), "x")[1] == []


def test_unevenness_up_to_one_percent() -> None:
    places = 5.0 * np.arange(9)
    places[4] += 0.04
    affine, notes = fit_lattice(at(places), "x")
    assert affine[2, 2] == 5 and notes == ["slice distances vary by up to 0.04 mm around 5 mm; even ones are assumed"]
    places[4] += 0.5
    assert "4.46 to 5.54 mm apart" in refusal(at(places))
    drifting = np.cumsum(np.r_[np.full(100, 1.0), np.full(100, 1.009)])  # each step is within 1 %, the whole is not
    assert "distances change along the stack" in refusal(at(drifting))


def test_a_tilted_gantry_is_sheared() -> None:
    k = np.arange(6)[:, None]
    for degrees in (0.5, 15.0, -27.0):
        shift = np.tan(np.radians(degrees)) * 2
        affine, notes = fit_lattice(at(k * [0, shift, 2.0]), "x")
        assert np.allclose(affine[:3, 2], (0, shift, 2))
        assert notes == [f"the gantry was tilted by {abs(degrees):g} degrees: slices are shifted against each other"]
    affine, notes = fit_lattice(at(k * [0, 0.001, 2.0]), "x")  # rounding
    assert np.array_equal(affine[:3, 2], (0, 0, 2)) and not notes


def test_slices_shifted_against_each_other() -> None:
    places = np.zeros((7, 3))
    places[:, 2] = np.arange(7)
    places[3, 0] = 9
    assert "shifted against each other by up to 9 mm" in refusal(at(places))


def test_what_the_header_lacks() -> None:
    affine, notes = fit_lattice(at([4.0]), "x")
    assert affine[2, 2] == 3 and not notes
    assert fit_lattice(at([4.0], between=-2.0), "x")[0][2, 2] == 2
    assert "volumes are not to be trusted" in fit_lattice(at([4.0], thickness=None), "x")[1][0]
    assert "millimetres are not to be trusted" in fit_lattice(at([0, 1], spacing=None), "x")[1][0]
    note = fit_lattice(at([0, 6, 12], between=3.0), "x")[1]
    assert note == ["slices are 6 mm apart, and the header says 3: every second one or more may be missing"]
