"""Where scenes come from: the mini training split, and named phantoms.

Scene ``i`` is a pure function of (seed, i). A scene's target may be absent: a structure of another
modality is asked for, or one that this drawing does not show.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ibisagent import phantoms
from ibisagent.engine.language.naming import SYNONYMS
from ibisagent.errors import InputError
from ibisagent.geometry import Geometry
from ibisagent.train.nano_trajectories import Scene
from ibisagent.types import Image

__all__ = ["NEVER_SHOWN", "OPTIONAL", "POSSIBLE", "Picture", "SceneSource", "askable", "one_of_many"]

SIZE = 256

_BRAIN = ("brain", "brain tumor", "cerebrospinal fluid", "gray matter", "ventricles", "white matter")

OPTIONAL = {
    "chest_ct": ("lung tumor",),
    "brain_mri": ("brain tumor", "breast lesion"),
    "breast_mri": _BRAIN,
}
"""Structures of its modality that a phantom of a kind may lack: where the mask is missing, it is absent."""

NEVER_SHOWN = {"icbm152": ("brain tumor", "breast lesion"), "brain1": ("breast lesion",), "breast1": _BRAIN}
"""Structures of the modality that no image of a real group shows: ICBM 152 is an average of healthy brains."""

POSSIBLE = {
    "CT": ("vessels", "cyst", "ventricles", "skin lesion", "dermis", "epidermis", "polyp", "lesion"),
    "MRI": ("body", "bone", "heart", "aorta", "vessels", "cyst", "lesion", "skin lesion"),
    "X-ray": ("bone", "body", "aorta", "lung tumor"),
    "Histology": (
        "cell nuclei",
        "largest nucleus",
        "leftmost nucleus",
        "uppermost nucleus",
        "smallest nucleus",
        "rightmost nucleus",
        "lowest nucleus",
        "brightest nucleus",
        "skin lesion",
        "vessels",
        "lesion",
    ),
    "Fundus photography": ("retina", "retinal pigment epithelium", "lesion"),
    "OCT": ("vessels", "lesion"),
    "Dermoscopy": ("lesion", "epidermis", "stratum corneum"),
    "Endoscopy": ("lesion", "vessels"),
    "Ultrasound": ("breast lesion", "body", "vessels", "heart", "aorta", "bone"),
}
"""Names that no list gives an image of this modality, and that it may show all the same: never called absent."""

_MIRRORED = {"leftmost": "rightmost", "rightmost": "leftmost"}
_FLIPPED = {"uppermost": "lowest", "lowest": "uppermost"}
_TURNED = {"leftmost": "uppermost", "uppermost": "leftmost", "rightmost": "lowest", "lowest": "rightmost"}
"""What a name becomes when columns run the other way, when rows do, and when rows and columns change places."""

_NO_FLIP = ("lung1",)
"""Groups whose left and right, or inner asymmetry, must stay as they are."""


@dataclass(frozen=True, eq=False)
class Picture:
    """An image with all that is known of what it shows; questions are asked of it.

    Parameters
    ----------
    image
        Of S x S pixels.
    masks
        ``bool`` (S, S) by name.
    asked
        The name that it was drawn for, a key of ``masks``.
    home
        ``"lung1"`` or ``"phantom chest_ct"``.
    missing
        Names of the same modality that it surely does not show.
    """

    image: Image
    masks: dict[str, NDArray[np.bool_]]
    asked: str
    home: str
    missing: tuple[str, ...] = ()


class SceneSource:
    """Draws pictures, and scenes with one target each.

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
        Share of pictures that are real images, and share of scenes without their target.
    leave_out
        Images (as the rows name them) that must not be seen, for example a development split.
    instances
        How many times as often as others a target that is one nucleus among many ("leftmost nucleus") is drawn:
        which of them is meant takes longer to learn than what an organ looks like.
    """

    def __init__(
        self,
        cases: Path,
        *,
        seed: int = 0,
        split: str = "train",
        real_share: float = 0.6,
        absent_share: float = 0.18,
        leave_out: Collection[str] = (),
        instances: float = 1.0,
    ) -> None:
        self.seed, self.real_share, self.absent_share = seed, real_share, absent_share
        self.root = cases.parent
        self.images: dict[str, dict] = {}
        by_target: dict[str, list[tuple[str, str]]] = defaultdict(list)
        self.homes: dict[str, set[str]] = defaultdict(set)
        for line in cases.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            self.homes[row["target"]].add(row["modality"])
            if row["split"] != split or row["mask"] is None or row["image"] in leave_out:
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
        weights[phantoms.KINDS.index("nuclei")] *= instances
        self.kind_p = weights / weights.sum()
        shares = np.array([instances if one_of_many(key) else 1.0 for key in self.by_target])
        self.target_p = None if instances == 1.0 else shares / shares.sum()
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
        picture = self.picture(rng)
        if absent:
            return Scene(picture.image, self.foreign(rng, picture), None, home=picture.home)
        others = tuple(m for n, m in picture.masks.items() if n != picture.asked)
        return Scene(picture.image, picture.asked, picture.masks[picture.asked], others, picture.home)

    def picture(self, rng: np.random.Generator) -> Picture:
        """Draw a picture whose asked target has between 30 pixels and 95% of them.

        Raises
        ------
        InputError
            If an image cannot be read.
        """
        while True:
            drawn = self._real(rng) if rng.random() < self.real_share else self._phantom(rng)
            if askable(drawn.masks[drawn.asked]):
                return drawn

    def _read(self, name: str) -> NDArray[np.uint8]:
        if name not in self._cache:
            bgr: Any = cv2.imread(str(self.root / name), cv2.IMREAD_COLOR)
            if bgr is None:
                raise InputError(f"cannot read the image {self.root / name}")
            self._cache[name] = bgr[..., ::-1].copy()
        return self._cache[name]

    def foreign(self, rng: np.random.Generator, picture: Picture) -> str:
        """A name that cannot be in a picture: of another modality, or (three in ten) one that it is known to lack."""
        if picture.missing and rng.random() < 0.3:
            return str(rng.choice(list(picture.missing)))
        modality = picture.image.modality or ""
        here = [n for n, homes in self.homes.items() if modality in homes]
        said = {phrase for n in here for phrase in (n, *SYNONYMS.get(n, ()))}
        said.update(POSSIBLE.get(modality, ()))
        return str(rng.choice(sorted(n for n, homes in self.homes.items() if modality not in homes and n not in said)))

    def _phantom(self, rng: np.random.Generator) -> Picture:
        kind = str(rng.choice(phantoms.KINDS, p=self.kind_p))
        p = phantoms.generate(kind, int(rng.integers(2**31)), SIZE)
        masks = dict(p.masks)
        if kind == "brain_mri" and {"cerebrospinal fluid", "ventricles"} <= masks.keys():
            # Mini's fluid is that outside the ventricles.
            masks["cerebrospinal fluid"] = masks["cerebrospinal fluid"] & ~masks["ventricles"]
        missing = tuple(n for n in OPTIONAL.get(kind, ()) if n not in masks)
        return Picture(_image(p.pixels, p.modality), masks, str(rng.choice(sorted(masks))), f"phantom {kind}", missing)

    def _real(self, rng: np.random.Generator) -> Picture:
        from ibisagent.train.augment import draw_warp

        key = str(rng.choice(list(self.by_target), p=self.target_p))
        image, target = self.by_target[key][int(rng.integers(len(self.by_target[key])))]
        entry = self.images[image]
        pixels = self._read(image)
        masks = {n: self._read(m)[..., 0] > 127 for n, m in entry["masks"].items()}
        group = entry["group"]
        missing = NEVER_SHOWN.get(group, ())
        if one_of_many(target):
            pixels, masks, target = _as_it_lies(rng, pixels, masks, target)
            return Picture(_image(pixels, entry["modality"]), masks, target, group, missing)
        flip = group not in _NO_FLIP
        warp = draw_warp(
            rng,
            pixels.shape[:2],
            SIZE,
            focus=masks[target],
            turn=12.0,
            flip=flip,
            zoom=(0.85, 1.35) if rng.random() < 0.7 else (0.97, 1.03),
            elastic=0.3,
            shift=0.08,
            aspect=0.12,
            stretch=True,  # as the models' image processors do
        )
        # Cut off, mirrored or turned, "the leftmost" would be another one.
        masks = {n: warp.mask(m) for n, m in masks.items() if not one_of_many(n)}
        pixels = warp.image(pixels)
        # brain1 lies upside down in mini and upright when read from NIfTI: both must look familiar.
        if flip and rng.random() < 0.5:
            pixels, masks = (
                np.ascontiguousarray(pixels[::-1]),
                {n: np.ascontiguousarray(m[::-1]) for n, m in masks.items()},
            )
        return Picture(_image(pixels, entry["modality"]), masks, target, group, missing)


def _as_it_lies(
    rng: np.random.Generator, pixels: NDArray[np.uint8], masks: dict[str, NDArray[np.bool_]], asked: str
) -> tuple[NDArray[np.uint8], dict[str, NDArray[np.bool_]], str]:
    """A whole image, mirrored and turned by right angles only, its names changed alike.

    Where one of many is meant, those that the border cuts do not count; a margin around the image would hide which
    they are.
    """
    pixels = cv2.resize(pixels, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
    shares = {n: cv2.resize(m.astype(np.float32), (SIZE, SIZE)) for n, m in masks.items()}
    masks = {n: share > 0.5 for n, share in shares.items()}
    moves: tuple[tuple[dict[str, str], Any], ...] = (
        (_MIRRORED, lambda a: a[:, ::-1]),
        (_FLIPPED, lambda a: a[::-1]),
        (_TURNED, lambda a: a.swapaxes(0, 1)),
    )
    for words, move in moves:
        if rng.random() < 0.5:
            pixels, asked = move(pixels), _renamed(asked, words)
            masks = {_renamed(n, words): move(m) for n, m in masks.items()}
    return np.ascontiguousarray(pixels), {n: np.ascontiguousarray(m) for n, m in masks.items()}, asked


def _renamed(name: str, words: dict[str, str]) -> str:
    first, _, rest = name.partition(" ")
    return f"{words[first]} {rest}" if first in words else name


def _image(pixels: NDArray[np.uint8], modality: str) -> Image:
    return Image(pixels, Geometry.plane_2d(), modality)


def askable(mask: NDArray[np.bool_]) -> bool:
    """Whether a target is neither a speck nor nearly the whole image: 30 pixels to 95% of them."""
    return 30 <= int(mask.sum()) <= 0.95 * mask.size


def one_of_many(name: str) -> bool:
    """Whether a name singles one thing out among others of its kind, by place, size or brightness."""
    return name.endswith(" nucleus")
