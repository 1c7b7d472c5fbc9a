"""One window for all slices of a volume: by option, target, body part, or percentiles; recorded in every picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ibisagent.errors import InputError
from ibisagent.grid import Grid
from ibisagent.io.volume import ArrayVoxels, Volume
from ibisagent.types import Window


def make_volume(values: np.ndarray | None = None, **facts: Any) -> Volume:
    if values is None:
        values = np.linspace(-1024, 2000, 12 * 10 * 8).reshape(12, 10, 8)
    facts = {"kind": "NIfTI", "modality": "CT"} | facts
    return Volume(Grid(values.shape, np.eye(4)), ArrayVoxels(values), "study.nii.gz", **facts)


def test_option_target_body_part_and_wish() -> None:
    volume = make_volume(body_part="head")
    assert volume.window() == Window(0, 80, "brain (body part)")
    assert volume.window(target="the left lung") == Window(-910, 590, "lung (target)")
    assert volume.window(target="the left lung", preferred="bone") == Window(-500, 1300, "bone")
    assert volume.window("1,2", target="the left lung", preferred="bone") == Window(1, 2, "user")
    assert make_volume(modality=None).window().name == "guessed CT: soft tissue"
    assert make_volume(modality="MRI").window(target="brain", preferred="bone").name == "percentile 0.5-99.5"
    with pytest.raises(InputError, match="the modality is MRI"):
        make_volume(modality="MRI").window("bone")


def test_dicom_needs_hounsfield_units_for_a_ct_window() -> None:
    assert make_volume(kind="DICOM").window().name == "percentile 0.5-99.5"
    assert make_volume(kind="DICOM", hounsfield=True).window().name == "soft tissue"
    assert make_volume(kind="DICOM", modality=None).window().name == "percentile 0.5-99.5"
    shown = make_volume(kind="DICOM", hounsfield=True, header_window=(5, 9)).window("header")
    assert shown == Window(5, 9, "header")


def test_pictures_of_eight_bits_are_shown_as_they_are() -> None:
    values = np.arange(12 * 10 * 8, dtype=np.uint32).reshape(12, 10, 8).astype(np.uint8)
    for kind in ("TIFF", "DICOM"):
        volume = make_volume(values, kind=kind, modality=None)
        assert volume.window() == Window(0, 255, "none")
        image = volume.image("axial", 3, volume.window())
        assert np.array_equal(np.sort(image.pixels[..., 0].ravel()), np.sort(values[:, :, 3].ravel()))
    assert make_volume(values, kind="DICOM", modality=None, is_inverted=True).window() == Window(
        255, 0, "none, inverted"
    )
    assert make_volume(values, modality="MRI").window().name == "percentile 0.5-99.5"  # NIfTI keeps any range in 8 bits


def test_padding_does_not_count() -> None:
    values = np.full((6, 6, 6), -2000.0)
    values[2:4] = np.linspace(0, 10, 72).reshape(2, 6, 6)
    assert make_volume(values, modality="MRI", padding=-2000.0).window().low >= 0
    assert make_volume(values, modality="MRI").window().low == -2000


def test_three_windows_make_colours_on_every_slice() -> None:
    volume = make_volume()
    window = volume.window("lung+soft-tissue+bone")
    image = volume.image("coronal", 4, window)
    assert image.window is window and image.pixels.shape == (8, 12, 3) and not image.is_gray
    for channel, alone in enumerate(("lung", "soft-tissue", "bone")):
        gray = volume.image("coronal", 4, volume.window(alone)).pixels[..., 0]
        assert np.array_equal(image.pixels[..., channel], gray)
