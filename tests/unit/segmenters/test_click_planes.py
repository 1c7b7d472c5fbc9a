"""Click after click gives the bits of all clicks at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ibisagent.segmenters import click_planes as module  # noqa: E402
from ibisagent.segmenters.click_planes import ClickPlanes  # noqa: E402
from ibisagent.segmenters.clicknet import MAX_CLICKS, SIZE, image_planes, prompt_planes  # noqa: E402

Points = list[tuple[float, float]]


@pytest.fixture(scope="module")
def planes() -> torch.Tensor:
    """Blurred noise: edges everywhere, so that walks wind."""
    noise = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return image_planes(torch.nn.functional.interpolate(noise, size=(SIZE, SIZE), mode="bilinear"))


def at_once(planes: torch.Tensor, positive: Points, negative: Points, prior: torch.Tensor) -> torch.Tensor:
    tensors = []
    for points in (positive, negative):
        padded = torch.zeros(1, MAX_CLICKS, 2)
        padded[0, : len(points)] = as_tensor(points)
        tensors += [padded, torch.tensor([len(points)])]
    return prompt_planes(planes, *tensors, prior, torch.zeros_like(prior))


def as_tensor(points: Points) -> torch.Tensor:
    return torch.tensor(points, dtype=torch.float32).reshape(-1, 2)


def test_any_order_of_clicks_gives_the_bits_of_all_at_once(planes: torch.Tensor) -> None:
    rng = np.random.default_rng(0)
    kept, none = ClickPlanes(planes), torch.zeros(1, 1, SIZE, SIZE)
    lists: tuple[Points, Points] = ([], [])
    for step in range(16):
        points = lists[step % 3 == 2]
        if step in (6, 11):
            points.pop()
        elif step == 9:  # as when the oldest clicks are dropped: nothing kept is a beginning of it
            points[:] = [(float(x), float(y)) for x, y in rng.uniform(0, SIZE - 1, (MAX_CLICKS, 2))]
        elif step == 12:
            points[0] = points[-1]
        elif len(points) < MAX_CLICKS:
            x, y = rng.uniform(0, SIZE - 1, 2)
            points.append((float(np.float32(x)), float(np.float32(y))))
        prior = torch.rand(1, 1, SIZE, SIZE) if step % 2 else none
        got = kept.prompts(as_tensor(lists[0]), as_tensor(lists[1]), prior, torch.zeros_like(prior))
        assert torch.equal(got, at_once(planes, *lists, prior)), step


def test_what_is_kept_is_bounded_and_serves_again(planes: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KEPT", 3)
    kept, none = ClickPlanes(planes), torch.zeros(1, 1, SIZE, SIZE)
    for x in range(6):
        kept.prompts(as_tensor([(10.0 * x, 5.0)]), as_tensor([]), none, none)
    assert len(kept._kept) == 3 and () in kept._kept
    monkeypatch.setattr(kept, "_measured", None)  # nothing is measured again
    kept.prompts(as_tensor([(50.0, 5.0)]), as_tensor([]), none, none)


def test_threads_may_share_it(planes: torch.Tensor) -> None:
    kept, none = ClickPlanes(planes), torch.zeros(1, 1, SIZE, SIZE)
    lists = [[(float(x), 9.0), (100.0, float(x))][: 1 + x % 2] for x in range(12)]

    def ask(points: Points) -> torch.Tensor:
        return kept.prompts(as_tensor(points), as_tensor([]), none, none)

    with ThreadPoolExecutor(4) as pool:
        for points, got in zip(lists, pool.map(ask, lists), strict=True):
            assert torch.equal(got, at_once(planes, points, [], none))
