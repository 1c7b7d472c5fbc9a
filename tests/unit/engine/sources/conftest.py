"""Small files that the tests make, and the checks that hold for every source."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

from ibisagent.engine.sources.registry import open_source
from ibisagent.engine.sources.sample import Fault, LabelledImage, Sample


@pytest.fixture
def png() -> Callable[..., Path]:
    """Write an array as PNG; folders are made."""

    def write(path: Path, values: NDArray[Any]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(values).save(path)
        return path

    return write


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[list[Sample], list[Fault]]]:
    """List a source twice (it must say the same twice) without decoding an image, and pickle every reader."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("an image was decoded while listing")

    def run(spec: str) -> tuple[list[Sample], list[Fault]]:
        with monkeypatch.context() as patch:
            for module in ("readers", "instances", "coco"):
                patch.setattr(f"ibisagent.engine.sources.{module}.read_image", refuse)
            patch.setattr("ibisagent.engine.sources.npz_file.NpzFile.plane", refuse)
            first, second = (list(open_source(spec).samples()) for _ in range(2))
        assert first == second
        samples = [item for item in first if isinstance(item, Sample)]
        faults = [item for item in first if isinstance(item, Fault)]
        assert len({sample.key for sample in samples}) == len(samples)
        for sample in samples:
            assert pickle.loads(pickle.dumps(sample)) == sample
        for fault in faults:
            assert "\n" not in fault.message and fault.message and fault.item
        return samples, faults

    return run


@pytest.fixture
def read() -> Callable[[Sample], LabelledImage]:
    """Read a sample and check what holds for every one."""

    def run(sample: Sample) -> LabelledImage:
        found = pickle.loads(pickle.dumps(sample.reader))()
        shape = (found.image.height, found.image.width)
        for mask in found.masks.values():
            assert mask.dtype == np.bool_ and mask.shape == shape and mask.any()
        if sample.names and not found.faults:
            assert set(sample.names) == set(found.masks)
        assert not set(found.masks) & {*sample.absent, *found.absent}
        return found

    return run
