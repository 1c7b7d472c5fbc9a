"""The cache that is written into, against transformers' own."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from transformers.cache_utils import DynamicCache  # noqa: E402

from ibisagent.train.rl.growing_cache import growing_cache  # noqa: E402


@pytest.mark.parametrize("seed", range(4))
def test_it_gives_what_transformers_own_cache_gives(seed: int) -> None:
    """Parts of any length, rows that leave: the same keys and values for every layer at every step."""
    generator = torch.Generator().manual_seed(seed)
    mine, other = growing_cache(2), DynamicCache()
    rows = 5
    for step in range(12):
        new = (7, 1, 150, 1, 1, 260)[step % 6]
        for layer in range(2):
            keys, values = (torch.randn(rows, 3, new, 4, generator=generator) for _ in range(2))
            got, want = mine.update(keys, values, layer), other.update(keys, values, layer)
            assert torch.equal(got[0], want[0]) and torch.equal(got[1], want[1])
        assert mine.get_seq_length() == other.get_seq_length()
        assert mine.get_mask_sizes(3, 0) == other.get_mask_sizes(3, 0)
        if step in (3, 4, 8):
            keep = torch.randperm(rows, generator=generator)[: rows - 1]
            mine.batch_select_indices(keep)
            other.batch_select_indices(keep)
            rows -= 1
    assert rows == 2


def test_earlier_states_are_not_copied_at_every_step() -> None:
    cache = growing_cache(1)
    cache.update(torch.zeros(2, 1, 10, 4), torch.zeros(2, 1, 10, 4), 0)
    (layer,) = cache.layers
    place = layer.keys.data_ptr()
    for _ in range(20):
        cache.update(torch.ones(2, 1, 1, 4), torch.ones(2, 1, 1, 4), 0)
    assert layer.keys.data_ptr() == place
    assert layer.keys.sum() == 2 * 20 * 4
