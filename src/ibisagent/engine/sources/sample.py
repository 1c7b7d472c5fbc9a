"""The nouns of a data set: a sample that can be read later, what reading gives, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from ibisagent.types import Image

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Fault", "FaultCode", "LabelledImage", "Question", "Reader", "Sample", "Source"]

FaultCode = Literal[
    "missing_image", "missing_mask", "size_mismatch", "empty_mask", "unreadable", "duplicate_id", "bad_row", "leak"
]
"""What can be wrong with an item of a data set."""


@dataclass(frozen=True)
class Fault:
    """One item that cannot be used, said so that a person finds it.

    Parameters
    ----------
    source
        Name of the data set.
    item
        Which one: a case id, a file's name, a line (``"cases.jsonl line 12"``).
    code
        What kind of fault.
    message
        One line: what is wrong and what to do.
    """

    source: str
    item: str
    code: FaultCode
    message: str


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """An image with every mask that its data set has for it.

    Parameters
    ----------
    image
        As an agent looks at it.
    masks
        Name of a structure -> ``bool`` (H, W), each with at least one pixel.
    faults
        Masks that the sample promised and that could not be used.
    absent
        Structures that are known not to be in the image, besides those of the sample.
    """

    image: Image
    masks: dict[str, NDArray[np.bool_]]
    faults: tuple[Fault, ...] = ()
    absent: tuple[str, ...] = ()


class Reader(Protocol):
    """Reads one sample. Instances must be picklable: they travel to worker processes."""

    def __call__(self) -> LabelledImage:
        """Read the image and its masks; a mask that cannot be used becomes a fault.

        Raises
        ------
        InputError
            If the image itself cannot be read.
        """
        ...


@dataclass(frozen=True)
class Question:
    """A visual question with its answer.

    Parameters
    ----------
    text, answer
        As the data set writes them.
    closed
        Whether the answer is one of a few words (yes, no, a choice), so that exact match scores it.
    """

    text: str
    answer: str
    closed: bool


@dataclass(frozen=True)
class Sample:
    """One image of a data set, described but not yet read.

    Parameters
    ----------
    key
        Unique in the data set and stable from run to run, for example ``"images/lung1_axial_014.png"``.
    source
        Name of the data set.
    reader
        Reads it.
    names
        Structures that it has masks of; empty where only reading tells.
    absent
        Structures of which the data set says that they are not in the image.
    modality, view
        ``"CT"``, ``"axial"`` …, or None.
    group
        Patient or specimen; None makes every sample a group of its own.
    split
        ``"train"``, ``"val"``, ``"test"``, or None: then :func:`ibisagent.engine.splits.split_of_group` decides.
    licence
        Of the data set, as it states it.
    instructions
        Name of a structure -> sentences that the data set itself asks for it with; empty for most.
    questions
        Visual questions about the image; empty for most.
    """

    key: str
    source: str
    reader: Reader
    names: tuple[str, ...]
    absent: tuple[str, ...] = ()
    modality: str | None = None
    view: str | None = None
    group: str | None = None
    split: str | None = None
    licence: str = "unknown"
    instructions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    questions: tuple[Question, ...] = ()


class Source(Protocol):
    """A data set on disk, or a generator of one."""

    name: str

    def vocabulary(self) -> Mapping[str, Iterable[str]]:
        """Structures by modality that its images may show, where the samples' `names` do not say it all."""
        return {}

    def samples(self) -> Iterator[Sample | Fault]:
        """All samples in a stable order; an item that cannot be used is a fault, and never stops the others.

        Raises
        ------
        InputError
            If there is no such data set at all.
        """
        ...
