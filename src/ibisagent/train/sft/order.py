"""The order in which rows are learnt: a pure function of seed and epoch, so that a resumed run meets the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

__all__ = ["SeededOrder"]

_BLOCK = 50
"""Batches that are sorted by length together."""


class SeededOrder(Sampler[int]):
    """Every row once an epoch, rows of like length side by side.

    Rows are shuffled, sorted by length within blocks of fifty batches, cut into batches, and the batches are
    shuffled. transformers' own sampler draws from the global generator, whose state a resumed run does not have yet.

    Parameters
    ----------
    lengths
        Length of each row, in any unit; None where like lengths need not meet.
    count
        Rows.
    batch
        Rows of like length side by side. It decides the order: a run that goes on must name the one that it began with,
        however many rows its devices take at a time.
    seed
        Of the order.
    """

    def __init__(self, lengths: Sequence[int] | None, count: int, batch: int, seed: int) -> None:
        self.lengths, self.count, self.batch, self.seed = lengths, count, batch, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Which epoch comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, 5, self.epoch])
        order = rng.permutation(self.count)
        if self.lengths is None:
            return iter(order.tolist())
        lengths = np.asarray(self.lengths)
        whole: list[list[int]] = []
        rest: list[int] = []
        for start in range(0, self.count, self.batch * _BLOCK):
            block = order[start : start + self.batch * _BLOCK]
            block = block[np.argsort(-lengths[block], kind="stable")].tolist()
            for at in range(0, len(block), self.batch):
                part = block[at : at + self.batch]
                if len(part) == self.batch:
                    whole.append(part)
                else:
                    rest = part  # only the last block has one
        mixed = [whole[int(i)] for i in rng.permutation(len(whole))]
        return iter([row for part in [*mixed, rest] for row in part])
