"""Lost images are an error, whichever way they are lost (trl and transformers lose them in silence)."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from ibisagent.errors import PolicyError  # noqa: E402
from ibisagent.train.rl.images import check_images, num_features  # noqa: E402

QWEN = SimpleNamespace(processor=SimpleNamespace(image_processor=SimpleNamespace(merge_size=2)))
NANO = SimpleNamespace(processor=SimpleNamespace(image_processor=SimpleNamespace(), image_tokens=64))


def test_features_are_counted_from_the_pixels() -> None:
    grid = torch.tensor([[1, 4, 6], [1, 2, 2]])
    assert num_features(QWEN, {"image_grid_thw": grid, "pixel_values": torch.zeros(28, 3)}) == 7
    assert num_features(NANO, {"pixel_values": torch.zeros(3, 3, 8, 8), "image_grid_thw": None}) == 192
    assert num_features(NANO, {"pixel_values": None}) == num_features(QWEN, {}) == 0


def test_what_agrees_passes() -> None:
    check_images(7, 7, 2, True)
    check_images(0, 0, 0, False)


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        ((7, 7, 2, False), "a batch with 2 images reached the model without pixel values"),
        ((7, 6, 2, True), "7 image tokens for 6 image features of 2 images"),
        ((0, 6, 2, True), "0 image tokens for 6"),
        ((6, 0, 0, False), "6 image tokens for 0 image features of 0 images"),
    ],
)
def test_what_does_not_agree_is_an_error(numbers: tuple[int, int, int, bool], reason: str) -> None:
    with pytest.raises(PolicyError, match=reason):
        check_images(*numbers)
