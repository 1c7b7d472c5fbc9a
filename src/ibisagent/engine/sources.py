"""Where scenes come from: the mini training split, and named phantoms.

Scene ``i`` is a pure function of (seed, i). A scene's target may be absent: a structure of another
modality is asked for, or one that this drawing does not show.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ibisagent import phantoms
from ibisagent.engine.naming import SYNONYMS
from ibisagent.engine.trajectories import Scene
from ibisagent.errors import InputError

__all__ = ["OPTIONAL", "POSSIBLE", "SceneSource"]

SIZE = 256

OPTIONAL = {"chest_ct": ("lung tumor",), "brain_mri": ("brain tumor",)}
"""Structures that a phantom of a kind may or may not have: where the mask is missing, it is absent."""

HEALTHY = {"icbm152": ("brain tumor",)}
"""The same for real groups: ICBM 152 is an average of healthy brains."""

POSSIBLE = {
    "CT": ("vessels", "cyst", "ventricles", "skin lesion", "dermis", "epidermis", "polyp", "lesion"),
    "MRI": ("body", "bone", "heart", "aorta", "vessels", "cyst", "lesion", "skin lesion"),
    "X-ray": ("bone", "body", "aorta", "lung tumor"),
    "Histology": ("cell nuclei", "largest nucleus", "leftmost nucleus", "uppermost nucleus", "smallest nucleus",
                  "rightmost nucleus", "lowest nucleus", "brightest nucleus", "skin lesion", "vessels", "lesion"),
    "Fundus photography": ("retina", "retinal pigment epithelium", "lesion"),
    "OCT": ("vessels", "lesion"),
    "Dermoscopy": ("lesion", "epidermis", "stratum corneum"),
    "Endoscopy": ("lesion", "vessels"),
    "Ultrasound": ("body", "vessels", "heart", "aorta", "bone"),
}
"""Names that no list gives an image of this modality, and that it may show all the same: never called absent."""

_NO_FLIP = ("lung1",)
"""Groups whose left and right, or inner asymmetry, must stay as they are."""


class SceneSource:
    """Draws scenes.

    Parameters
    ----------
    cases
        A mini-format ``cases.jsonl``.
    seed
        Makes all draws.
    split
        Images and masks come from rows of this split. Of the others only the target's and the modality's names
        are read, to know which structures a modality may show.
    real_share, absent_share
        Share of scenes on real images, and share of scenes without their target.
    """

    def __init__(
        self, cases: Path, *, seed: int = 0, split: str = "train", real_share: float = 0.6, absent_share: float = 0.18
    ) -> None:
        self.seed, self.real_share, self.absent_share = seed, real_share, absent_share
        self.root = cases.parent
        self.images: dict[str, dict] = {}
        by_target: dict[str, list[tuple[str, str]]] = defaultdict(list)
        self.homes: dict[str, set[str]] = defaultdict(set)
        for line in cases.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            self.homes[row["target"]].add(row["modality"])
            if row["split"] != split or row["mask"] is None:
                continue
            entry = self.images.setdefault(
                row["image"], {"modality": row["modality"], "group": row["group"], "masks": {}}
            )
            entry["masks"][row["target"]] = row["mask"]
            by_target[f"{row['group']}/{row['target']}"].append((row["image"], row["target"]))
        self.by_target = dict(sorted(by_target.items()))
        for kind in phantoms.KINDS:
            for trial in range(12):
                for name in phantoms.generate(kind, trial, 128).masks:
                    self.homes[name].add(phantoms.MODALITIES[kind])
        heavy = {"nuclei": 0.28, "chest_ct": 0.24, "brain_mri": 0.22, "breast_mri": 0.08}
        rest = [k for k in phantoms.KINDS if k not in heavy]
        weights = np.array([heavy.get(k, 0.18 / max(1, len(rest))) for k in phantoms.KINDS])
        self.kind_p = weights / weights.sum()
        self._cache: dict[str, NDArray[np.uint8]] = {}

    def scene(self, index: int) -> Scene:
        """Draw scene ``index``: 256 x 256 pixels, the target between 30 pixels and 95% of them.

        Raises
        ------
        InputError
            If an image cannot be read.
        """
        rng = np.random.default_rng([self.seed, 11, index])
        absent = rng.random() < self.absent_share
        while True:
            scene = self._real(rng, absent) if rng.random() < self.real_share else self._phantom(rng, absent)
            if scene is not None and (scene.target is None or 30 <= scene.target.sum() <= 0.95 * scene.target.size):
                return scene

    def _read(self, name: str) -> NDArray[np.uint8]:
        if name not in self._cache:
            bgr: Any = cv2.imread(str(self.root / name), cv2.IMREAD_COLOR)
            if bgr is None:
                raise InputError(f"cannot read the image {self.root / name}")
            self._cache[name] = bgr[..., ::-1].copy()
        return self._cache[name]

    def _foreign(self, rng: np.random.Generator, modality: str, extra: tuple[str, ...]) -> str:
        """A name that cannot be in an image of this modality (or one of ``extra``, three times in ten)."""
        if extra and rng.random() < 0.3:
            return str(rng.choice(list(extra)))
        here = [n for n, homes in self.homes.items() if modality in homes]
        said = {phrase for n in here for phrase in (n, *SYNONYMS.get(n, ()))}
        said.update(POSSIBLE.get(modality, ()))
        return str(rng.choice(sorted(n for n, homes in self.homes.items() if modality not in homes and n not in said)))

    def _phantom(self, rng: np.random.Generator, absent: bool) -> Scene | None:
        kind = str(rng.choice(phantoms.KINDS, p=self.kind_p))
        p = phantoms.generate(kind, int(rng.integers(2**31)), SIZE)
        masks = dict(p.masks)
        if kind == "brain_mri" and {"cerebrospinal fluid", "ventricles"} <= masks.keys():
            # Mini's fluid is that outside the ventricles.
            masks["cerebrospinal fluid"] = masks["cerebrospinal fluid"] & ~masks["ventricles"]
        if absent:
            missing = tuple(n for n in OPTIONAL.get(kind, ()) if n not in masks)
            return Scene(p.pixels, None, self._foreign(rng, p.modality, missing), p.modality, f"absent/{kind}")
        names = sorted(masks)
        name = str(rng.choice(names))
        others = tuple(masks[n] for n in names if n != name)
        return Scene(p.pixels, masks[name], name, p.modality, f"phantom {kind}/{name}", others, _turn(name))

    def _real(self, rng: np.random.Generator, absent: bool) -> Scene | None:
        from ibisagent.train.augment import draw_warp

        key = str(rng.choice(list(self.by_target)))
        image, target = self.by_target[key][int(rng.integers(len(self.by_target[key])))]
        entry = self.images[image]
        pixels = self._read(image)
        masks = {n: self._read(m)[..., 0] > 127 for n, m in entry["masks"].items()}
        group, side = entry["group"], _turn(target) < 4
        instance = side or target == "largest nucleus"
        flip = group not in _NO_FLIP and not side
        warp = draw_warp(
            rng,
            pixels.shape[:2],
            SIZE,
            focus=masks[target],
            turn=2.0 if side else 12.0,
            flip=flip,
            zoom=(0.85, 0.98) if instance else (0.85, 1.35) if rng.random() < 0.7 else (0.97, 1.03),
            elastic=0.3,
            shift=0.02 if instance else 0.08,
        )
        pixels = warp.image(pixels)
        masks = {n: warp.mask(m) for n, m in masks.items()}
        # brain1 lies upside down in mini and upright when read from NIfTI: both must look familiar.
        if flip and rng.random() < 0.5:
            pixels, masks = (
                np.ascontiguousarray(pixels[::-1]),
                {n: np.ascontiguousarray(m[::-1]) for n, m in masks.items()},
            )
        if absent:
            name = self._foreign(rng, entry["modality"], HEALTHY.get(group, ()))
            return Scene(pixels, None, name, entry["modality"], f"absent/{group}")
        others = tuple(m for n, m in masks.items() if n != target)
        return Scene(pixels, masks[target], target, entry["modality"], key, others, _turn(target))


def _turn(name: str) -> float:
    """How far an image may later be turned so that the name stays true, in degrees."""
    places = ("leftmost", "rightmost", "uppermost", "lowest", "topmost")
    return 2.0 if name.startswith(places) else 8.0
