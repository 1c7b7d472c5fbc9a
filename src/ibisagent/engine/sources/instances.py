"""Instance label maps, each object its own number: all objects as one structure, and single ones by a word.

``instances:ROOT?noun=nucleus&plural=nuclei&all=cell nuclei`` (percent-encoded in a spec) gives masks named
``cell nuclei``, ``largest nucleus``, ``leftmost nucleus`` …; see :mod:`ibisagent.engine.sources.referring` for when a
word is used. Which words fit depends on every pixel of the map and, for the brightest, of the image, so names are known
only when a sample is read: ``Sample.names`` is empty.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ibisagent.engine.sources.names import clean_name
from ibisagent.engine.sources.options import CommonOptions, Options
from ibisagent.engine.sources.pairs import PAIR_OPTIONS, PairLayout
from ibisagent.engine.sources.readers import Tray, labels_of_image
from ibisagent.engine.sources.referring import WORDS, measure, refer
from ibisagent.engine.sources.sample import Fault, LabelledImage, Sample
from ibisagent.errors import InputError
from ibisagent.io.images import read_image

__all__ = ["InstancesReader", "InstancesSource"]


@dataclass(frozen=True)
class InstancesReader:
    """Reads an image and its instance map.

    Parameters
    ----------
    source, key
        Data set and sample, for the faults.
    image, labels
        The two files.
    every
        Name of all objects together, for example ``"cell nuclei"``.
    noun
        Name of one object, for example ``"nucleus"``.
    modality
        Of the image, or None.
    """

    source: str
    key: str
    image: str
    labels: str
    every: str
    noun: str
    modality: str | None = None

    def __call__(self) -> LabelledImage:
        """Read image and masks; see :class:`ibisagent.engine.sources.sample.Reader`."""
        image = read_image(self.image, modality=self.modality)
        tray = Tray(self.source, self.key)
        labels = labels_of_image(self.labels, image, tray)
        if labels is not None:
            tray.add(self.every, labels != 0)
            gray = image.pixels.mean(axis=2, dtype=np.float32)
            for word, label in refer(measure(labels, gray), (image.height, image.width)).items():
                tray.add(f"{word} {self.noun}", labels == label)
        return tray.done(image)


@dataclass(frozen=True)
class InstancesSource:
    """Images and instance maps in folders.

    Parameters
    ----------
    layout
        Where they lie.
    options
        What the user says of all of them.
    every, noun
        Names of all objects together and of one.
    """

    layout: PairLayout
    options: CommonOptions
    every: str
    noun: str

    @classmethod
    def from_spec(cls, path: str, options: dict[str, str]) -> InstancesSource:
        """Open ``instances:ROOT?noun=nucleus&plural=nuclei&all=cell%20nuclei&images=…&masks=…&mask_suffix=…``.

        Without ``all`` the plural names all objects; without ``plural`` it is the noun with an s.

        Raises
        ------
        InputError
            If a folder is missing, an option is wrong, there is no noun, or neither ``group`` nor ``split``.
        """
        common = ("name", "modality", "view", "licence", "split", "group")
        given = Options("instances", options, extra=(*PAIR_OPTIONS, "noun", "plural", "all"), common=common)
        noun = given.text("noun")
        if noun is None:
            raise InputError("instances: say with noun=NAME what one object is, for example noun=nucleus&plural=nuclei")
        every = given.text("all") or given.text("plural") or f"{noun}s"
        layout = PairLayout.from_options(path, given)
        described = given.common(Path(path).absolute().name)
        described.check_patients()
        return cls(layout, described, clean_name(every), clean_name(noun))

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.options.name

    def vocabulary(self) -> dict[str, tuple[str, ...]]:
        """Structures by modality that its images may show; empty where no modality is given."""
        if self.options.modality is None:
            return {}
        return {self.options.modality: (self.every, *(f"{word} {self.noun}" for word in WORDS))}

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
                continue
            reader = InstancesReader(
                self.name, pair.key, pair.image, pair.mask, self.every, self.noun, self.options.modality
            )
            try:
                yield self.options.sample(pair.key, reader, (), stem=pair.stem)
            except InputError as exc:
                yield Fault(self.name, pair.key, "bad_row", str(exc))
