"""A folder of images and a folder of masks, paired by name: ``folders:ROOT?target=polyp`` or ``?labels=labels.json``.

With ``target`` every nonzero pixel of a mask is that structure; with ``threshold=128`` besides, every pixel that is at
least so bright, and then masks may be JPEG, whose blur leaves low values around a structure (as Kvasir-SEG's). With
``labels`` (``{"1": "liver"}``) a mask is a label map, which is read while listing, because only its pixels say which
structures an image has; the image is not. Nothing says which images are of one patient, so ``group=`` or ``split=``
must be given.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ibisagent.engine.sources.label_map import LabelMap, read_label_map
from ibisagent.engine.sources.options import CommonOptions, Options
from ibisagent.engine.sources.pairs import PAIR_OPTIONS, Pair, PairLayout
from ibisagent.engine.sources.readers import FilesReader, LabelMapReader, decode_labels, unknown_labels
from ibisagent.engine.sources.sample import Fault, Sample
from ibisagent.errors import InputError

__all__ = ["FoldersSource"]


@dataclass(frozen=True)
class FoldersSource:
    """Images and masks in folders.

    Parameters
    ----------
    layout
        Where they lie.
    options
        What the user says of all of them.
    labels
        What the numbers mean; None for masks of one target.
    exhaustive
        Whether a structure of `labels` without a pixel is absent from its image.
    threshold
        Gray from which on a mask's pixel is inside; None: from above 0, and JPEG is refused.
    """

    layout: PairLayout
    options: CommonOptions
    labels: LabelMap | None = None
    exhaustive: bool = False
    threshold: int | None = None

    @classmethod
    def from_spec(cls, path: str, options: dict[str, str]) -> FoldersSource:
        """Open ``folders:ROOT?images=images&masks=masks&mask_suffix=&target=NAME`` or ``…&labels=FILE&exhaustive=1``.

        ``threshold`` (1 to 255) goes with ``target``.

        Raises
        ------
        InputError
            If a folder is missing, an option is wrong, not exactly one of ``target`` and ``labels`` is given, or
            neither ``group`` nor ``split``.
        """
        given = Options("folders", options, extra=(*PAIR_OPTIONS, "labels", "exhaustive", "threshold"))
        common = given.common(Path(path).absolute().name)
        file = given.path("labels")
        if (file is None) == (common.target is None):
            raise InputError(
                "folders: say what the masks show, with target=NAME (one structure) or labels=FILE (numbers)"
            )
        common.check_patients()
        labels = None if file is None else read_label_map(file)
        threshold = given.integer("threshold", 0, least=1) or None
        if threshold is not None and (threshold > 255 or file is not None):
            raise InputError("folders: threshold is a gray from 1 to 255, for masks of one structure (target=NAME)")
        layout = PairLayout.from_options(path, given)
        return cls(layout, common, labels, given.flag("exhaustive"), threshold)

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.options.name

    def samples(self) -> Iterator[Sample | Fault]:
        """Samples by name.

        Raises
        ------
        InputError
            If there is not one image.
        """
        for pair in self.layout.pairs(self.name):
            if isinstance(pair, Fault):
                yield pair
            elif self.labels is not None:
                yield from self._labelled(pair, self.labels)
            else:
                yield self._binary(pair, str(self.options.target))

    def _binary(self, pair: Pair, target: str) -> Sample | Fault:
        reader = FilesReader(
            self.name, pair.key, pair.image, ((target, pair.mask),), self.options.modality, threshold=self.threshold
        )
        try:
            return self.options.sample(pair.key, reader, (target,), stem=pair.stem)
        except InputError as exc:
            return Fault(self.name, pair.key, "bad_row", str(exc))

    def _labelled(self, pair: Pair, names: LabelMap) -> Iterator[Sample | Fault]:
        try:
            shown = set(np.unique(decode_labels(pair.mask)).tolist()) - {0}
        except InputError as exc:
            yield Fault(self.name, pair.key, "unreadable", str(exc))
            return
        unknown = unknown_labels(shown, names)
        if unknown:
            yield Fault(self.name, pair.key, "bad_row", f"{pair.key}: {unknown}")
        found = tuple(name for name, labels in names.structures.items() if shown.intersection(labels))
        rest = tuple(name for name in names.structures if name not in found)
        if not found and not self.exhaustive:
            yield Fault(
                self.name, pair.key, "empty_mask", f"{pair.key}: its mask shows no named structure; take the image out"
            )
            return
        structures = tuple(names.structures.items())
        modality = self.options.modality or next((channel for channel in names.channels if channel), None)
        reader = LabelMapReader(self.name, pair.key, pair.image, pair.mask, structures, modality)
        try:
            yield self.options.sample(
                pair.key,
                reader,
                found,
                stem=pair.stem,
                absent=rest if self.exhaustive and names.ignore not in shown else (),
                modality=modality,
                licence=names.licence,
            )
        except InputError as exc:
            yield Fault(self.name, pair.key, "bad_row", str(exc))
