"""NIfTI image and label volumes, as slices: ``nifti:DIR?labels=labels.json&modality=CT``.

The pairs are found as :mod:`ibisagent.engine.sources.volume_pairs` says; what the labels mean is said by a label map
(:mod:`ibisagent.engine.sources.label_map`), for nnU-Net's folders by their ``dataset.json``. Each volume gives several
slices (:mod:`ibisagent.engine.sources.slices`), read and windowed as :func:`ibisagent.io.images.read_image` does, so
that image and mask lie on one grid.

The listing reads every label volume once, to see what is on which slice; of the images it reads the headers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ibisagent.engine.sources.label_map import LabelMap, read_label_map
from ibisagent.engine.sources.options import COMMON, CommonOptions, Options
from ibisagent.engine.sources.sample import Fault, FaultCode, LabelledImage, Sample
from ibisagent.engine.sources.slices import choose_slices
from ibisagent.engine.sources.volume_pairs import VolumePair, find_pairs
from ibisagent.errors import InputError
from ibisagent.grid import PLANES
from ibisagent.io.files import display_name, one_line
from ibisagent.io.masks import check_same_grid, read_label_plane
from ibisagent.io.nifti import NiftiVolume, open_nifti, read_nifti, slice_geometry
from ibisagent.io.nifti_labels import count_labels
from ibisagent.io.windows import canonical_modality, parse_window

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["NiftiReader", "NiftiSource"]

MIN_AREA = 64
"""Pixels from which on a structure counts as shown on a slice, where the option does not say."""

SLICES = 4
"""Slices of a volume, where the option does not say."""


@dataclass(frozen=True)
class NiftiReader:
    """Reads one slice of an image volume and its masks.

    Parameters
    ----------
    source, key
        Names for faults.
    image, label
        The volumes.
    slice_spec
        ``"axial:57"``.
    structures
        (name, its labels) of every mask that is promised; no labels: everything that is not 0.
    window, modality, channel
        As :func:`ibisagent.io.nifti.read_nifti` takes them.
    """

    source: str
    key: str
    image: str
    label: str
    slice_spec: str
    structures: tuple[tuple[str, tuple[int, ...]], ...]
    window: str | None = None
    modality: str | None = None
    channel: int = 0

    def __call__(self) -> LabelledImage:
        """Read the slice; a label volume that cannot be used makes each of its masks a fault.

        Raises
        ------
        InputError
            If the image cannot be read.
        """
        image = read_nifti(
            self.image, slice_spec=self.slice_spec, window=self.window, modality=self.modality, channel=self.channel
        )
        code: FaultCode = "unreadable"
        try:
            volume = open_nifti(self.label)
            code = "size_mismatch"
            check_same_grid(volume, image.geometry)
            code = "unreadable"
            values = read_label_plane(self.label, image)
        except InputError as exc:
            faults = [Fault(self.source, f"{self.key} {name}", code, str(exc)) for name, _ in self.structures]
            return LabelledImage(image, {}, tuple(faults))
        found = np.rint(np.nan_to_num(values, nan=0.0))
        masks: dict[str, NDArray[np.bool_]] = {}
        faults = []
        for name, labels in self.structures:
            mask = np.ascontiguousarray(np.isin(found, labels) if labels else found != 0)
            if mask.any():
                masks[name] = mask
            else:
                message = f"{display_name(self.label)}: no pixel of '{name}' on {self.slice_spec}; it has changed"
                faults.append(Fault(self.source, f"{self.key} {name}", "empty_mask", message))
        return LabelledImage(image, masks, tuple(faults))


@dataclass(frozen=True)
class NiftiSource:
    """Slices of NIfTI volumes with label volumes.

    Parameters
    ----------
    root
        Folder of the data set.
    label_map
        What the labels mean; None: every voxel that is not 0 belongs to the structure that ``common.target`` names.
    common
        Options that all sources know.
    images, labels
        Folders below `root`; None looks for known layouts.
    channel
        Image channel of multi-channel cases: of nnU-Net's files the ending, of volumes with four axes the fourth.
    plane, num_slices, min_area
        Which slices: see :func:`ibisagent.engine.sources.slices.choose_slices`.
    exhaustive
        Whether every structure is labelled wherever it is, so that one that a slice does not show is absent from it.
    window
        As :func:`ibisagent.io.images.read_image` takes it.
    """

    root: Path
    label_map: LabelMap | None
    common: CommonOptions
    images: str | None = None
    labels: str | None = None
    channel: int = 0
    plane: str = "axial"
    num_slices: int = SLICES
    min_area: int = MIN_AREA
    exhaustive: bool = True
    window: str | None = None
    name: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.common.name)

    @classmethod
    def from_spec(cls, path: str, options: dict[str, str]) -> NiftiSource:
        """Open a data set.

        Parameters
        ----------
        path
            Its folder, or its ``dataset.json``.
        options
            ``labels`` (label map file; else ``dataset.json``), ``images`` and ``labels_dir`` (folders), ``channel``,
            ``plane``, ``slices`` (of a volume), ``min_area`` (pixels), ``exhaustive`` (1 or 0), ``window``, and the
            common ones but ``view``; ``target`` takes one structure of the label map, or names the only one of
            volumes without a label map.

        Raises
        ------
        InputError
            If an option is wrong, or there is no such folder or label map.
        """
        extra = ("labels", "images", "labels_dir", "channel", "plane", "slices", "min_area", "exhaustive", "window")
        read = Options("nifti", options, extra, tuple(option for option in COMMON if option != "view"))
        given = Path(path).absolute()  # workers may run in another folder
        root = given.parent if given.suffix == ".json" else given
        if not root.is_dir():
            raise InputError(f"{display_name(root)}: no such folder; give the folder of the data set")
        described = given if given.suffix == ".json" else root / "dataset.json"
        file = read.path("labels") or (described if described.is_file() else None)
        label_map = None if file is None else read_label_map(file)
        common = read.common((label_map and label_map.name) or root.resolve().name or "nifti")
        common = dataclasses.replace(common, modality=canonical_modality(common.modality))
        window = read.text("window")
        if window is not None:
            parse_window(window)
        return cls(
            root=root,
            label_map=_of_target(label_map, common.target, root),
            common=common,
            images=read.text("images"),
            labels=read.text("labels_dir"),
            channel=read.integer("channel", 0),
            plane=read.choice("plane", PLANES, "axial") or "axial",
            num_slices=read.integer("slices", SLICES, least=1),
            min_area=read.integer("min_area", MIN_AREA, least=1),
            exhaustive=read.flag("exhaustive", default=True),
            window=window,
        )

    def samples(self) -> Iterator[Sample | Fault]:
        """Slices volume by volume, in the order of names and slices.

        Raises
        ------
        InputError
            If nothing in the folder is a pair of volumes.
        """
        pairs = find_pairs(self.root, self.name, images=self.images, labels=self.labels, channel=self.channel)
        for pair in pairs:
            if isinstance(pair, Fault):
                yield pair
            else:
                yield from self._slices(pair)

    def _slices(self, pair: VolumePair) -> Iterator[Sample | Fault]:
        code: FaultCode = "unreadable"
        try:
            image, label = open_nifti(pair.image, channel=pair.channel), open_nifti(pair.label)
            code = "size_mismatch"
            check_same_grid(label, slice_geometry(image, self.plane))
            code = "unreadable"
            areas, unknown, num_unnamed = self._areas(label)
            code = "bad_row"
            group = self.common.group_of(pair.case) or pair.case
        except InputError as exc:
            yield Fault(self.name, pair.key, code, str(exc))
            return
        if num_unnamed:
            message = (
                f"{display_name(pair.label)}: {num_unnamed} voxels have labels that the label map does not name; name "
                "them, or give them null to leave them out"
            )
            yield Fault(self.name, pair.key, "bad_row", message)
        chosen = choose_slices(areas, self.num_slices, self.min_area)
        if not chosen:
            most = max(int(area.max()) for area in areas.values())
            message = f"{display_name(pair.label)}: no structure has {self.min_area} pixels on a slice (most: {most})"
            yield Fault(self.name, pair.key, "empty_mask", message)
        for index in chosen:
            yield self._sample(pair, index, {name: int(area[index]) for name, area in areas.items()}, group, unknown)

    def _areas(self, label: NiftiVolume) -> tuple[dict[str, NDArray[np.int64]], NDArray[np.bool_], int]:
        """Pixels of each structure on each slice, slices of which a part is not annotated, voxels of no known label."""
        labels = () if self.label_map is None else (*self.label_map.labels, *self.label_map.unnamed)
        counted = tuple(dict.fromkeys((0, *labels)))
        counts = dict(zip(counted, count_labels(label, self.plane, counted), strict=True))
        nothing = np.zeros_like(counts[0])
        all_others = math.prod(label.shape) // len(nothing) - sum(counts.values(), nothing)
        if self.label_map is None:
            return {str(self.common.target): all_others}, nothing > 0, 0
        areas = {name: sum((counts[n] for n in mine), nothing) for name, mine in self.label_map.structures.items()}
        ignored = self.label_map.ignore
        not_annotated = all_others + (nothing if ignored is None else counts[ignored])
        return areas, not_annotated > 0, int(all_others.sum())

    def _sample(
        self, pair: VolumePair, index: int, areas: Mapping[str, int], group: str, unknown: NDArray[np.bool_]
    ) -> Sample:
        channels = self.label_map.channels if self.label_map is not None else ()
        modality = self.common.modality or (channels[self.channel] if self.channel < len(channels) else None)
        names = tuple(sorted(name for name, area in areas.items() if area >= self.min_area))
        absent = tuple(sorted(name for name, area in areas.items() if area == 0))
        key = f"{pair.key}:{self.plane}:{index}"
        of_name = {} if self.label_map is None else self.label_map.structures
        reader = NiftiReader(
            source=self.name,
            key=key,
            image=str(pair.image),
            label=str(pair.label),
            slice_spec=f"{self.plane}:{index}",
            structures=tuple((name, of_name.get(name, ())) for name in names),
            window=self.window,
            modality=modality,
            channel=pair.channel,
        )
        return self.common.sample(
            key,
            reader,
            names,
            stem=pair.case,
            absent=absent if self.exhaustive and not unknown[index] else (),
            modality=modality,
            view=self.plane,
            group=group,
            split=pair.split,
            licence=None if self.label_map is None else self.label_map.licence,
        )


def _of_target(label_map: LabelMap | None, target: str | None, root: Path) -> LabelMap | None:
    """The label map cut down to the target, where one is named.

    Raises
    ------
    InputError
        If the label map does not have it, or there is neither.
    """
    if label_map is None and target is None:
        raise InputError(
            f"{display_name(root)}: no label map; give labels=FILE.json, or target=NAME if all labels are one structure"
        )
    if label_map is None or target is None:
        return label_map
    if target not in label_map.structures:
        known = ", ".join(label_map.structures)
        raise InputError(one_line(f"target={target} is not in the label map; there are {known}", 300))
    others = {label for name, labels in label_map.structures.items() if name != target for label in labels}
    return dataclasses.replace(
        label_map,
        structures={target: label_map.structures[target]},
        unnamed=tuple(sorted({*label_map.unnamed, *others})),
    )
