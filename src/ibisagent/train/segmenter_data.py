"""What ClickNet learns from: true masks, regions and bands of real images, and procedural shapes.

Sample ``i`` is a pure function of (seed, i), so a resumed run sees what an unbroken one would.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from ibisagent.errors import InputError
from ibisagent.phantoms.shapes import random_shapes
from ibisagent.segmenters.clicknet import SIZE, letterbox, normalise
from ibisagent.train.augment import change_intensity, draw_warp

__all__ = ["Diet", "SegmenterSamples", "load_pool"]

_POOL_SIZE = 352
"""Longest side of the stored real images: a little above SIZE, so that zooming in shows detail."""


def _read(path: Path, flags: int) -> NDArray[np.uint8]:
    pixels: Any = cv2.imread(str(path), flags)
    if pixels is None:
        raise InputError(f"cannot read the image {path}")
    return pixels


@dataclass(eq=False)
class PoolImage:
    """One real image, its true masks, and region maps made on demand.

    Parameters
    ----------
    pixels
        ``uint8`` (H, W, 3), longest side 352.
    masks
        ("group/target", ``bool`` (H, W)) of every case of the image.
    regions
        ``int32`` (H, W) label maps, coarse to fine as :func:`_region` made them; empty until it is called.
    pseudo
        ``bool`` (H, W) masks that LiteMedSAM gave.
    """

    pixels: NDArray[np.uint8]
    masks: list[tuple[str, NDArray[np.bool_]]] = field(default_factory=list)
    regions: list[NDArray[np.int32]] = field(default_factory=list)
    pseudo: list[NDArray[np.bool_]] = field(default_factory=list)


@dataclass(frozen=True)
class Diet:
    """Shares of the sources; they are normalised to one. Without real images, shapes and bands of shapes are all.

    Parameters
    ----------
    true_masks
        Masks of the cases.
    regions
        Felzenszwalb regions of the real images, and pseudo masks where there are any.
    bands
        Bands of intensity of the real images.
    shapes
        Procedural images.
    """

    true_masks: float = 0.45
    regions: float = 0.15
    bands: float = 0.1
    shapes: float = 0.3


def load_pool(
    cases: Path, *, split: str = "train", leave_out: Sequence[str] = (), pseudo: Path | None = None
) -> list[PoolImage]:
    """Read the real images of one split of a mini-format cases file.

    Parameters
    ----------
    cases
        The ``cases.jsonl``; paths in it are relative to it.
    split
        Rows of other splits are not read.
    leave_out
        Groups (patients, specimens) that must not be seen at all.
    pseudo
        Folder of ``IMAGE_STEM.npz`` files with masks that LiteMedSAM made from random boxes.

    Raises
    ------
    InputError
        If an image or a mask cannot be read.
    """
    images: dict[str, PoolImage] = {}
    for line in cases.read_text().splitlines():
        row = json.loads(line)
        if row["split"] != split or row["group"] in leave_out or row["mask"] is None:
            continue
        name = row["image"]
        if name not in images:
            bgr = _read(cases.parent / name, cv2.IMREAD_COLOR)
            square, _ = letterbox(np.ascontiguousarray(bgr[..., ::-1]), _POOL_SIZE)
            s = _POOL_SIZE / max(bgr.shape[:2])
            h, w = round(bgr.shape[0] * s), round(bgr.shape[1] * s)
            images[name] = PoolImage(np.ascontiguousarray(square[:h, :w]))
            stored = pseudo / f"{Path(name).stem}.npz" if pseudo else None
            if stored is not None and stored.exists():
                for m in np.load(stored)["masks"]:
                    big = cv2.resize(m.astype(np.uint8) * 255, (w, h), interpolation=cv2.INTER_LINEAR) > 127
                    images[name].pseudo.append(big)
        item = images[name]
        mask = _read(cases.parent / row["mask"], cv2.IMREAD_GRAYSCALE)
        h, w = item.pixels.shape[:2]
        how = cv2.INTER_AREA if mask.shape[0] > h else cv2.INTER_LINEAR
        item.masks.append((f"{row['group']}/{row['target']}", cv2.resize(mask, (w, h), interpolation=how) > 127))
    return list(images.values())


class SegmenterSamples(Dataset):
    """Endless seeded samples: ``(rgb float32 (3, S, S) normalised, target bool (S, S))``.

    Parameters
    ----------
    pool
        Real images; without any, all samples are procedural whatever the diet says.
    diet
        Shares of the sources.
    seed, length, start
        Samples are numbered from ``start``; ``length`` of them make an epoch.
    """

    def __init__(self, pool: list[PoolImage], diet: Diet, seed: int, length: int, start: int = 0) -> None:
        self.pool, self.seed, self.length, self.start = pool, seed, length, start
        self.by_target: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for i, item in enumerate(pool):
            for j, (key, _) in enumerate(item.masks):
                self.by_target[key].append((i, j))
        self.targets = sorted(self.by_target)
        # Many-image targets a little more often than few-image ones, far less than in proportion.
        counts = np.array([len(self.by_target[k]) for k in self.targets], float) ** 0.3
        self.target_p = counts / counts.sum() if len(counts) else counts
        shares = (
            np.array([diet.true_masks, diet.regions, diet.bands, diet.shapes]) if pool else np.array([0, 0, 0.15, 0.85])
        )
        self.shares = shares / shares.sum()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        rng = np.random.default_rng([self.seed, self.start + index])
        while True:
            pixels, mask = self._draw(rng)
            if 25 <= mask.sum() <= 0.9 * mask.size:
                break
        rgb = normalise(pixels, SIZE, SIZE)
        return np.ascontiguousarray(rgb.transpose(2, 0, 1)), mask

    def _draw(self, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        source = int(rng.choice(4, p=self.shares))
        if source == 3 or not self.pool:
            pixels, masks = random_shapes(rng, SIZE)
            mask = masks[int(rng.integers(len(masks)))] if masks and source == 3 else _band(rng, pixels)
            if rng.random() < 0.5:
                warp = draw_warp(rng, (SIZE, SIZE), SIZE, focus=mask, zoom=(0.8, 2.2))
                pixels, mask = warp.image(pixels), warp.mask(mask)
            return change_intensity(rng, pixels, strength=0.6), mask
        if source == 0:
            key = self.targets[int(rng.choice(len(self.targets), p=self.target_p))]
            i, j = self.by_target[key][int(rng.integers(len(self.by_target[key])))]
            item, mask = self.pool[i], self.pool[i].masks[j][1]
        else:
            item = self.pool[int(rng.integers(len(self.pool)))]
            if source == 2:
                mask = _band(rng, item.pixels)
            elif item.pseudo and rng.random() < 0.5:
                mask = item.pseudo[int(rng.integers(len(item.pseudo)))]
            else:
                mask = _region(rng, item)
        full = rng.random() < 0.6
        warp = draw_warp(
            rng,
            item.pixels.shape[:2],
            SIZE,
            focus=mask,
            turn=180.0 if full else 20.0,
            zoom=(0.75, 2.0) if rng.random() < 0.6 else (0.95, 1.05),
        )
        pixels = warp.image(item.pixels)
        return change_intensity(rng, pixels), warp.mask(mask)


def _band(rng: np.random.Generator, pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels whose smoothed intensity falls in a random band: tissue-like classes, or one piece of one."""
    gray = cv2.GaussianBlur(pixels.mean(2).astype(np.float32), (0, 0), rng.uniform(0.6, 1.6))
    inside = gray[gray > gray.min() + 6]
    if inside.size < 200:
        return gray > 255
    # k-means on the histogram: bands end in its valleys, as tissues do.
    k = int(rng.integers(2, 6))
    cv2.setRNGSeed(int(rng.integers(2**31)))  # kmeans draws its centres from OpenCV's own generator
    sample = rng.choice(inside, min(600, inside.size)).astype(np.float32)
    _, _, centres = cv2.kmeans(
        sample[:, None], k, None, (cv2.TERM_CRITERIA_MAX_ITER, 12, 0.5), 1, cv2.KMEANS_RANDOM_CENTERS
    )
    c = np.sort(centres[:, 0])
    edges = np.concatenate([[gray.min() + 6 if rng.random() < 0.7 else -1], (c[1:] + c[:-1]) / 2, [256]])
    b = int(rng.integers(k))
    mask = (gray > edges[b]) & (gray <= edges[b + 1])
    if rng.random() < 0.5:
        _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
        big = np.flatnonzero(stats[1:, cv2.CC_STAT_AREA] >= 60) + 1
        if len(big):
            mask = labels == int(rng.choice(big))
    if rng.random() < 0.4:
        mask = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)) > 0
    return mask


def _region(rng: np.random.Generator, item: PoolImage) -> NDArray[np.bool_]:
    """A Felzenszwalb region of a real image, or a few that look alike (the idea of ScribblePrompt)."""
    if not item.regions:
        from skimage.segmentation import felzenszwalb

        gray = cv2.GaussianBlur(item.pixels, (0, 0), 0.8)
        for scale, least in ((60, 40), (200, 120), (600, 300)):
            item.regions.append(felzenszwalb(gray, scale=scale, sigma=0, min_size=least).astype(np.int32))
    labels = item.regions[int(rng.integers(len(item.regions)))]
    count = int(labels.max()) + 1
    gray = item.pixels.mean(2)
    area = np.bincount(labels.ravel(), minlength=count)
    mean = np.bincount(labels.ravel(), gray.ravel(), minlength=count) / np.maximum(area, 1)
    # Large background regions teach little: draw by the square root of the area.
    weight = np.sqrt(area) * (mean > 3)
    if weight.sum() == 0:
        weight = np.ones(count)
    first = int(rng.choice(count, p=weight / weight.sum()))
    chosen = [first]
    if rng.random() < 0.35:
        alike = np.flatnonzero(np.abs(mean - mean[first]) < rng.uniform(4, 16))
        chosen = (
            list(alike) if rng.random() < 0.5 else list(rng.choice(alike, min(len(alike), 4), replace=False)) + [first]
        )
    return np.isin(labels, chosen)
