"""From stored trajectories to nano's training batches: warp, reword, render, and say where to look.

Every time a trajectory is drawn it is warped a little and its intensities change; the masks, clicks
and texts follow, so what the model reads is what it would have met at inference. The conversation
itself comes from :mod:`ibisagent.messages`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ibisagent.actions import DIALECTS, TerminateAction, Turn
from ibisagent.engine.language.instructions import Stage, draw_instruction
from ibisagent.engine.language.naming import SYNONYMS
from ibisagent.engine.reasoning.terse import answer_text, thought_text
from ibisagent.episode import encode_mask
from ibisagent.geometry import Geometry
from ibisagent.messages import build_messages
from ibisagent.policies.protocol import View
from ibisagent.train.augment import change_intensity, draw_warp
from ibisagent.train.nano_expert import cell_depths
from ibisagent.train.nano_questions import draw_questions
from ibisagent.train.nano_scenes import SceneSource, one_of_many
from ibisagent.train.nano_trajectories import GRID, Trajectory, cell_click
from ibisagent.train.tokens import render
from ibisagent.types import Case, Image

__all__ = ["NanoSample", "NanoSamples", "cell_shares", "collate", "soft_cells"]


def soft_cells(
    before: NDArray[np.bool_] | None, target: NDArray[np.bool_], positive: bool, grid: int
) -> NDArray[np.float32] | None:
    """Where a click of this sign would have been right: (grid * grid,) weights that sum to 1.

    The weight of a cell is the cube of its centre's depth inside the error region, so the expert's
    choice (the deepest point) has the most and equally good places have as much.

    Parameters
    ----------
    before
        ``bool`` (H, W) mask when the click was made; None counts as empty.
    target
        ``bool`` (H, W).
    positive
        Whether the click adds (missed region) or removes (excess region).
    grid
        Cells a side.

    Returns
    -------
    NDArray or None
        ``float32``, row by row; None where no cell's centre lies in the error region.
    """
    current = np.zeros_like(target) if before is None else before
    region = target & ~current if positive else current & ~target
    if not region.any():
        return None
    cells = cell_depths(region, grid) ** 3
    total = float(cells.sum())
    return (cells / total).ravel().astype(np.float32) if total > 0 else None


@dataclass(eq=False)
class NanoSample:
    """One conversation as arrays.

    Parameters
    ----------
    ids, loss_mask
        ``int64`` and ``bool`` (T,), see :class:`~ibisagent.train.tokens.Rendered`.
    images
        ``uint8`` (N, S, S, 3), overlays included, in reading order.
    cell_at
        ``int64`` (M,), positions of the coordinates to learn.
    cell_weights
        ``float32`` (M, cells), where each of those clicks would have been right; rows sum to 1.
    target_map
        ``uint8`` (cells,), share of the target in each cell times 255; all zero where it is absent.
    shown_maps
        ``uint8`` (N, cells), the same of the mask that each image shows.
    one
        Whether the target is one of many, see :func:`~ibisagent.train.nano_scenes.one_of_many`.
    """

    ids: NDArray[np.int64]
    loss_mask: NDArray[np.bool_]
    images: NDArray[np.uint8]
    cell_at: NDArray[np.int64]
    cell_weights: NDArray[np.float32]
    target_map: NDArray[np.uint8]
    shown_maps: NDArray[np.uint8]
    one: bool


def cell_shares(mask: NDArray[np.bool_] | None, grid: int = GRID) -> NDArray[np.uint8]:
    """Share of a mask (``bool`` (H, W), None is empty) in every cell, times 255: ``uint8`` (grid * grid,)."""
    if mask is None:
        return np.zeros(grid * grid, np.uint8)
    whole = cv2.resize(mask.astype(np.float32), (grid, grid), interpolation=cv2.INTER_AREA)
    return (whole * 255).round().astype(np.uint8).ravel()


class NanoSamples(Dataset):
    """Endless seeded draws from trajectories; group ``i`` is a pure function of (seed, i).

    An item is a list of batches: ``group`` trajectories are drawn, ordered by length, and cut so that a
    batch holds at most ``max_batch_images`` images and wastes little on padding.

    Parameters
    ----------
    trajectories, processor, system_prompt
        What to draw from, and what renders it.
    seed, length, start
        Groups are numbered from ``start``; ``length`` of them make an epoch.
    augment
        Whether to warp and to change intensities; False gives every trajectory as it was recorded.
    max_images
        Show only the newest so many images of a conversation; None shows all.
    group, max_batch_images
        See above.
    pictures, question_batches, questions
        Where single questions come from, how many batches of them stand among those of a group, and how many
        questions are asked of each picture (:mod:`ibisagent.train.nano_questions`); None leaves them out.
    """

    def __init__(
        self,
        trajectories: Sequence[Trajectory],
        processor: Any,
        system_prompt: str,
        *,
        seed: int,
        length: int,
        start: int = 0,
        augment: bool = True,
        max_images: int | None = None,
        group: int = 24,
        max_batch_images: int = 32,
        pictures: SceneSource | None = None,
        question_batches: int = 4,
        questions: int = 4,
    ) -> None:
        self.pictures, self.question_batches, self.questions = pictures, question_batches, questions
        self.trajectories, self.processor, self.system_prompt = list(trajectories), processor, system_prompt
        self.seed, self.length, self.start, self.augment = seed, length, start, augment
        self.max_images, self.group, self.max_batch_images = max_images, group, max_batch_images
        self.vocab = len(processor.tokenizer) - 64 * 64
        keys = sorted({t.kind_of_case for t in self.trajectories})
        self.by_kind = {k: [i for i, t in enumerate(self.trajectories) if t.kind_of_case == k] for k in keys}
        counts = np.array([len(self.by_kind[k]) for k in keys], float) ** 0.5
        self.kinds, self.kind_p = keys, counts / counts.sum()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> list[dict[str, Tensor]]:
        rng = np.random.default_rng([self.seed, 7, self.start + index])
        kinds = [self.kinds[int(k)] for k in rng.choice(len(self.kinds), self.group, p=self.kind_p)]
        drawn = [self.trajectories[self.by_kind[k][int(rng.integers(len(self.by_kind[k])))]] for k in kinds]
        samples = [self.build(item, rng) for item in sorted(drawn, key=lambda t: len(t.walk.moves))]
        batches: list[list[NanoSample]] = []
        batch: list[NanoSample] = []
        for sample in samples:
            if batch and sum(len(b.images) for b in batch) + len(sample.images) > self.max_batch_images:
                batches.append(batch)
                batch = []
            batch.append(sample)
        batches.append(batch)
        if self.pictures is not None:
            batches += [self.ask(rng) for _ in range(self.question_batches)]
        pad = self.processor.tokenizer.pad_token_id
        return [collate(batches[int(i)], pad) for i in rng.permutation(len(batches))]

    def ask(self, rng: np.random.Generator) -> list[NanoSample]:
        """A batch of single questions, several to a picture."""
        assert self.pictures is not None
        samples: list[NanoSample] = []
        while len(samples) < self.max_batch_images:
            picture = self.pictures.picture(rng)
            for question in draw_questions(picture, self.pictures, rng, self.questions):
                samples.append(self.build(question, rng))
        return samples[: self.max_batch_images]

    def build(self, item: Trajectory, rng: np.random.Generator) -> NanoSample:
        """Warp, reword and render one trajectory.

        Parameters
        ----------
        item
            What to draw from; it is not changed.
        rng
            The only source of randomness.
        """
        name, modality = item.scene.name, item.scene.image.modality
        pixels, masks, target, initial, clicks = self._warped(item, rng) if self.augment else _as_recorded(item)
        if self.augment:
            # Inverted, the brightest would be the darkest.
            pixels = change_intensity(rng, pixels, strength=0.0 if "brightest" in name else 0.7)
        image = Image(pixels, Geometry.plane_2d(), modality=modality)
        stage: Stage = "start" if initial is None else "refine"
        draw = draw_instruction(name, modality, rng, stage=stage, library="core")
        while target is None and not _names(draw.text, name):
            draw = draw_instruction(name, modality, rng, library="core")
        case = Case(image, draw.text, initial)
        episode = item.episode.model_copy(deep=True)
        episode.instruction = draw.text
        dialect = DIALECTS["plain"]
        turns: list[NDArray[np.float32] | None] = []
        before = initial
        for i, step in enumerate(episode.steps):
            click = clicks[i]
            weights = None
            if click is not None:
                x, y, positive = click
                gx, gy = min(63, int(x * 64 / pixels.shape[1])), min(63, int(y * 64 / pixels.shape[0]))
                action = cell_click(gy * GRID + gx, positive)
                kind = "start" if before is None else "missed" if positive else "excess"
                if target is not None:
                    weights = soft_cells(before, target, positive, 64)
                hard = np.zeros(64 * 64, np.float32)
                hard[gy * 64 + gx] = 1
                weights = hard if weights is None else 0.8 * weights + 0.2 * hard
                step.action = action
            else:
                kind = item.walk.moves[i].intent.value
                if isinstance(step.action, TerminateAction):
                    answer = answer_text(step.action.verdict, name)
                    step.action = step.action.model_copy(update={"answer": answer})
            # Without the place: before the click, it would tell the pointer what it has to find by looking.
            assert step.action is not None  # no unreadable reply is in a trajectory
            turn = Turn(thought=thought_text(kind, name), action=step.action)
            step.raw_text = dialect.format(turn)
            turns.append(weights)
            before = masks[i]
            step.mask = None if before is None else encode_mask(before)
        last = episode.steps[-1]
        shown = episode.model_copy(update={"steps": episode.steps[:-1]})
        messages = build_messages(View(case, shown, None), self.system_prompt, max_images=self.max_images)
        messages.append({"role": "assistant", "content": [{"type": "text", "text": last.raw_text}]})
        rendered = render(messages, self.processor, learn=item.learn)
        at = np.flatnonzero((rendered.ids >= self.vocab) & rendered.loss_mask)
        wanted = [cast("NDArray[np.float32]", turns[int(rendered.turn[p])]) for p in at]
        cell_weights = np.stack(wanted) if wanted else np.zeros((0, 64 * 64), np.float32)
        shown_maps = np.stack([cell_shares(m) for m in [initial, *masks[:-1]]])
        images = np.stack(rendered.images)
        return NanoSample(
            rendered.ids,
            rendered.loss_mask,
            images,
            at,
            cell_weights,
            cell_shares(target),
            shown_maps[-len(images) :],
            one_of_many(name),
        )

    def _warped(self, item: Trajectory, rng: np.random.Generator) -> tuple[Any, ...]:
        """Pixels, masks, target, given mask and clicks, all moved alike; as they were where something would be lost."""
        pixels, masks, target, initial, clicks = kept = _as_recorded(item)
        size = pixels.shape[0]
        # One among many stays the leftmost or the largest only where nothing moves.
        if one_of_many(item.scene.name):
            return kept
        warp = draw_warp(
            rng, (size, size), size, turn=8.0, flip=False, zoom=(0.95, 1.12), elastic=0.25, shift=0.05, aspect=0.1
        )
        moved = [None if c is None else _forward(warp.map_x, warp.map_y, c) for c in clicks]
        lost = any(m is None for m, c in zip(moved, clicks, strict=True) if c is not None)
        after = [None if m is None else warp.mask(m) for m in (target, initial)]
        small = [
            old is not None and new is not None and new.sum() < 0.6 * old.sum()
            for old, new in zip((target, initial), after, strict=True)
        ]
        if lost or any(small):
            return kept
        return warp.image(pixels), [None if m is None else warp.mask(m) for m in masks], *after, moved


def _as_recorded(item: Trajectory) -> tuple[Any, ...]:
    """Pixels, masks, target, given mask and clicks."""
    scene, walk = item.scene, item.walk
    return scene.image.pixels, walk.masks, scene.target, walk.initial_mask, item.clicks


def _names(text: str, target: str) -> bool:
    """Whether a text names this target and no other: "the tumor" alone may well name something that is there."""
    ways = [target, *(s for s in SYNONYMS.get(target, ()) if s not in ("tumor", "lesion"))]
    return any(way.lower() in text.lower() for way in ways)


def _forward(
    map_x: NDArray[np.float32], map_y: NDArray[np.float32], click: tuple[float, float, bool]
) -> tuple[float, float, bool] | None:
    """Where an input pixel went: the output pixel that reads nearest to it, or None if it left the frame."""
    distance = (map_x - click[0]) ** 2 + (map_y - click[1]) ** 2
    at = int(distance.argmin())
    if distance.flat[at] > 4:
        return None
    return float(at % map_x.shape[1]), float(at // map_x.shape[1]), click[2]


def collate(samples: Sequence[NanoSample], pad_id: int) -> dict[str, Tensor]:
    """Pad on the right and put the images of all rows one after another.

    Parameters
    ----------
    samples
        Rows of the batch; their images must be of one size.
    pad_id
        Token that fills the short rows.

    Returns
    -------
    dict
        ``input_ids`` ``int64`` and ``loss_mask`` ``bool`` (B, T), padded on the right, where causal attention needs
        no mask; ``pixel_values`` ``uint8`` (N, S, S, 3), which the training loop scales to [-1, 1], what
        :class:`~ibisagent.policies.nano_processor.NanoImageProcessor` yields; ``cell_row`` and ``cell_at`` ``int64``
        (M,), row and position of the coordinates to predict; ``cell_weights`` ``float32`` (M, cells), where a
        click would have been right; ``target_maps`` and ``shown_maps`` ``uint8`` (N, cells), what each image's maps
        should say; ``ones`` ``bool`` (N,), whether one of many is meant.
    """
    longest = max(len(s.ids) for s in samples)
    ids = torch.full((len(samples), longest), pad_id, dtype=torch.long)
    loss_mask = torch.zeros(len(samples), longest, dtype=torch.bool)
    for b, s in enumerate(samples):
        ids[b, : len(s.ids)] = torch.from_numpy(s.ids)
        loss_mask[b, : len(s.ids)] = torch.from_numpy(s.loss_mask)
    images = torch.from_numpy(np.concatenate([s.images for s in samples]))
    return {
        "input_ids": ids,
        "loss_mask": loss_mask,
        "pixel_values": images,
        "cell_row": torch.cat([torch.full((len(s.cell_at),), b, dtype=torch.long) for b, s in enumerate(samples)]),
        "cell_at": torch.cat([torch.from_numpy(s.cell_at) for s in samples]),
        "cell_weights": torch.cat([torch.from_numpy(s.cell_weights) for s in samples]),
        "target_maps": torch.from_numpy(np.concatenate([np.tile(s.target_map, (len(s.images), 1)) for s in samples])),
        "shown_maps": torch.from_numpy(np.concatenate([s.shown_maps for s in samples])),
        "ones": torch.tensor([s.one for s in samples for _ in s.images]),
    }
