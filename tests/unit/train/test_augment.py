"""Warps move an image, its masks and its clicks alike; intensity changes move nothing."""

from __future__ import annotations

import numpy as np
import pytest

from ibisagent.train.augment import Warp, change_intensity, draw_warp

H, W, SIZE = 90, 60, 96


@pytest.fixture
def mask() -> np.ndarray:
    y, x = np.mgrid[:H, :W]
    return (x - 38) ** 2 / 2 + (y - 30) ** 2 <= 15**2


@pytest.mark.parametrize("seed", range(8))
def test_image_and_mask_are_warped_alike(mask: np.ndarray, seed: int) -> None:
    warp = draw_warp(np.random.default_rng(seed), mask.shape, SIZE, elastic=1.0)
    image = warp.image(np.repeat(mask[..., None].astype(np.uint8) * 255, 3, 2))
    moved = warp.mask(mask)
    assert image.shape == (SIZE, SIZE, 3) and moved.shape == (SIZE, SIZE) and moved.dtype == np.bool_
    assert moved.any()
    assert np.array_equal(image[..., 0] > 127, moved)


def test_a_warp_reads_each_output_pixel_where_its_map_says() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    map_x = np.array([[3, 0], [1, 9]], np.float32)
    map_y = np.array([[2, 0], [1, 9]], np.float32)
    warp = Warp(map_x, map_y)
    assert warp.image(pixels).tolist() == [[11, 0], [5, 0]]  # outside is zero
    assert warp.mask(pixels == 11).tolist() == [[True, False], [False, False]]


def test_without_randomness_the_longest_side_is_fitted(mask: np.ndarray) -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        warp = draw_warp(rng, mask.shape, SIZE, turn=0, flip=False, zoom=(1, 1), elastic=0, shift=0)
        # What remains is a stretch of at most exp(0.12) a side and a shear of at most 0.1, about the centre.
        assert warp.map_x[SIZE // 2, SIZE // 2] == pytest.approx(W / 2, abs=1)
        assert warp.map_y[SIZE // 2, SIZE // 2] == pytest.approx(H / 2, abs=1)
        assert (np.diff(warp.map_x, axis=1) > 0).all() and (np.diff(warp.map_y, axis=0) > 0).all()
        step = float(np.diff(warp.map_y, axis=0).mean())
        assert H / SIZE * np.exp(-0.12) <= step <= H / SIZE * np.exp(0.12)


def test_mirroring_can_be_forbidden(mask: np.ndarray) -> None:
    def mirrored(flip: bool) -> set[bool]:
        found = set()
        for seed in range(24):
            w = draw_warp(np.random.default_rng(seed), mask.shape, SIZE, turn=10, flip=flip, elastic=0)
            jacobian = np.linalg.det(
                [[np.diff(w.map_x, axis=1).mean(), np.diff(w.map_x, axis=0).mean()],
                 [np.diff(w.map_y, axis=1).mean(), np.diff(w.map_y, axis=0).mean()]]
            )  # fmt: skip
            found.add(bool(jacobian < 0))
        return found

    assert mirrored(flip=False) == {False}
    assert mirrored(flip=True) == {False, True}


def test_zooming_in_keeps_the_focus_in_view() -> None:
    mask = np.zeros((H, W), bool)
    mask[3:9, 50:57] = True  # in a corner
    kept = [
        draw_warp(np.random.default_rng(s), mask.shape, SIZE, focus=mask, zoom=(3, 3), shift=0, elastic=0)
        .mask(mask)
        .any()
        for s in range(20)
    ]
    assert all(kept)


def test_the_generator_is_the_only_source_of_randomness(mask: np.ndarray) -> None:
    pixels = np.repeat((mask * 120 + 60).astype(np.uint8)[:60, :, None], 3, 2)
    one, two, other = (np.random.default_rng(s) for s in (4, 4, 5))
    a, b, c = (draw_warp(r, mask.shape, SIZE, focus=mask) for r in (one, two, other))
    assert np.array_equal(a.map_x, b.map_x) and np.array_equal(a.map_y, b.map_y)
    assert not np.array_equal(a.map_x, c.map_x)
    assert np.array_equal(change_intensity(one, pixels), change_intensity(two, pixels))


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_intensities_change_and_the_input_does_not(strength: float) -> None:
    x = np.mgrid[:64, :64][1]
    pixels = np.repeat((40 + 2 * x).astype(np.uint8)[..., None], 3, 2)
    before = pixels.copy()
    for seed in range(12):
        got = change_intensity(np.random.default_rng(seed), pixels, strength=strength)
        assert got.shape == pixels.shape and got.dtype == np.uint8
        if strength == 0:
            # brightness and contrast only: gray stays gray, order stays order
            assert (got[..., 0] == got[..., 1]).all() and (np.diff(got[0, :, 0].astype(int)) >= 0).all()
    assert np.array_equal(pixels, before)
