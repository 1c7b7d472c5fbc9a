"""Image files and the mask files that belong to them by name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ibisagent.engine.sources.options import Options
from ibisagent.engine.sources.sample import Fault
from ibisagent.errors import InputError
from ibisagent.io.files import display_name

__all__ = ["PAIR_OPTIONS", "Pair", "PairLayout", "files_below"]

PAIR_OPTIONS = ("images", "masks", "image_suffix", "mask_suffix")
"""Options of kinds whose images and masks lie in two folders (or in one, told apart by a suffix)."""

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".bmp", ".gif", ".webp")
"""Files that are meant to be images; the last three cannot be read and say so, instead of being passed over."""


def files_below(folder: Path, endings: tuple[str, ...] = IMAGE_ENDINGS) -> list[str]:
    """Files with one of some endings in a folder and its folders, as sorted ``/``-separated relative paths.

    Hidden files and folders are passed over (``._scan.png`` of a Mac is no image).

    Raises
    ------
    InputError
        If there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"{display_name(folder)}: no such folder; check the path and the options images and masks")
    found: list[str] = []
    for root, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = Path(root).relative_to(folder)
        found += [
            (below / name).as_posix() for name in files if name.lower().endswith(endings) and not name.startswith(".")
        ]
    return sorted(found)


@dataclass(frozen=True)
class Pair:
    """An image and its mask.

    Parameters
    ----------
    key
        Path of the image below the images folder.
    stem
        The key without ending and suffix, folders included: what a group pattern looks at.
    image, mask
        The two files.
    """

    key: str
    stem: str
    image: str
    mask: str


@dataclass(frozen=True)
class PairLayout:
    """Where the images and masks of a data set lie, and how their names pair.

    Parameters
    ----------
    images, masks
        The folders; the same one where the suffixes differ.
    image_suffix, mask_suffix
        What stands between stem and ending: ``_mask`` in ``scan_007_mask.png``.
    """

    images: Path
    masks: Path
    image_suffix: str
    mask_suffix: str

    @classmethod
    def from_options(cls, root: str, options: Options) -> PairLayout:
        """The layout that :data:`PAIR_OPTIONS` describe: ``ROOT/images`` and ``ROOT/masks`` where none is given.

        Raises
        ------
        InputError
            If a folder is missing, or both are the same and nothing tells images from masks.
        """
        base = Path(root).absolute()
        if not base.is_dir():
            raise InputError(f"{display_name(root)}: no such folder; give the folder that holds images and masks")
        folders = {option: base / str(options.text(option, option)) for option in ("images", "masks")}
        for option, folder in folders.items():
            if not folder.is_dir():
                raise InputError(
                    f"{display_name(folder)}: no such folder; say with {option}=FOLDER where the {option} lie"
                )
        layout = cls(folders["images"], folders["masks"], options.suffix("image_suffix"), options.suffix("mask_suffix"))
        if layout.one_folder and layout.image_suffix == layout.mask_suffix:
            raise InputError(
                f"{display_name(root)}: images and masks lie in one folder; tell them apart with mask_suffix=_mask"
            )
        return layout

    @property
    def one_folder(self) -> bool:
        """Whether images and masks lie in the same folder."""
        return os.path.realpath(self.images) == os.path.realpath(self.masks)

    def pairs(self, source: str) -> Iterator[Pair | Fault]:
        """Every image with its mask, by name; one without the other is a fault.

        Raises
        ------
        InputError
            If there is not one image.
        """
        images = files_below(self.images)
        masks = files_below(self.masks)
        if self.one_folder:
            # The longer suffix is looked for first: "" fits every name.
            is_mask = [_stem(name, self.mask_suffix) is not None for name in masks]
            is_image = [_stem(name, self.image_suffix) is not None for name in images]
            mask_first = len(self.mask_suffix) >= len(self.image_suffix)
            masks = [n for n, m, i in zip(masks, is_mask, is_image, strict=True) if m and (mask_first or not i)]
            images = [n for n, m, i in zip(images, is_mask, is_image, strict=True) if i and not (mask_first and m)]
        by_stem: dict[str, str] = {}
        for name in masks:
            stem = _stem(name, self.mask_suffix)
            if stem is None:
                yield Fault(
                    source, name, "bad_row", f"{name}: its name does not end in '{self.mask_suffix}'; rename the mask"
                )
            elif stem in by_stem:
                yield Fault(
                    source, name, "duplicate_id", f"{name}: {by_stem[stem]} is a mask of the same image; keep one"
                )
            else:
                by_stem[stem] = name
        if not images:
            raise InputError(
                f"{display_name(self.images)}: no image in it; images end in {', '.join(IMAGE_ENDINGS[:6])}"
            )
        seen: dict[str, str] = {}
        for name in images:
            stem = _stem(name, self.image_suffix)
            if stem is None:
                yield Fault(
                    source, name, "bad_row", f"{name}: its name does not end in '{self.image_suffix}'; rename the image"
                )
                continue
            if stem in seen:
                yield Fault(source, name, "duplicate_id", f"{name}: {seen[stem]} has the same stem; rename one of them")
                continue
            seen[stem] = name
            mask = by_stem.get(stem)
            if mask is None:
                wanted = f"{stem}{self.mask_suffix}.png"
                yield Fault(
                    source, name, "missing_mask", f"{name}: it has no mask {wanted} in {self.masks.name}/; add it"
                )
                continue
            yield Pair(name, stem, str(self.images / name), str(self.masks / mask))
        for stem in sorted(by_stem.keys() - seen.keys()):
            name = by_stem[stem]
            yield Fault(source, name, "missing_image", f"{name}: there is no image of this mask in {self.images.name}/")


def _stem(name: str, suffix: str) -> str | None:
    """A relative path without ending and suffix; None where it has not that suffix."""
    stem = name.rpartition(".")[0]
    if not stem.endswith(suffix):
        return None
    return stem[: len(stem) - len(suffix)]
