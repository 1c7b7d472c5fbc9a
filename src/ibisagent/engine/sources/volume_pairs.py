"""Which image volume belongs to which label volume, by the ways that people lay them out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ibisagent.engine.sources.sample import Fault, FaultCode
from ibisagent.errors import InputError
from ibisagent.io.files import display_name

__all__ = ["LAYOUTS", "VolumePair", "find_pairs"]

LAYOUTS = (
    "imagesTr/x_0000.nii.gz with labelsTr/x.nii.gz (nnU-Net), images/x.nii.gz with labels/x.nii.gz, "
    "x/image.nii.gz with x/label.nii.gz, or x.nii.gz with x_label.nii.gz"
)
"""The layouts that are looked for, in this order, for messages."""

_ENDINGS = (".nii.gz", ".nii")
_FOLDERS: tuple[tuple[str, str, str | None], ...] = (
    ("imagesTr", "labelsTr", "train"),
    ("imagesVa", "labelsVa", "val"),
    ("imagesVal", "labelsVal", "val"),
    ("imagesTs", "labelsTs", "test"),
    ("images", "labels", None),
)
_LABEL_NAMES = ("label", "labels", "seg", "segmentation", "mask")


@dataclass(frozen=True)
class VolumePair:
    """Two volumes of one patient.

    Parameters
    ----------
    case
        Stem of the label volume, or the folder's name where files are called ``image`` and ``label``.
    image, label
        The files.
    key
        Image file relative to the data set's folder, with ``/``.
    split
        ``"train"``, ``"val"`` or ``"test"`` where the layout says so.
    channel
        Which volume of the image file, where it has four axes.
    """

    case: str
    image: Path
    label: Path
    key: str
    split: str | None = None
    channel: int = 0


def find_pairs(
    root: Path, source: str, *, images: str | None = None, labels: str | None = None, channel: int = 0
) -> Iterator[VolumePair | Fault]:
    """Find image-label pairs, in the order of their names; a volume without a partner is a fault.

    Parameters
    ----------
    root
        Folder of the data set.
    source
        Its name, for faults.
    images, labels
        Folders of the two, relative to `root`; None looks for :data:`LAYOUTS`.
    channel
        Of images with several channels the one that is taken: file ``x_0001`` of ``x_0000``, ``x_0001`` …, or else the
        one along the fourth axis of ``x``, as the Medical Segmentation Decathlon has it.

    Raises
    ------
    InputError
        If there is no such folder, or nothing in it is laid out in a way that is known.
    """
    if not root.is_dir():
        raise InputError(f"{display_name(root)}: no such folder; give the folder of the data set")
    if images is not None or labels is not None:
        folders: list[tuple[str, str, str | None]] = [(images or "images", labels or "labels", None)]
        for folder in (folders[0][0], folders[0][1]):
            if not (root / folder).is_dir():
                raise InputError(f"{display_name(root / folder)}: no such folder; check images= and labels_dir=")
    else:
        folders = [f for f in _FOLDERS if (root / f[0]).is_dir() and (root / f[1]).is_dir()]
        if len(folders) == 1 and folders[0][1] == "labelsTr":  # nothing is labelled as a test: the split is ours
            folders = [(*folders[0][:2], None)]
    if folders:
        found = [pair for folder in folders for pair in _by_folder(root, *folder, source, channel)]
    else:
        found = [*_by_subfolder(root, source, channel), *_by_suffix(root, source, channel)]
    if not found:
        raise InputError(f"{display_name(root)}: no pair of NIfTI volumes in it; lay them out as {LAYOUTS}")
    yield from found


def _by_folder(
    root: Path, images: str, labels: str, split: str | None, source: str, channel: int
) -> Iterator[VolumePair | Fault]:
    pictures, wanted = _volumes(root / images), _volumes(root / labels)
    used = set()
    for stem, paths in wanted.items():
        candidates = [f"{stem}_{channel:04d}", stem]
        image = next((name for name in candidates if name in pictures), None)
        used |= {name for name in pictures if name == stem or re.fullmatch(re.escape(stem) + r"_\d{4}", name)}
        if image is None:
            yield _fault(
                root, paths[0], source, "missing_image", f"no image {candidates[0]} for it in {images}; add it"
            )
        elif len(paths) > 1 or len(pictures[image]) > 1:
            several = paths[1] if len(paths) > 1 else pictures[image][1]
            yield _fault(root, several, source, "duplicate_id", "there is one of this name already; remove one")
        else:
            yield _pair(root, stem, pictures[image][0], paths[0], split, channel if image == stem else 0)
    for stem in sorted(set(pictures) - used):
        message = f"no label volume of its name in {labels}; add it, or remove the image"
        yield _fault(root, pictures[stem][0], source, "missing_mask", message)


def _by_subfolder(root: Path, source: str, channel: int) -> Iterator[VolumePair | Fault]:
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        volumes = _volumes(folder)
        if "image" not in volumes:
            continue
        label = next((name for name in _LABEL_NAMES if name in volumes), None)
        if label is None:
            message = f"no {' or '.join(_LABEL_NAMES)}.nii.gz beside it; add it"
            yield _fault(root, volumes["image"][0], source, "missing_mask", message)
        else:
            yield _pair(root, folder.name, volumes["image"][0], volumes[label][0], None, channel)


def _by_suffix(root: Path, source: str, channel: int) -> Iterator[VolumePair | Fault]:
    volumes = _volumes(root)
    suffixes = tuple(f"_{name}" for name in _LABEL_NAMES)
    labels = {stem.rsplit("_", 1)[0]: stem for stem in volumes if stem.endswith(suffixes)}
    for stem in sorted(set(volumes) - set(labels.values())):
        if stem in labels:
            yield _pair(root, stem, volumes[stem][0], volumes[labels[stem]][0], None, channel)
        elif labels:
            message = f"no {stem}_label.nii.gz beside it; add it"
            yield _fault(root, volumes[stem][0], source, "missing_mask", message)
    for stem in sorted(set(labels) - set(volumes)):
        path = volumes[labels[stem]][0]
        yield _fault(root, path, source, "missing_image", f"no {stem}.nii.gz beside it; add it")


def _volumes(folder: Path) -> dict[str, list[Path]]:
    """Stem -> its files, by stem; one stem has several files where both endings are there."""
    volumes: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        ending = next((e for e in _ENDINGS if path.name.lower().endswith(e)), None)
        if ending is not None and not path.name.startswith(".") and path.is_file():
            volumes.setdefault(path.name[: -len(ending)], []).append(path)
    return dict(sorted(volumes.items()))


def _pair(root: Path, case: str, image: Path, label: Path, split: str | None, channel: int) -> VolumePair:
    return VolumePair(case, image, label, image.relative_to(root).as_posix(), split, channel)


def _fault(root: Path, path: Path, source: str, code: FaultCode, message: str) -> Fault:
    item = path.relative_to(root).as_posix()
    return Fault(source, item, code, f"{item}: {message}")
