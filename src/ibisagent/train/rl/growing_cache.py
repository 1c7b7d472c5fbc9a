"""A cache of keys and values that is written into, instead of copied whole for every token.

transformers' own dynamic cache joins old and new into fresh tensors at every step: on a CPU, with 32 runs of several
hundred tokens, that copy takes longer than the rest of the step.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

__all__ = ["growing_cache"]

_ROOM = 192
"""Positions to reserve at a time; a reply and the next observation take some hundred."""


class _GrowingLayer(DynamicLayer):
    """Keys and values (B, heads, T, size) as views of larger tensors."""

    keys: torch.Tensor
    values: torch.Tensor
    _stores: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write new states (B, heads, new, size) behind the others; all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        before = self.get_seq_length()
        until = before + key_states.shape[-2]
        if self._stores is None or self._stores[0].shape[-2] < until:
            shape = (*key_states.shape[:-2], until + _ROOM, key_states.shape[-1])
            stores = key_states.new_empty(shape), value_states.new_empty(shape)
            if before:
                stores[0][..., :before, :], stores[1][..., :before, :] = self.keys, self.values
            self._stores = stores
        self._stores[0][..., before:until, :] = key_states
        self._stores[1][..., before:until, :] = value_states
        self.keys, self.values = (store[..., :until, :] for store in self._stores)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep these rows of the batch."""
        super().batch_select_indices(indices)
        self._stores = None


def growing_cache(num_layers: int) -> Cache:
    """An empty cache for a decoder of so many layers, for sampling without gradients."""
    return Cache(layers=[_GrowingLayer() for _ in range(num_layers)])
