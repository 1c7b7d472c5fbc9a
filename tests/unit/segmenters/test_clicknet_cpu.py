"""The prepared network gives the network's bits."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ibisagent.geometry import Geometry  # noqa: E402
from ibisagent.segmenters import clicknet_cpu, litemedsam  # noqa: E402
from ibisagent.segmenters.clicknet import ClickNet  # noqa: E402
from ibisagent.segmenters.clicknet_cpu import CpuClickNet  # noqa: E402
from ibisagent.segmenters.litemedsam import load_clicknet  # noqa: E402
from ibisagent.types import Image, PixelClick, Prompt  # noqa: E402


def ready(net: ClickNet) -> ClickNet:
    net = net.eval().requires_grad_(False)
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


@pytest.fixture(scope="module")
def net() -> ClickNet:
    return ready(load_clicknet())


def test_bits_are_the_networks(net: ClickNet) -> None:
    fast = CpuClickNet(net)
    assert fast.exact and fast.num_threads == torch.get_num_threads()
    generator = torch.Generator().manual_seed(1)
    with torch.inference_mode():
        for prompts in (torch.rand(1, 11, 256, 256, generator=generator), torch.zeros(1, 11, 256, 256)):
            planes = torch.rand(1, 7, 256, 256, generator=generator)
            before = planes.clone(), prompts.clone()
            for got, expected in zip(fast(planes, prompts), net(planes, prompts), strict=True):
                assert torch.equal(got, expected)
            assert torch.equal(planes, before[0]) and torch.equal(prompts, before[1])  # nothing of the caller's changes


def test_a_step_that_differs_in_a_bit_or_is_not_there_is_not_taken(
    net: ClickNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(conv: object, x: object) -> None:
        raise AttributeError("mkldnn_reorder_conv2d_weight")

    def off(conv: torch.nn.Conv2d, x: torch.Tensor) -> object:
        return lambda x: torch.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding) * (1 + 1e-6)

    for way in (missing, off):
        monkeypatch.setattr(clicknet_cpu, "_packed", way)
        monkeypatch.setattr(clicknet_cpu, "_by_taps", way)
        assert CpuClickNet(net).exact


def test_a_network_that_gives_no_number_is_not_taken_over() -> None:
    broken = ClickNet((8, 8, 16))
    torch.nn.init.constant_(broken.head.bias, float("nan"))
    assert not CpuClickNet(ready(broken)).exact


def test_the_segmenter_takes_it_over_and_no_bit_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litemedsam, "_ANSWERS_BEFORE_PREPARING", 1)
    segmenter = litemedsam.LiteMedSamSegmenter()
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    image = Image(pixels, Geometry.plane_2d())
    prompt = Prompt(clicks=(PixelClick(20, 15, True), PixelClick(60, 40, False)))
    answers = []
    for _ in range(3):
        answers += segmenter.predict(segmenter.encode(image), [prompt])
    prepared = segmenter._cpu_clicknet
    assert prepared is not None and segmenter._network(1) is prepared
    assert all(np.array_equal(a.state, answers[0].state) and a.score == answers[0].score for a in answers)
    assert segmenter._network(2) is segmenter._clicknet
    monkeypatch.setattr(prepared, "num_threads", 99)  # prepared for other threads
    assert segmenter._network(1) is segmenter._clicknet
