"""What NanoVLM learns beside the words: all places where a click would have been right, and where things are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.train.nano_data import cell_shares, soft_cells
from ibisagent.train.nano_scenes import one_of_many
from ibisagent.train.sft.collator import SftCollator
from ibisagent.train.tokens import Renderer

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from ibisagent.train.sft.conversations import Conversation, Conversations

__all__ = ["NanoCollator"]

_HARD = 0.2
"""Weight of the expert's own click among all places that would have been right."""


class NanoCollator(SftCollator):
    """Batches with the places and maps that a corpus's masks tell.

    Parameters
    ----------
    parts, renderer, max_length
        As :class:`~ibisagent.train.sft.collator.SftCollator`.
    grid
        Cells a side of the model's coordinates.
    """

    def __init__(self, parts: Sequence[Conversations], renderer: Renderer, max_length: int, grid: int) -> None:
        super().__init__(parts, renderer, max_length)
        self.grid = grid
        self.first_cell = len(renderer.tokenizer) - grid * grid

    def __call__(self, examples: Sequence[Mapping[str, int]]) -> dict[str, Tensor]:
        """A batch.

        Returns
        -------
        dict
            Beside what :class:`~ibisagent.train.sft.collator.SftCollator` gives: ``cell_row`` and ``cell_at`` (M,), row
            and position of learnt coordinates; ``cell_weights`` ``float32`` (M, cells), rows sum to 1; ``target_maps``
            and ``shown_maps`` ``float32`` (N, cells), share of the target and of the shown mask in every cell;
            ``target_known`` and ``ones`` ``bool`` (N,), False for visual questions, True where one of many is meant.
        """
        import torch

        found = [self.parts[int(e["part"])][int(e["row"])] for e in examples]
        rendered = [self.shortened(one) for one in found]
        batch = self.padded(rendered)
        rows, places, weights, targets, shown, known, ones = [], [], [], [], [], [], []
        for number, (one, tokens, example) in enumerate(zip(found, rendered, examples, strict=True)):
            part = self.parts[int(example["part"])]
            masks = _Masks(part, part.corpus(part.places[int(example["row"])]), one)
            at = np.flatnonzero((tokens.ids >= self.first_cell) & tokens.loss_mask)
            for place in at.tolist():
                cell = int(tokens.ids[place]) - self.first_cell
                rows.append(number)
                places.append(place)
                weights.append(self._weights(masks, int(tokens.turn[place]), cell))
            count = len(tokens.images)
            targets.append(np.tile(cell_shares(masks.target, self.grid), (count, 1)))
            shown.append(np.stack([cell_shares(mask, self.grid) for mask in masks.shown[:count]]))
            known += [masks.known] * count
            ones += [masks.known and one_of_many(one.row["target"] or "")] * count
        cells = self.grid**2
        return {
            **batch,
            "cell_row": torch.tensor(rows, dtype=torch.long),
            "cell_at": torch.tensor(places, dtype=torch.long),
            "cell_weights": torch.from_numpy(np.stack(weights) if weights else np.zeros((0, cells), np.float32)),
            "target_maps": torch.from_numpy(np.concatenate(targets)).float() / 255,
            "shown_maps": torch.from_numpy(np.concatenate(shown)).float() / 255,
            "target_known": torch.tensor(known),
            "ones": torch.tensor(ones),
        }

    def _weights(self, masks: _Masks, turn: int, cell: int) -> NDArray[np.float32]:
        hard = np.zeros(self.grid**2, np.float32)
        hard[cell] = 1.0
        positive = masks.positive(turn)
        if masks.target is None or positive is None:
            return hard
        soft = soft_cells(masks.before(turn), masks.target, positive, self.grid)
        return hard if soft is None else ((1 - _HARD) * soft + _HARD * hard).astype(np.float32)


class _Masks:
    """The masks of a row."""

    def __init__(self, part: Conversations, corpus: Any, found: Conversation) -> None:
        self._row, self._corpus = found.row, corpus
        self.known = "steps" in found.row
        self.target = corpus.target(found.row) if self.known else None
        numbers = [p["mask"] for m in found.row["messages"] for p in m["content"] if p["type"] == "image"]
        self.shown = [corpus.mask(found.row, number) for number in numbers]

    def before(self, turn: int) -> NDArray[np.bool_] | None:
        """The mask that reply number `turn` saw."""
        number = self._row["initial_mask"] if turn == 0 else self._row["steps"][turn - 1]["mask"]
        mask: NDArray[np.bool_] | None = self._corpus.mask(self._row, number)
        return mask

    def positive(self, turn: int) -> bool | None:
        """Whether the one click of a reply adds; None where it is no single click."""
        action = json.loads(self._row["steps"][turn]["action"] or "{}")
        clicks: list[dict[str, Any]] = action.get("clicks", []) if action.get("kind") == "click" else []
        return bool(clicks[0]["positive"]) if len(clicks) == 1 else None
