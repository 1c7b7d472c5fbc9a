"""Devices of segmenters that come as networks."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from ibisagent.segmenters.pretrained import device_of_worker  # noqa: E402


def test_workers_take_turns_at_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [device_of_worker("cuda", number) for number in range(4)] == ["cuda:0", "cuda:1", "cuda:2", "cuda:0"]
    assert device_of_worker("auto", 4) == "cuda:1"
    assert [device_of_worker(name, 5) for name in ("cpu", "cuda:1", "mps")] == ["cpu", "cuda:1", "mps"]


def test_without_a_gpu_auto_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert device_of_worker("auto", 1) == "cpu"
