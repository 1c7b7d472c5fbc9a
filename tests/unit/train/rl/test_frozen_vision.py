"""A frozen tower that remembers: the same features, each picture once."""

from __future__ import annotations

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from ibisagent.train.models import freeze  # noqa: E402
from ibisagent.train.rl.frozen_vision import remember_vision  # noqa: E402


@pytest.fixture
def pictures() -> Any:
    return torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture
def frozen(small_nano: Any) -> Any:
    freeze(small_nano)
    return small_nano.eval()


def count(tower: Any) -> list[int]:
    """How many pictures each call of the tower's first stage got."""
    seen: list[int] = []
    tower.stages[0].register_forward_hook(lambda module, given, out: seen.append(len(given[0])))
    return seen


def test_features_are_the_tower_s_own_and_computed_once(frozen: Any, pictures: Any) -> None:
    with torch.no_grad():
        tokens, levels = frozen.vision(pictures)
    calls = count(frozen.vision)
    assert remember_vision(frozen)
    for order in ([0, 1, 0], [1, 2, 3, 2], [3, 0]):
        got, maps = frozen.vision(pictures[order])
        assert torch.allclose(got, tokens[order], atol=1e-5)
        assert all(torch.allclose(a, b[order], atol=1e-5) for a, b in zip(maps, levels, strict=True))
    assert calls == [2, 2]  # 0 and 1, then 2 and 3


def test_copies_share_it_and_the_state_dict_is_as_before(frozen: Any, pictures: Any) -> None:
    names = set(frozen.state_dict())
    calls = count(frozen.vision)
    remember_vision(frozen)
    reference = copy.deepcopy(frozen)
    frozen.vision(pictures)
    tokens, _ = reference.vision(pictures)
    assert calls == [4] and tokens.shape[0] == 4
    assert set(frozen.state_dict()) == set(reference.state_dict()) == names


def test_what_was_not_asked_for_the_longest_is_forgotten(frozen: Any, pictures: Any) -> None:
    calls = count(frozen.vision)
    remember_vision(frozen, most=2)
    for place in (0, 1, 0, 2, 0, 1):
        frozen.vision(pictures[place : place + 1])
    assert calls == [1, 1, 1, 1]  # 0, 1, 2, and 1 once more


def test_features_in_another_precision_are_others(frozen: Any, pictures: Any) -> None:
    calls = count(frozen.vision)
    remember_vision(frozen)
    _, plain = frozen.vision(pictures[:1])
    with torch.autocast("cpu", torch.bfloat16):
        _, low = frozen.vision(pictures[:1])
    assert calls == [1, 1] and plain[0].dtype == torch.float32 and low[0].dtype == torch.bfloat16


def test_a_tower_that_is_trained_is_left_alone(small_nano: Any, pictures: Any) -> None:
    calls = count(small_nano.vision)
    assert not remember_vision(small_nano)
    for _ in range(2):
        small_nano.vision(pictures)
    assert calls == [4, 4]
