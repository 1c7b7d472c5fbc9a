"""Masks lie where they should: 48 orientations, three spacings, three formats, read back by other libraries.

The default suite plays every orientation once, the nine pairs of spacing and format in turn; ``-m slow`` plays all 432,
as ``benchmarks/geometry.py`` does.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sample_orientations import (
    FORMATS,
    MORE_FORMATS,
    SPACINGS,
    TOLERANCE_MM,
    Orientation,
    all_orientations,
    make_truth,
    offset_mm,
    play,
)

PAIRS = [(spacing, fmt) for spacing in SPACINGS[:3] for fmt in FORMATS]
EACH_ONCE = [(*axes, *PAIRS[number % 9]) for number, axes in enumerate(all_orientations())]
ALL = [(*axes, *pair) for axes in all_orientations() for pair in PAIRS]


def play_and_judge(order: tuple[int, ...], signs: tuple[int, ...], spacing: str, fmt: str, folder: Path) -> None:
    offsets = play(Orientation(order, signs, spacing), fmt, folder)
    assert offsets and max(offsets.values()) < TOLERANCE_MM, offsets


@pytest.mark.parametrize("order, signs, spacing, fmt", EACH_ONCE)
def test_a_mask_lies_where_it_was_drawn(
    order: tuple[int, ...], signs: tuple[int, ...], spacing: str, fmt: str, tmp_path: Path
) -> None:
    play_and_judge(order, signs, spacing, fmt, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("order, signs, spacing, fmt", ALL)
def test_all_432(order: tuple[int, ...], signs: tuple[int, ...], spacing: str, fmt: str, tmp_path: Path) -> None:
    play_and_judge(order, signs, spacing, fmt, tmp_path)


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("order, signs", [((0, 1, 2), (-1, -1, 1)), ((2, 0, 1), (1, 1, -1))])
def test_a_tilted_gantry_too(order: tuple[int, ...], signs: tuple[int, ...], fmt: str, tmp_path: Path) -> None:
    play_and_judge(order, signs, "tilted", fmt, tmp_path)


@pytest.mark.parametrize("fmt", MORE_FORMATS)
@pytest.mark.parametrize("order, signs", [((1, 0, 2), (-1, 1, 1)), ((2, 1, 0), (1, 1, -1))])
def test_more_formats(order: tuple[int, ...], signs: tuple[int, ...], fmt: str, tmp_path: Path) -> None:
    play_and_judge(order, signs, "oblique", fmt, tmp_path)


def test_the_list_is_whole() -> None:
    assert len(set(ALL)) == 432 and len(EACH_ONCE) == 48
    assert {(spacing, fmt) for *_, spacing, fmt in EACH_ONCE} == set(PAIRS)
    assert len({Orientation(order, signs, "isotropic").code for order, signs in all_orientations()}) == 48


@pytest.mark.parametrize("spacing", SPACINGS)
def test_the_judge_sees_a_flip_a_shift_and_an_exchange_of_axes(spacing: str) -> None:
    truth = make_truth(Orientation((0, 1, 2), (-1, -1, 1), spacing))
    assert offset_mm(Path(), lambda _: (truth.mask, truth.affine), truth) == 0
    wrong = [np.flip(truth.mask, axis) for axis in range(3)] + [np.roll(truth.mask, 1, axis) for axis in range(3)]
    wrong += [np.flip(truth.mask, (0, 1)), np.flip(truth.mask)]
    for mask in wrong:
        with pytest.raises(AssertionError, match="other voxels"):
            offset_mm(Path(), lambda _, mask=mask: (mask, truth.affine), truth)
    turned = truth.mask.transpose(1, 0, 2)
    with pytest.raises(AssertionError, match="other voxels"):
        offset_mm(Path(), lambda _: (turned, truth.affine), truth)
    fewer = truth.mask.copy()
    fewer[tuple(np.argwhere(fewer)[0])] = False
    with pytest.raises(AssertionError, match="voxels, not"):
        offset_mm(Path(), lambda _: (fewer, truth.affine), truth)
