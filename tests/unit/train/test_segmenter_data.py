"""ClickNet's samples: seeded, of one size, and blind to the groups that are left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from ibisagent.errors import InputError
from ibisagent.segmenters.clicknet import SIZE
from ibisagent.train.segmenter_data import Diet, PoolImage, SegmenterSamples, load_pool

NO_BANDS = Diet(bands=0.0)
"""Bands come from OpenCV's k-means, whose generator no seed of ours reaches."""


def keys(pool: list[PoolImage]) -> list[str]:
    return sorted(key for item in pool for key, _ in item.masks)


def test_the_pool_holds_one_split_with_its_masks(toy_cases: Path) -> None:
    pool = load_pool(toy_cases)  # the files of the val rows do not exist
    assert keys(pool) == ["alpha/body", "alpha/body", "alpha/lung tumor", "beta/brain"]
    assert len(pool) == 3
    for item in pool:
        assert item.pixels.shape == (round(64 * 352 / 80), 352, 3) and item.pixels.dtype == np.uint8
        for _, mask in item.masks:
            assert mask.dtype == np.bool_ and mask.shape == item.pixels.shape[:2]
            # a disc brighter than its surroundings: the mask lies on what is seen
            assert item.pixels[mask].mean() > item.pixels[~mask].mean() + 40
    areas = {key: mask.mean() * 64 * 80 for item in pool for key, mask in item.masks}
    assert areas["beta/brain"] == pytest.approx(np.pi * 22**2, rel=0.03)


def test_a_group_that_is_left_out_is_not_seen_at_all(toy_cases: Path) -> None:
    assert keys(load_pool(toy_cases, leave_out=["alpha"])) == ["beta/brain"]
    assert load_pool(toy_cases, leave_out=["alpha", "beta"]) == []


def test_the_samples_of_a_run_without_a_group_never_hold_its_pixels(toy_cases: Path) -> None:
    full, part = load_pool(toy_cases), load_pool(toy_cases, leave_out=["alpha"])
    left = {item.pixels.tobytes() for item in full} - {item.pixels.tobytes() for item in part}
    assert len(left) == 2
    samples = SegmenterSamples(part, Diet(), seed=0, length=10)
    assert samples.targets == ["beta/brain"]
    assert not {item.pixels.tobytes() for item in samples.pool} & left


def test_a_missing_image_is_bad_input(toy_cases: Path) -> None:
    with pytest.raises(InputError, match="alpha9"):
        load_pool(toy_cases, split="val")


def test_pseudo_masks_are_scaled_to_their_image(toy_cases: Path, tmp_path: Path) -> None:
    mask = np.zeros((1, 205, 256), bool)
    mask[0, :, :128] = True
    np.savez_compressed(tmp_path / "beta0.npz", masks=mask)
    pool = load_pool(toy_cases, pseudo=tmp_path)
    assert [len(item.pseudo) for item in pool] == [0, 0, 1]
    pseudo = pool[2].pseudo[0]
    assert pseudo.shape == pool[2].pixels.shape[:2] and pseudo[:, :175].all() and not pseudo[:, 177:].any()


@pytest.mark.parametrize("real", [True, False])
def test_samples_have_one_size_and_a_target(toy_cases: Path, real: bool) -> None:
    samples = SegmenterSamples(load_pool(toy_cases) if real else [], Diet(), seed=3, length=100)
    assert len(samples) == 100
    for i in range(8):
        rgb, mask = samples[i]
        assert rgb.shape == (3, SIZE, SIZE) and rgb.dtype == np.float32 and np.isfinite(rgb).all()
        assert rgb.min() >= -0.11 and rgb.max() <= 1.11
        assert mask.shape == (SIZE, SIZE) and mask.dtype == np.bool_
        assert 25 <= mask.sum() <= 0.9 * mask.size


def test_a_sample_depends_on_seed_and_number_only(toy_cases: Path) -> None:
    one = SegmenterSamples(load_pool(toy_cases), NO_BANDS, seed=1, length=100)
    later = SegmenterSamples(load_pool(toy_cases), NO_BANDS, seed=1, length=100, start=4)
    other = SegmenterSamples(load_pool(toy_cases), NO_BANDS, seed=2, length=100)
    for i in (6, 4, 5):  # in any order
        (rgb, mask), (rgb_later, mask_later) = one[i], later[i - 4]
        assert np.array_equal(rgb, rgb_later) and np.array_equal(mask, mask_later)
        assert not np.array_equal(rgb, other[i][0])


def test_a_diet_of_true_masks_gives_discs(toy_cases: Path) -> None:
    samples = SegmenterSamples(load_pool(toy_cases), Diet(1, 0, 0, 0), seed=0, length=100)
    for i in range(6):
        rgb, mask = samples[i]
        # discs of one gray: inside varies less than inside and outside together
        gray = rgb.mean(0)
        assert gray[mask].std() < gray.std() + 0.05
