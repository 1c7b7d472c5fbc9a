"""What every kind of training does with its folder."""

from __future__ import annotations

import io

import torch

from ibisagent.train.runs import restore_on_numbered_cpus


def test_a_resumed_process_of_several_finds_its_tensors() -> None:
    """accelerate calls the CPU of a process ``cpu:0``, and asks for the optimiser's tensors there."""
    restore_on_numbered_cpus()
    restore_on_numbered_cpus()
    buffer = io.BytesIO()
    torch.save({"step": torch.arange(3.0)}, buffer)
    buffer.seek(0)
    found = torch.load(buffer, map_location=torch.device("cpu:0"), weights_only=True)
    assert found["step"].tolist() == [0.0, 1.0, 2.0]
    assert found["step"].device.type == "cpu"
