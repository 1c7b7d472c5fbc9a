"""A folder of images and a folder of masks, paired by name: ``folders:ROOT?target=polyp`` or ``?labels=labels.json``.

With ``target`` every nonzero pixel of a mask is that structure. With ``labels`` (``{"1": "liver"}``) a mask is a label
map, which is read while listing, because only its pixels say which structures an image has; the image is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ibisagent.engine.sources.options import CommonOptions, Options, read_label_table
from ibisagent.engine.sources.pairs import PAIR_OPTIONS, Pair, PairLayout
from ibisagent.engine.sources.readers import FilesReader, LabelMapReader, label_map
from ibisagent.engine.sources.sample import Fault, Sample
from ibisagent.errors import InputError
from ibisagent.io.files import one_line

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
        (label, name) of every label, name None for those that count for nothing; empty for masks of one target.
    exhaustive
        Whether a structure of `labels` without a pixel is absent from its image.
    """

    layout: PairLayout
    options: CommonOptions
    labels: tuple[tuple[int, str | None], ...] = ()
    exhaustive: bool = False

    @classmethod
    def from_spec(cls, path: str, options: dict[str, str]) -> FoldersSource:
        """Open ``folders:ROOT?images=images&masks=masks&mask_suffix=&target=NAME`` or ``…&labels=FILE&exhaustive=1``.

        Raises
        ------
        InputError
            If a folder is missing, an option is wrong, or not exactly one of ``target`` and ``labels`` is given.
        """
        given = Options("folders", options, extra=(*PAIR_OPTIONS, "labels", "exhaustive"))
        common = given.common(Path(path).absolute().name)
        file = given.path("labels")
        if (file is None) == (common.target is None):
            raise InputError(
                "folders: say what the masks show, with target=NAME (one structure) or labels=FILE (numbers)"
            )
        table = {} if file is None else read_label_table(file)
        layout = PairLayout.from_options(path, given)
        return cls(layout, common, tuple(table.items()), given.flag("exhaustive"))

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
            elif self.labels:
                yield from self._labelled(pair)
            else:
                yield self._binary(pair, str(self.options.target))

    def _binary(self, pair: Pair, target: str) -> Sample | Fault:
        reader = FilesReader(self.name, pair.key, pair.image, ((target, pair.mask),), self.options.modality)
        try:
            return self.options.sample(pair.key, reader, (target,), stem=pair.stem)
        except InputError as exc:
            return Fault(self.name, pair.key, "bad_row", str(exc))

    def _labelled(self, pair: Pair) -> Iterator[Sample | Fault]:
        table = dict(self.labels)
        try:
            shown = set(np.unique(label_map(pair.mask)).tolist()) - {0}
        except InputError as exc:
            yield Fault(self.name, pair.key, "unreadable", str(exc))
            return
        unknown = sorted(shown - table.keys())
        if unknown:
            numbers = ", ".join(map(str, unknown[:8])) + (" …" if len(unknown) > 8 else "")
            yield Fault(
                self.name,
                pair.key,
                "bad_row",
                one_line(
                    f"{pair.key}: its mask has labels without a name ({numbers}); name them in labels, or null", 400
                ),
            )
        names = tuple(dict.fromkeys(name for label, name in self.labels if name is not None and label in shown))
        rest = tuple(dict.fromkeys(name for _, name in self.labels if name is not None and name not in names))
        if not names and not self.exhaustive:
            yield Fault(
                self.name, pair.key, "empty_mask", f"{pair.key}: its mask shows no named structure; take the image out"
            )
            return
        known = tuple((label, name) for label, name in self.labels if name is not None)
        reader = LabelMapReader(self.name, pair.key, pair.image, pair.mask, known, self.options.modality)
        try:
            yield self.options.sample(pair.key, reader, names, stem=pair.stem, absent=rest if self.exhaustive else ())
        except InputError as exc:
            yield Fault(self.name, pair.key, "bad_row", str(exc))
